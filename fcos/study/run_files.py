"""What a run consists of: its files, the stage and the command that write each, and what must be in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunFile:
    """A file, or a folder, in runs/STUDY/RUN/."""

    name: str
    stage: str  # of DVC
    command: str  # to be typed where it is missing
    needed: tuple[str, ...] = ()  # dotted keys; without them it says nothing, or an earlier version wrote it
    tells_seconds: bool = False  # its provenance says how long the command took, apart from a training's
    replicates: str | None = None  # the bootstrap replicates of its numbers


_TRAIN, _PREDICT, _EVALUATE = "fcos train {run}", "fcos predict {run}", "fcos evaluate {run}"
_TTA, _SWEEP = "fcos predict {run} --views tta, then fcos tta {run}", "fcos nms-sweep {run}"
_STEPS = ("steps", "chosen", "split")
_EVALUATION = ("identity", "intervals.AP", "per_class", "num_detections", "analysis.confusion")
# In the order in which they are written: the last file of a stage says that its command has ended.
RUN_FILES = (
    RunFile("model.safetensors", "train", _TRAIN),
    RunFile("history.csv", "train", _TRAIN),
    RunFile("train.json", "train", _TRAIN, ("weights_sha256", "imported_from", "params", "provenance")),
    RunFile("candidates", "predict", _PREDICT),
    RunFile("timing.json", "predict", _PREDICT, ("views.test",), tells_seconds=True),
    RunFile("detections.json", "evaluate", _EVALUATE),
    RunFile("replicates.safetensors", "evaluate", _EVALUATE),
    RunFile(
        "evaluation.json", "evaluate", _EVALUATE, _EVALUATION, tells_seconds=True, replicates="replicates.safetensors"
    ),
    RunFile("metrics.json", "evaluate", _EVALUATE),
    RunFile("candidates_tta", "tta", _TTA),
    RunFile("timing_tta.json", "tta", _TTA, tells_seconds=True),
    RunFile("tta_replicates.safetensors", "tta", _TTA),
    RunFile("tta.json", "tta", _TTA, _STEPS, tells_seconds=True, replicates="tta_replicates.safetensors"),
    RunFile("nms_sweep_replicates.safetensors", "nms_sweep", _SWEEP),
    RunFile(
        "nms_sweep.json", "nms_sweep", _SWEEP, _STEPS, tells_seconds=True, replicates="nms_sweep_replicates.safetensors"
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


def missing_key(name: str, content: Any) -> str | None:
    """The first key that the file `name` needs and `content` lacks."""
    return next((key for key in _OF_NAME[name].needed if not _has(content, key)), None)


def _has(content: Any, key: str) -> bool:
    """Whether there is a value at a dotted key."""
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True
