"""Error analysis of a model: kinds of errors, precision and recall, calibration, hard objects and images.

The whole analysis is computed from the matches; docs/error-analysis.md explains each number.

Shapes: I images, B replicates, K classes, A area ranges, T IoU thresholds, D detections, G ground-truth boxes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fcos.data.coco import CocoSplit
from fcos.scoring.average_precision import precision_at_recall, score
from fcos.scoring.bootstrap import Drawn, Sample, Support, estimate
from fcos.scoring.errors import FOREGROUND_IOU, SHOWN_SCORE, Outcome, error_kinds
from fcos.scoring.matching import AREA_RANGES, Bools, Floats, Ints, Matches, overlaps
from fcos.scoring.numbers import estimate_json

Row = dict[str, Any]
MAX_REPLICATES = 200  # enough for the interval in a figure, and five times as fast as the 1,000 of a table
CROWDING = {"1": (1, 1), "2-3": (2, 3), "4-7": (4, 7), "8 and more": (8, None)}  # objects in an image
SURE_SCORE = 0.5  # score above which detections in images without objects are counted
NUM_WORST = 10
NUM_BINS = 10
_AP = ("AP", "AP50")


def analyse(matches: Matches, split: CocoSplit, weights: ArrayLike, *, confidence: float) -> Row:
    """Return the error analysis of one run as JSON data; undefined numbers are None.

    Args:
        weights: (B, I) bootstrap samples of `draw_weights`, of which the first 200 are used, only for the intervals of
            `by_size` and `by_crowding`; with (0, I) there are no intervals.
        confidence: confidence level of those intervals.

    Returns:
        "errors" (`error_kinds`), "precision_recall", "confusion", "by_size", "by_crowding", "calibration" and
        "worst_images", as documented at the functions of this module.
    """
    draws = np.asarray(weights)[:MAX_REPLICATES]
    outcome = Outcome.of(matches)
    precision = precision_at_recall(matches)
    return {
        "errors": error_kinds(matches, outcome),
        "precision_recall": _precision_recall(precision[..., 0], split),
        "confusion": _confusion(matches, split),
        "by_size": _by_size(matches, draws, confidence),
        "by_crowding": _by_crowding(matches, outcome, draws, confidence),
        "calibration": _calibration(matches, outcome),
        "worst_images": _worst_images(matches, outcome, split),
    }


def _precision_recall(precision: Floats, split: CocoSplit) -> Row:
    """Return the precision at the 101 recall steps, rounded to four digits.

    Args:
        precision: (T, R, K) over all areas; -1 for a class without objects.

    Returns:
        {"mean": {"0.50": list, "0.75": list}, "per_class": [{"category_id", "name", "0.50": list}]}: the mean is over
        the classes with objects; the other classes have None.
    """
    has_objects = precision[0, 0] >= 0
    means = {"0.50": precision[0][:, has_objects], "0.75": precision[5][:, has_objects]}
    categories = sorted(split.categories, key=lambda category: int(category["id"]))
    return {
        "mean": {iou: _rounded(curves.mean(axis=1)) if curves.size else None for iou, curves in means.items()},
        "per_class": [
            {"category_id": category["id"], "name": category["name"], "0.50": _rounded(curve) if known else None}
            for category, curve, known in zip(categories, precision[0].T, has_objects, strict=True)
        ],
    }


def _confusion(matches: Matches, split: CocoSplit) -> Row:
    """Return the confusion matrix of the classes and the background.

    Detections with a score of at least 0.3 are matched, highest score first, with the unmatched object of any class
    that has the largest IoU, which must be at least 0.5.

    Returns:
        {"min_score", "labels": names with "background" last, "counts": [[label of the object, label of the detection,
        count], ...] without zeros}: an object without a detection has the detection label background; a detection
        without an object has the object label background, unless it is ignored because it lies on a crowd region.
    """
    truth = matches.truth
    ignored, background = truth.ignored[:, 0], truth.num_classes
    sure = np.flatnonzero((matches.score >= SHOWN_SCORE) & ~matches.outside[:, 0])
    sure = sure[np.lexsort((matches.image[sure], -matches.score[sure]))]
    place, gt, iou = overlaps(matches.boxes_xywh[sure], matches.image[sure], truth, truth.image)
    near = iou >= FOREGROUND_IOU
    order = np.lexsort((gt[near], -iou[near], place[near]))
    of_object, of_detection = np.full(len(truth.label), -1), np.full(len(sure), -1)
    on_crowd = np.zeros(len(sure), dtype=bool)
    for detection, wanted in zip(place[near][order].tolist(), gt[near][order].tolist(), strict=True):
        if ignored[wanted]:
            on_crowd[detection] = True
        elif of_detection[detection] < 0 and of_object[wanted] < 0:
            of_detection[detection], of_object[wanted] = wanted, detection
    labels = matches.label[sure]
    called = np.where(of_object >= 0, labels[of_object] if len(sure) else background, background)
    nothing = (of_detection < 0) & ~on_crowd
    pairs = np.concatenate(
        (
            np.stack((truth.label, called), axis=1)[~ignored],
            np.stack((np.full(len(sure), background), labels), axis=1)[nothing],
        )
    )
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    names = {category["id"]: category["name"] for category in split.categories}
    nothing_there = "background" if "background" not in names.values() else "(background)"
    return {
        "min_score": SHOWN_SCORE,
        "labels": [*(names[category_id] for category_id in truth.category_ids.tolist()), nothing_there],
        "counts": [[*cell, count] for cell, count in zip(cells.tolist(), counts.tolist(), strict=True)],
    }


def _by_size(matches: Matches, draws: Ints, confidence: float) -> Row:
    """Return AP and AP50 for COCO's three area ranges.

    Returns:
        {"small": {"num_objects", "AP", "AP50", "intervals": {"AP": {"low", "high"}, "AP50": ...}}, ...}
    """
    everywhere = np.ones(matches.truth.num_images, dtype=bool)
    ap = score(_part(matches, everywhere, matches.area > 0), _with_point(draws)).ap[:, :, 1:]  # (1 + B, K, 3, T)
    names = list(AREA_RANGES)[1:]
    sizes = {}
    for area, (name, ignored) in enumerate(zip(names, matches.truth.ignored[:, 1:].T, strict=True)):
        num_images = len(np.unique(matches.truth.image[~ignored]))
        numbers = _ap_with_intervals(_ap_and_ap50(ap[:, :, area]), num_images, confidence)
        sizes[name] = {"num_objects": int((~ignored).sum()), **numbers}
    return sizes


def _by_crowding(matches: Matches, outcome: Outcome, draws: Ints, confidence: float) -> Row:
    """Group the images by their number of objects; a group's AP is computed on its images alone.

    Returns:
        {"groups": [{"objects": "1", "num_images", "num_objects", "AP", "AP50", "intervals"}, ...],
        "empty": {"num_images", "num_detections"}}: "empty" has the images without objects and the number of their
        detections with a score above 0.5.
    """
    truth = matches.truth
    objects = np.bincount(truth.image[~truth.ignored[:, 0]], minlength=truth.num_images)
    point = _with_point(draws)
    groups = []
    for name, (least, most) in CROWDING.items():
        inside = (objects >= least) & (objects <= (most or np.inf))
        ap = score(_part(matches, inside, matches.area == 0), point * inside).ap[:, :, 0]
        counts = {"num_images": int(inside.sum()), "num_objects": int(objects[inside].sum())}
        numbers = _ap_with_intervals(_ap_and_ap50(ap), counts["num_images"], confidence)
        groups.append({"objects": name, **counts, **numbers})
    empty = objects == 0
    sure = outcome.false_positive & empty[matches.image] & (matches.score > SURE_SCORE)
    return {"groups": groups, "empty": {"num_images": int(empty.sum()), "num_detections": int(sure.sum())}}


def _calibration(matches: Matches, outcome: Outcome) -> Row:
    """Compare the score with the precision at IoU 0.5 in ten bins of equal width; a bin includes its lower end.

    The expected calibration error is the mean over the detections of |mean score - precision| of their bin. Scores
    outside of 0 to 1 are no shares: there are no bins then.
    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    Returns:
        {"bins": [{"low", "high", "num", "mean_score", "precision"}], "expected_calibration_error"}
    """
    counts = outcome.true_positive | outcome.false_positive
    scores, correct = matches.score[counts], outcome.true_positive[counts]
    if len(matches.score) and not 0 <= matches.score.min() <= matches.score.max() <= 1:
        return {"bins": [], "expected_calibration_error": None}
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    place = np.searchsorted(edges[1:-1], scores, side="right")
    num = np.bincount(place, minlength=NUM_BINS)
    mean_score, precision = (
        np.divide(np.bincount(place, values, NUM_BINS), num, out=np.full(NUM_BINS, np.nan), where=num > 0)
        for values in (scores, correct)
    )
    columns = zip(
        edges[:-1].tolist(), edges[1:].tolist(), num.tolist(), mean_score.tolist(), precision.tolist(), strict=True
    )
    gap = np.abs(mean_score - precision)[num > 0]
    return {
        "bins": [
            {"low": low, "high": high, "num": n, "mean_score": mean if n else None, "precision": share if n else None}
            for low, high, n, mean, share in columns
        ],
        "expected_calibration_error": float(gap @ num[num > 0] / len(scores)) if len(scores) else None,
    }


def _worst_images(matches: Matches, outcome: Outcome, split: CocoSplit) -> list[Row]:
    """Return the (at most ten) images with the highest cost above 0; among equal costs the lower image id is first.

    The cost of an image is the number of its objects that are missed at IoU 0.5, plus the sum of the scores of its
    false positives at that IoU: a missed object is as bad as a false positive with a score of 1. The cost is not
    related to AP.

    Returns:
        [{"image_id", "file_name", "missed", "false_positives", "cost"}]: "false_positives" counts those with a score
        of at least 0.3.
    """
    truth = matches.truth

    def per_image(images: Ints, values: Floats | None = None) -> Any:
        return np.bincount(images, values, truth.num_images)

    wrong = outcome.false_positive
    missed = per_image(truth.image[outcome.missed])
    shown = per_image(matches.image[wrong & (matches.score >= SHOWN_SCORE)])
    # The costs are rounded, so that the order of summation does not decide ties.
    cost = np.round(missed + per_image(matches.image[wrong], matches.score[wrong]), 6)
    worst = [place for place in np.argsort(-cost, kind="stable")[:NUM_WORST] if cost[place] > 0]
    file_name = {image["id"]: image["file_name"] for image in split.images}
    return [
        {
            "image_id": (image_id := int(truth.image_ids[place])),
            "file_name": file_name[image_id],
            "missed": int(missed[place]),
            "false_positives": int(shown[place]),
            "cost": float(cost[place]),
        }
        for place in worst
    ]


def _part(matches: Matches, images: Bools, pairs: Bools) -> Matches:
    """Select detections by image (I,) and pairs (M,), to make scoring faster; the objects do not change."""
    kept = images[matches.image]
    pairs = pairs & kept[matches.detection]
    number = np.cumsum(kept) - 1
    columns = {
        name: getattr(matches, name)[kept] for name in ("image", "label", "score", "rank", "boxes_xywh", "outside")
    }
    columns |= {name: getattr(matches, name)[pairs] for name in ("area", "threshold", "gt")}
    return replace(matches, **columns, detection=number[matches.detection[pairs]])


def _with_point(draws: Ints) -> Ints:
    """Return (1 + B, I): a first row with every image once, then the bootstrap samples."""
    return np.concatenate((np.ones((1, draws.shape[1]), dtype=np.int64), draws))


def _ap_and_ap50(ap: Floats) -> Floats:
    """Return AP and AP50 (1 + B, 2) from the AP (1 + B, K, T) of classes and thresholds; NaN without objects."""
    num_classes = (~np.isnan(ap)).sum(axis=1)
    undefined = np.full(num_classes.shape, np.nan)
    mean = np.divide(np.nansum(ap, axis=1), num_classes, out=undefined, where=num_classes > 0)  # (1 + B, T)
    return np.stack((mean.mean(axis=1), mean[:, 0]), axis=1)


def _ap_with_intervals(values: Floats, num_images: int, confidence: float) -> Row:
    """Return AP and AP50 with intervals from their values (1 + B, 2); the first row is the point estimate."""
    drawn = Drawn(values[1:], Support.of_images([num_images] * len(_AP)))
    found = estimate(Sample.of(values[:1], [drawn]), confidence=confidence)
    point = {name: None if np.isnan(value) else value for name, value in zip(_AP, values[0].tolist(), strict=True)}
    return {**point, "intervals": estimate_json(found, _AP, ("low", "high"))}


def _rounded(values: Floats) -> list[float]:
    rounded: list[float] = np.round(values, 4).tolist()
    return rounded
