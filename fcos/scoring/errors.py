"""Kinds of errors: each false positive and missed object has one kind, and each kind costs a part of AP50.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. The
thresholds are TIDE's: an IoU of 0.5 for the foreground and of 0.1 for the background. docs/error-analysis.md explains
each kind and the differences to the authors' program.

Shapes: D detections, G ground-truth boxes, P pairs of both that overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fcos.scoring.average_precision import precision_at_recall
from fcos.scoring.matching import IOU_THRESHOLDS, Bools, Floats, Ints, Matches, overlaps

ERROR_KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
SHOWN_SCORE = 0.3  # lowest score of detections in the worst images, the confusion matrix and the gallery
FOREGROUND_IOU, BACKGROUND_IOU = float(IOU_THRESHOLDS[0]), 0.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of each detection and object at IoU 0.5 over all areas; ignored ones are in no mask."""

    gt: Ints  # (D,): the object of a true positive, -1 for all other detections
    false_positive: Bools  # (D,)
    missed: Bools  # (G,)

    @staticmethod
    def of(matches: Matches) -> "Outcome":
        """Return the outcome of the matches."""
        pairs = (matches.area == 0) & (matches.threshold == 0)
        detection, found, counts = matches.detection[pairs], matches.gt[pairs], ~matches.is_ignored[pairs]
        gt = np.full(len(matches.label), -1)
        gt[detection[counts]] = found[counts]
        false_positive = ~matches.outside[:, 0]
        false_positive[detection] = False
        missed = ~matches.truth.ignored[:, 0]
        missed[found] = False
        return Outcome(gt=gt, false_positive=false_positive, missed=missed)

    @property
    def true_positive(self) -> Bools:
        """Mask (D,) of the true positives."""
        return self.gt >= 0


def error_kinds(matches: Matches, outcome: Outcome) -> dict[str, Any]:
    """Return the count of each kind of error and the gain in AP50 if only that kind were fixed.

    Returns:
        {"AP50": number, KIND: {"count", "delta_ap50"}} for the six ERROR_KINDS, "false_positives" and
        "false_negatives"; AP50 and all gains are None if there are no objects.
    """
    kinds, target = classify_errors(matches, outcome)
    missed = outcome.missed.copy()
    missed[target[kinds["classification"] | kinds["localisation"]]] = False  # counted under those kinds
    base = _ap50(matches, outcome)

    def row(count: Bools, **repaired: Any) -> dict[str, Any]:
        ap50 = _ap50(matches, outcome, **repaired)
        return {"count": int(count.sum()), "delta_ap50": None if ap50 is None or base is None else ap50 - base}

    rows = {
        kind: row(kinds[kind], removed=kinds[kind], corrected=_corrections(matches, outcome, kinds[kind], target))
        for kind in ("classification", "localisation")
    }
    rows |= {kind: row(kinds[kind], removed=kinds[kind]) for kind in ("both", "duplicate", "background")}
    rows["missed"] = row(missed, not_counted=missed)
    rows["false_positives"] = row(outcome.false_positive, removed=outcome.false_positive)
    rows["false_negatives"] = row(outcome.missed, not_counted=outcome.missed)
    return {"AP50": base, **rows}


