"""Rank annotations that detectors contradict: missing objects, objects that are not there, wrong classes, wrong boxes.

A detector that was trained on other images, or on labels that are mostly right, contradicts some of the labels that it
is scored on. The more confidently and the more alike detectors do so, the more the label is worth a look. Kinds and
idea follow ObjectLab (Tkachenko, Thyagarajan, Mueller, "ObjectLab: Automated Diagnosis of Mislabeled Images in Object
Detection Data", arXiv 2309.00832); the scores are different: a detection counts as much as detections of such a score
are right among the labels at hand, so that detectors with other scores can be joined and the kinds share one scale.

Shapes: R detectors, D detections of one of them, G objects, P pairs of both that overlap.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fcos.scoring.errors import BACKGROUND_IOU, FOREGROUND_IOU, Outcome
from fcos.scoring.matching import Bools, Floats, GroundTruth, Ints, ResultTable, match_table, overlaps

KINDS = ("class", "nothing there", "box", "unlabelled")
_LEVELS, _LEAST_OF_LEVEL = 20, 50  # steps of the precision by score, and detections of one
_PRIOR = 0.05  # assumed share of labels without an object
_LEAST = _PRIOR  # a suspect has more suspicion: what is assumed of every label
_HARDLY = 0.1  # how sure a detector is where it finds nothing
_FREE_IOU = 0.3  # a detection that overlaps no label by more may be of an object without a label


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A place in the ground truth that detectors contradict.

    `gt` is the place of the annotation, None for an object without one; `label` is its class, `box` its box as (x, y,
    width, height). `suggested_label` and `suggested_box` are what the detectors found, None where they found nothing.
    `suspicion` is between 0 and 1.
    """

    kind: str
    image: int
    gt: int | None
    suspicion: float
    score: float  # of the detection that says otherwise; 0 where nothing was found
    label: int | None
    box: tuple[float, ...] | None
    suggested_label: int | None
    suggested_box: tuple[float, ...] | None


def rank(results: Sequence[ResultTable], truth: GroundTruth) -> list[Suspect]:
    """Return the suspects of all kinds, the most suspicious first; an annotation is in the list at most once.

    Args:
        results: the detections of each of R detectors.
    """
    seen = [_View.of(table, truth) for table in results]
    objects = ~truth.crowd
    suspects = [
        *_wrong_classes(seen, truth, objects),
        *_wrong_boxes(seen, truth, objects),
        *_nothing_there(seen, truth, objects),
        *_unlabelled(seen),
    ]
    # Equal suspicion by the score, then in a fixed order; of one annotation only its most suspicious kind stays.
    suspects.sort(
        key=lambda of: (-of.suspicion, -of.score, of.image, of.gt is not None, of.gt or 0, of.suggested_box or ())
    )
    first: dict[int, int] = {}
    for place, of in enumerate(suspects):
        if of.gt is not None:
            first.setdefault(of.gt, place)
    return [of for place, of in enumerate(suspects) if of.gt is None or first[of.gt] == place]


def in_turn(suspects: Sequence[Suspect], count: int) -> list[Suspect]:
    """Return at most `count` suspects, by kind: the most suspicious of each kind in turn, while there are any.

    Data sets differ in which errors they have, and one kind may be much more frequent than the others.
    """
    of_kind = {kind: [of for of in suspects if of.kind == kind] for kind in KINDS}
    turns = sorted((place, KINDS.index(kind)) for kind, rows in of_kind.items() for place in range(len(rows)))
    taken = Counter(KINDS[number] for _, number in turns[:count])
    return [of for kind in KINDS for of in of_kind[kind][: taken[kind]]]


