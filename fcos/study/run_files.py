"""The files of a run, with the stage and command that write each file and the keys that it must have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.formats import read_record
from fcos.records import Evaluation, NmsSweep, Numbers, Timings, TrainSummary, Tta


@dataclass(frozen=True)
class RunFile:
    """A file or folder in runs/STUDY/RUN/."""

    name: str
    stage: str  # DVC stage that writes it
    command: str  # command to run if it is missing
    needed: tuple[str, ...] = ()  # required dotted keys; a file of an earlier version may lack them
    tells_seconds: bool = False  # whether its provenance has the time of its command; no file of a training counts
    replicates: str | None = None  # file with the bootstrap replicates of its metrics
    kind: Any = Any  # type of its content, if it is JSON


_TRAIN, _PREDICT, _EVALUATE = "fcos train {run}", "fcos predict {run}", "fcos evaluate {run}"
_TTA, _SWEEP = "fcos predict {run} --views tta, then fcos tta {run}", "fcos nms-sweep {run}"
_STEPS = ("steps", "chosen", "split")
_EVALUATION = ("identity", "intervals.AP", "per_class", "num_detections", "analysis.confusion")
# The files are in the order of writing, so that the last file of a stage shows that its command has finished.
RUN_FILES = (
    RunFile("model.safetensors", "train", _TRAIN),
    RunFile("history.csv", "train", _TRAIN),
    RunFile(
        "train.json",
        "train",
        _TRAIN,
        ("weights_sha256", "training_key", "imported_from", "params.study", "params.name", "provenance"),
        kind=TrainSummary,
    ),
    RunFile("candidates", "predict", _PREDICT),
    RunFile(
        "timing.json",
        "predict",
        _PREDICT,
        ("views.test.seconds", "views.test.ms_per_image"),
        tells_seconds=True,
        kind=Timings,
    ),
    RunFile("detections.json", "evaluate", _EVALUATE),
    RunFile("replicates.safetensors", "evaluate", _EVALUATE),
    RunFile(
        "evaluation.json",
        "evaluate",
        _EVALUATE,
        _EVALUATION,
        tells_seconds=True,
        replicates="replicates.safetensors",
        kind=Evaluation,
    ),
    RunFile("metrics.json", "evaluate", _EVALUATE, ("AP",), kind=Numbers),
    RunFile("candidates_tta", "tta", _TTA),
    RunFile("timing_tta.json", "tta", _TTA, ("views",), tells_seconds=True, kind=Timings),
    RunFile("tta_replicates.safetensors", "tta", _TTA),
    RunFile("tta.json", "tta", _TTA, _STEPS, tells_seconds=True, replicates="tta_replicates.safetensors", kind=Tta),
    RunFile("nms_sweep_replicates.safetensors", "nms_sweep", _SWEEP),
    RunFile(
        "nms_sweep.json",
        "nms_sweep",
        _SWEEP,
        _STEPS,
        tells_seconds=True,
        replicates="nms_sweep_replicates.safetensors",
        kind=NmsSweep,
    ),
)
STAGES_OF_A_RUN = tuple(dict.fromkeys(file.stage for file in RUN_FILES))
_OF_NAME = {file.name: file for file in RUN_FILES}


def run_file(name: str) -> RunFile:
    """Return the entry of the table of run files for a file name."""
    return _OF_NAME[name]


def written_by(stage: str) -> list[RunFile]:
    """Return the files of a stage, in the order of writing."""
    return [file for file in RUN_FILES if file.stage == stage]


def command_for(name: str, run_name: str) -> str:
    """Return the command that writes the file `name` of the run."""
    return _OF_NAME[name].command.format(run=run_name)


def read_run_file(path: Path, needed: Sequence[str] | None = None, *, hint: str | None = None) -> Any:
    """Return the content of a JSON file of a run.

    Args:
        needed: required dotted keys; None requires all keys that the report needs.
        hint: the command that writes it, if it is not that of a run.

    Raises:
        UserError: the file is missing, damaged or of an earlier version; the hint is the command that writes it.
    """
    hint = hint or command_for(path.name, path.parent.name)
    content = read_record(path, hint=hint, kind=_OF_NAME[path.name].kind)
    keys = _OF_NAME[path.name].needed if needed is None else needed
    missing = next((key for key in keys if not _has(content, key)), None)
    if missing is not None:
        raise UserError(path, "is damaged or of an earlier version", found=f"no key {missing}", hint=hint)
    return content


def _has(content: Any, key: str) -> bool:
    """Whether there is a value at a dotted key."""
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True
