"""How far a number may be off, and whether a difference is more than chance: a bootstrap over images, and over seeds.

AP is biased upwards, the more so the fewer images there are, and its bootstrap replicates are so again: a percentile
interval lies too high (docs/statistics.md has the simulation). The interval here is the normal one, moved by the bias
that the replicates show. A row of several seeds adds the variance between them, with Student's t for so few of them
(Satterthwaite, Biometrics 2, 1946). The trainings of a row share its images, but not all of their errors on them: the
variance between trainings holds what they do not share, so only what they share counts as variance over images.

Shapes: I images, B replicates, S seeds; ... is any number of metrics or classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from fcos.scoring.matching import Floats, Ints

FEWEST = 5  # images that a number must stand on
_NO_SPREAD = 1e-9


def draw_weights(num_images: int, *, replicates: int, seed: int, groups: Ints | None = None) -> NDArray[np.int64]:
    """(B, I): how often each image is drawn in each replicate; the same for whatever is scored on these images.

    Args:
        groups: (I,) numbers from 0; the images of a group are drawn together.
    """
    if groups is not None:
        return draw_weights(int(groups.max()) + 1, replicates=replicates, seed=seed)[:, groups]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(num_images, size=(replicates, num_images))
    drawn += num_images * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=replicates * num_images).reshape(replicates, num_images)


def groups_of(names: Sequence[str] | None) -> Ints | None:
    """Groups by the name of each image's, as numbers; None where images have none."""
    return None if names is None else numbered(names)


def numbered(names: Sequence[str]) -> Ints:
    """The same numbers for the same names, from 0 in the order in which they come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


@dataclass(frozen=True)
class Support:
    """What draws of images are worth; NaN where they are worth nothing."""

    inflation: Floats  # (...): the variance over images, divided by that of the draws
    freedom: Floats  # (...): its degrees of freedom

    @staticmethod
    def of_images(images: ArrayLike) -> "Support":
        """Of numbers that stand on so many images (...), five at least."""
        freedom = np.where(np.asarray(images) >= FEWEST, np.asarray(images) - 1.0, np.nan)
        return Support(np.asarray(images) / freedom, freedom)


@dataclass(frozen=True)
class Drawn:
    """Numbers under each draw of images."""

    replicates: Floats  # (B, ...)
    support: Support

    def of(self, place: int) -> "Drawn":
        """Those of one class."""
        support = Support(self.support.inflation[place], self.support.freedom[place])
        return Drawn(self.replicates[:, place], support)


@dataclass(frozen=True)
class Sample:
    """What one row of a table was measured to be: a number for each seed, with its replicates."""

    values: Floats  # (S, ...)
    replicates: Floats  # (S, B, ...), all seeds under the same draws of images
    support: Support

    @staticmethod
    def of(values: Floats, drawn: Sequence[Drawn]) -> "Sample":
        """The numbers (S, ...) of S seeds with the draws of each."""
        supports = [of_seed.support for of_seed in drawn]
        worth = Support(
            np.mean([support.inflation for support in supports], axis=0),
            np.min([support.freedom for support in supports], axis=0),
        )
        return Sample(values, np.stack([of_seed.replicates for of_seed in drawn]), worth)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN where it is not defined, or where the replicates do not vary."""

    value: Floats  # (...)
    low: Floats
    high: Floats
    standard_error: Floats
    p_value: Floats  # two-sided, of the value being 0: meant for differences
    freedom: Floats  # of Student's t

    def at(self, confidence: float) -> "Estimate":
        """The same with an interval of another confidence; of a difference, whose interval has no bounds."""
        centre, reach = (self.low + self.high) / 2, _reach(self.freedom, confidence) * self.standard_error
        return replace(self, low=centre - reach, high=centre + reach)

    @property
    def half_width(self) -> Floats:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Spread:
    """The variance between trainings of one setting, pooled over the rows that have several."""

    variance: Floats  # (...)
    freedom: int


def pooled_spread(samples: Iterable[Sample]) -> Spread | None:
    """The spread between seeds in the rows of several seeds; None where there is no such row."""
    repeated = [sample.values for sample in samples if len(sample.values) > 1]
    if not repeated:
        return None
    freedom = sum(len(values) - 1 for values in repeated)
    squares = np.sum([(len(values) - 1) * values.var(axis=0, ddof=1) for values in repeated], axis=0)
    return Spread(squares / freedom, freedom)


