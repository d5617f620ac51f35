"""What a run consists of: its files, the stage and the command that write each, and what must be in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.formats import read_record
from fcos.records import Evaluation, NmsSweep, Numbers, Timings, TrainSummary, Tta


@dataclass(frozen=True)
class RunFile:
    """A file, or a folder, in runs/STUDY/RUN/."""

    name: str
    stage: str  # of DVC
    command: str  # to be typed where it is missing
    needed: tuple[str, ...] = ()  # dotted keys; without them it says nothing, or an earlier version wrote it
    tells_seconds: bool = False  # its provenance says how long the command took, apart from a training's
    replicates: str | None = None  # the bootstrap replicates of its numbers
    kind: Any = Any  # of what is in it, where that is JSON


_TRAIN, _PREDICT, _EVALUATE = "fcos train {run}", "fcos predict {run}", "fcos evaluate {run}"
_TTA, _SWEEP = "fcos predict {run} --views tta, then fcos tta {run}", "fcos nms-sweep {run}"
_STEPS = ("steps", "chosen", "split")
_EVALUATION = ("identity", "intervals.AP", "per_class", "num_detections", "analysis.confusion")
# In the order in which they are written: the last file of a stage says that its command has ended.
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
    return _OF_NAME[name]


def written_by(stage: str) -> list[RunFile]:
    """The files of a stage, in the order in which they are written."""
    return [file for file in RUN_FILES if file.stage == stage]


def command_for(name: str, run_name: str) -> str:
    """What writes the file `name` of the run."""
    return _OF_NAME[name].command.format(run=run_name)


def read_run_file(path: Path, needed: Sequence[str] | None = None) -> Any:
    """What is in a JSON file of a run.

    Args:
        needed: dotted keys that it must have; None: all that the report needs.

    Raises:
        UserError: it is missing, damaged or of an earlier version; says what writes it.
    """
    hint = command_for(path.name, path.parent.name)
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
