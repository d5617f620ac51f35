"""Assign ground-truth boxes to locations (section 3.1 of the paper, with center sampling)."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from fcos.boxes import areas
from fcos.structures import LocationTargets


def assign_targets(
    locations: Tensor,
    strides: Tensor,
    level_of: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_ignored: Tensor,
    *,
    regression_ranges: Sequence[Sequence[float | None]],
    center_sampling_radius: float,
    inclusive: bool,
) -> LocationTargets:
    """Return the targets of all locations, with at most one box for each location of each image.

    A location is positive for a box if it lies inside the box and inside the square that extends
    `center_sampling_radius` strides from the box's center to each side (both borders included if `inclusive`), and if
    the largest of its four distances is strictly inside its level's range. If several boxes match, the box with the
    smallest area is chosen; among equal areas, the first.

    Args:
        locations: (R, 2) x, y in pixels of the padded image.
        strides: (R,) stride of each location's level.
        level_of: (R,) index of each location's level.
        gt_boxes: (B, M, 4) xyxy in pixels, padded to M boxes.
        gt_labels: (B, M) int64, -1 where padded.
        gt_ignored: (B, M) bool, True for boxes that are neither object nor background.
        regression_ranges: (low, high) in pixels for each level; high None = unbounded.
        center_sampling_radius: in strides of the location's level.
        inclusive: whether a location on the border counts as inside.
    """
    is_object = (gt_labels >= 0) & ~gt_ignored  # (B, M)
    if gt_boxes.shape[1] == 0:
        return _all_background(gt_boxes, locations)
    nearest, reach = _nearest_and_farthest(locations, gt_boxes)  # (B, R, M) each
    inside_box = _inside(nearest, 0.0, inclusive)  # (B, R, M)
    del nearest  # 4 bytes for each location and box
    match = inside_box & is_object[:, None]

    # Section 3.1 of the paper: only locations in the center area of a box are positive samples.
    centers = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2  # (B, M, 2)
    from_center = _farther_axis(locations, centers)  # (B, R, M)
    match &= _inside(center_sampling_radius * strides[:, None] - from_center, 0.0, inclusive)
    del from_center

    # Section 3.2 of the paper: a location with max(l, t, r, b) <= m_(i-1) or >= m_i is a negative sample of level i.
    low, high = _bounds(tuple(map(tuple, regression_ranges)), locations.dtype, locations.device)
    match &= (reach > low[level_of, None]) & (reach < high[level_of, None])

    # A location that still falls into several boxes is ambiguous: the paper chooses the box with minimal area.
    order = areas(gt_boxes).argsort(dim=1, stable=True)  # (B, M) smallest first
    rank = order.argsort(dim=1)  # (B, M)
    num_boxes = gt_boxes.shape[1]
    best_rank = torch.where(match, rank[:, None], num_boxes).amin(dim=2)  # (B, R)
    positive = best_rank < num_boxes
    matched = order.gather(1, best_rank.clamp(max=num_boxes - 1))  # (B, R)
    matched_boxes = gt_boxes.gather(1, matched[..., None].expand(-1, -1, 4))
    target = torch.cat((locations - matched_boxes[..., :2], matched_boxes[..., 2:] - locations), dim=-1)
    silenced = (inside_box & ((gt_labels >= 0) & gt_ignored)[:, None]).any(dim=2)  # (B, R)
    return LocationTargets(
        labels=torch.where(positive, gt_labels.gather(1, matched), -1),
        target_ltrb=torch.where(positive[..., None], target / strides[:, None], 1.0),
        matched_gt_index=torch.where(positive, matched, -1),
        counted_mask=positive | ~silenced,
    )


def _nearest_and_farthest(locations: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest of the four distances of equation (1): (R, 2), (B, M, 4) -> (B, R, M) each.

    The distances, in pixels, are compared one side at a time: stacked, they would be the largest tensor of a training
    step.
    """
    x, y = locations[:, None].unbind(-1)  # (R, 1)
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)  # (B, 1, M)
    nearest = farthest = x - x1
    for end, start in ((y, y1), (x2, x), (y2, y)):
        distance = end - start
        nearest = torch.minimum(nearest, distance)
        farthest = torch.maximum(farthest, distance)
    return nearest, farthest


def _farther_axis(locations: Tensor, centers: Tensor) -> Tensor:
    """Return the larger of the distances on the two axes: (R, 2), (B, M, 2) -> (B, R, M)."""
    x, y = locations[:, None].unbind(-1)  # (R, 1)
    center_x, center_y = centers[:, None].unbind(-1)  # (B, 1, M)
    return torch.maximum((x - center_x).abs_(), (y - center_y).abs_())


def _inside(distance: Tensor, border: float, inclusive: bool) -> Tensor:
    return distance >= border if inclusive else distance > border


@cache
def _bounds(
    ranges: tuple[tuple[float | None, ...], ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest distance of each level, (L,) each; cached, since a GPU is waited for."""
    pairs = [(low, float("inf") if high is None else high) for low, high in ranges]
    bounds = torch.tensor(pairs, dtype=dtype, device=device)
    return bounds[:, 0], bounds[:, 1]


def _all_background(gt_boxes: Tensor, locations: Tensor) -> LocationTargets:
    shape = (len(gt_boxes), len(locations))
    background = torch.full(shape, -1, dtype=torch.int64, device=locations.device)
    return LocationTargets(
        labels=background,
        target_ltrb=locations.new_ones((*shape, 4)),
        matched_gt_index=background,
        counted_mask=torch.ones(shape, dtype=torch.bool, device=locations.device),
    )
