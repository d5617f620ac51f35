"""`runs`: the trainings of the study, and the resolved settings of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fcos.config.model import ModelConfig
from fcos.config.section import DEFAULT_PATH, Section, Wrong, parse_section, validate
from fcos.config.study import Name
from fcos.config.train import TrainConfig
from fcos.errors import UserError


class RunConfig(Section):
    """One training: `epochs` of cosine decay after the warm-up; `train` and `model` override those sections."""

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    num_convs: Annotated[int, Field(ge=0, le=16)]
    epochs: PositiveInt | None = None
    seed: NonNegativeInt = 0
    checkpoint: str | None = None
    role: Literal["reference"] | None = None
    train: dict[str, Any] = {}
    model: dict[str, Any] = {}

    @model_validator(mode="after")
    def _trained_or_imported(self) -> "RunConfig":
        if self.epochs is None and self.checkpoint is None:
            raise Wrong("epochs", "missing key", found="nothing", expected="a number of epochs, or `checkpoint:`")
        return self


class Run(Section):
    """A run with its overrides applied: everything that determines the weights, except for the data and the code."""

    study: Name
    name: Name
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    num_convs: int
    epochs: int | None
    seed: int
    checkpoint: str | None
    role: Literal["reference"] | None
    model: ModelConfig
    train: TrainConfig

    def identity(self) -> dict[str, Any]:
        """Return the settings that are stored with the weights and compared by every later stage."""
        return {**self.model_dump(mode="json", exclude={"train", "role"}), "train": self.train.identity()}


def parse_runs(params: Mapping[str, Any], path: Path = DEFAULT_PATH) -> dict[str, Run]:
    """Return all runs of the study by name, with their overrides applied; a study of results has none."""
    study = parse_section(params, "study", Name, path)
    configs = parse_section(params, "runs", dict[Name, RunConfig], path)
    if not configs:
        if params.get("results"):
            return {}
        expected = "at least one `name: {backbone: ...}`, or `results:`"
        raise UserError(f"{path}: runs", "no run", found="{}", expected=expected)
    data = params.get("data")
    if isinstance(data, Mapping) and data.get("source") == "ground-truth":
        problem, hint = "there are no images to train on", "to train too: fcos study new NAME --from FOLDER"
        raise UserError(f"{path}: runs", problem, found=", ".join(configs), expected="runs: {}", hint=hint)
    parse_section(params, "model", ModelConfig, path)
    parse_section(params, "train", TrainConfig, path)
    return {name: _resolve(study, name, config, params, path) for name, config in configs.items()}


def _resolve(study: str, name: str, config: RunConfig, params: Mapping[str, Any], path: Path) -> Run:
    model = {**params["model"], **config.model}
    train = {**params["train"], **config.train}
    return Run(
        study=study,
        name=name,
        **config.model_dump(exclude={"train", "model"}),
        model=validate(model, ModelConfig, path=path, prefix=("runs", name, "model")),
        train=validate(train, TrainConfig, path=path, prefix=("runs", name, "train")),
    )


def find_run(runs: Mapping[str, Run], name: str, path: Path = DEFAULT_PATH) -> Run:
    """Return the run called `name`, or raise a UserError that lists the runs."""
    if name not in runs:
        expected = f"one of {', '.join(runs)}" if runs else "a study with trainings; this one has results only"
        raise UserError(f"{path}: runs", "no such run", found=name, expected=expected)
    return runs[name]
