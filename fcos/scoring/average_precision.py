"""Compute COCO's metrics from matches with an integer weight for each image; weights of 1 reproduce COCOeval.

A weight of m counts an image m times, so a bootstrap replicate is just another set of weights and needs no new
matching. Precision falls at every false positive, so its envelope is evaluated only at true positives.

Shapes: B sets of weights, I images, K classes, A area ranges, T IoU thresholds, R = 101 recall steps, N true positives.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from fcos.scoring.matching import Bools, Floats, Ints, Matches
from fcos.scoring.protocol import COCO, Protocol

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
AP_METRICS = METRICS[:6]
CLASS_METRICS = ("AP", "AP50", "AP75", "AR100")
RECALL_STEPS = np.linspace(0.0, 1.0, 101)
_EPS = np.spacing(1)
_EXACT = 2**24  # whole numbers up to here are exact in float32
_BLOCK = 256  # sets of weights at a time, so that the data of a curve fit into the processor's cache


@dataclass(frozen=True, kw_only=True)
class Scores:
    """AP and recall under B sets of weights; NaN where a class has no objects."""

    ap: Floats  # (B, K, A, T)
    recall: Floats  # (B, K, A, T), with 100 detections
    recall_1: Floats  # (B, K, T), with 1 detection per image and class, all areas
    recall_10: Floats  # (B, K, T)
    protocol: Protocol = COCO

    def metrics(self) -> Floats:
        """Return the twelve metrics (B, 12) in the order of METRICS."""
        return np.stack([_mean(column, axis=(1, 2)) for column in self._columns()], axis=1)

    def class_metrics(self) -> Floats:
        """Return the twelve metrics of each class (B, K, 12) in the order of METRICS."""
        return np.stack([_mean(column, axis=2) for column in self._columns()], axis=2)

    def _columns(self) -> list[Floats]:
        """Return the values (B, K, thresholds) that each of METRICS averages."""
        ap, recall = self.ap, self.recall
        at_50, at_75 = (self.protocol.places_of(iou) for iou in (0.5, 0.75))
        columns = [ap[:, :, 0], ap[:, :, 0, at_50], ap[:, :, 0, at_75], *(ap[:, :, area] for area in (1, 2, 3))]
        return [*columns, self.recall_1, self.recall_10, *(recall[:, :, a] for a in range(self.protocol.num_areas))]

    def per_class(self) -> Floats:
        """Return the metrics of each class (B, K, 4) in the order of CLASS_METRICS."""
        ap = self.ap[:, :, 0]
        at_50, at_75 = (ap[..., self.protocol.places_of(iou)] for iou in (0.5, 0.75))
        return np.stack([_mean(values, axis=2) for values in (ap, at_50, at_75, self.recall[:, :, 0])], axis=2)


def score(matches: Matches, weights: ArrayLike) -> Scores:
    """Return AP and recall under each set of image weights.

    Args:
        weights: (B, I) how often each image counts; whole numbers.
    """
    of_image = np.ascontiguousarray(np.asarray(weights, dtype=float).T)  # (I, B)
    num_sets = of_image.shape[1]
    truth, protocol = matches.truth, matches.protocol
    num_areas, num_thresholds = protocol.num_areas, protocol.num_thresholds
    counted, area = np.nonzero(~truth.ignored)
    num_objects = _counts(
        truth.label[counted] * num_areas + area, truth.image[counted], truth.num_classes * num_areas, of_image
    ).reshape(truth.num_classes, num_areas, num_sets)  # (K, A, B)

    true_positive = ~matches.is_ignored
    image = matches.image[matches.detection]

    def recall(kept: Bools) -> Floats:
        kept = kept & true_positive
        rows = truth.num_classes * num_areas * num_thresholds
        found = _counts(matches.curve[kept], image[kept], rows, of_image)
        share = _divide(found.reshape(truth.num_classes, num_areas, num_thresholds, num_sets), num_objects[:, :, None])
        return np.moveaxis(share, -1, 0)

    def recall_of_all_areas(most: int) -> Floats:
        # The copy lets the memory of the other area ranges be freed.
        return recall((rank < most) & (matches.area == 0))[:, :, 0].copy()

    rank = matches.rank[matches.detection]
    ap = np.zeros((truth.num_classes, num_areas, num_thresholds, num_sets))
    # Threads suffice, since numpy and scipy release the GIL while they compute.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda label: _class_ap(matches, label, of_image, num_objects[label], ap[label]), range(len(ap))))
    ap[np.broadcast_to(num_objects[:, :, None] == 0, ap.shape)] = np.nan
    return Scores(
        ap=np.moveaxis(ap, -1, 0),
        recall=recall(np.ones_like(true_positive)),
        recall_1=recall_of_all_areas(1),
        recall_10=recall_of_all_areas(10),
        protocol=protocol,
    )


def joined(blocks: Sequence[Scores]) -> Scores:
    """Return the concatenated scores of several blocks of weights."""
    names = [field.name for field in fields(Scores) if field.name != "protocol"]
    columns = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in names}
    return Scores(**columns, protocol=blocks[0].protocol)


def precision_at_recall(matches: Matches) -> Floats:
    """Return the envelope's precision (T, R, K, A) at each recall step, with all weights 1; -1 without objects.

    The result equals COCOeval's `eval["precision"]` at 100 detections bit for bit.
    """
    truth, protocol = matches.truth, matches.protocol
    num_curves = truth.num_classes * protocol.num_areas * protocol.num_thresholds
    num_objects = np.repeat(_objects(matches), protocol.num_thresholds)  # of each curve
    counts = ~matches.is_ignored
    curve = matches.curve[counts]
    num_found = np.bincount(curve, minlength=num_curves)
    start = np.cumsum(num_found) - num_found
    found = np.arange(1, len(curve) + 1) - start[curve]
    precision = found / (_seen(matches)[counts] + _EPS)
    objects = num_objects[:, None]
    needed = _needed(np.maximum(objects, 1))  # (curves, R)
    reached = (needed <= num_found[:, None]) & (objects > 0)
    at_steps = np.where(objects > 0, np.zeros(needed.shape), -1.0)
    if reached.any():
        # Curves are contiguous, so that the largest precision between two steps is the maximum of a segment.
        places = (start[:, None] + needed - 1)[reached]
        at_steps[reached] = np.maximum.reduceat(precision, places)
    # The envelope is the largest precision at this recall or a higher one.
    at_steps = np.maximum.accumulate(at_steps[:, ::-1], axis=1)[:, ::-1]
    shape = (truth.num_classes, protocol.num_areas, protocol.num_thresholds, len(RECALL_STEPS))
    return np.ascontiguousarray(at_steps.reshape(shape).transpose(2, 3, 0, 1))


def recall_of(matches: Matches, most: int) -> Floats:
    """Return (K, A, T): share of the objects found by the `most` highest-scoring detections per image and class."""
    protocol = matches.protocol
    shape = (matches.truth.num_classes, protocol.num_areas, protocol.num_thresholds)
    kept = ~matches.is_ignored & (matches.rank[matches.detection] < most)
    found = np.bincount(matches.curve[kept], minlength=math.prod(shape)).reshape(shape)
    return _divide(found.astype(float), _objects(matches).reshape(shape[:2])[:, :, None])


def _objects(matches: Matches) -> Ints:
    """Return the number of objects, (K * A,)."""
    truth, num_areas = matches.truth, matches.protocol.num_areas
    counted, area = np.nonzero(~truth.ignored)
    return np.bincount(truth.label[counted] * num_areas + area, minlength=truth.num_classes * num_areas)


def _needed(num_objects: Ints) -> Ints:
    """Return (N, R): the smallest number of found objects that reaches each recall step; `num_objects` is (N, 1).

    The comparison divides, as COCOeval does, since a product rounds differently.
    """
    needed = np.maximum(np.floor(RECALL_STEPS * num_objects).astype(np.int64) - 1, 1)
    for _ in range(3):
        needed += needed / num_objects < RECALL_STEPS
    return needed


def _seen(matches: Matches) -> Ints:
    """Return (M,): detections of the class up to this one that are not ignored at its area range and threshold."""
    num_areas = matches.protocol.num_areas
    inside = np.zeros((len(matches.label) + 1, num_areas), dtype=np.int64)
    np.cumsum(~matches.outside, axis=0, out=inside[1:])
    first = np.searchsorted(matches.label, matches.label_of_match)
    own = ~matches.outside[matches.detection, matches.area]
    # A detection that is matched with an object of the range counts, whatever its own area; one that is matched
    # with an ignored object does not.
    change = np.cumsum((~matches.is_ignored).astype(np.int64) - own)
    starts = np.flatnonzero(np.diff(matches.curve, prepend=-1))
    before = np.repeat(change[starts - 1] * (starts > 0), np.diff(np.append(starts, len(change))))
    seen: Ints = inside[matches.detection + 1, matches.area] - inside[first, matches.area] + change - before
    return seen


def _class_ap(matches: Matches, label: int, of_image: Floats, num_objects: Floats, ap: Floats) -> None:
    """Fill `ap` (A, T, B) of one class."""
    for begin in range(0, of_image.shape[1], _BLOCK):
        block = slice(begin, begin + _BLOCK)
        objects = np.maximum(num_objects[:, block], 1)  # avoids 0 / 0; without objects nothing is found
        weights = _whole_numbers(of_image[:, block], most=matches.of_class(label))
        for area, threshold, found, seen in _curves(matches, label, weights):
            if len(found):
                steps = _steps_reached(found / objects[area])
                steps[1:] -= steps[:-1].copy()
                ap[area, threshold, block] = np.einsum("nb,nb->b", _envelope(found, seen), steps) / len(RECALL_STEPS)


def _whole_numbers(weights: Floats, *, most: slice) -> Floats:
    """Return the weights as float32 if all sums of a class are exact in it (below 2**24), else as float64."""
    largest = weights.max(initial=0) * (most.stop - most.start)
    return np.ascontiguousarray(weights, dtype=np.float32 if largest < _EXACT else np.float64)


def _curves(matches: Matches, label: int, of_image: Floats) -> Iterator[tuple[int, int, Floats, Floats]]:
    """Yield the curve of a class for each area range and threshold at which it has matches.

    Yields:
        area range, threshold and, at each true positive in order of descending score, the weighted number of true
        positives (N, B) and of all detections that are not ignored (N, B) up to there.
    """
    of_class, of_match = matches.of_class(label), matches.matches_of_class(label)
    image, outside = matches.image[of_class], matches.outside[of_class]
    detection = matches.detection[of_match] - of_class.start
    area, threshold, ignored = matches.area[of_match], matches.threshold[of_match], matches.is_ignored[of_match]
    # Sums of weights are needed only at matches; the detections between them are summed once for all thresholds.
    marks = np.unique(detection)
    mark = np.searchsorted(marks, np.arange(len(image)))
    before = [mark < len(marks)] & ~outside.T  # (A, D of the class)
    inside = [_running(np.add, _counts_in_order(mark[b], image[b], len(marks), of_image)) for b in before]
    key = area * matches.protocol.num_thresholds + threshold
    starts = np.flatnonzero(np.diff(key, prepend=-1)).tolist()
    for begin, end in pairwise([*starts, len(key)]):
        matched, counts = detection[begin:end], ~ignored[begin:end]
        positive = matched[counts]
        at = int(area[begin])
        seen = inside[at][np.searchsorted(marks, positive)]
        # A detection that is matched with an object of the range counts, whatever its own area; one that is matched
        # with an ignored object does not.
        sign = counts.astype(int) - ~outside[matched, at]
        if sign.any():
            place = np.searchsorted(positive, matched)
            odd = (sign != 0) & (place < len(positive))
            change = _counts_in_order(place[odd], image[matched[odd]], len(positive), of_image, sign[odd])
            seen += _running(np.add, change)
        yield at, int(threshold[begin]), _running(np.add, of_image[image[positive]]), seen


def _envelope(found: Floats, seen: Floats) -> Floats:
    """Return (N, B): the largest precision at this recall or a higher one."""
    precision = np.divide(found, np.add(seen, _EPS, dtype=np.float64), dtype=np.float64)
    return _running(np.maximum, precision[::-1])[::-1]


def _running(function: np.ufunc, rows: Floats) -> Floats:
    """Return `function.accumulate` over rows (N, B) >= 0; numpy's own runs column by column and is much slower."""
    width = math.isqrt(len(rows)) + 1
    padded = np.zeros((-(-len(rows) // width) * width, rows.shape[1]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    blocks = padded.reshape(-1, width, rows.shape[1])
    for place in range(1, width):
        function(blocks[:, place], blocks[:, place - 1], out=blocks[:, place])
    for before, block in pairwise(blocks):
        function(block, before[-1], out=block)
    return padded[: len(rows)]


def _steps_reached(recall: Floats) -> Floats:
    """Return the number of the 101 recall steps that are at most `recall`."""
    nearest = np.rint(recall * (len(RECALL_STEPS) - 1))
    return nearest + (RECALL_STEPS.take(nearest.astype(np.intp), mode="clip") <= recall)


def _counts(row: Ints, image: Ints, num_rows: int, of_image: Floats) -> Floats:
    """Return (num_rows, B): the sum of the weights of the images in each row."""
    from scipy.sparse import csr_array  # imported late, since it takes as long as computing the twelve metrics

    sums: Floats = csr_array((np.ones(len(row)), (row, image)), shape=(num_rows, len(of_image))) @ of_image
    return sums


def _counts_in_order(row: Ints, image: Ints, num_rows: int, of_image: Floats, sign: Ints | None = None) -> Floats:
    """Like `_counts`, but faster, for ascending rows; each weight is multiplied by its `sign`."""
    ones = np.ones(len(row), dtype=of_image.dtype) if sign is None else sign.astype(of_image.dtype)
    from scipy.sparse import csr_array

    starts = np.searchsorted(row, np.arange(num_rows + 1))
    sums: Floats = csr_array((ones, image, starts), shape=(num_rows, len(of_image))) @ of_image
    return sums


def _divide(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = part / whole
    return share


def _mean(values: Floats, *, axis: int | tuple[int, ...]) -> Floats:
    """Return the mean of the values that are not NaN, or NaN if all are."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0).sum(axis=axis), defined.sum(axis=axis))
