"""Figures about uncertainty: synthetic detectors whose true AP is known."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from style import BLUE, GREEN, INK, ORANGE, SOFT, new_figure

from fcos.data.coco import CocoSplit
from fcos.scoring.average_precision import score
from fcos.scoring.bootstrap import Sample, difference, draw_weights, estimate
from fcos.scoring.matching import Matches, match
from fcos.scoring.support import drawn_metrics

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from synthetic import Detector, detect, draw_images

IMAGES, REPLICATES, TEST_SETS, POPULATION = 400, 500, 20, 12_000
CONFIDENCE = 0.95
FIRST = Detector(clutter=12.0)
BETTER = replace(FIRST, jitter=0.045)


def interval() -> Figure:
    """The replicates of one test set with its interval; the intervals of twenty test sets, and the truth."""
    truth = 100 * float(score(_matches(FIRST, POPULATION, images=10_000), np.ones((1, POPULATION))).metrics()[0, 0])
    samples = [_sample(FIRST, images=number) for number in range(TEST_SETS)]
    figure = new_figure(3.3)
    one, many = figure.subplots(1, 2)
    found = estimate(samples[0], confidence=CONFIDENCE)
    value, low, high = (100 * float(part) for part in (found.value, found.low, found.high))
    replicates = 100 * samples[0].replicates[0]
    one.hist(replicates, bins=30, color=BLUE, alpha=0.45, linewidth=0)
    top = one.get_ylim()[1]
    one.set_ylim(0, top * 1.45)
    one.vlines(value, 0, top, color=INK)
    one.text(value, top * 1.02, f"AP {value:.1f}", ha="center", fontsize=9)
    for height, ends, colour, name in (
        (1.3, (low, high), BLUE, "ours"),
        (1.17, np.percentile(replicates, (2.5, 97.5)), ORANGE, "percentile"),
    ):
        one.plot(ends, [top * height] * 2, color=colour, linewidth=4, solid_capstyle="butt")
        one.text(ends[1] + 0.25, top * height, name, color=colour, va="center", fontsize=9)
    one.set_xlim(right=replicates.max() + 2.5)
    one.set_yticks([])
    one.set_xlabel(f"AP of {REPLICATES} draws of {IMAGES} images")
    one.set_title("one test set")

    covered = 0
    for number, sample in enumerate(samples):
        found = estimate(sample, confidence=CONFIDENCE)
        ends = 100 * found.low, 100 * found.high
        holds = ends[0] <= truth <= ends[1]
        covered += bool(holds)
        colour = GREEN if holds else ORANGE
        many.plot(ends, [number] * 2, color=colour)
        many.plot(100 * found.value, number, "o", color=colour, markersize=4)
    many.axvline(truth, color=INK, linewidth=1.2)
    many.set_yticks([])
    many.set_xlabel(f"AP; the line: of {POPULATION:,} images")
    many.set_title(f"{TEST_SETS} test sets: {covered} hold the truth")
    return figure


def paired() -> Figure:
    """Draw two detectors on the same bootstrap samples: their APs vary together, and the difference varies less."""
    first, better = _sample(FIRST, images=1), _sample(BETTER, images=1, errors=1)
    figure = new_figure(3.3)
    together, apart = figure.subplots(1, 2)
    x, y = 100 * first.replicates[0], 100 * better.replicates[0]
    together.plot(x, y, "o", color=BLUE, markersize=3, alpha=0.5, markeredgewidth=0)
    ends = min(x.min(), y.min()) - 0.3, max(x.max(), y.max()) + 0.3
    together.plot(ends, ends, color=SOFT, linewidth=1.2, linestyle=":")
    together.set_xlim(ends)
    together.set_ylim(ends)
    together.set_aspect("equal")
    together.set_xlabel("AP of the first on a draw")
    together.set_ylabel("AP of the second on it")
    share = float((y > x).mean())
    together.set_title(f"second higher in {100 * share:.0f} % of draws")

    of_rows = [estimate(sample, confidence=CONFIDENCE) for sample in (first, better)]
    of_pair = difference(better, first, confidence=CONFIDENCE)
    unpaired = 100 * float(np.hypot(*(row.half_width for row in of_rows)))
    gain = 100 * float(of_pair.value)
    spans = (
        ("as if unpaired", gain - unpaired, gain + unpaired, ORANGE),
        ("paired", 100 * float(of_pair.low), 100 * float(of_pair.high), BLUE),
    )
    for place, (name, low, high, colour) in enumerate(spans):
        apart.plot([low, high], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
        apart.text((low + high) / 2, place + 0.14, f"{name}: [{low:.1f}, {high:.1f}]", ha="center", color=colour)
    apart.axvline(0, color=INK, linewidth=1.2)
    apart.set_ylim(-0.5, 1.6)
    apart.set_yticks([])
    apart.set_xlabel("difference in AP")
    apart.set_title(f"+{gain:.1f} AP, paired p {float(of_pair.p_value):.2g}")
    return figure


def _sample(detector: Detector, *, images: int, errors: int = 0) -> Sample:
    """AP of a test set drawn from seed `images`, with its replicates; `errors` are the detector's own."""
    matches = _matches(detector, IMAGES, images=images, errors=errors)
    weights = draw_weights(IMAGES, replicates=REPLICATES, seed=0)
    value = score(matches, np.ones((1, IMAGES), dtype=int)).metrics()[:, 0]
    return Sample.of(value, [drawn_metrics(score(matches, weights), matches).of(0)])


def _matches(detector: Detector, num_images: int, *, images: int, errors: int = 0) -> Matches:
    truth = draw_images(np.random.default_rng(images), num_images)
    split = CocoSplit(truth["images"], truth["categories"], truth["annotations"], Path())
    results = detect(np.random.default_rng([images, errors]), truth, detector, hardness=images)
    return match(results, split)
