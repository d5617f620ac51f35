"""The twelve COCO metrics exactly as COCOeval computes them, and their intervals, as JSON data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fcos.scoring.average_precision import CLASS_METRICS, METRICS, precision_at_recall, recall_of
from fcos.scoring.bootstrap import Drawn, Estimate, Sample, estimate
from fcos.scoring.matching import Floats, Matches

Row = dict[str, Any]


class Categorised(Protocol):
    """Any ground truth with `categories`, of which only `id` and `name` are read."""

    @property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        """The categories, each with id and name, in the order of the labels."""


def coco_metrics(matches: Matches, split: Categorised) -> Row:
    """Return the twelve metrics as fractions (None where COCO has -1), overall and per class by category id.

    Returns:
        {"metrics": {name: value}, "per_class": [{"category_id", "name", "num_objects", "AP", "AP50", "AP75", "AR100"}]}
    """
    precision = precision_at_recall(matches)  # (T, R, K, A)
    recall = np.moveaxis(recall_of(matches, matches.protocol.max_detections), -1, 0)  # (T, K, A)
    recall_1, recall_10 = (np.moveaxis(recall_of(matches, most), -1, 0)[..., 0] for most in (1, 10))
    at_50, at_75 = (precision[matches.protocol.places_of(iou)] for iou in (0.5, 0.75))
    values = [precision[..., 0], at_50[..., 0], at_75[..., 0], *(precision[..., a] for a in (1, 2, 3))]
    values += [recall_1, recall_10, *(recall[..., a] for a in range(matches.protocol.num_areas))]
    counted = np.bincount(matches.truth.label[~matches.truth.crowd], minlength=matches.truth.num_classes).tolist()
    per_class = []
    for label, category in enumerate(sorted(split.categories, key=in_order)):
        columns = (precision[..., label, 0], at_50[..., label, 0], at_75[..., label, 0], recall[:, label, 0])
        row = {"category_id": category["id"], "name": category["name"], "num_objects": counted[label]}
        per_class.append({**row, **dict(zip(CLASS_METRICS, map(_mean, columns), strict=True))})
    return {"metrics": dict(zip(METRICS, map(_mean, values), strict=True)), "per_class": per_class}


def in_order(category: Mapping[str, Any]) -> tuple[bool, Any]:
    """Return the sort key that numbers the labels: the id, text after numbers."""
    return isinstance(category["id"], str), category["id"]


def rename_limit(numbers: Mapping[str, Any], max_detections: int) -> Row:
    """Return the metrics with AR100 renamed to the number of detections that are scored."""
    return {f"AR{max_detections}" if name == "AR100" else name: value for name, value in numbers.items()}


def with_intervals(numbers: Mapping[str, Any], drawn: Drawn, classes: Drawn, *, confidence: float) -> Row:
    """Return the result of `coco_metrics` with "intervals": {name: {"low", "high", "standard_error"}} added.

    Args:
        drawn: replicates of the twelve metrics, (B, 12).
        classes: replicates of the four metrics of each class, (B, K, 4).
    """
    per_class = class_intervals(numbers["per_class"], classes, confidence=confidence)
    intervals = _intervals(numbers["metrics"], drawn, METRICS, confidence)
    return {"metrics": numbers["metrics"], "intervals": intervals, "per_class": per_class}


def class_intervals(per_class: Sequence[Row], classes: Drawn, *, confidence: float) -> list[Row]:
    """Return the metrics of each class with "intervals" added; `classes` are their replicates, (B, K, 4)."""
    return [
        {**row, "intervals": _intervals(row, classes.of(label), CLASS_METRICS, confidence)}
        for label, row in enumerate(per_class)
    ]


def sample_of(of_seed: Iterable[Mapping[str, float | None]], drawn: Sequence[Drawn], names: Sequence[str]) -> Sample:
    """Return the Sample of a row of a table.

    Args:
        of_seed: the metrics of each of S seeds by name.
        drawn: the replicates of each seed, (B, len(names)).
        names: the metrics to include.
    """
    values = [[np.nan if numbers[name] is None else numbers[name] for name in names] for numbers in of_seed]
    return Sample.of(np.array(values, dtype=float), drawn)


def estimate_json(found: Estimate, names: Sequence[str], keys: Sequence[str]) -> Row:
    """Return {name: {key: number}} for the `keys` (attributes) of an estimate; undefined numbers are None."""
    columns = {key: getattr(found, key).tolist() for key in keys}
    return {name: {key: _none(columns[key][place]) for key in keys} for place, name in enumerate(names)}


def _intervals(numbers: Mapping[str, Any], drawn: Drawn, names: Sequence[str], confidence: float) -> Row:
    found = estimate(sample_of([numbers], [drawn], names), confidence=confidence)
    return estimate_json(found, names, ("low", "high", "standard_error"))


def _mean(values: Floats) -> float | None:
    # Undefined values are -1 in COCOeval and NaN in `score`. The mean is in COCOeval's order, to be equal bit for bit.
    values = values[values > -1]
    return float(np.mean(values)) if values.size else None


def _none(value: float) -> float | None:
    return None if value != value else value
