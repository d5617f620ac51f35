"""Scoring at the size of VOC2007 test: ours with 1,000 replicates against pycocotools without any, in turn.

    python benchmarks/scoring.py --out FILE

Both get the same records in memory. pycocotools' time is that of evaluate() and accumulate() alone; ours is matching,
the twelve numbers and those of every class, and 1,000 replicates of them all. The twelve must be equal bit for bit.
"""

import contextlib
import io
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from side_by_side import line, parser, write_report
from synthetic import VOC2007_IMAGES, Detector, detect, draw_images

from fcos.data.coco import CocoSplit
from fcos.scoring.average_precision import METRICS, score
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.matching import match
from fcos.scoring.numbers import coco_metrics, with_intervals
from fcos.scoring.support import draws_of

REPLICATES = 1000


def main() -> None:
    arguments = parser(__doc__, repetitions=3).parse_args()
    generator = np.random.default_rng(0)
    truth = draw_images(generator, VOC2007_IMAGES)
    results = detect(generator, truth, Detector())
    split = CocoSplit(truth["images"], truth["categories"], truth["annotations"], Path())
    ours(split, results)  # warm-up, so that neither measurement includes imports
    mine = [ours(split, results) for _ in range(arguments.repetitions)]
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # before pycocotools allocates its own
    theirs = [pycocotools(truth, results) for _ in range(arguments.repetitions)]
    assert mine[0]["metrics"] == theirs[0]["metrics"]
    peer = [of["seconds"] for of in theirs]
    what = f"COCO scoring, {VOC2007_IMAGES} images, {len(results)} detections"
    lines = [
        line(what, [of["seconds_without_replicates"] for of in mine], peer, peer="pycocotools", target=8.0),
        line(
            f"{what}, and {REPLICATES} replicates",
            [of["seconds"] for of in mine],
            peer,
            peer="pycocotools without any",
            target=1.0,
        ),
    ]
    write_report(arguments.out, "Scoring", lines, peak_memory_gb=round(peak_gb, 2))


def ours(split: CocoSplit, results: list[Any]) -> dict[str, Any]:
    started = time.perf_counter()
    matches = match(results, split)
    numbers = coco_metrics(matches, split)
    without = time.perf_counter() - started
    weights = draw_weights(len(split.images), replicates=REPLICATES, seed=0)
    with_intervals(numbers, *draws_of(score(matches, weights), matches), confidence=0.95)
    return {
        "seconds": time.perf_counter() - started,
        "seconds_without_replicates": without,
        "metrics": numbers["metrics"],
    }


def pycocotools(truth: dict[str, Any], results: list[Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(result) for result in results]), "bbox")
        started = time.perf_counter()
        evaluation.evaluate()
        evaluation.accumulate()
        seconds = time.perf_counter() - started
        evaluation.summarize()
    return {"seconds": seconds, "metrics": dict(zip(METRICS, evaluation.stats.tolist(), strict=True))}


if __name__ == "__main__":
    main()
