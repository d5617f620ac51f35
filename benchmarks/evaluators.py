"""One evaluator in a process of its own, from files to twelve numbers as often as it is asked.

    python benchmarks/evaluators.py NAME gt.json detections.json

For each line of its input it writes one of JSON: {"seconds", "numbers"} for `numbers`, {"seconds"} for `draw` (what
one bootstrap sample of the images costs) and for `replicates` (files to numbers with 1,000 replicates, ours alone).
It needs only what it measures, so that each can have its own environment.
"""

import contextlib
import importlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

DRAWS = 2


def ours(gt: str, detections: str, replicates: int = 0) -> list[float]:
    """Do what `fcos score` does except for its output, including the notes on unusual contents of the files."""
    from fcos.comparing.inputs import Choices, match_results, open_truth
    from fcos.scoring.numbers import coco_metrics

    truth = open_truth(Path(gt), Choices()).truth
    matches, _, _ = match_results(Path(detections), truth, Choices())
    numbers = coco_metrics(matches, truth)
    if replicates:
        from fcos.scoring.numbers import with_intervals
        from fcos.scoring.support import draws_of

        with_intervals(numbers, *draws_of(_drawn(matches, truth.num_images, replicates), matches), confidence=0.95)
    return list(numbers["metrics"].values())


def before(gt: str, detections: str, replicates: int = 0) -> list[float]:
    """Do the same with the code of the earlier commit, whose modules had other names."""
    inputs = importlib.import_module("fcos.scoring.inputs")
    from fcos.scoring.matching import match
    from fcos.scoring.numbers import coco_metrics

    split = inputs.read_truth(Path(gt))
    matches = match(inputs.read_results(Path(detections), split), split)
    numbers = coco_metrics(matches, split)
    if replicates:
        with_intervals: Any = importlib.import_module("fcos.scoring.numbers").with_intervals
        with_intervals(numbers, _drawn(matches, len(split.images), replicates), confidence=0.95)
    return list(numbers["metrics"].values())


def _drawn(matches: Any, num_images: int, replicates: int) -> Any:
    from fcos.scoring.average_precision import score
    from fcos.scoring.bootstrap import draw_weights

    return score(matches, draw_weights(num_images, replicates=replicates, seed=0))


class Cocoeval:
    """Evaluate with a package that has pycocotools' interface."""

    def __init__(self, coco: Any, cocoeval: Any) -> None:
        self.coco, self.cocoeval = coco, cocoeval

    def evaluated(self, gt: str, detections: str) -> Any:
        truth = self.coco(gt)
        evaluation = self.cocoeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    def numbers(self, gt: str, detections: str) -> list[float]:
        evaluation = self.evaluated(gt, detections)
        evaluation.summarize()
        return [float(value) for value in evaluation.stats[:12]]

    def draw_seconds(self, gt: str, detections: str) -> float:
        """Evaluate the images of a bootstrap sample, each once, since these packages cannot count an image twice."""
        evaluation = self.evaluated(gt, detections)
        image_ids = list(evaluation.params.imgIds)
        started = time.perf_counter()
        for seed in range(DRAWS):
            evaluation.params.imgIds = sorted(set(random.Random(seed).choices(image_ids, k=len(image_ids))))
            evaluation.evaluate()
            evaluation.accumulate()
        return (time.perf_counter() - started) / DRAWS


def evaluator(name: str) -> Cocoeval:
    if name == "pycocotools":
        coco, cocoeval = importlib.import_module("pycocotools.coco"), importlib.import_module("pycocotools.cocoeval")
        return Cocoeval(coco.COCO, cocoeval.COCOeval)
    package = importlib.import_module(name)
    return Cocoeval(package.COCO, getattr(package, "COCOeval_faster", None) or package.COCOeval)


def main() -> None:
    name, gt, detections = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    sys.stdout.flush()
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)  # some packages print from C++ or Rust
    fcos = {"ours": ours, "before": before}.get(name)
    package = None if fcos else evaluator(name)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            started = time.perf_counter()
            result: dict[str, Any] = {}
            if line.strip() == "draw":
                assert package is not None
                result["seconds"] = package.draw_seconds(gt, detections)
            else:
                replicates = 1000 if line.strip() == "replicates" else 0
                result["numbers"] = fcos(gt, detections, replicates) if fcos else package.numbers(gt, detections)
                result["seconds"] = time.perf_counter() - started
        print(json.dumps(result), file=answer, flush=True)


if __name__ == "__main__":
    main()
