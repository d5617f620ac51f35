"""Why AP50 is not higher: each false positive and missed object has one kind of error, and each kind a price.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, with
its thresholds: an IoU of 0.5 finds an object, one of 0.1 touches it. docs/error-analysis.md has what each kind means
and where the authors' own program differs.

Shapes: D detections, G ground-truth boxes, P pairs of both that overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fcos.scoring.average_precision import precision_at_recall
from fcos.scoring.matching import IOU_THRESHOLDS, Bools, Floats, Ints, Matches, overlaps

ERROR_KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
SHOWN_SCORE = 0.3  # from which on a detection counts in the worst images and the confusion, and is shown
FOREGROUND_IOU, BACKGROUND_IOU = float(IOU_THRESHOLDS[0]), 0.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of each detection and object at an IoU of 0.5, of whatever size; what is ignored is in no mask."""

    gt: Ints  # (D,): the object that a true positive finds, -1 of all other detections
    false_positive: Bools  # (D,)
    missed: Bools  # (G,)

    @staticmethod
    def of(matches: Matches) -> "Outcome":
        """Read it off the matches."""
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
        """(D,)"""
        return self.gt >= 0


def error_kinds(matches: Matches, outcome: Outcome) -> dict[str, Any]:
    """How often each kind of error happens, and what AP50 would gain if that kind alone were repaired.

    Returns:
        {"AP50": number, KIND: {"count", "delta_ap50"}} for the six of ERROR_KINDS, for "false_positives" and for
        "false_negatives"; AP50 and all gains are None where there is no object to find.
    """
    kinds, target = classify_errors(matches, outcome)
    missed = outcome.missed.copy()
    missed[target[kinds["classification"] | kinds["localisation"]]] = False  # those kinds have them
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
    """Masks (D,) of the kinds of false positives, and the object (D,) that one was meant for, -1 of none."""
    truth = matches.truth
    wrong = np.flatnonzero(outcome.false_positive)
    place, gt, iou = overlaps(matches.boxes_xywh[wrong], matches.image[wrong], truth, truth.image)
    near = (iou >= BACKGROUND_IOU) & ~truth.ignored[gt, 0]
    detection, gt, iou = wrong[place[near]], gt[near], iou[near]
    own = matches.label[detection] == truth.label[gt]
    num = len(matches.label)
    own_iou, own_gt = _nearest(detection[own], gt[own], iou[own], num)
    other_iou, other_gt = _nearest(detection[~own], gt[~own], iou[~own], num)
    # The order decides where two kinds fit; it is that of the authors' program.
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
    """The largest IoU (D,) of each detection and the object (D,) that has it, the last of equal ones; 0 and -1."""
    order = np.lexsort((gt, iou, detection))
    last = order[np.flatnonzero(np.diff(detection[order], append=-1))]
    largest, nearest = np.zeros(num_detections), np.full(num_detections, -1)
    largest[detection[last]], nearest[detection[last]] = iou[last], gt[last]
    return largest, nearest


def _corrections(matches: Matches, outcome: Outcome, kind: Bools, target: Ints) -> Ints:
    """(D,): the object that a corrected detection finds; of several for one object the highest-scoring; else -1."""
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
    """AP50 after a repair: COCO's, to the last bit, where nothing is repaired.

    Args:
        removed: (D,) detections that are gone, but for
        corrected: (D,) the object that a removed detection finds after all, with that object's label; -1 of none.
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
    # COCOeval adds up in this order, which decides the last bit.
    values = np.maximum(precision, 0)[:, has_objects].ravel()
    return float(np.mean(values)) if values.size else None
