"""How far a number may be off, and whether a difference is more than chance: a bootstrap over images, and over seeds.

AP is biased upwards, the more so the fewer images there are, and its bootstrap replicates are so again: a percentile
interval lies too high (docs/statistics.md has the simulation). The interval here is the normal one, moved by the bias
that the replicates show. A row of several seeds adds the variance between them, with Student's t for so few of them
(Satterthwaite, Biometrics 2, 1946).

Shapes: I images, B replicates, S seeds; ... is any number of metrics or classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from fcos.scoring.matching import Floats

_NO_SPREAD = 1e-9


def draw_weights(num_images: int, *, replicates: int, seed: int) -> NDArray[np.int64]:
    """(B, I): how often each image is drawn in each replicate; the same for whatever is scored on these images."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(num_images, size=(replicates, num_images))
    drawn += num_images * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=replicates * num_images).reshape(replicates, num_images)


@dataclass(frozen=True)
class Sample:
    """What one row of a table was measured to be: a number for each seed, with its replicates."""

    values: Floats  # (S, ...)
    replicates: Floats  # (S, B, ...), all seeds under the same draws of images


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN where it is not defined, or where the replicates do not vary."""

    value: Floats  # (...)
    low: Floats
    high: Floats
    standard_error: Floats
    p_value: Floats  # two-sided, of the value being 0: meant for differences

    @property
    def half_width(self) -> Floats:
        return (self.high - self.low) / 2


def estimate(sample: Sample, *, confidence: float) -> Estimate:
    """The mean over the seeds of `sample`."""
    return _estimate([sample], [1.0], confidence)


def difference(first: Sample, second: Sample, *, confidence: float) -> Estimate:
    """`first` minus `second`, paired by image: both must come from the same draws.

    Raises:
        ValueError: another number of replicates.
    """
    if first.replicates.shape[1] != second.replicates.shape[1]:
        raise ValueError("a paired difference needs the same draws on both sides")
    return _estimate([first, second], [1.0, -1.0], confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the p-values of a table such that reading all of them errs as seldom as reading one.

    NaN stays NaN and does not count. Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    corrected = [float("nan")] * len(p_values)
    largest = 0.0
    for done, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - done)))
        corrected[place] = largest
    return corrected


def _estimate(samples: Sequence[Sample], signs: Sequence[float], confidence: float) -> Estimate:
    pairs = list(zip(samples, signs, strict=True))
    value = np.sum([sign * sample.values.mean(axis=0) for sample, sign in pairs], axis=0)
    replicates = np.sum([sign * sample.replicates.mean(axis=0) for sample, sign in pairs], axis=0)  # (B, ...)
    bias, of_images = _bias_and_variance(replicates, value)
    # Seeds: the variance of each row's mean, with one degree of freedom less than it has seeds.
    repeated = [sample.values for sample in samples if len(sample.values) > 1]
    of_seeds = [values.var(axis=0, ddof=1) / len(values) for values in repeated]
    variance = of_images + np.sum(of_seeds, axis=0) if of_seeds else of_images
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sum([v**2 / (len(values) - 1) for v, values in zip(of_seeds, repeated, strict=True)], axis=0)
        freedom = np.where(np.asarray(spread) > 0, variance**2 / spread, np.inf)
        error = np.sqrt(variance)
        # Replicates that do not vary, but for rounding, show nothing: objects in one image, nothing found at all.
        error = np.where(error > _NO_SPREAD, error, np.nan)
        statistic = np.abs(value - bias) / error

    reach = stdtrit(freedom, (1 + confidence) / 2) * error
    p_value = 2 * stdtr(freedom, -statistic)
    return Estimate(value, value - bias - reach, value - bias + reach, error, p_value)


def _bias_and_variance(replicates: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Over the replicates in which the number is defined; NaN with fewer than two of them."""
    defined = ~np.isnan(replicates)
    count = defined.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, replicates, 0).sum(axis=0) / count
        variance = (np.where(defined, replicates - mean, 0) ** 2).sum(axis=0) / (count - 1)
    return mean - value, np.where(count > 1, variance, np.nan)