def classify_errors(matches: Matches, outcome: Outcome) -> tuple[Mapping[str, Bools], Ints]:
    """Return masks (D,) of the kinds of false positives, and the object (D,) that each was aiming at, -1 for none."""
    truth = matches.truth
    wrong = np.flatnonzero(outcome.false_positive)
    place, gt, iou = overlaps(matches.boxes_xywh[wrong], matches.image[wrong], truth, truth.image)
    near = (iou >= BACKGROUND_IOU) & ~truth.ignored[gt, 0]
    detection, gt, iou = wrong[place[near]], gt[near], iou[near]
    own = matches.label[detection] == truth.label[gt]
    num = len(matches.label)
    own_iou, own_gt = _nearest(detection[own], gt[own], iou[own], num)
    other_iou, other_gt = _nearest(detection[~own], gt[~own], iou[~own], num)
    # The first kind that fits is used, in the order of the authors' program.
    tests = {
        "localisation": (own_iou >= BACKGROUND_IOU) & (own_iou < FOREGROUND_IOU),
        "classification": other_iou >= FOREGROUND_IOU,
        "duplicate": own_iou >= FOREGROUND_IOU,
        "background": other_iou <= BACKGROUND_IOU,
        "both": np.ones(num, dtype=bool),
    }
    left = outcome.false_positive.copy()
    kinds = {}
    for kind, test in tests.items():
        kinds[kind] = left & test
        left &= ~test
    target = np.where(kinds["classification"], other_gt, np.where(kinds["localisation"], own_gt, -1))
    return kinds, target


def _nearest(detection: Ints, gt: Ints, iou: Floats, num_detections: int) -> tuple[Floats, Ints]:
    """Return the largest IoU (D,) of each detection and its object (D,), the last of equal ones; 0 and -1 for none."""
    order = np.lexsort((gt, iou, detection))
    last = order[np.flatnonzero(np.diff(detection[order], append=-1))]
    largest, nearest = np.zeros(num_detections), np.full(num_detections, -1)
    largest[detection[last]], nearest[detection[last]] = iou[last], gt[last]
    return largest, nearest


def _corrections(matches: Matches, outcome: Outcome, kind: Bools, target: Ints) -> Ints:
    """Return (D,): the object that a corrected detection finds, else -1; the highest-scoring one gets the object."""
    able = np.flatnonzero(kind)
    able = able[outcome.missed[target[able]]]
    able = able[np.argsort(-matches.score[able], kind="stable")]
    objects, first = np.unique(target[able], return_index=True)
    corrected = np.full(len(target), -1)
    corrected[able[first]] = objects
    return corrected


def _ap50(
    matches: Matches,
    outcome: Outcome,
    *,
    removed: Bools | None = None,
    corrected: Ints | None = None,
    not_counted: Bools | None = None,
) -> float | None:
    """Return AP50 after errors are fixed; if none are fixed, it equals COCO's AP50 bit for bit.

    Args:
        removed: (D,) detections to remove, except for those in `corrected`.
        corrected: (D,) the object that a removed detection finds instead, with that object's label; -1 for none.
        not_counted: (G,) objects that need not be found. A class that is left without objects keeps its AP of 0.
    """
    truth = matches.truth
    finds = outcome.gt if corrected is None else np.maximum(outcome.gt, corrected)
    kept = outcome.false_positive | outcome.true_positive
    if removed is not None:
        kept = kept & (~removed | (finds >= 0))
    label = matches.label.copy()
    label[finds >= 0] = truth.label[finds[finds >= 0]]
    order = np.flatnonzero(kept)
    if (label != matches.label).any():
        order = order[np.lexsort((matches.image[order], -matches.score[order], label[order]))]
    positive = np.flatnonzero(finds[order] >= 0)
    ignored = truth.ignored if not_counted is None else truth.ignored | not_counted[:, None]
    precision = precision_at_recall(
        replace(
            matches,
            truth=replace(truth, ignored=ignored),
            **{name: getattr(matches, name)[order] for name in ("image", "score", "rank", "boxes_xywh", "outside")},
            label=label[order],
            detection=positive,
            area=np.zeros_like(positive),
            threshold=np.zeros_like(positive),
            gt=finds[order][positive],
        )
    )[0, :, :, 0]
    has_objects = np.bincount(truth.label[~truth.ignored[:, 0]], minlength=truth.num_classes) > 0
    # The sum is in COCOeval's order, so that the result is equal bit for bit.
    values = np.maximum(precision, 0)[:, has_objects].ravel()
    return float(np.mean(values)) if values.size else None