@dataclass(frozen=True, kw_only=True)
class _View:
    """What one detector says about the labels."""

    table: ResultTable
    sure: Floats  # (D,): precision of detections with such a score
    pair_detection: Ints  # (P,)
    pair_gt: Ints  # (P,)
    pair_iou: Floats  # (P,)
    is_nearest: Bools  # (P,): whether no other object overlaps the detection more
    free: Bools  # (D,): overlaps no label, nor a crowd region

    @staticmethod
    def of(table: ResultTable, truth: GroundTruth) -> "_View":
        matches = match_table(table, truth)
        table = ResultTable(
            image=matches.image, label=matches.label, boxes_xywh=matches.boxes_xywh, score=matches.score
        )
        detection, gt, iou = overlaps(table.boxes_xywh, table.image, truth, truth.image)
        nearest = np.zeros(len(table))
        np.maximum.at(nearest, detection, iou)
        outcome = Outcome.of(matches)
        counts = outcome.true_positive | outcome.false_positive
        sure = _precision(table.score, outcome.true_positive, counts)
        return _View(
            table=table,
            sure=sure,
            pair_detection=detection,
            pair_gt=gt,
            pair_iou=iou,
            is_nearest=iou == nearest[detection],
            free=(nearest < _FREE_IOU) & (table.boxes_xywh[:, 2:] > 0).all(axis=1),
        )

    def best(self, truth: GroundTruth, least_iou: float, which: Bools | None = None) -> tuple[Floats, Ints]:
        """Return for each object (G,) the highest `sure` of the detections that overlap it, and which one; 0 and -1.

        Args:
            which: (P,) the pairs to look at (default: all).
        """
        pairs = self.pair_iou >= least_iou if which is None else (self.pair_iou >= least_iou) & which
        detection, gt = self.pair_detection[pairs], self.pair_gt[pairs]
        # Written in ascending order, so that the last one, with the highest value and then the best overlap, stays.
        order = np.lexsort((self.pair_iou[pairs], self.table.score[detection], self.sure[detection]))
        sure, place = np.zeros(len(truth.label)), np.full(len(truth.label), -1)
        sure[gt[order]] = self.sure[detection[order]]
        place[gt[order]] = detection[order]
        return sure, place

    def is_own_class(self, truth: GroundTruth) -> Bools:
        """Return whether detection and object have the same class (P,)."""
        same: Bools = self.table.label[self.pair_detection] == truth.label[self.pair_gt]
        return same


