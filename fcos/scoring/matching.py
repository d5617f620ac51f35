"""Match detections with objects for each class, area range and IoU threshold, exactly as COCOeval does.

The twelve metrics, the bootstrap replicates and the error analysis are all computed from these matches.

Shapes: I images, K classes, D detections, G ground-truth boxes, A area ranges, T IoU thresholds, P pairs, M matches.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.data.coco import CocoSplit
from fcos.scoring.protocol import AREA_RANGES, COCO, IOU_THRESHOLDS, MAX_DETECTIONS, Protocol

__all__ = ["AREA_RANGES", "IOU_THRESHOLDS", "MAX_DETECTIONS", "GroundTruth", "Matches", "ResultTable", "match"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_LARGEST_TABLE = 2**24  # most groups of image and class that are counted in an array; more are looked up by bisection
_MIN_THREADED = 20_000  # detections; fewer are matched faster than threads start


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
    def of(split: CocoSplit, protocol: Protocol = COCO) -> "GroundTruth":
        """Return the boxes of `split` in the order of its annotations."""
        objects = split.objects
        image_ids, category_ids = np.sort(split.image_ids), np.sort(np.array(split.category_ids, dtype=np.int64))
        return GroundTruth(
            image_ids=image_ids,
            category_ids=category_ids,
            image=np.searchsorted(image_ids, split.image_ids)[objects.image],
            label=np.searchsorted(category_ids, split.category_ids)[objects.label],
            boxes_xywh=np.ascontiguousarray(objects.boxes_xywh),
            crowd=np.ascontiguousarray(objects.crowd),
            ignored=objects.crowd[:, None] | protocol.outside(np.ascontiguousarray(objects.areas)),
        )

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        return len(self.category_ids)


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Results of a detector as columns, in the order of their file, which decides ties of scores."""

    image: Ints  # (D,): place in the ground truth's image_ids
    label: Ints  # (D,): place in its category_ids
    boxes_xywh: Floats  # (D, 4)
    score: Floats  # (D,)

    @staticmethod
    def of(results: Sequence[Mapping[str, Any]], truth: GroundTruth) -> "ResultTable":
        """Return the columns of a COCO results list whose images and classes are known."""
        return ResultTable(
            image=np.searchsorted(truth.image_ids, _column(results, "image_id")),
            label=np.searchsorted(truth.category_ids, _column(results, "category_id")),
            boxes_xywh=_boxes(results),
            score=np.array([result["score"] for result in results], dtype=float),
        )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, which: Ints | Bools) -> "ResultTable":
        """Return the results at the places `which`, or where the mask `which` is true."""
        places = np.flatnonzero(which) if which.dtype == bool else which
        # `take` is twice as fast as indexing.
        return ResultTable(
            image=self.image.take(places),
            label=self.label.take(places),
            boxes_xywh=self.boxes_xywh.take(places, axis=0),
            score=self.score.take(places),
        )


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Detections in the order of class and descending score, and the matched pairs of detections and objects.

    A detection that is not in `detection` at an area range and threshold is unmatched there: it is a false positive, or
    ignored if it is `outside` of the area range.
    """

    truth: GroundTruth
    image: Ints  # (D,)
    label: Ints  # (D,), ascending
    score: Floats  # (D,), descending within a class
    rank: Ints  # (D,): rank among the detections of its image and class, from 0
    boxes_xywh: Floats  # (D, 4)
    outside: Bools  # (D, A): whether its own area is outside of the range
    # The pairs, (M,) each, sorted by class, area range, threshold and detection:
    detection: Ints
    area: Ints
    threshold: Ints
    gt: Ints
    protocol: Protocol = COCO
    num_beyond: int = 0  # detections left out, beyond the limit per image and class

    @cached_property
    def is_ignored(self) -> Bools:
        """(M,): whether the object, and therefore the detection, is ignored at this area range."""
        ignored: Bools = self.truth.ignored[self.gt, self.area]
        return ignored

    @cached_property
    def curve(self) -> Ints:
        """(M,), ascending: a number for each combination of class, area range and threshold."""
        curve: Ints = (self.label_of_match * self.protocol.num_areas + self.area) * self.protocol.num_thresholds
        return curve + self.threshold

    def of_class(self, label: int) -> slice:
        """Return the slice of the detections of a class."""
        return slice(*np.searchsorted(self.label, [label, label + 1]).tolist())

    def matches_of_class(self, label: int) -> slice:
        """Return the slice of the pairs of a class."""
        return slice(*np.searchsorted(self.label_of_match, [label, label + 1]).tolist())

    @cached_property
    def label_of_match(self) -> Ints:
        """The label of each match (N,)."""
        return self.label[self.detection]


def match(results: Sequence[Mapping[str, Any]], split: CocoSplit, protocol: Protocol = COCO) -> Matches:
    """Return the matches of a COCO results list with the boxes of `split`; see `match_table`."""
    truth = GroundTruth.of(split, protocol)
    return match_table(ResultTable.of(results, truth), truth, protocol)


def match_table(results: ResultTable, truth: GroundTruth, protocol: Protocol = COCO) -> Matches:
    """Return the matches of results with objects, by class, area range and IoU threshold.

    At most 100 detections (`protocol.max_detections`) per image and class are used. As in COCOeval, detections with
    tied scores keep the order of `results`, and among tied IoUs the last annotation wins.
    """
    order, rank = _by_class(results, truth)
    kept = rank < protocol.max_detections
    if not kept.all():
        order, rank = order[kept], rank[kept]
    ordered = results[order]
    group = ordered.image * truth.num_classes + ordered.label
    truth_group = truth.image * truth.num_classes + truth.label
    bounds = _class_blocks(ordered.label, truth.num_classes)
    with ThreadPoolExecutor(len(bounds)) as pool:  # numpy releases the GIL in the slow parts
        blocks = list(pool.map(lambda b: _match_block(ordered, rank, group, truth, truth_group, protocol, *b), bounds))
    detection, area, threshold, gt = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return Matches(
        truth=truth,
        image=ordered.image,
        label=ordered.label,
        score=ordered.score,
        rank=rank,
        boxes_xywh=ordered.boxes_xywh,
        outside=protocol.outside(ordered.boxes_xywh[:, 2] * ordered.boxes_xywh[:, 3]),
        detection=detection,
        area=area,
        threshold=threshold,
        gt=gt,
        protocol=protocol,
        num_beyond=len(results) - len(order),
    )


def _by_class(results: ResultTable, truth: GroundTruth) -> tuple[Ints, Ints]:
    """Return the order (D,) by class, descending score, image and place, and in it the rank (D,) within the image.

    The order equals COCOeval's two stable sorts: by score within each image and class, then by score over all images.
    """
    by_image = np.argsort(_narrow(results.image), kind="stable")
    order = by_image.take(_stable_argsort(-results.score.take(by_image)))
    order = order.take(np.argsort(_narrow(results.label.take(order)), kind="stable"))
    group = results.label.take(order) * truth.num_images + results.image.take(order)
    by_group = _stable_argsort(group)
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_group] = _place_in_run(group.take(by_group))
    return order, rank


def _stable_argsort(values: NDArray[Any]) -> Ints:
    """Return numpy's stable argsort, computed by its faster unstable one; only ties are sorted again, by place."""
    order = np.argsort(values)
    ordered = values[order]
    new = ordered[1:] != ordered[:-1]
    if new.all():
        return order
    run = np.concatenate(([0], np.cumsum(new)))
    size = len(values)
    return np.sort(run * size + order) % size


