"""The run and split that predict and the scoring commands work on, and the check that files belong to both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fcos.config.runs import Run, find_run, parse_runs
from fcos.config.section import parse_section, read_params
from fcos.config.test import TestConfig
from fcos.data.coco import CocoSplit, read_split, read_validation
from fcos.errors import UserError, first_difference
from fcos.evaluation.candidates import CandidatesFile, check_candidates, read_candidates
from fcos.files import sha256_file
from fcos.records import NmsStep, TtaStep
from fcos.study.layout import Layout

VALIDATION_PREFIX = "validation-"  # of TTA views of the validation split, in candidates_tta/ and timing_tta.json
_NETWORK = frozenset({"score_threshold", "max_candidates"})


@dataclass(frozen=True)
class ScoredRun:
    """A run of params.yaml and the split that it is scored on; `open` returns it with the test split."""

    run: Run
    test: TestConfig
    split: CocoSplit
    layout: Layout

    @staticmethod
    def open(name: str) -> "ScoredRun":
        """Read the run, the test settings and the test split of the active study; raise UserError if one is missing."""
        params = read_params()
        run = find_run(parse_runs(params), name)
        layout = Layout(run.study)
        return ScoredRun(run, parse_section(params, "test", TestConfig), read_split(layout.data, "test"), layout)

    def on_validation(self) -> "ScoredRun":
        """Return the same run with the validation split, which is empty if the study has none."""
        return replace(self, split=read_split(self.layout.data, "validation"))

    def to_choose(self, key: str) -> "ScoredRun":
        """Return the same run with the validation split, on which `key` of params.yaml chooses.

        Raises:
            UserError: the validation split is empty.
        """
        return replace(self, split=read_validation(self.layout.data, "choose", f"{key}: validation"))

    @property
    def dir(self) -> Path:
        """The folder of the run."""
        return self.layout.run(self.run.name)

    def header(self, *, weights_sha256: str, size: int, dtype: str) -> dict[str, Any]:
        """Return the header of candidates of this run in the view with the shorter side `size` in pixels."""
        return {
            "run": self.run.identity(),
            "categories": self.split.categories,
            "data_digest": self.split.digest,
            "weights_sha256": weights_sha256,
            "view": {"size": size, "max_size": self.test.max_size},
            "test": self.test.model_dump(include=set(_NETWORK)),
            "dtype": dtype,
        }

    def candidates_of(self, split: str) -> CandidatesFile:
        """Read the candidates of `split` (test or validation, which must be that of this run), as the test shows it."""
        path = self.dir / "candidates" / f"{split}.safetensors"
        return self.read_view(path, self.test.size, hint=f"fcos predict {self.run.name}")

    def read_view(self, path: Path, size: int, *, hint: str) -> CandidatesFile:
        """Read the candidates at `path`.

        Raises:
            UserError: they belong to another run, data set, weights or settings.
        """
        file = read_candidates(path, hint=hint)
        weights_path = self.layout.weights(self.run.name)
        if not weights_path.is_file():
            train = f"fcos train {self.run.name}"
            raise UserError(weights_path, "no such file", expected="the weights that are scored", hint=train)
        weights = sha256_file(weights_path)
        expected = self.header(weights_sha256=weights, size=size, dtype=file.header.get("dtype", ""))
        differs = first_difference(file.header, expected)
        if differs is not None:
            key, found, wanted = differs
            raise UserError(path, f"was computed with a different {key}", found=found, expected=wanted, hint=hint)
        check_candidates(path, file.of_image, self.split, hint=hint)
        return file


Step = TypeVar("Step", TtaStep, NmsStep)


def best_step(steps: Sequence[Step]) -> Step:
    """Return the step with the highest AP, the first of equal ones; an undefined AP counts as the lowest."""
    return max(steps, key=lambda step: -1.0 if step["metrics"]["AP"] is None else step["metrics"]["AP"])
