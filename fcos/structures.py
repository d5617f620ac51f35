"""The data structures that data, network, assignment, losses and decoding exchange.

Shape legend: B images, L levels, R locations of all levels, M ground-truth boxes, K classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class HeadOutputs(NamedTuple):
    """The outputs of the network at every location; they are the same in training and evaluation mode."""

    class_logits: Tensor  # (B, R, K)
    pred_ltrb: Tensor  # (B, R, 4) in strides, >= 0
    centerness_logits: Tensor  # (B, R)
    feature_sizes: tuple[tuple[int, int], ...]  # (height, width) of each level


@dataclass(frozen=True)
class GroundTruth:
    """The ground-truth boxes of one image; `ignored` boxes are neither object nor background."""

    boxes: Tensor  # (M, 4) xyxy
    labels: Tensor  # (M,) int64, 0..K-1
    ignored: Tensor  # (M,) bool

    def __post_init__(self) -> None:
        count = len(self.labels)
        assert self.boxes.shape == (count, 4) and self.ignored.shape == (count,)


@dataclass(frozen=True)
class Sample:
    """An image with its ground-truth boxes, before it is resized."""

    image_id: int
    image: Tensor | NDArray[np.uint8]  # (height, width, 3) uint8, on any device; may be smaller than `size`
    ground_truth: GroundTruth  # in pixels of an image of `size`
    size: tuple[int, int]  # (height, width) of the original image


@dataclass(frozen=True)
class Batch:
    """Normalised images, padded on the right and at the bottom, and their boxes, padded to M per image."""

    images: Tensor  # (B, 3, height, width)
    image_ids: list[int]
    image_sizes: Tensor  # (B, 2) height and width before padding
    gt_boxes: Tensor  # (B, M, 4) in pixels of the resized image
    gt_labels: Tensor  # (B, M) int64; -1 = padding
    gt_ignored: Tensor  # (B, M) bool


class LocationTargets(NamedTuple):
    """The training targets of every location."""

    labels: Tensor  # (B, R) int64, 0..K-1; -1 = background
    target_ltrb: Tensor  # (B, R, 4) in strides; ones for background
    matched_gt_index: Tensor  # (B, R) int64; -1 = none
    counted_mask: Tensor  # (B, R) bool; False where the location is ignored: inside an ignored box and not positive

    @property
    def positive_mask(self) -> Tensor:
        """(B, R): whether a location is assigned to a box."""
        return self.matched_gt_index >= 0
