"""Precision, recall and F1 of a detector that is used with a score threshold.

They are counts over all classes at one IoU threshold, not points of COCO's interpolated curve: a detection at or above
the score threshold is right or wrong, an object is found or missed, and ignored ones are neither.

Shapes: I images, T score thresholds, B bootstrap samples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fcos.scoring.bootstrap import Drawn, Support
from fcos.scoring.errors import Outcome
from fcos.scoring.matching import Floats, Ints, Matches

NAMES = ("precision", "recall", "F1")
_MOST = 200  # thresholds that are tried in each bootstrap sample; of more scores, these quantiles


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What is counted in each image at each score threshold."""

    thresholds: Floats  # (T,), ascending
    right: Ints  # (I, T)
    wrong: Ints  # (I, T)
    objects: Ints  # (I,)

    @staticmethod
    def of(matches: Matches, thresholds: ArrayLike) -> "Counts":
        """Count at each of the `thresholds` (T,), for the lowest IoU threshold of the protocol."""
        levels = np.sort(np.asarray(thresholds, dtype=float))
        outcome, num_images = Outcome.of(matches), matches.truth.num_images
        reached = np.searchsorted(levels, matches.score, side="right")  # number of thresholds that it reaches

        def at_least(kind: Any) -> Ints:
            rows = len(levels) + 1
            place = matches.image[kind] * rows + reached[kind]
            counts = np.bincount(place, minlength=num_images * rows).reshape(num_images, rows)
            above: Ints = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
            return above

        objects = matches.truth.image[~matches.truth.ignored[:, 0]]
        return Counts(
            thresholds=levels,
            right=at_least(outcome.true_positive),
            wrong=at_least(outcome.false_positive),
            objects=np.bincount(objects, minlength=num_images),
        )

    def shares(self, weights: ArrayLike) -> Floats:
        """Return precision, recall and F1 (B, T, 3) for the weights (B, I) of the images; NaN where undefined."""
        of_image = np.asarray(weights, dtype=float)
        right, wrong = of_image @ self.right, of_image @ self.wrong
        objects = (of_image @ self.objects)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([right / (right + wrong), right / objects, 2 * right / (right + wrong + objects)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A detector with one score threshold."""

    threshold: float
    values: Floats  # (3,): NAMES
    drawn: Drawn  # replicates (B, 3)
    best_thresholds: Floats | None = None  # (B,): of the highest F1 in each bootstrap sample, if it was chosen

    def best_interval(self, confidence: float) -> list[float] | None:
        """Return both ends of the interval of the best threshold; None if it was given or nothing was drawn."""
        if self.best_thresholds is None or not len(self.best_thresholds):
            return None
        ends: list[float] = np.quantile(self.best_thresholds, [0.5 - confidence / 2, 0.5 + confidence / 2]).tolist()
        return ends


def operating_point(
    matches: Matches, weights: Ints, threshold: float | None, groups: Ints | None = None
) -> OperatingPoint:
    """Return precision, recall and F1 with replicates.

    Args:
        weights: (B, I) bootstrap samples of the images.
        threshold: None for the score with the highest F1 on these images, which makes that F1 optimistic.
        groups: (I,) numbers from 0 of the images that are resampled together.
    """
    chosen = best_threshold(matches) if threshold is None else threshold
    counts = Counts.of(matches, _tried(matches, chosen) if threshold is None else [chosen])
    place = int(np.searchsorted(counts.thresholds, chosen))
    whole = counts.shares(np.ones((1, matches.truth.num_images)))[0]  # (T, 3)
    replicates = counts.shares(weights)  # (B, T, 3)
    best = counts.thresholds[np.argmax(np.nan_to_num(replicates[..., 2], nan=-1.0), axis=1)]
    units = np.arange(matches.truth.num_images) if groups is None else groups
    support = Support.of_images(np.full(3, len(np.unique(units[counts.objects > 0]))))
    return OperatingPoint(
        threshold=chosen,
        values=whole[place],
        drawn=Drawn(replicates[:, place], support),
        best_thresholds=None if threshold is not None else best,
    )


def best_threshold(matches: Matches) -> float:
    """Return the score with the highest F1, the lowest of equal ones; 0 if no detection is right."""
    outcome = Outcome.of(matches)
    counted = outcome.true_positive | outcome.false_positive
    scores, right = matches.score[counted], outcome.true_positive[counted]
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(right[order])
    objects = int((~matches.truth.ignored[:, 0]).sum())
    f1 = 2 * found / (np.arange(1, len(found) + 1) + objects)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # of equal scores, all count
    best = f1[last] == f1[last].max()
    return float(scores[last[best][-1]])


def _tried(matches: Matches, best: float) -> Floats:
    """Return the thresholds whose F1 is compared in bootstrap samples: scores of right detections, and the best one."""
    right = np.sort(matches.score[Outcome.of(matches).true_positive])
    if len(right) > _MOST:
        right = right[np.linspace(0, len(right) - 1, _MOST).round().astype(int)]
    return np.union1d(right, [best])
