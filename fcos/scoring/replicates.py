"""Bootstrap replicates on disk, stored beside their metrics; a paired comparison of two runs needs both."""

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
    """Return the digest of the metrics (by step) of replicates; it detects files of an interrupted command."""
    return sha256_json(steps)


def sweep_steps(sweep: NmsSweep) -> dict[str, Any]:
    """Return the metrics of each threshold in nms_sweep.json, and the test metrics of the chosen one."""
    return {str(step["nms_iou_threshold"]): step["metrics"] for step in sweep["steps"]} | {"chosen": sweep["metrics"]}


@dataclass(frozen=True)
class ReplicatesFile:
    """The twelve metrics under each bootstrap sample, and a header that identifies them."""

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
    """Return what `save_replicates` wrote; `hint` is the command to run if the file is missing or damaged."""
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
