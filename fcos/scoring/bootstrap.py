"""Confidence intervals and paired tests from a bootstrap over images and the variance between seeds.

AP is biased upwards, more so with fewer images, and its bootstrap replicates are biased once more, so that a percentile
interval is too high (docs/statistics.md has the simulation). The interval here is the normal one, shifted by the bias
of the replicates. For a row with several seeds, the variance between seeds is added, with Student's t for their small
number (Satterthwaite, Biometrics 2, 1946). The trainings of a row share its images, but not all errors on them. The
variance between trainings already contains what they do not share, so only the shared part counts as variance over
images.

Shapes: I images, B replicates, S seeds; ... is any number of metrics or classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from fcos.scoring.matching import Floats, Ints

FEWEST = 5  # images that a metric must be computed from
_NO_SPREAD = 1e-9


def draw_weights(num_images: int, *, replicates: int, seed: int, groups: Ints | None = None) -> NDArray[np.int64]:
    """Return (B, I): how often each image is in each bootstrap sample.

    Everything that is scored on the same images with the same seed gets the same samples, so that differences are
    paired.

    Args:
        groups: (I,) numbers from 0; the images of a group are resampled together.
    """
    if groups is not None:
        return draw_weights(int(groups.max()) + 1, replicates=replicates, seed=seed)[:, groups]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(num_images, size=(replicates, num_images))
    drawn += num_images * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=replicates * num_images).reshape(replicates, num_images)


@dataclass(frozen=True)
class Resamples:
    """Bootstrap samples of the images of a split, or of groups of them."""

    weights: Ints  # (B, I), see draw_weights
    groups: Ints | None  # (I,) numbers from 0; None if images are resampled


def numbered(names: Sequence[str]) -> Ints:
    """Return a number for each name, from 0 in order of first appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


@dataclass(frozen=True)
class Support:
    """Corrections for the variance of bootstrap samples; NaN where the samples cannot give an interval."""

    inflation: Floats  # (...): variance over images / variance of the replicates
    freedom: Floats  # (...): degrees of freedom of the variance over images

    @staticmethod
    def of_images(images: ArrayLike) -> "Support":
        """Return the support of metrics computed from `images` (...) images; at least five are needed."""
        freedom = np.where(np.asarray(images) >= FEWEST, np.asarray(images) - 1.0, np.nan)
        return Support(np.asarray(images) / freedom, freedom)


@dataclass(frozen=True)
class Drawn:
    """Metrics under each bootstrap sample of the images."""

    replicates: Floats  # (B, ...)
    support: Support

    def of(self, place: int) -> "Drawn":
        """Return the replicates of one class."""
        support = Support(self.support.inflation[place], self.support.freedom[place])
        return Drawn(self.replicates[:, place], support)


@dataclass(frozen=True)
class Sample:
    """The measurements of one row of a table: the metrics of each seed, with their replicates."""

    values: Floats  # (S, ...)
    replicates: Floats  # (S, B, ...); all seeds have the same bootstrap samples
    support: Support

    @staticmethod
    def of(values: Floats, drawn: Sequence[Drawn]) -> "Sample":
        """Return a Sample of the metrics (S, ...) of S seeds and the replicates of each seed."""
        supports = [of_seed.support for of_seed in drawn]
        worth = Support(
            np.mean([support.inflation for support in supports], axis=0),
            np.min([support.freedom for support in supports], axis=0),
        )
        return Sample(values, np.stack([of_seed.replicates for of_seed in drawn]), worth)


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval; NaN where it is undefined or its replicates do not vary."""

    value: Floats  # (...)
    low: Floats
    high: Floats
    standard_error: Floats
    p_value: Floats  # two-sided, for a true value of 0; meant for differences
    freedom: Floats  # degrees of freedom of Student's t

    def at(self, confidence: float) -> "Estimate":
        """Return the estimate of a difference with an interval of another confidence; it is not clipped."""
        centre, reach = (self.low + self.high) / 2, _reach(self.freedom, confidence) * self.standard_error
        return replace(self, low=centre - reach, high=centre + reach)

    def of(self, place: int) -> "Estimate":
        """Return the estimates of one class."""
        return Estimate(**{name: values[place] for name, values in vars(self).items()})

    @property
    def half_width(self) -> Floats:
        """Half the width of each interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Spread:
    """The variance between trainings with equal settings, pooled over the rows with several trainings."""

    variance: Floats  # (...)
    freedom: int


def pooled_spread(samples: Iterable[Sample]) -> Spread | None:
    """Return the spread between seeds, pooled over the rows with several seeds; None without such rows."""
    repeated = [sample.values for sample in samples if len(sample.values) > 1]
    if not repeated:
        return None
    freedom = sum(len(values) - 1 for values in repeated)
    squares = np.sum([(len(values) - 1) * values.var(axis=0, ddof=1) for values in repeated], axis=0)
    return Spread(squares / freedom, freedom)


