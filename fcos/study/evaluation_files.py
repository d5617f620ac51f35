"""Write the files of an evaluation, which are equal for a run and for results that were not trained here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos.data.coco import CocoSplit
from fcos.evaluation.scoring import Scored
from fcos.files import write_json
from fcos.formats import write_record
from fcos.records import Evaluation
from fcos.scoring.analysis import analyse
from fcos.scoring.bootstrap import Resamples
from fcos.scoring.findings import Finding
from fcos.scoring.numbers import with_intervals
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
    findings: Sequence[Finding] = (),
) -> Evaluation:
    """Write detections.json, evaluation.json, replicates.safetensors and metrics.json; return evaluation.json.

    Args:
        samples: the bootstrap samples of `draws` for this split.
        identity: `test` and `identity`, which say what was scored and with which settings.
        num_candidates: boxes before NMS.
        started: when the command began, in seconds since the epoch.
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
