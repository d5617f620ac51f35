"""Convert between torchvision's FCOS state dict and this project's."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fcos.errors import UserError

# (torchvision's name, ours)
_NAMES = (
    ("backbone.body.", "backbone."),
    ("backbone.fpn.", "fpn."),
    ("head.classification_head.conv.", "head.class_tower."),
    ("head.classification_head.cls_logits.", "head.class_logits."),
    ("head.regression_head.conv.", "head.box_tower."),
    ("head.regression_head.bbox_reg.", "head.box_regression."),
    ("head.regression_head.bbox_ctrness.", "head.centerness."),
)
_CLASS_LOGITS = re.compile(r"head\.class_logits\.(weight|bias)")


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with this project's names; frozen BatchNorms get the counter that they lack."""
    ours = {_renamed(name, _NAMES): tensor for name, tensor in state.items()}
    for name in [name for name in ours if name.endswith("running_mean")]:
        counter = name.replace("running_mean", "num_batches_tracked")
        ours.setdefault(counter, torch.tensor(0))
    return ours


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with torchvision's names."""
    return {_renamed(name, [(ours, theirs) for theirs, ours in _NAMES]): t for name, t in state.items()}


def select_classes(state: dict[str, Tensor], category_ids: Sequence[int], path: Path) -> dict[str, Tensor]:
    """Return `state` with only the class logits of `category_ids`, in that order.

    torchvision's published weights have one output per COCO id from 0 to 90, which includes the background and unused
    ids. Weights with exactly len(category_ids) outputs are returned unchanged.
    """
    num_outputs = state["head.class_logits.bias"].numel()
    if num_outputs == len(category_ids):
        return state
    # There must be one output for each id up to the largest; the meaning of any other number would be a guess.
    if num_outputs != max(category_ids) + 1:
        raise UserError(
            path,
            "the checkpoint and the data have different numbers of classes",
            found=f"{num_outputs} class outputs",
            expected=f"{len(category_ids)} (the data's classes) or {max(category_ids) + 1} (one for each id from 0)",
            hint="import it into a study whose data has its classes",
        )
    rows = torch.tensor(category_ids)
    # Tensors of an unexpected shape are left to the check of all shapes.
    return {
        name: t[rows] if _CLASS_LOGITS.fullmatch(name) and t.shape[:1] == (num_outputs,) else t
        for name, t in state.items()
    }


def _renamed(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name[len(old) :]
    return name
