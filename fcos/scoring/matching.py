"""Which detection finds which object: once for each class, area range and IoU threshold, exactly as COCOeval does it.

Everything after this (the twelve numbers, 1,000 replicates, the error analysis) only counts what stands here.

Shapes: I images, K classes, D detections, G ground-truth boxes, A area ranges, T IoU thresholds, P pairs, M matches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.data.coco import CocoSplit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# As COCOeval builds them: the same floats, so that a tie at a threshold falls on the same side.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MAX_DETECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The boxes of a split; images and classes are numbered in the order of their ids."""

    image_ids: Ints  # (I,)
    category_ids: Ints  # (K,)
    image: Ints  # (G,)
    label: Ints  # (G,)
    boxes_xywh: Floats  # (G, 4)
    crowd: Bools  # (G,)
    ignored: Bools  # (G, A): crowd, or outside of the area range

    @staticmethod
    def of(split: CocoSplit) -> "GroundTruth":
        """The boxes of `split`, in the order of its annotations."""
        image_ids = np.sort(np.array([image["id"] for image in split.images], dtype=np.int64))
        category_ids = np.sort(np.array(split.category_ids, dtype=np.int64))
        crowd = np.array([bool(a.get("iscrowd", 0)) for a in split.annotations], dtype=bool)
        area = np.array([a["area"] for a in split.annotations], dtype=float)
        return GroundTruth(
            image_ids=image_ids,
            category_ids=category_ids,
            image=np.searchsorted(image_ids, _column(split.annotations, "image_id")),
            label=np.searchsorted(category_ids, _column(split.annotations, "category_id")),
            boxes_xywh=_boxes(split.annotations),
            crowd=crowd,
            ignored=crowd[:, None] | _outside(area),
        )

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        return len(self.category_ids)


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Detections by class and falling score, and the pairs of detection and object that belong together.

    A detection that is not in `detection` at an area range and threshold found nothing there; it is a false positive,
    or ignored where it is `outside` of the area range.
    """

    truth: GroundTruth
    image: Ints  # (D,)
    label: Ints  # (D,), ascending
    score: Floats  # (D,), falling within a class
    rank: Ints  # (D,): place among the detections of its image and class
    boxes_xywh: Floats  # (D, 4)
    outside: Bools  # (D, A): its own area is not in the range
    # (M,) each, by class, area range, threshold, detection:
    detection: Ints
    area: Ints
    threshold: Ints
    gt: Ints

    @cached_property
    def is_ignored(self) -> Bools:
        """(M,): the object is ignored at this area range, and so is the detection."""
        ignored: Bools = self.truth.ignored[self.gt, self.area]
        return ignored

    def of_class(self, label: int) -> slice:
        """Where the detections of a class stand."""
        return slice(*np.searchsorted(self.label, [label, label + 1]).tolist())

    def matches_of_class(self, label: int) -> slice:
        """Where the pairs of a class stand."""
        return slice(*np.searchsorted(self._label_of_match, [label, label + 1]).tolist())

    @cached_property
    def _label_of_match(self) -> Ints:
        return self.label[self.detection]


def match(results: Sequence[Mapping[str, Any]], split: CocoSplit) -> Matches:
    """Match a COCO results list with the boxes of `split`.

    At most 100 detections of an image and class are looked at. Of tied scores the first in the list comes first, of
    tied overlaps the last annotation wins: COCOeval's rules.
    """
    truth = GroundTruth.of(split)
    image = np.searchsorted(truth.image_ids, _column(results, "image_id"))
    label = np.searchsorted(truth.category_ids, _column(results, "category_id"))
    score = np.array([result["score"] for result in results], dtype=float)
    boxes_xywh = _boxes(results)

    group = image * truth.num_classes + label
    order = np.lexsort((-score, group))  # stable, as COCOeval's mergesort
    rank = _place_in_run(group[order])
    order, rank = order[rank < MAX_DETECTIONS], rank[rank < MAX_DETECTIONS]
    by_class = np.lexsort((-score[order], label[order]))  # stable: of tied scores the lower image comes first
    order, rank = order[by_class], rank[by_class]
    image, label, score, boxes_xywh = image[order], label[order], score[order], boxes_xywh[order]

    detection, gt, iou = overlaps(
        boxes_xywh, image * truth.num_classes + label, truth, truth.image * truth.num_classes + truth.label
    )
    enough = iou >= IOU_THRESHOLDS[0]
    step = _step_of(detection[enough], image * truth.num_classes + label, rank)
    found = _greedy(detection[enough], gt[enough], iou[enough], step, truth)
    by_class = np.lexsort((found[0], found[2], found[1], label[found[0]]))
    detection, area, threshold, gt = (column[by_class] for column in found)
    return Matches(
        truth=truth,
        image=image,
        label=label,
        score=score,
        rank=rank,
        boxes_xywh=boxes_xywh,
        outside=_outside(boxes_xywh[:, 2] * boxes_xywh[:, 3]),
        detection=detection,
        area=area,
        threshold=threshold,
        gt=gt,
    )


def overlaps(boxes_xywh: Floats, group: Ints, truth: GroundTruth, truth_group: Ints) -> tuple[Ints, Ints, Floats]:
    """All pairs of a detection and an object of the same group that overlap: (P,) detections, (P,) objects, (P,) IoU.

    The IoU with a crowd is the share of the detection that lies in it. The arithmetic is that of COCOeval's C code,
    operation by operation, so that the result is the same to the last bit.
    """
    by_group = np.argsort(truth_group, kind="stable")
    first, last = (np.searchsorted(truth_group[by_group], group, side=side) for side in ("left", "right"))
    counts = last - first
    detection = np.repeat(np.arange(len(group)), counts)
    gt = by_group[np.repeat(first, counts) + _place_in_run(detection)]
    x, y, w, h = boxes_xywh[detection].T
    gt_x, gt_y, gt_w, gt_h = truth.boxes_xywh[gt].T
    width = np.minimum(w + x, gt_w + gt_x) - np.maximum(x, gt_x)
    height = np.minimum(h + y, gt_h + gt_y) - np.maximum(y, gt_y)
    touch = (width > 0) & (height > 0)
    intersection = (width * height)[touch]
    area = (w * h)[touch]
    union = np.where(truth.crowd[gt[touch]], area, area + (gt_w * gt_h)[touch] - intersection)
    return detection[touch], gt[touch], intersection / union


def _step_of(detection: Ints, group: Ints, rank: Ints) -> Ints:
    """(P,): the how-manieth of its group each detection is, among those that have a pair."""
    having = np.unique(detection)
    having = having[np.lexsort((rank[having], group[having]))]
    step = np.zeros(len(group), dtype=np.int64)
    step[having] = _place_in_run(group[having])
    return step[detection]


def _greedy(detection: Ints, gt: Ints, iou: Floats, step: Ints, truth: GroundTruth) -> tuple[Ints, Ints, Ints, Ints]:
    """COCOeval's matching, one detection after another: of all images, classes, area ranges and thresholds at once.

    Returns:
        (M,) detections, area ranges, thresholds and objects.
    """
    # Where several objects can be had the largest overlap wins, of equal ones the last: so the last of a sorted run.
    order = np.lexsort((gt, iou, detection, step))
    detection, gt, iou, step = detection[order], gt[order], iou[order], step[order]
    taken = np.zeros((len(truth.label), len(AREA_RANGES), len(IOU_THRESHOLDS)), dtype=bool)
    limits = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    found = []
    for begin, end in pairwise([0, *np.cumsum(np.bincount(step)).tolist()]):
        of_step = slice(begin, end)
        objects = gt[of_step]
        able = iou[of_step, None, None] >= limits  # (P, 1, T)
        able = able & (~taken[objects] | truth.crowd[objects, None, None])  # (P, A, T)
        ignored = truth.ignored[objects][:, :, None]
        place = np.arange(1, end - begin + 1)[:, None, None]
        starts = np.flatnonzero(np.diff(detection[of_step], prepend=-1))
        best = np.maximum.reduceat(np.where(able & ~ignored, place, 0), starts)
        # An ignored object is taken only where no other can be had.
        best = np.where(best > 0, best, np.maximum.reduceat(np.where(able & ignored, place, 0), starts))
        which, area, threshold = np.nonzero(best)
        won = objects[best[which, area, threshold] - 1]
        taken[won, area, threshold] = True
        found.append((detection[of_step][starts[which]], area, threshold, won))
    if not found:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing, nothing
    detections, areas, thresholds, objects = (np.concatenate(column) for column in zip(*found, strict=True))
    return detections, areas, thresholds, objects


def _place_in_run(values: NDArray[Any]) -> Ints:
    """0, 1, 2 ... within each run of equal neighbours."""
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1]))) if len(values) else np.zeros(0, int)
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def _column(records: Sequence[Mapping[str, Any]], key: str) -> Ints:
    return np.array([record[key] for record in records], dtype=np.int64)


def _boxes(records: Sequence[Mapping[str, Any]]) -> Floats:
    return np.array([record["bbox"] for record in records], dtype=float).reshape(-1, 4)


def _outside(area: Floats) -> Bools:
    """(N, A): whether an area is out of each range; both ends belong to a range."""
    low, high = np.array(list(AREA_RANGES.values())).T
    outside: Bools = (area[:, None] < low) | (area[:, None] > high)
    return outside