def estimate(sample: Sample, *, confidence: float, spread: Spread | None = None) -> Estimate:
    """Return the mean over the seeds of `sample` with its interval; both are between 0 and 1.

    The interval is Wilson's interval of a proportion, for the number of trials that gives the same variance. It is not
    symmetric near 0 and 1. Source: Korn, Graubard, Survey Methodology 24, 1998.

    Args:
        spread: the spread of other rows, used for a sample of one seed.
    """
    found = _estimate([sample], [1.0], confidence, spread)
    share = ((found.low + found.high) / 2).clip(0, 1)  # shifted by the bias
    with np.errstate(invalid="ignore", divide="ignore"):
        trials = found.value * (1 - found.value) / found.standard_error**2
        reach = _reach(found.freedom, confidence)
        centre = (trials * share + reach**2 / 2) / (trials + reach**2)
        half = reach / (trials + reach**2) * np.sqrt(trials * share * (1 - share) + reach**2 / 4)
    return replace(found, low=centre - half, high=centre + half)


def difference(first: Sample, second: Sample, *, confidence: float, spread: Spread | None = None) -> Estimate:
    """Return `first` minus `second`, paired by image; both must have the same bootstrap samples.

    Args:
        spread: the spread of other rows, used for samples of one seed.

    Raises:
        ValueError: the numbers of replicates differ.
    """
    if first.replicates.shape[1] != second.replicates.shape[1]:
        raise ValueError("a paired difference needs the same bootstrap samples for both rows")
    return _estimate([first, second], [1.0, -1.0], confidence, spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's corrected p-values, which control the error rate over all p-values of a table.

    NaN stays NaN and is not counted. Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    corrected = [float("nan")] * len(p_values)
    largest = 0.0
    for done, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - done)))
        corrected[place] = largest
    return corrected


def _estimate(samples: Sequence[Sample], signs: Sequence[float], confidence: float, spread: Spread | None) -> Estimate:
    means = [sign * sample.values.mean(axis=0) for sample, sign in zip(samples, signs, strict=True)]
    value: Floats = np.sum(means, axis=0)
    bias, of_images = _of_images(samples, signs, value)
    parts = [(of_images, np.min([sample.support.freedom for sample in samples], axis=0)), *_seed_parts(samples, spread)]
    variance: Floats = np.sum([part for part, _ in parts], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.sum([part**2 / freedom for part, freedom in parts], axis=0)
        freedom = np.where(squares > 0, variance**2 / squares, np.inf)
        error = np.sqrt(variance)
        # Replicates that differ only by rounding (objects in one image, no detection) give no standard error.
        error = np.where(error > _NO_SPREAD, error, np.nan)
        statistic = np.abs(value - bias) / error

    reach = _reach(freedom, confidence) * error
    p_value = 2 * stdtr(freedom, -statistic)
    return Estimate(value, value - bias - reach, value - bias + reach, error, p_value, freedom)


def _reach(freedom: Floats, confidence: float) -> Floats:
    """Return the half width of an interval in standard errors."""
    reach: Floats = stdtrit(freedom, (1 + confidence) / 2)
    return reach


def image_variance(first: Sample, second: Sample) -> Floats:
    """Return the variance over images of `first` minus `second` that the trainings of a row share."""
    return _of_images([first, second], [1.0, -1.0], first.values.mean(axis=0) - second.values.mean(axis=0))[1]


def _of_images(samples: Sequence[Sample], signs: Sequence[float], value: Floats) -> tuple[Floats, Floats]:
    """Return bias and variance over the bootstrap samples, the variance without the part that seeds do not share."""
    means = [sign * sample.replicates.mean(axis=0) for sample, sign in zip(samples, signs, strict=True)]
    mean, variance = mean_and_variance(np.sum(means, axis=0))  # of (B, ...)
    shared = np.maximum(variance - np.sum([_unshared(sample.replicates) for sample in samples], axis=0), 0)
    return mean - value, shared * np.mean([sample.support.inflation for sample in samples], axis=0)


def _seed_parts(samples: Sequence[Sample], spread: Spread | None) -> list[tuple[Floats, int]]:
    """Return the variances that seeds add to the rows' means, each with its degrees of freedom."""
    own = [sample.values for sample in samples if len(sample.values) > 1]
    parts = [(values.var(axis=0, ddof=1) / len(values), len(values) - 1) for values in own]
    if spread is not None and len(own) < len(samples):
        parts.append(((len(samples) - len(own)) * spread.variance, spread.freedom))
    return parts


def _unshared(replicates: Floats) -> Floats:
    """Return the part of a row's variance over images that its S seeds do not share: (variance - covariance) / S.

    Args:
        replicates: (S, B, ...).
    """
    num_seeds = len(replicates)
    if num_seeds == 1:
        return np.zeros(replicates.shape[2:])
    defined = ~np.isnan(replicates).any(axis=0)
    count = defined.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = np.where(defined, replicates - np.where(defined, replicates, 0).sum(axis=1, keepdims=True) / count, 0)
        variance = (centred**2).sum(axis=1).mean(axis=0) / (count - 1)
        of_sum = (centred.sum(axis=0) ** 2).sum(axis=0) / (count - 1)
        covariance = (of_sum / num_seeds - variance) / (num_seeds - 1)
    return np.where(count > 1, (variance - covariance) / num_seeds, 0.0)


def mean_and_variance(replicates: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance over the replicates (B, ...) that are not NaN; NaN if there are none (or one)."""
    defined = ~np.isnan(replicates)
    count = defined.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, replicates, 0).sum(axis=0) / count
        variance = (np.where(defined, replicates - mean, 0) ** 2).sum(axis=0) / (count - 1)
    return mean, np.where(count > 1, variance, np.nan)
