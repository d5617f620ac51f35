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
_MOST = 200  # thresholds that are tried for the best one; of more distinct scores, these quantiles


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


def operating_point(
    matches: Matches, weights: Ints, threshold: float | None, groups: Ints | None = None
) -> OperatingPoint:
    """Return precision, recall and F1 with replicates.

    Args:
        weights: (B, I) bootstrap samples of the images.
        threshold: None for the score with the highest F1 on these images, which makes that F1 optimistic.
        groups: (I,) numbers from 0 of the images that are resampled together.
    """
    levels = [threshold] if threshold is not None else _scores(matches)
    counts = Counts.of(matches, levels)
    whole = counts.shares(np.ones((1, matches.truth.num_images)))[0]  # (T, 3)
    replicates = counts.shares(weights)  # (B, T, 3)
    place = int(np.argmax(np.nan_to_num(whole[:, 2], nan=-1.0)))
    best = counts.thresholds[np.argmax(np.nan_to_num(replicates[..., 2], nan=-1.0), axis=1)]
    units = np.arange(matches.truth.num_images) if groups is None else groups
    support = Support.of_images(np.full(3, len(np.unique(units[counts.objects > 0]))))
    return OperatingPoint(
        threshold=float(counts.thresholds[place]),
        values=whole[place],
        drawn=Drawn(replicates[:, place], support),
        best_thresholds=None if threshold is not None else best,
    )


def _scores(matches: Matches) -> Floats:
    """Return the distinct scores of the detections, or quantiles of them; 0 if there is no detection."""
    distinct = np.unique(matches.score)
    if len(distinct) > _MOST:
        distinct = distinct[np.linspace(0, len(distinct) - 1, _MOST).round().astype(int)]
    return distinct if len(distinct) else np.zeros(1)