def _narrow(values: Ints) -> NDArray[Any]:
    """Return the values as uint16 if they fit, since numpy sorts these by counting."""
    return values.astype(np.uint16) if len(values) and values.max() < 2**16 else values


def _class_blocks(label: Ints, num_classes: int) -> list[tuple[int, int]]:
    """Return a (begin, end) for each processor, with whole classes and about equally many detections."""
    parts = min(os.cpu_count() or 1, num_classes) if len(label) >= _MIN_THREADED else 1
    cuts = {0, len(label)}
    for part in range(1, parts):
        cuts.add(int(np.searchsorted(label, label[len(label) * part // parts])))
    return list(pairwise(sorted(cuts))) or [(0, 0)]


def _match_block(
    results: ResultTable,
    rank: Ints,
    group: Ints,
    truth: GroundTruth,
    truth_group: Ints,
    protocol: Protocol,
    begin: int,
    end: int,
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the pairs (M,) of the detections `begin` to `end`: detections, area ranges, thresholds and objects."""
    block = slice(begin, end)
    detection, gt, iou = overlaps(results.boxes_xywh[block], group[block], truth, truth_group)
    enough = np.flatnonzero(iou >= protocol.iou_thresholds[0])
    detection, gt, iou = detection.take(enough), gt.take(enough), iou.take(enough)
    step = _step_of(detection, group[block], rank[block])
    found = _greedy(detection, gt, iou, step, truth, protocol)
    by_class = np.lexsort((found[0], found[2], found[1], results.label[block][found[0]]))
    detection, area, threshold, gt = (column.take(by_class) for column in found)
    return detection + begin, area, threshold, gt


def overlaps(boxes_xywh: Floats, group: Ints, truth: GroundTruth, truth_group: Ints) -> tuple[Ints, Ints, Floats]:
    """Return all overlapping pairs of detection and object in a group: detections, objects and IoU, (P,) each.

    The IoU with a crowd region is the share of the detection that lies in it. The operations are those of COCOeval's
    C code, so that the result is equal bit for bit.
    """
    by_group = np.argsort(truth_group, kind="stable")
    first, counts = _runs_of(truth_group[by_group], group)
    detection = np.repeat(np.arange(len(group)), counts)
    gt = by_group[np.repeat(first, counts) + _place_in_run(detection)]
    x, y, w, h = boxes_xywh.T.take(detection, axis=1)
    gt_x, gt_y, gt_w, gt_h = truth.boxes_xywh.T.take(gt, axis=1)
    width = np.minimum(w + x, gt_w + gt_x) - np.maximum(x, gt_x)
    height = np.minimum(h + y, gt_h + gt_y) - np.maximum(y, gt_y)
    touch = np.flatnonzero((width > 0) & (height > 0))
    detection, gt = detection.take(touch), gt.take(touch)
    intersection = (width * height).take(touch)
    area = (w * h).take(touch)
    union = np.where(truth.crowd.take(gt), area, area + (gt_w * gt_h).take(touch) - intersection)
    return detection, gt, intersection / union


def _runs_of(ordered: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Return where the run of each of `wanted` begins in the ascending `ordered`, and its length."""
    size = int(max(ordered.max(initial=-1), wanted.max(initial=-1))) + 1
    if size > _LARGEST_TABLE:
        first, last = (np.searchsorted(ordered, wanted, side=side) for side in ("left", "right"))
        return first, last - first
    counts = np.bincount(ordered, minlength=size)
    return (np.cumsum(counts) - counts)[wanted], counts[wanted]


def _step_of(detection: Ints, group: Ints, rank: Ints) -> Ints:
    """Return (P,): index of each detection within its group, among the detections that have a pair."""
    having = detection[np.flatnonzero(np.diff(detection, prepend=-1))]  # `detection` is ascending
    having = having[np.lexsort((rank[having], group[having]))]
    step = np.zeros(len(group), dtype=np.int64)
    step[having] = _place_in_run(group[having])
    return step[detection]


def _greedy(
    detection: Ints, gt: Ints, iou: Floats, step: Ints, truth: GroundTruth, protocol: Protocol
) -> tuple[Ints, Ints, Ints, Ints]:
    """Run COCOeval's greedy matching for all images, classes, area ranges and thresholds at once.

    Returns:
        (M,) detections, area ranges, thresholds and objects.
    """
    # The object with the largest IoU wins, the last one of equal IoUs; in sorted order it is the last of its run.
    order = np.lexsort((gt, iou, detection, step))
    detection, gt, iou, step = detection[order], gt[order], iou[order], step[order]
    taken = np.zeros((len(truth.label), protocol.num_areas, protocol.num_thresholds), dtype=bool)
    limits = np.minimum(protocol.iou_thresholds, 1 - 1e-10)
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
        # An ignored object is matched only if no other one is available.
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
    """Return 0, 1, 2 ... within each run of equal neighbours."""
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1]))) if len(values) else np.zeros(0, int)
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def _column(records: Sequence[Mapping[str, Any]], key: str) -> Ints:
    return np.array([record[key] for record in records], dtype=np.int64)


def _boxes(records: Sequence[Mapping[str, Any]]) -> Floats:
    return np.array([record["bbox"] for record in records], dtype=float).reshape(-1, 4)
