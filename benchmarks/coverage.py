"""Do the intervals hold what they promise? Test sets are drawn from a large population of which the AP is known.

    python benchmarks/coverage.py --out FILE          about a quarter of an hour on 2 cores; --draws 20 for a first look
    python benchmarks/coverage.py --small --out FILE  small test sets, few objects, AP near 0 and 1: half an hour

Four synthetic detectors score the same population: a first one, one as good but with errors of its own, and two that
are about 0.5 and 1.0 AP better. From each test set come the intervals of the first, and the paired tests of the others
against it. Printed and written: how often an interval covers the population's AP, how often a difference is called
significant, and the same for the intervals that we do not use.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from synthetic import CLASS_WEIGHTS, HEIGHT, WIDTH, Detector, detect, draw_images

from fcos.data.coco import CocoSplit
from fcos.progress import track
from fcos.scoring.average_precision import score
from fcos.scoring.bootstrap import Drawn, Sample, Support, difference, draw_weights, estimate
from fcos.scoring.matching import Floats, GroundTruth, Ints, Matches, match
from fcos.scoring.scenes import find_scenes
from fcos.scoring.support import drawn_metrics

NAMES = ("AP", "AP50", "AP75")
CONFIDENCE = 0.95
PLAIN = "normal, moved by the bias"
FIRST = Detector(clutter=12.0)
OTHERS = {
    "as good": FIRST,
    "0.5 better": replace(FIRST, jitter=0.0488),
    "1.0 better": replace(FIRST, jitter=0.0476),
}

THREE = np.array([3.0, 2.0, 1.0])  # shares of the objects of three classes
POOR = Detector(recall=0.2, jitter=0.25, confidence=0.0, clutter=40.0)
NEARLY_PERFECT = Detector(recall=0.995, jitter=0.002, confidence=6.0, clutter=0.3)
CLUSTERED = {"evenness": 0.3, "themed": 1.0}
COPIES = 10  # of each image, with the same detections: frames of a video of a still scene


def with_a_rare(expected: float, images: int = 200) -> Any:
    """Return the shares of three classes such that the last has `expected` objects in a test set on average."""
    others = 3.02 * images - expected
    return np.array([0.6 * others, 0.4 * others, expected])


# Shares of the classes, the detector, the images of a test set, how objects lie in them, and what is resampled: `found`
# scenes as without --groups, each `image` as with --groups id, or the true `scene` as with --groups.
SMALL: dict[str, Any] = {
    "3 classes, 20 images": (THREE, FIRST, 20),
    "3 classes, 72 images": (THREE, FIRST, 72),
    "3 classes, 200 images": (THREE, FIRST, 200),
    "20 classes, 20 images": (CLASS_WEIGHTS, FIRST, 20),
    "20 classes, 72 images": (CLASS_WEIGHTS, FIRST, 72),
    "20 classes, 200 images": (CLASS_WEIGHTS, FIRST, 200),
    "a class of 5 objects, 200 images": (with_a_rare(5), FIRST, 200),
    "a class of 0.7 objects, 200 images": (with_a_rare(0.7), FIRST, 200),
    "clustered, 3 classes, 72 images": (THREE, FIRST, 72, CLUSTERED),
    "clustered, 3 classes, 200 images": (THREE, FIRST, 200, CLUSTERED),
    "AP near 0, 3 classes, 72 images": (THREE, POOR, 72),
    "AP near 1, 3 classes, 72 images": (THREE, NEARLY_PERFECT, 72),
    "20 scenes of 10 copies, 3 classes": (THREE, FIRST, 200, {"copies": COPIES}),
    "20 scenes of 10 copies, 3 classes, by --groups id": (THREE, FIRST, 200, {"copies": COPIES}, "image"),
    "20 scenes of 10 copies, 3 classes, by --groups": (THREE, FIRST, 200, {"copies": COPIES}, "scene"),
}
SMALL_POPULATION = 15_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--population", type=int, default=100_000, help="images")
    parser.add_argument("--images", type=int, default=4952, help="images of a test set")
    parser.add_argument("--draws", type=int, default=400, help="test sets")
    parser.add_argument("--replicates", type=int, default=250)
    parser.add_argument("--small", action="store_true", help="small test sets of populations of their own")
    parser.add_argument(
        "--only", default="", help="with --small: what the test sets' names contain; others in FILE stay"
    )
    arguments = parser.parse_args()
    started = time.time()
    if arguments.small:
        chosen = {name: regime for name, regime in SMALL.items() if arguments.only in name}
        found = {name: small(arguments.draws, arguments.replicates, *regime) for name, regime in chosen.items()}
    else:
        found = simulate(arguments.population, arguments.images, arguments.draws, arguments.replicates)
    settings = {key: value for key, value in vars(arguments).items() if key not in ("out", "only")}
    others = json.loads(arguments.out.read_text()) if arguments.only else {}
    seconds = round(time.time() - started) + others.pop("seconds", 0)
    others.pop("machine", None)
    result = {**settings, **others, **found, "seconds": seconds, "machine": platform.machine()}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def simulate(population: int, images: int, draws: int, replicates: int) -> dict[str, Any]:
    detectors = {"first": FIRST, **OTHERS}
    pools = {name: _population(population, detector, seed) for seed, (name, detector) in enumerate(detectors.items())}
    truth = {name: _numbers(pool, np.ones((1, population)))[0] for name, pool in pools.items()}
    covered: dict[str, list[Any]] = {}
    rejected: dict[str, list[Any]] = {name: [] for name in OTHERS}
    covers_difference: dict[str, list[Any]] = {name: [] for name in OTHERS}
    values, errors = [], []
    for draw in track(range(draws), "coverage", total=draws, unit="test sets"):
        chosen = np.random.default_rng([1, draw]).choice(population, images, replace=False)
        weights = draw_weights(images, replicates=replicates, seed=draw)
        samples = {name: _sample(_subset(pool, chosen), weights) for name, pool in pools.items()}
        for method, (low, high) in _intervals(samples["first"]).items():
            covered.setdefault(method, []).append((low <= truth["first"]) & (truth["first"] <= high))
        found = estimate(samples["first"], confidence=CONFIDENCE)
        values.append(found.value)
        errors.append(found.standard_error)
        for name in OTHERS:
            paired = difference(samples[name], samples["first"], confidence=CONFIDENCE)
            rejected[name].append(paired.p_value < 1 - CONFIDENCE)
            real = truth[name] - truth["first"]
            covers_difference[name].append((paired.low <= real) & (real <= paired.high))
    spread = np.std(values, axis=0, ddof=1)
    return {
        "population_metrics": {name: _named(numbers) for name, numbers in truth.items()},
        "coverage": {method: _named(np.mean(hits, axis=0)) for method, hits in covered.items()},
        "bias_in_standard_deviations": _named((np.mean(values, axis=0) - truth["first"]) / spread),
        "standard_error_over_standard_deviation": _named(np.mean(errors, axis=0) / spread),
        "paired": {
            name: {
                "difference": _named(truth[name] - truth["first"]),
                "coverage": _named(np.mean(covers_difference[name], axis=0)),
                "significant": _named(np.mean(rejected[name], axis=0)),
            }
            for name in OTHERS
        },
    }


def small(
    draws: int, replicates: int, shares: Any, detector: Detector, images: int, lie: Any = None, by: str = "found"
) -> dict[str, Any]:
    """Return how often intervals contain the true AP, and how often the test rejects the true difference. `printed` and
    `judged` are the counts behind the two rates; `before` is the first rate without the correction for support.
    """
    pools = [_population(SMALL_POPULATION, detector, seed, shares, **(lie or {})) for seed in (0, 1)]
    truth = [_numbers(pool, np.ones((1, SMALL_POPULATION)))[0, 0] for pool in pools]
    copies = (lie or {}).get("copies", 1)
    scenes = SMALL_POPULATION // copies
    covered, rejected, before = [], [], []
    for draw in range(draws):
        chosen = np.random.default_rng([1, draw]).choice(scenes, images // copies, replace=False)
        chosen = np.sort([scene + scenes * copy for copy in range(copies) for scene in chosen])
        subsets = [_subset(pool, chosen) for pool in pools]
        groups = _groups(subsets[0].truth, chosen % scenes, by)
        weights = draw_weights(images, replicates=replicates, seed=draw, groups=groups)
        one, other = (_sample(subset, weights, groups) for subset in subsets)
        found, paired = estimate(one, confidence=CONFIDENCE), difference(other, one, confidence=CONFIDENCE)
        low, high = _intervals(one)[PLAIN]
        before.append(low[0] <= truth[0] <= high[0])
        if not np.isnan(found.low[0]):
            covered.append(found.low[0] <= truth[0] <= found.high[0])
        if not np.isnan(paired.low[0]):
            rejected.append(not paired.low[0] <= truth[1] - truth[0] <= paired.high[0])
    return {
        "AP": round(float(truth[0]), 4),
        "printed": len(covered) / draws,
        "coverage": float(np.mean(covered)) if covered else None,
        "coverage_before": float(np.mean(before)),
        "judged": len(rejected) / draws,
        "rejected": float(np.mean(rejected)) if rejected else None,
    }


def _groups(truth: GroundTruth, scene: Ints, by: str) -> Ints | None:
    if by == "scene":
        return np.unique(scene, return_inverse=True)[1]
    found = find_scenes(truth, np.tile([float(WIDTH), HEIGHT], (truth.num_images, 1))) if by == "found" else None
    return None if found is None else found.of_image


def _population(
    images: int, detector: Detector, seed: int, shares: Any = CLASS_WEIGHTS, *, copies: int = 1, **lie: float
) -> Matches:
    truth = draw_images(np.random.default_rng(0), images // copies, class_weights=shares, **lie)
    found = detect(np.random.default_rng([2, seed]), truth, detector)
    first = len(truth["images"]) + 1  # larger than all ids
    drawn = _copied(truth["images"], copies, id=first)
    annotations = _copied(truth["annotations"], copies, image_id=first, id=len(truth["annotations"]) + 1)
    split = CocoSplit(drawn, truth["categories"], annotations, Path())
    matches = match(_copied(found, copies, image_id=first), split)
    # The other area ranges would double the time without new information.
    all_areas = matches.area == 0
    columns = {key: getattr(matches, key)[all_areas] for key in ("detection", "area", "threshold", "gt")}
    return replace(matches, **columns)


def _copied(records: list[dict[str, Any]], copies: int, **ids: int) -> list[dict[str, Any]]:
    """Return copies of the records whose ids are shifted in each copy."""
    if copies == 1:  # avoids copying millions of records
        return records
    return [
        {**record, **{key: record[key] + copy * step for key, step in ids.items()}}
        for copy in range(copies)
        for record in records
    ]


def _subset(matches: Matches, images: Ints) -> Matches:
    """Return the matches of a test set of these images."""
    truth = matches.truth
    chosen = np.zeros(truth.num_images, dtype=bool)
    chosen[images] = True
    detections, objects = chosen[matches.image], chosen[truth.image]
    pairs = detections[matches.detection]
    number = {key: np.cumsum(kept) - 1 for key, kept in (("image", chosen), ("d", detections), ("gt", objects))}
    fewer = replace(
        truth,
        image_ids=truth.image_ids[chosen],
        image=number["image"][truth.image[objects]],
        **{key: getattr(truth, key)[objects] for key in ("label", "boxes_xywh", "crowd", "ignored")},
    )
    return replace(
        matches,
        truth=fewer,
        image=number["image"][matches.image[detections]],
        **{key: getattr(matches, key)[detections] for key in ("label", "score", "rank", "boxes_xywh", "outside")},
        detection=number["d"][matches.detection[pairs]],
        gt=number["gt"][matches.gt[pairs]],
        area=matches.area[pairs],
        threshold=matches.threshold[pairs],
    )


def _sample(matches: Matches, weights: Ints, groups: Ints | None = None) -> Sample:
    drawn, few = drawn_metrics(score(matches, weights), matches, groups), slice(len(NAMES))
    support = Support(drawn.support.inflation[few], drawn.support.freedom[few])
    value = _numbers(matches, np.ones((1, weights.shape[1]), dtype=int))
    return Sample.of(value, [Drawn(drawn.replicates[:, few], support)])


def _numbers(matches: Matches, weights: Any) -> Floats:
    return score(matches, weights).metrics()[:, : len(NAMES)]


def _intervals(sample: Sample) -> dict[str, tuple[Floats, Floats]]:
    """Return our intervals and the usual alternatives."""
    value, replicates = sample.values[0], sample.replicates[0]
    ours = estimate(sample, confidence=CONFIDENCE)
    z = norm.ppf((1 + CONFIDENCE) / 2)
    ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.quantile(replicates, ends, axis=0)
    error = replicates.std(axis=0, ddof=1)
    below = (replicates < value).mean(axis=0).clip(1 / len(replicates), 1 - 1 / len(replicates))
    shifted = [norm.cdf(2 * norm.ppf(below) + sign * z) for sign in (-1, 1)]
    corrected = [np.array([np.quantile(replicates[:, k], level[k]) for k in range(len(value))]) for level in shifted]
    bias = replicates.mean(axis=0) - value
    return {
        "ours": (ours.low, ours.high),
        PLAIN: (value - bias - z * error, value - bias + z * error),
        "normal": (value - z * error, value + z * error),
        "percentile": (low, high),
        "basic": (2 * value - high, 2 * value - low),
        "bias-corrected percentile (BC)": (corrected[0], corrected[1]),
    }


def _named(numbers: Floats) -> dict[str, float]:
    return {name: round(float(number), 4) for name, number in zip(NAMES, numbers, strict=True)}


if __name__ == "__main__":
    main()
