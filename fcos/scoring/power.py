"""The number of images, or of trainings per row, that is needed to detect a difference of a given size.

The estimate uses the observed variance over images, which is inversely proportional to their number, and the observed
variance between the trainings of a row.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtri, stdtrit

from fcos.scoring.bootstrap import Sample, image_variance, pooled_spread

POWER = 0.8
MOST_TRAININGS = 1000


@dataclass(frozen=True)
class Needed:
    """What is needed to detect a difference of `effect` in AP between two rows with the probability `power`."""

    effect: float
    power: float
    confidence: float
    images: int | None  # to compare two networks; None if the replicates do not vary
    trainings: int | None  # per row, on the current images; None if no number suffices or it is unknown
    spread_is_known: bool  # whether some row has several trainings

    def sentence(self) -> str:
        """Return how many images and trainings would show the effect, in words."""
        size = f"{100 * self.effect:g} AP"
        how = f"{100 * self.power:g} % power, {100 * self.confidence:g} % confidence"
        if self.images is None:
            return f"How many images would detect {size} is unknown: no difference varies over the images."
        images = f"To detect {size} ({how}), comparing two networks takes about {self.images:,} test images like these"
        if not self.spread_is_known:
            return f"{images}; how many trainings per row two settings take is unknown: no row has several."
        if self.trainings is None:
            return f"{images}; for two settings, no number of trainings is enough on the present test images."
        return f"{images}; comparing two settings takes {self.trainings} trainings per row on the present test images."


def needed(
    rows: Mapping[str, Sample], num_images: int, *, confidence: float, effect: float = 0.01, power: float = POWER
) -> Needed:
    """Return what is needed to detect `effect` in AP for the pair of `rows` that varies most over the images.

    Args:
        rows: two or more rows with the same bootstrap samples.
        num_images: number of test images.
        effect: a difference in AP, as a fraction.
    """
    pairs = list(combinations(rows.values(), 2))
    of_networks = _largest(image_variance(_first(one), _first(other))[0] for one, other in pairs)
    spread = pooled_spread(rows.values())
    images, trainings = None, None
    if of_networks:
        reach = float(ndtri((1 + confidence) / 2) + ndtri(power))
        images = int(np.ceil(num_images * of_networks * (reach / effect) ** 2))
    if spread is not None:
        of_settings = _largest(image_variance(one, other)[0] for one, other in pairs)
        trainings = _trainings(of_settings, float(spread.variance[0]), effect, confidence, power)
    return Needed(effect, power, confidence, images, trainings, spread is not None)


def _trainings(of_images: float, of_seeds: float, effect: float, confidence: float, power: float) -> int | None:
    """Return the smallest number of trainings per row that shows a difference of `effect`, or None."""
    for count in range(2, MOST_TRAININGS + 1):
        freedom = 2 * (count - 1)
        reach = float(stdtrit(freedom, (1 + confidence) / 2) + stdtrit(freedom, power))
        if reach**2 * (of_images + 2 * of_seeds / count) <= effect**2:
            return count
    return None


def _largest(variances: Iterable[float]) -> float:
    """Return the largest variance that is not NaN, or 0."""
    return max((float(variance) for variance in variances if variance == variance), default=0.0)


def _first(row: Sample) -> Sample:
    """Return the sample of the first training of a row."""
    return Sample(row.values[:1], row.replicates[:1], row.support)
