"""`fcos evaluate RUN`: compute detections and COCO metrics with intervals from candidates, without a network."""

import time

from fcos.evaluation.scoring import detect_all, score_detections
from fcos.files import write_json
from fcos.formats import write_record
from fcos.records import Evaluation
from fcos.scoring.analysis import analyse
from fcos.scoring.numbers import with_intervals
from fcos.study.bootstrap import Bootstrap
from fcos.study.provenance import provenance
from fcos.study.scored_run import ScoredRun


def evaluate(name: str) -> Evaluation:
    """Write detections.json, metrics.json, evaluation.json and replicates.safetensors; return evaluation.json."""
    started = time.time()
    scored_run = ScoredRun.open(name)
    split, test = scored_run.split, scored_run.test
    draws = Bootstrap.read()
    path = scored_run.dir / "candidates" / "test.safetensors"
    file = scored_run.read_view(path, test.size, hint=f"fcos predict {name}")
    detections = detect_all(
        file.of_image,
        nms_iou_threshold=test.nms_iou_threshold,
        max_detections=test.max_detections,
        description=f"evaluate {name}",
    )
    samples = draws.of(split)
    scored = score_detections(detections, split, samples)
    confidence = draws.config.confidence
    identity = {"test": test.settings(), "identity": file.header}
    numbers = with_intervals(scored.numbers, scored.drawn, scored.classes, confidence=confidence)
    evaluation: Evaluation = {
        "metrics": numbers["metrics"],
        "intervals": numbers["intervals"],
        "per_class": numbers["per_class"],
        "num_images": len(split.images),
        "num_candidates": sum(map(len, file.of_image.values())),
        "num_detections": len(scored.results),
        "analysis": analyse(scored.matches, split, samples.weights, confidence=confidence),
        "statistics": draws.config.model_dump(),
        "test": identity["test"],
        "identity": identity["identity"],
        "provenance": provenance(started),
    }
    write_json(scored_run.dir / "detections.json", scored.results, indent=None)
    write_record(scored_run.dir / "evaluation.json", evaluation)
    draws.save(
        scored_run.dir / "replicates.safetensors",
        {"test": scored.drawn},
        numbers={"test": scored.metrics},
        identity=identity,
    )
    write_json(scored_run.dir / "metrics.json", scored.metrics)
    return evaluation
