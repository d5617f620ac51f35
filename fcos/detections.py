"""Predicted boxes before and after NMS. This module does not import torch, so that scoring starts quickly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Float32s = NDArray[np.float32]

_BLOCK = 256  # boxes compared at a time


@dataclass(frozen=True)
class Candidates:
    """Boxes of one image before NMS, or (as detections) after it, in pixels of the original image.

    Example:
        >>> candidates = Candidates(
        ...     boxes=np.array([[0, 0, 10, 10], [1, 1, 10, 10], [20, 0, 30, 10]], np.float32),
        ...     scores=np.array([0.5, 0.25, 0.75], np.float32),
        ...     labels=np.array([0, 0, 1]),
        ... )
        >>> detections = detect(candidates, nms_iou_threshold=0.6, max_detections=100)
        >>> detections.scores.tolist()
        [0.75, 0.5]
        >>> detections.boxes_xywh.tolist()
        [[20.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]]
    """

    boxes: Float32s  # (N, 4) xyxy
    scores: Float32s  # (N,)
    labels: NDArray[np.int64]  # (N,)

    def __post_init__(self) -> None:
        count = len(self.scores)
        assert self.boxes.shape == (count, 4) and self.labels.shape == (count,)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: NDArray[np.integer] | Bools | slice) -> "Candidates":
        return Candidates(self.boxes[index], self.scores[index], self.labels[index])

    @property
    def boxes_xywh(self) -> NDArray[np.float64]:
        """The boxes (N, 4) in COCO's xywh format."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes

    @staticmethod
    def concatenate(parts: "Sequence[Candidates]") -> "Candidates":
        """Return all boxes of one image, in the order of `parts`."""
        return Candidates(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


Detections = Candidates


def detect(candidates: Candidates, *, nms_iou_threshold: float, max_detections: int) -> Detections:
    """Run NMS per class and return at most `max_detections` boxes, sorted by score; the first of equal scores wins.

    The result equals torchvision's `nms` run on each class, ties included: the IoU is computed in float32 and compared
    with a float64 threshold. torchvision's `batched_nms` offsets the boxes of each class instead, which rounds them.
    """
    ordered = candidates[np.argsort(-candidates.scores, kind="stable")]
    # Blocks are processed from the highest score down, so that the loop can stop once enough boxes are kept.
    kept = ordered[:0]
    for first in range(0, len(ordered), _BLOCK):
        if len(kept) >= max_detections:
            break
        block = ordered[first : first + _BLOCK]
        block = block[np.flatnonzero(~_overlap(kept, block, nms_iou_threshold).any(axis=0))]
        kept = Candidates.concatenate([kept, block[_greedy(_overlap(block, block, nms_iou_threshold))]])
    return kept[:max_detections]


def merge_views(views: Sequence[Detections], *, nms_iou_threshold: float, max_detections: int) -> Detections:
    """Return the merged detections of several views of one image: NMS per class over their union."""
    return detect(Candidates.concatenate(views), nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)


def _overlap(one: Candidates, other: Candidates, threshold: float) -> Bools:
    """Return (N, M) bool: whether two boxes have the same class and an IoU above the threshold."""
    x1, y1, x2, y2 = (one.boxes[:, None, side] for side in range(4))
    other_x1, other_y1, other_x2, other_y2 = (other.boxes[:, side] for side in range(4))
    width = np.minimum(x2, other_x2) - np.maximum(x1, other_x1)
    height = np.minimum(y2, other_y2) - np.maximum(y1, other_y1)
    intersection = width.clip(min=0) * height.clip(min=0)
    union = (x2 - x1) * (y2 - y1) + (other_x2 - other_x1) * (other_y2 - other_y1) - intersection
    with np.errstate(invalid="ignore"):  # two boxes without area give 0 / 0, which is no overlap
        above: Bools = intersection / union > np.float64(threshold)
    above &= one.labels[:, None] == other.labels
    return above


def _greedy(overlap: Bools) -> Bools:
    """Return (N,) bool: which boxes, sorted by score, greedy NMS keeps; `overlap` is (N, N)."""
    keep = np.ones(len(overlap), dtype=bool)
    # Only a box that overlaps a later one can suppress anything.
    for index in np.flatnonzero(np.triu(overlap, k=1).any(axis=1)):
        if keep[index]:
            keep[index + 1 :] &= ~overlap[index, index + 1 :]
    return keep
