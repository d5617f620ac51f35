"""Read the files of a study's runs, and check that each belongs to the run, data and settings that a table names.

A published table once showed a second ResNet-50 as ResNet-101, so a number enters a table only after `check`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fcos.config.params import Params
from fcos.config.results import GivenFile, files_of
from fcos.config.runs import Run
from fcos.data.coco import CocoSplit
from fcos.errors import UserError, first_difference
from fcos.files import in_project, read_json, sha256_file
from fcos.records import (
    Detection,
    Evaluation,
    Manifest,
    NmsSweep,
    Numbers,
    Provenance,
    Timings,
    TrainSummary,
    Tta,
    odd_value,
)
from fcos.reporting.intervals import DASH
from fcos.scoring.average_precision import METRICS
from fcos.scoring.bootstrap import Sample
from fcos.scoring.numbers import sample_of
from fcos.scoring.replicates import ReplicatesFile, numbers_digest, read_replicates, sweep_steps
from fcos.study.run_files import RUN_FILES, command_for, read_run_file, run_file
from fcos.training.history import COLUMNS


@dataclass(frozen=True)
class Cell:
    """Position of a number in the report, for error messages."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}, row {self.row}, cell {self.column}"


def trained_on(where: Provenance) -> str:
    """Return the devices and the number format of a training."""
    devices = where.get("devices", 1)
    times = f"{devices} x " if devices > 1 else ""
    return f"{times}{where.get('device', DASH)}, {where.get('dtype', DASH)}"


@dataclass(frozen=True, kw_only=True)
class Results(ABC):
    """The files of an evaluation on the test split: what a run and results that were not trained here share."""

    name: str
    folder: Path
    evaluation: Evaluation
    metrics: Numbers
    replicates: dict[str, ReplicatesFile]  # by the name of the file with their metrics
    history: pd.DataFrame | None = None  # one row per training step; None if it is not known

    @property
    @abstractmethod
    def digest(self) -> str:
        """The sha256 of the weights, or of the results file."""

    @property
    def training_s(self) -> float | None:
        """Return the wall time of the training in seconds, or None if it did not happen here."""
        return None

    @property
    def ms_per_image(self) -> float | None:
        """Return the time of a prediction, or None if it is not known."""
        return None

    @abstractmethod
    def hint(self, file: str) -> str:
        """Return the command that creates `file`."""

    def evaluated(self) -> Sample:
        """Return the test metrics as one row of a table."""
        return self.sample("evaluation.json", "test", self.metrics)

    def sample(self, file: str, step: str, metrics: Mapping[str, float | None]) -> Sample:
        """Return the twelve `metrics` of a step of `file` with their replicates."""
        return sample_of([metrics], [self.replicates[file].drawn[step]], METRICS)

    def detections(self) -> list[dict[str, Any]]:
        """Return the COCO results list, read on each call because it is the only large file."""
        path = self.folder / "detections.json"
        detections: list[dict[str, Any]] = read_json(path, hint=self.hint(path.name))
        expected = self.evaluation["num_detections"]
        odd = odd_value(detections, list[Detection], complete=True)
        if odd is not None:
            raise UserError(path, "is damaged", found=odd, hint=self.hint(path.name))
        if len(detections) != expected:
            raise UserError(
                path,
                "does not match the evaluation",
                found=f"{len(detections)} detections",
                expected=f"{expected}, as evaluation.json says",
                hint=self.hint(path.name),
            )
        return detections


@dataclass(frozen=True, kw_only=True)
class GivenResults(Results):
    """Results of a detector that was not trained here."""

    file: GivenFile
    given_ms: float | None

    @property
    def entry(self) -> str:
        """The name in `results` of params.yaml, which several files share."""
        return self.file.entry

    @property
    def digest(self) -> str:
        """The sha256 of the results file."""
        return str(self.evaluation["identity"]["sha256"])

    @property
    def ms_per_image(self) -> float | None:
        return self.given_ms

    def hint(self, file: str) -> str:  # noqa: ARG002  one command creates all files
        return f"fcos results {self.entry}"