def estimate(sample: Sample, *, confidence: float, spread: Spread | None = None) -> Estimate:
    """The mean over the seeds of `sample`, which lies between 0 and 1, as its interval does.

    The interval is Wilson's, of a share of as many trials as would vary as much: it is not symmetric near 0 and 1.
    Source: Korn, Graubard, Survey Methodology 24, 1998.

    Args:
        spread: that of other rows, for a sample of one seed.
    """
    found = _estimate([sample], [1.0], confidence, spread)
    share = ((found.low + found.high) / 2).clip(0, 1)  # moved by the bias
    with np.errstate(invalid="ignore", divide="ignore"):
        trials = found.value * (1 - found.value) / found.standard_error**2
        reach = _reach(found.freedom, confidence)
        centre = (trials * share + reach**2 / 2) / (trials + reach**2)
        half = reach / (trials + reach**2) * np.sqrt(trials * share * (1 - share) + reach**2 / 4)
    return replace(found, low=centre - half, high=centre + half)


def difference(first: Sample, second: Sample, *, confidence: float, spread: Spread | None = None) -> Estimate:
    """`first` minus `second`, paired by image: both must come from the same draws.

    Args:
        spread: that of other rows, for samples of one seed.

    Raises:
        ValueError: another number of replicates.
    """
    if first.replicates.shape[1] != second.replicates.shape[1]:
        raise ValueError("a paired difference needs the same draws on both sides")
    return _estimate([first, second], [1.0, -1.0], confidence, spread)


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
        # Replicates that do not vary, but for rounding, show nothing: objects in one image, nothing found at all.
        error = np.where(error > _NO_SPREAD, error, np.nan)
        statistic = np.abs(value - bias) / error

    reach = _reach(freedom, confidence) * error
    p_value = 2 * stdtr(freedom, -statistic)
    return Estimate(value, value - bias - reach, value - bias + reach, error, p_value, freedom)


def _reach(freedom: Floats, confidence: float) -> Floats:
    """How many standard errors an interval reaches to either side."""
    reach: Floats = stdtrit(freedom, (1 + confidence) / 2)
    return reach


def image_variance(first: Sample, second: Sample) -> Floats:
    """The variance over images of `first` minus `second` that all trainings of a row share."""
    return _of_images([first, second], [1.0, -1.0], first.values.mean(axis=0) - second.values.mean(axis=0))[1]


def _of_images(samples: Sequence[Sample], signs: Sequence[float], value: Floats) -> tuple[Floats, Floats]:
    """Bias and variance over the draws of images, the latter without what the seeds of a row do not share."""
    means = [sign * sample.replicates.mean(axis=0) for sample, sign in zip(samples, signs, strict=True)]
    mean, variance = mean_and_variance(np.sum(means, axis=0))  # of (B, ...)
    shared = np.maximum(variance - np.sum([_unshared(sample.replicates) for sample in samples], axis=0), 0)
    return mean - value, shared * np.mean([sample.support.inflation for sample in samples], axis=0)


def _seed_parts(samples: Sequence[Sample], spread: Spread | None) -> list[tuple[Floats, int]]:
    """The variances of the rows' means that seeds add, each with its degrees of freedom."""
    own = [sample.values for sample in samples if len(sample.values) > 1]
    parts = [(values.var(axis=0, ddof=1) / len(values), len(values) - 1) for values in own]
    if spread is not None and len(own) < len(samples):
        parts.append(((len(samples) - len(own)) * spread.variance, spread.freedom))
    return parts


def _unshared(replicates: Floats) -> Floats:
    """Of the variance of a row's mean over images, what its S seeds do not share: (variance - covariance) / S.

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
    """Over the replicates (B, ...) that define a number; NaN where none does, the variance where only one does too."""
    defined = ~np.isnan(replicates)
    count = defined.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, replicates, 0).sum(axis=0) / count
        variance = (np.where(defined, replicates - mean, 0) ** 2).sum(axis=0) / (count - 1)
    return mean, np.where(count > 1, variance, np.nan)
