"""The table of detectors with a score threshold: their precision, recall and F1."""

from collections.abc import Mapping
from typing import Any

from fcos.records import Evaluation, OperatingPoint
from fcos.reporting.intervals import DASH, plus_minus
from fcos.scoring.operating import NAMES


def operating_table(evaluations: Mapping[str, Evaluation]) -> dict[str, Any] | None:
    """Return sentences and the table for the page, or None if no evaluation has such numbers (earlier versions)."""
    points = {name: of["operating_point"] for name, of in evaluations.items() if "operating_point" in of}
    if not points:
        return None
    rows = [[name, *(_row(points[name]) if name in points else [DASH] * 5)] for name in evaluations]
    return {"sentences": _sentences(points), "grid": (["run", "score from", "chosen on", *NAMES], rows)}


def _row(point: OperatingPoint) -> list[str]:
    best = point["best_threshold"]
    between = "" if best is None else f" [{best[0]:.3g}, {best[1]:.3g}]"
    shares = [plus_minus(share["value"], share) for share in (point["precision"], point["recall"], point["F1"])]
    return [f"{point['score_threshold']:.3g}{between}", f"{point['chosen_on']} images", *shares]


def _sentences(points: Mapping[str, OperatingPoint]) -> list[str]:
    on = {point["chosen_on"] for point in points.values()}
    said = [
        "Precision, recall and F1 in percent, of all classes together and at an IoU of 0.50, of the detections with at "
        "least the score shown, which has the highest F1 on the images named."
    ]
    if "validation" in on:
        said.append("Chosen on validation images, it does not flatter the numbers, which are those of the test images.")
    if "test" in on:
        said.append(
            "Chosen on the test images themselves, it flatters F1; in brackets is the interval of the best score, from "
            "the bootstrap."
        )
    if len(on) > 1:
        said.append("So rows of the two kinds are not to be compared with each other.")
    return said