@dataclass(frozen=True, kw_only=True)
class RunResults(Results):
    """Contents of the files of one run; `tta` and `nms_sweep` are empty if params.yaml does not request them."""

    run: Run
    train: TrainSummary
    timing: Timings
    tta: Tta
    nms_sweep: NmsSweep
    history: pd.DataFrame  # empty for an imported checkpoint

    @property
    def digest(self) -> str:
        """The sha256 of the weights."""
        return str(self.train["weights_sha256"])

    @property
    def training_s(self) -> float | None:
        return None if self.train["imported_from"] is not None else float(self.train["provenance"]["training_seconds"])

    @property
    def ms_per_image(self) -> float | None:
        return float(self.timing["views"]["test"]["ms_per_image"])

    def hint(self, file: str) -> str:
        return command_for(file, self.run.name)


@dataclass(frozen=True)
class StudyResults:
    """Settings of a study, its test images and the files of its runs."""

    params: Params
    split: CocoSplit
    manifest: Manifest
    runs: dict[str, RunResults]
    given: dict[str, GivenResults]

    @property
    def everyone(self) -> dict[str, Results]:
        """The runs, and after them the results that were not trained here."""
        return {**self.runs, **self.given}

    def check_given(self, results: GivenResults, cell: Cell) -> None:
        """Check that the files of results that were not trained here belong to their file, test split and settings.

        Raises:
            UserError: they do not, as in `check`.
        """
        identity = {"categories": self.split.categories, "data_digest": self.split.digest}
        config = self.params.results[results.entry]
        file = in_project(results.file.path)
        if file.is_file():  # another machine may have its numbers only
            identity["sha256"] = sha256_file(file)
        expected = {"identity": identity, "test": config.flags(), "statistics": self.params.statistics.model_dump()}
        _agree(results, "evaluation.json", cell, results.evaluation, expected)
        _agree(results, "metrics.json", cell, results.metrics, results.evaluation["metrics"])
        of_steps = {**expected, "numbers": numbers_digest({"test": results.metrics})}
        _agree(results, "replicates.safetensors", cell, results.replicates["evaluation.json"].header, of_steps)

    def check(self, results: RunResults, file: str, cell: Cell) -> None:
        """Check that train.json and `file` belong to the run, data, weights and setting of `cell`.

        Args:
            file: evaluation.json, tta.json or nms_sweep.json.

        Raises:
            UserError: they do not; names the cell, the file, the key, the value found and the value expected.
        """
        identity = results.run.identity()
        contents = {
            "evaluation.json": results.evaluation,
            "tta.json": results.tta,
            "nms_sweep.json": results.nms_sweep,
        }
        test = self.params.test
        size = self.params.tta.sizes[-1] if file == "tta.json" else test.size
        header = {
            "run": identity,
            "categories": self.split.categories,
            "data_digest": self.split.digest,
            "weights_sha256": results.digest,
            "view": {"size": size, "max_size": test.max_size},
            "test": {"score_threshold": test.score_threshold, "max_candidates": test.max_candidates},
        }
        _agree(results, "train.json", cell, results.train, {"params": identity})
        expected = {"identity": header, "test": self.params.test.settings()}
        with_statistics = {**expected, "statistics": self.params.statistics.model_dump()}
        _agree(results, file, cell, contents[file], with_statistics if file == "evaluation.json" else expected)
        _agree(results, "metrics.json", cell, results.metrics, results.evaluation["metrics"])
        self._has_every_step(results, file, cell)
        if file == "nms_sweep.json":
            steps = sweep_steps(results.nms_sweep)
        elif file == "tta.json":
            steps = {"chosen": results.tta["metrics"]}
        else:
            steps = {"test": results.metrics}
        of_steps = {**with_statistics, "numbers": numbers_digest(steps)}
        _agree(results, run_file(file).replicates or file, cell, results.replicates[file].header, of_steps)

    def _has_every_step(self, results: RunResults, file: str, cell: Cell) -> None:
        if file == "tta.json":
            found = {**results.tta, "views": results.tta["steps"][-1]["views"]}
            views = [f"s{size}" for size in self.params.tta.sizes]
            expected: dict[str, Any] = {"views": views, "split": self.params.tta.choose_on or "test"}
        elif file == "nms_sweep.json":
            thresholds = [step["nms_iou_threshold"] for step in results.nms_sweep["steps"]]
            found = {**results.nms_sweep, "thresholds": thresholds}
            expected = {"thresholds": self.params.nms_sweep.thresholds, "split": self.params.nms_sweep.choose_on}
        else:
            return
        if expected["split"] == "validation":
            expected["validation_digest"] = self.manifest["splits"]["validation"]["digest"]
        _agree(results, file, cell, found, expected)


