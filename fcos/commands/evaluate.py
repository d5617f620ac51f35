"""`fcos evaluate RUN`: candidates to detections to the COCO numbers with intervals; no network is run."""

import time
from typing import Any

from fcos.commands.provenance import provenance
from fcos.commands.scored_run import ScoredRun
from fcos.config.section import parse_section, read_params
from fcos.config.statistics import StatisticsConfig
from fcos.evaluation.scoring import detect_all, score_detections
from fcos.files import write_json
from fcos.scoring.analysis import analyse
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.numbers import with_intervals
from fcos.scoring.replicates import numbers_digest, save_replicates


def evaluate(name: str) -> dict[str, Any]:
    """Write detections.json, metrics.json, evaluation.json and replicates.safetensors; return evaluation.json."""
    started = time.time()
    scored_run = ScoredRun.open(name)
    split, test = scored_run.split, scored_run.test
    statistics = parse_section(read_params(), "statistics", StatisticsConfig)
    path = scored_run.dir / "candidates" / "test.safetensors"
    file = scored_run.read_view(path, test.size, do=f"fcos predict {name}")
    detections = detect_all(file.of_image, nms_iou_threshold=test.nms_iou_threshold, max_detections=test.max_detections)
    weights = draw_weights(len(split.images), replicates=statistics.replicates, seed=statistics.seed)
    scored = score_detections(detections, split, weights)
    identity = {"test": test.settings(), "statistics": statistics.model_dump(), "identity": file.header}
    evaluation = {
        **with_intervals(scored.numbers, scored.replicates, confidence=statistics.confidence),
        "num_images": len(split.images),
        "num_candidates": sum(map(len, file.of_image.values())),
        "num_detections": len(scored.results),
        "analysis": analyse(scored.matches, split, weights, confidence=statistics.confidence),
        **identity,
        "provenance": provenance(started),
    }
    of_numbers = {**identity, "numbers": numbers_digest({"test": scored.metrics})}
    write_json(scored_run.dir / "detections.json", scored.results, indent=None)
    write_json(scored_run.dir / "evaluation.json", evaluation)
    save_replicates(scored_run.dir / "replicates.safetensors", {"test": scored.replicates.metrics()}, of_numbers)
    write_json(scored_run.dir / "metrics.json", scored.metrics)
    return evaluation
