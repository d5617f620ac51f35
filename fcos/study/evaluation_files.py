"""Write the files of an evaluation, which are equal for a run and for results that were not trained here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos.data.coco import CocoSplit
from fcos.evaluation.scoring import Scored
from fcos.files import write_json
from fcos.formats import write_record
from fcos.records import Evaluation, OperatingPoint
from fcos.scoring.analysis import analyse
from fcos.scoring.bootstrap import Resamples, Sample, estimate
from fcos.scoring.findings import Finding
from fcos.scoring.matching import Matches
from fcos.scoring.numbers import estimate_json, with_intervals
from fcos.scoring.operating import NAMES, operating_point
from fcos.study.bootstrap import Bootstrap
from fcos.study.provenance import provenance


def write_evaluation(
    folder: Path,
    scored: Scored,
    split: CocoSplit,
    draws: Bootstrap,
    samples: Resamples,
    *,
    identity: Mapping[str, Any],
    num_candidates: int,
    started: float,
    threshold: float | None = None,
    findings: Sequence[Finding] = (),
) -> Evaluation:
    """Write detections.json, evaluation.json, replicates.safetensors and metrics.json; return evaluation.json.

    Args:
        samples: the bootstrap samples of `draws` for this split.
        identity: `test` and `identity`, which say what was scored and with which settings.
        num_candidates: boxes before NMS.
        started: when the command began, in seconds since the epoch.
        threshold: score threshold that was chosen on the validation split; None: the best one on `split`.
        findings: what was noticed in results that were not made here.
    """
    confidence = draws.config.confidence
    numbers = with_intervals(scored.numbers, scored.drawn, scored.classes, confidence=confidence)
    evaluation: Evaluation = {
        "metrics": numbers["metrics"],
        "intervals": numbers["intervals"],
        "per_class": numbers["per_class"],
        "num_images": len(split.images),
        "num_candidates": num_candidates,
        "num_detections": len(scored.results),
        "operating_point": _operating_point(scored.matches, samples, threshold, confidence),
        "analysis": analyse(scored.matches, split, samples.weights, confidence=confidence),
        "statistics": draws.config.model_dump(),
        "test": identity["test"],
        "identity": identity["identity"],
        "provenance": provenance(started),
    }
    if findings:
        evaluation["findings"] = [finding.text for finding in findings]
    write_json(folder / "detections.json", scored.results, indent=None)
    write_record(folder / "evaluation.json", evaluation)
    draws.save(
        folder / "replicates.safetensors",
        {"test": scored.drawn},
        numbers={"test": scored.metrics},
        identity=identity,
    )
    write_json(folder / "metrics.json", scored.metrics)
    return evaluation


def _operating_point(
    matches: Matches, samples: Resamples, threshold: float | None, confidence: float
) -> OperatingPoint:
    point = operating_point(matches, samples.weights, threshold, samples.groups)
    found = estimate(Sample.of(point.values[None], [point.drawn]), confidence=confidence)
    numbers = estimate_json(found, NAMES, ("value", "low", "high", "standard_error"))
    return {
        "score_threshold": point.threshold,
        "chosen_on": "test" if threshold is None else "validation",
        "best_threshold": point.best_interval(confidence),
        "iou": float(matches.protocol.iou_thresholds[0]),
        "precision": numbers["precision"],
        "recall": numbers["recall"],
        "F1": numbers["F1"],
    }