def _precision(score: Floats, correct: Bools, counts: Bools) -> Floats:
    """Return the share of right detections among those with such a score, for each detection; it rises with the score.

    It is measured in levels of at least 50 detections and made monotone by isotonic regression.
    """
    if not counts.any():
        return np.zeros(len(score))
    from scipy.optimize import isotonic_regression  # imported late: it takes as long as ranking

    order = np.argsort(score[counts], kind="stable")
    levels = min(_LEVELS, max(1, len(order) // _LEAST_OF_LEVEL))
    # Equal scores are of one level, whatever their order.
    _, level = np.unique([score[counts][part].mean() for part in np.array_split(order, levels)], return_inverse=True)
    part_of = np.repeat(level, [len(part) for part in np.array_split(order, levels)])
    weights = np.bincount(part_of).astype(float)
    at = np.bincount(part_of, score[counts][order]) / weights
    share = isotonic_regression(np.bincount(part_of, correct[counts][order]) / weights, weights=weights).x
    sure: Floats = np.interp(score, at, share)
    return sure


def _wrong_classes(seen: Sequence[_View], truth: GroundTruth, objects: Bools) -> list[Suspect]:
    """All detectors find one and the same other class, and are surer of it on average."""
    others, gains, places = [], [], []
    for view in seen:
        own = view.is_own_class(truth)
        other_sure, place = view.best(truth, FOREGROUND_IOU, ~own & view.is_nearest)
        own_sure, _ = view.best(truth, FOREGROUND_IOU, own)
        others.append(np.where(place >= 0, view.table.label[place] if len(view.table) else -1, -1))
        gains.append(other_sure - own_sure)
        places.append(place)
    agree = np.all(np.array(others) == others[0], axis=0) & (others[0] >= 0)
    suspicion = np.where(agree & objects, np.clip(np.mean(gains, axis=0), 0, 1), 0)
    return [
        _of_object(
            "class",
            gt,
            suspicion,
            truth,
            score=float(seen[0].table.score[places[0][gt]]),
            label=int(others[0][gt]),
            box=_box(seen[0].table, places[0][gt]),
        )
        for gt in np.flatnonzero(suspicion > _LEAST).tolist()
    ]


def _wrong_boxes(seen: Sequence[_View], truth: GroundTruth, objects: Bools) -> list[Suspect]:
    """All detectors find an object of the labelled class at one and the same other place near the label."""
    sures, ious, boxes, places = [], [], [], []
    for view in seen:
        # A box that fits another label better says nothing about this one, and one that fits this label counts first.
        own = view.is_own_class(truth) & view.is_nearest
        (fits, fitting), (sure, place) = view.best(truth, FOREGROUND_IOU, own), view.best(truth, BACKGROUND_IOU, own)
        sure, place = np.where(fitting >= 0, fits, sure), np.where(fitting >= 0, fitting, place)
        box = view.table.boxes_xywh[place] if len(view.table) else np.zeros((len(place), 4))
        sures.append(np.where(place >= 0, sure, 0))
        ious.append(np.where(place >= 0, paired_iou(box, truth.boxes_xywh), np.nan))
        boxes.append(box)
        places.append(place)
    found = np.min(sures, axis=0) > 0
    iou = np.where(found, np.mean(ious, axis=0), np.nan)
    known = found & objects
    if not known.any():
        return []
    usual = float(np.median(iou[known]))
    agreement = np.ones(len(found))
    if len(seen) > 1:
        agreement = np.mean([paired_iou(boxes[0], box) for box in boxes[1:]], axis=0)
    short = np.clip(1 - iou / usual, 0, 1)
    suspicion = np.where(known, np.mean(sures, axis=0) * agreement * short, 0)
    middle = np.mean(boxes, axis=0)
    return [
        _of_object(
            "box",
            gt,
            suspicion,
            truth,
            score=float(seen[0].table.score[places[0][gt]]),
            label=int(truth.label[gt]),
            box=tuple(middle[gt].tolist()),
        )
        for gt in np.flatnonzero(suspicion > _LEAST).tolist()
    ]


def _nothing_there(seen: Sequence[_View], truth: GroundTruth, objects: Bools) -> list[Suspect]:
    """No detector finds anything at the label.

    Real objects are missed too: the suspicion is the probability of a label without an object, if such labels are a
    twentieth of all (Bayes), from the share of the objects of this class and size that all detectors miss.
    """
    missed = np.all([view.best(truth, _FREE_IOU, view.is_nearest)[0] < _HARDLY for view in seen], axis=0) & objects
    size = np.argmin(truth.ignored[:, 1:], axis=1)  # the area range of an object
    _, kind = np.unique(np.stack((truth.label, size)), axis=1, return_inverse=True)
    kind = kind.ravel()
    share = np.bincount(kind, missed) / np.maximum(np.bincount(kind, objects), 1)
    suspicion = np.where(missed, _PRIOR / (_PRIOR + (1 - _PRIOR) * share[kind]), 0)
    return [
        _of_object("nothing there", gt, suspicion, truth, score=0.0, label=None, box=None)
        for gt in np.flatnonzero(suspicion > _LEAST).tolist()
    ]


def _unlabelled(seen: Sequence[_View]) -> list[Suspect]:
    """Detectors find an object of one class where no label is; those that find nothing there count as 0."""
    found = []
    for view in seen:
        own = np.flatnonzero(view.free & (view.sure > 0))
        total = view.sure + sum(_support(view.table, own, other) for other in seen if other is not view)
        found += [(float(total[place]) / len(seen), view, place) for place in own.tolist()]
    found.sort(key=lambda of: (-of[0], -float(of[1].table.score[of[2]]), _box(of[1].table, of[2])))
    of_image: dict[int, list[tuple[float, ...]]] = {}
    kept = []
    for suspicion, view, place in found:
        if suspicion <= _LEAST:
            break
        box, near = _box(view.table, place), of_image.setdefault(int(view.table.image[place]), [])
        if near and (paired_iou(np.array([box] * len(near)), np.array(near)) >= FOREGROUND_IOU).any():
            continue
        near.append(box)
        kept.append(
            Suspect(
                kind="unlabelled",
                image=int(view.table.image[place]),
                gt=None,
                suspicion=suspicion,
                score=float(view.table.score[place]),
                label=None,
                box=None,
                suggested_label=int(view.table.label[place]),
                suggested_box=box,
            )
        )
    return kept


def _support(table: ResultTable, places: Ints, view: _View) -> Floats:
    """Return how sure another detector is of each of these detections (D,), by its best free one of the class there."""
    support = np.zeros(len(table))
    candidates = np.flatnonzero(view.free & (view.sure > 0))
    by_group: dict[tuple[int, int], list[int]] = {}
    for place in candidates.tolist():
        by_group.setdefault((int(view.table.image[place]), int(view.table.label[place])), []).append(place)
    for place in places.tolist():
        there = by_group.get((int(table.image[place]), int(table.label[place])), [])
        if there:
            box = np.repeat(table.boxes_xywh[None, place], len(there), axis=0)
            near = paired_iou(box, view.table.boxes_xywh[there]) >= FOREGROUND_IOU
            support[place] = view.sure[there][near].max(initial=0.0)
    return support


def paired_iou(boxes: Floats, others: Floats) -> Floats:
    """Return the IoU (N,) of each of N boxes (x, y, width, height) with the other box of its row."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    intersection = (high - low).clip(min=0).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + others[:, 2:].prod(axis=1) - intersection
    iou: Floats = np.divide(intersection, union, out=np.zeros(len(boxes)), where=union > 0)
    return iou


def _of_object(
    kind: str,
    gt: int,
    suspicion: Floats,
    truth: GroundTruth,
    *,
    score: float,
    label: int | None,
    box: tuple[float, ...] | None,
) -> Suspect:
    return Suspect(
        kind=kind,
        image=int(truth.image[gt]),
        gt=gt,
        suspicion=float(suspicion[gt]),
        score=score,
        label=int(truth.label[gt]),
        box=tuple(truth.boxes_xywh[gt].tolist()),
        suggested_label=label,
        suggested_box=box,
    )


def _box(table: ResultTable, place: int) -> tuple[float, ...]:
    return tuple(table.boxes_xywh[place].tolist())
