"""Replicates on disk, beside the numbers they belong to: what a paired comparison of two runs needs of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from fcos.errors import UserError
from fcos.files import sha256_json, whole_file
from fcos.formats import header_metadata, header_of
from fcos.records import NmsSweep
from fcos.scoring.bootstrap import Drawn, Support

_SUPPORT = " support"  # (2, 12): inflation and freedom


def numbers_digest(steps: Mapping[str, Any]) -> str:
    """Of the numbers (by step) that replicates go with: both files of an interrupted command are of one, or refused."""
    return sha256_json(steps)


def sweep_steps(sweep: NmsSweep) -> dict[str, Any]:
    """The numbers of each threshold of nms_sweep.json, and of the chosen one on test."""
    return {str(step["nms_iou_threshold"]): step["metrics"] for step in sweep["steps"]} | {"chosen": sweep["metrics"]}


@dataclass(frozen=True)
class ReplicatesFile:
    """The twelve numbers under each draw of images, and what they are of."""

    drawn: Mapping[str, Drawn]  # step -> (B, 12)
    header: dict[str, Any]


def save_replicates(path: Path, steps: Mapping[str, Drawn], header: Mapping[str, Any]) -> None:
    """Write the replicates of each step (a view, a threshold, or the whole of an evaluation)."""
    tensors = {step: np.ascontiguousarray(drawn.replicates) for step, drawn in steps.items()}
    tensors |= {
        step + _SUPPORT: np.stack((drawn.support.inflation, drawn.support.freedom)) for step, drawn in steps.items()
    }
    with whole_file(path) as scratch:
        save_file(tensors, scratch, metadata=header_metadata(header))


def read_replicates(path: Path, *, hint: str) -> ReplicatesFile:
    """Read what `save_replicates` wrote; `hint` is what to type when it is not there."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = header_of(path, file.metadata(), hint=hint)
        tensors = load_file(path)
        steps = [name for name in tensors if not name.endswith(_SUPPORT)]
        drawn = {step: Drawn(tensors[step], Support(*tensors[step + _SUPPORT])) for step in steps}
        return ReplicatesFile(drawn, header)
    except FileNotFoundError:
        raise UserError(path, "no such file", expected="the replicates of a scored run", hint=hint) from None
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(path, "is not a whole file of replicates", found=error, hint=hint) from None
