"""Correct the variance of bootstrap samples, which is too small with few images, few objects or missing classes.

AP is a mean over classes, and resampling cannot show the variance of a class with too few images. The variance of a
class on m images is m / (m - 1) times that of its replicates. The replicates of a class on a single image do not vary;
it gets the variance of an image from the other classes. A class that is in no image, but that the detector predicts,
may be as good or bad as any other; it adds the variance between classes. With fewer than five classes there is too
little to take these variances from, and each class must have five images. Degrees of freedom are Satterthwaite's
(Biometrics 2, 1946). docs/statistics.md has the simulation behind these rules.

Shapes: B replicates, K classes, I images, A area ranges, M metrics.
"""

import numpy as np

from fcos.errors import names_of
from fcos.scoring.average_precision import AP_METRICS, CLASS_METRICS, METRICS, Scores
from fcos.scoring.bootstrap import FEWEST, Drawn, Support, mean_and_variance
from fcos.scoring.findings import Finding
from fcos.scoring.matching import Bools, Floats, GroundTruth, Ints, Matches

NEAR_ONE = 0.9  # above, AP moves in steps of one recall level, and its intervals cover the true value too rarely
_AREAS = (0, 0, 0, 1, 2, 3, 0, 0, 0, 1, 2, 3)  # area range of each of METRICS


def draws_of(scores: Scores, matches: Matches, groups: Ints | None = None) -> tuple[Drawn, Drawn]:
    """Return the replicates of the twelve metrics (B, 12) and of the four of each class (B, K, 4), with their support.

    Args:
        groups: (I,) numbers from 0 of the groups of images that are resampled together.
    """
    images = _images(matches.truth, groups)
    return _drawn_metrics(scores, matches, images), _drawn_classes(scores, images)


def drawn_metrics(scores: Scores, matches: Matches, groups: Ints | None = None) -> Drawn:
    """Return the replicates of the twelve metrics (B, 12) with their support, as `draws_of` does."""
    return _drawn_metrics(scores, matches, _images(matches.truth, groups))


def without_interval(drawn: Drawn, names: tuple[str, ...]) -> list[Finding]:
    """Return findings that say which of the metrics (B, M) have no interval, and why."""
    near, mean = _near_one(drawn.replicates, names)
    poor = np.isnan(drawn.support.inflation) & ~near & ~np.isnan(mean)
    reasons = {
        "no_interval_few_images": (
            poor,
            f"a class relies on fewer than {FEWEST} images, and too few other classes support the estimate",
        ),
        "no_interval_near_100": (near, f"above {100 * NEAR_ONE:g}, such intervals contain the true value too rarely"),
    }
    return [
        Finding(kind, int(which.sum()), len(names), f"no interval for {names_of(np.array(names)[which])}: {why}")
        for kind, (which, why) in reasons.items()
        if which.any()
    ]


def _drawn_metrics(scores: Scores, matches: Matches, images: Ints) -> Drawn:
    looked_for = np.bincount(matches.label, minlength=len(images)) > 0
    metrics = scores.metrics()
    support = _of_means(metrics, scores.class_metrics(), images[:, _AREAS], looked_for)
    return _without_near_one(Drawn(metrics, support), METRICS)


def _drawn_classes(scores: Scores, images: Ints) -> Drawn:
    per_class = scores.per_class()
    support = Support.of_images(np.broadcast_to(images[:, :1], per_class.shape[1:]))
    return _without_near_one(Drawn(per_class, support), CLASS_METRICS)


def _images(truth: GroundTruth, groups: Ints | None) -> Ints:
    """Return (K, A): number of images, or groups of images, with an object of the class in the area range."""
    unit = truth.image if groups is None else groups[truth.image]
    num_units = int(unit.max(initial=0)) + 1
    shown = [np.unique((truth.label * num_units + unit)[~ignored]) // num_units for ignored in truth.ignored.T]
    return np.stack([np.bincount(labels, minlength=truth.num_classes) for labels in shown], axis=1)


def _of_means(means: Floats, of_classes: Floats, images: Ints, looked_for: Bools) -> Support:
    """Return the support of the means (B, M) over classes.

    Args:
        of_classes: (B, K, M) metrics of each class; NaN where a bootstrap sample has no object of the class.
        images: (K, M) number of images with an object of the class.
        looked_for: (K,) whether there is any detection of the class.
    """
    seen, single, lends = images > 0, images == 1, images > 2
    missing = ~seen & looked_for[:, None]
    num_seen, num_missing, num_lending = seen.sum(axis=0), missing.sum(axis=0), lends.sum(axis=0)
    mean, shown = map(np.nan_to_num, mean_and_variance(of_classes))
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(images > 1, shown * images / (images - 1.0), 0)
        of_an_image = np.where(lends, own * images, 0).sum(axis=0) / num_lending
        lent = np.where(single.any(axis=0), single.sum(axis=0) * of_an_image, 0)
        centre = np.where(seen, mean, 0).sum(axis=0) / num_seen
        between = np.where(seen, (mean - centre) ** 2, 0).sum(axis=0) / (num_seen - 1)
        share = num_missing / (num_seen + num_missing)
        spread = np.where(num_missing > 0, share**2 * (between / num_missing + between / num_seen), 0)
        parts = np.concatenate((own / num_seen**2, [lent / num_seen**2, spread]))
        freedoms = np.concatenate((images - 1.0, [num_lending, num_seen - 1]))
        freedom = parts.sum(axis=0) ** 2 / np.where(parts != 0, parts**2 / freedoms, 0).sum(axis=0)
        unseen = parts.sum(axis=0) - np.where(images > 1, shown, 0).sum(axis=0) / num_seen**2
        inflation = 1 + unseen / mean_and_variance(means)[1]
    poor = ((seen | missing) & (images < FEWEST)).any(axis=0)
    known = ~poor | (num_seen + num_missing >= FEWEST)
    return Support(np.where(known, inflation, np.nan), np.where(known, freedom, np.nan))


def _without_near_one(drawn: Drawn, names: tuple[str, ...]) -> Drawn:
    """Remove the support of AP metrics so high that the images contain almost no errors."""
    near, _ = _near_one(drawn.replicates, names)
    return Drawn(drawn.replicates, Support(np.where(near, np.nan, drawn.support.inflation), drawn.support.freedom))


def _near_one(replicates: Floats, names: tuple[str, ...]) -> tuple[Bools, Floats]:
    """Return which metrics (...) are AP above 0.9, and the mean of the replicates, NaN if all are undefined."""
    mean, _ = mean_and_variance(replicates)
    return np.isin(names, AP_METRICS) & (mean > NEAR_ONE), mean