def read_study(params: Params, runs_dir: Path, split: CocoSplit, manifest: Manifest) -> StudyResults:
    """Return the content of the files of every run of params.yaml; anything else in `runs_dir` is ignored."""
    digest = manifest["splits"]["test"]["digest"]
    if digest != split.digest:
        raise UserError("manifest.json", "differs in data from test.json", found=digest, expected=split.digest)
    runs = {name: _read_run(params, run, runs_dir / name) for name, run in params.runs.items()}
    given = {
        file.name: _read_given(file, runs_dir / file.place, params.results[file.entry].ms_per_image)
        for file in files_of(params.results)
    }
    return StudyResults(params, split, manifest, runs, given)


def _read_given(file: GivenFile, folder: Path, given_ms: float | None) -> GivenResults:
    hint = f"fcos results {file.entry}"
    return GivenResults(
        name=file.name,
        folder=folder,
        evaluation=read_run_file(folder / "evaluation.json", hint=hint),
        metrics=read_run_file(folder / "metrics.json", hint=hint),
        replicates={"evaluation.json": read_replicates(folder / "replicates.safetensors", hint=hint)},
        file=file,
        given_ms=given_ms,
    )


def _read_run(params: Params, run: Run, folder: Path) -> RunResults:
    wanted = {
        "evaluation.json": True,
        "tta.json": run.name in params.tta.runs,
        "nms_sweep.json": run.name in params.nms_sweep.runs,
    }

    def content(file: str) -> Any:
        if not wanted.get(file, True):
            return {}
        return read_run_file(folder / file)

    return RunResults(
        name=run.name,
        run=run,
        folder=folder,
        train=content("train.json"),
        timing=content("timing.json"),
        evaluation=content("evaluation.json"),
        metrics=content("metrics.json"),
        tta=content("tta.json"),
        nms_sweep=content("nms_sweep.json"),
        history=_read_history(folder / "history.csv", run),
        replicates={
            file.name: read_replicates(folder / file.replicates, hint=command_for(file.name, run.name))
            for file in RUN_FILES
            if file.replicates and wanted[file.name]
        },
    )


def _read_history(path: Path, run: Run) -> pd.DataFrame:
    hint, expected = command_for(path.name, run.name), "a row of numbers for each training step"
    try:
        history = pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(path, "no such file", expected=expected, hint=hint) from None
    except ValueError as error:  # an empty file, rows of unequal length, or not text
        raise UserError(path, "is damaged", found=error, expected=expected, hint=hint) from None
    missing = [column for column in COLUMNS if column not in history]
    odd = [column for column in COLUMNS if column in history and not _is_numbers(history[column])]
    if missing or odd:
        found = f"no column {missing[0]}" if missing else f"other than numbers in column {odd[0]}"
        raise UserError(path, "is damaged", found=found, expected=expected, hint=hint)
    return history


def _is_numbers(column: "pd.Series[Any]") -> bool:
    """Whether a column contains only numbers; the columns of an imported checkpoint are empty."""
    return not len(column) or (pd.api.types.is_numeric_dtype(column) and bool(np.isfinite(column).all()))


def _agree(
    results: Results, file: str, cell: Cell, found: Mapping[str, object], expected: Mapping[str, object]
) -> None:
    differs = first_difference(found, expected)
    if differs is not None:
        key, is_, should = differs
        problem = f"{results.folder / file} has a different {key} from this table cell"
        raise UserError(cell, problem, found=is_, expected=should, hint=results.hint(file))
