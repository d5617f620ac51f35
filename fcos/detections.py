"""Boxes that a network says are there, before and after NMS. Free of torch, so that scoring starts at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Float32s = NDArray[np.float32]

_BLOCK = 256  # boxes compared with each other at a time


@dataclass(frozen=True)
class Candidates:
    """Boxes of one image before NMS, or (as detections) after it, in pixels of the original image."""

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
        """(N, 4) as COCO has them."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes

    @staticmethod
    def concatenate(parts: "Sequence[Candidates]") -> "Candidates":
        return Candidates(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


Detections = Candidates


def detect(candidates: Candidates, *, nms_iou_threshold: float, max_detections: int) -> Detections:
    """Per-class NMS, best first, at most `max_detections`; of equal scores the first wins.

    Keeps what torchvision's `nms` keeps within each class, tie for tie: the overlap in float32, the threshold in
    float64. Its `batched_nms` moves the classes apart instead, which rounds.
    """
    ordered = candidates[np.argsort(-candidates.scores, kind="stable")]
    # Blocks, best first: once there are enough, the rest of them is never looked at.
    kept = ordered[:0]
    for first in range(0, len(ordered), _BLOCK):
        if len(kept) >= max_detections:
            break
        block = ordered[first : first + _BLOCK]
        block = block[np.flatnonzero(~_overlap(kept, block, nms_iou_threshold).any(axis=0))]
        kept = Candidates.concatenate([kept, block[_greedy(_overlap(block, block, nms_iou_threshold))]])
    return kept[:max_detections]


def merge_views(views: Sequence[Detections], *, nms_iou_threshold: float, max_detections: int) -> Detections:
    """Detections of several views of one image as one: per-class NMS over their union."""
    return detect(Candidates.concatenate(views), nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)


def _overlap(one: Candidates, other: Candidates, threshold: float) -> Bools:
    """(N, M): whether two boxes are of one class and their IoU is above the threshold."""
    x1, y1, x2, y2 = (one.boxes[:, None, side] for side in range(4))
    other_x1, other_y1, other_x2, other_y2 = (other.boxes[:, side] for side in range(4))
    width = np.minimum(x2, other_x2) - np.maximum(x1, other_x1)
    height = np.minimum(y2, other_y2) - np.maximum(y1, other_y1)
    intersection = width.clip(min=0) * height.clip(min=0)
    union = (x2 - x1) * (y2 - y1) + (other_x2 - other_x1) * (other_y2 - other_y1) - intersection
    with np.errstate(invalid="ignore"):  # two boxes without area: 0 / 0 is no overlap
        above: Bools = intersection / union > np.float64(threshold)
    above &= one.labels[:, None] == other.labels
    return above


def _greedy(overlap: Bools) -> Bools:
    """(N,): which of N boxes, best first, no better one that is kept suppresses; `overlap` is (N, N)."""
    keep = np.ones(len(overlap), dtype=bool)
    # Only boxes that overlap a later one can suppress anything.
    for index in np.flatnonzero(np.triu(overlap, k=1).any(axis=1)):
        if keep[index]:
            keep[index + 1 :] &= ~overlap[index, index + 1 :]
    return keep
