"""Scoring at the size of VOC2007 test: ours with 1,000 replicates against pycocotools without any, in turn.

    python benchmarks/scoring.py --out FILE

Both get the same records in memory. pycocotools' time is that of evaluate() and accumulate() alone; ours is matching,
the twelve numbers and those of every class, and 1,000 replicates of them all. The twelve must be equal bit for bit.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from synthetic import VOC2007_IMAGES, Detector, detect, draw_images

from fcos.data.coco import CocoSplit
from fcos.scoring.average_precision import METRICS, score
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.matching import match
from fcos.scoring.numbers import coco_metrics, with_intervals

REPLICATES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    truth = draw_images(generator, VOC2007_IMAGES)
    results = detect(generator, truth, Detector())
    split = CocoSplit(truth["images"], truth["categories"], truth["annotations"], Path())
    ours(split, results)  # neither pays for what is loaded once
    mine = [ours(split, results) for _ in range(arguments.repetitions)]
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # before pycocotools adds its own
    theirs = [pycocotools(truth, results) for _ in range(arguments.repetitions)]
    assert mine[0]["metrics"] == theirs[0]["metrics"]
    ratios = {
        key: [them["seconds"] / us[key] for us, them in zip(mine, theirs, strict=True)]
        for key in ("seconds", "seconds_without_replicates")
    }
    report = {
        "images": VOC2007_IMAGES,
        "detections": len(results),
        "replicates": REPLICATES,
        "ours_s": [round(of["seconds"], 3) for of in mine],
        "ours_without_replicates_s": [round(of["seconds_without_replicates"], 3) for of in mine],
        "pycocotools_s": [round(of["seconds"], 3) for of in theirs],
        "ratio": {key: round(statistics.median(values), 2) for key, values in ratios.items()},
        "ratio_lowest_and_highest": {key: [round(min(v), 2), round(max(v), 2)] for key, v in ratios.items()},
        "peak_memory_gb": round(peak_gb, 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def ours(split: CocoSplit, results: list[Any]) -> dict[str, Any]:
    started = time.perf_counter()
    matches = match(results, split)
    numbers = coco_metrics(matches, split)
    without = time.perf_counter() - started
    weights = draw_weights(len(split.images), replicates=REPLICATES, seed=0)
    with_intervals(numbers, score(matches, weights), confidence=0.95)
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
