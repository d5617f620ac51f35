"""How many images, and how many trainings a row, would show a difference of a given size.

From the variances at hand: over images, which falls as one over their number, and between the trainings of a row.
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
    """What it takes to show a difference of `effect` in AP between two rows, with a probability of `power`."""

    effect: float
    power: float
    confidence: float
    images: int | None  # for two networks; None: replicates do not vary
    trainings: int | None  # a row, on the images at hand; None: no number of them, or not known
    spread_is_known: bool  # whether a row has several trainings

    def sentence(self) -> str:
        size = f"{100 * self.effect:g} AP"
        how = f"with {100 * self.power:g} % power at {100 * self.confidence:g} % confidence"
        if self.images is None:
            return f"How many images would show {size} is not known: no difference varies over the images."
        images = f"To show {size} between two such networks {how} takes about {self.images:,} images like these"
        if not self.spread_is_known:
            return f"{images}; how many trainings a row a claim about settings takes is not known: no row has several."
        if self.trainings is None:
            return f"{images}; no number of trainings shows it on the images at hand."
        return f"{images}; between settings, {self.trainings} trainings a row on the images at hand."


def needed(
    rows: Mapping[str, Sample], num_images: int, *, confidence: float, effect: float = 0.01, power: float = POWER
) -> Needed:
    """What showing `effect` in AP takes, by the pair of `rows` that varies most over the `num_images` images.

    Args:
        rows: two or more, under the same draws.
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
    """The fewest trainings a row whose mean differs visibly by `effect`."""
    for count in range(2, MOST_TRAININGS + 1):
        freedom = 2 * (count - 1)
        reach = float(stdtrit(freedom, (1 + confidence) / 2) + stdtrit(freedom, power))
        if reach**2 * (of_images + 2 * of_seeds / count) <= effect**2:
            return count
    return None


def _largest(variances: Iterable[float]) -> float:
    """0 where none is known."""
    return max((float(variance) for variance in variances if variance == variance), default=0.0)


def _first(row: Sample) -> Sample:
    """The first training of a row."""
    return Sample(row.values[:1], row.replicates[:1], row.support)
