"""The twelve COCO numbers exactly as COCOeval prints them, their intervals, and both as they stand in JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fcos.data.coco import CocoSplit
from fcos.scoring.average_precision import CLASS_METRICS, METRICS, Scores, precision_at_recall, score
from fcos.scoring.bootstrap import Estimate, Sample, estimate
from fcos.scoring.matching import Floats, Matches

Row = dict[str, Any]


def coco_metrics(matches: Matches, split: CocoSplit) -> Row:
    """The twelve numbers as fractions, None where COCO says -1, and the same per class, by category id.

    Returns:
        {"metrics": {name: value}, "per_class": [{"category_id", "name", "num_objects", "AP", "AP50", "AP75", "AR100"}]}
    """
    precision = precision_at_recall(matches)  # (T, R, K, A)
    once = score(matches, np.ones((1, matches.truth.num_images)))
    recall = np.moveaxis(once.recall[0], -1, 0)  # (T, K, A)
    values = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., a] for a in (1, 2, 3))]
    values += [once.recall_1[0].T, once.recall_10[0].T, *(recall[..., a] for a in range(4))]
    per_class = []
    for label, category in enumerate(sorted(split.categories, key=lambda category: int(category["id"]))):
        of_class = precision[:, :, label, 0]
        numbers = map(_mean, (of_class, of_class[0], of_class[5], recall[:, label, 0]))
        counted = int(((matches.truth.label == label) & ~matches.truth.crowd).sum())
        row = {"category_id": category["id"], "name": category["name"], "num_objects": counted}
        per_class.append({**row, **dict(zip(CLASS_METRICS, numbers, strict=True))})
    return {"metrics": dict(zip(METRICS, map(_mean, values), strict=True)), "per_class": per_class}


def with_intervals(numbers: Mapping[str, Any], replicates: Scores, *, confidence: float) -> Row:
    """What `coco_metrics` gave, with "intervals": {name: {"low", "high", "standard_error"}}, also in each class."""
    per_class = [
        {**row, "intervals": _intervals([row], of_class[None], CLASS_METRICS, confidence)}
        for row, of_class in zip(numbers["per_class"], np.moveaxis(replicates.per_class(), 1, 0), strict=True)
    ]
    intervals = _intervals([numbers["metrics"]], replicates.metrics()[None], METRICS, confidence)
    return {"metrics": numbers["metrics"], "intervals": intervals, "per_class": per_class}


def sample_of(of_seed: Iterable[Mapping[str, float | None]], replicates: Floats, names: Sequence[str]) -> Sample:
    """What a row of a table was measured to be.

    Args:
        of_seed: the numbers of each of S seeds by name.
        replicates: (S, B, len(names)).
    """
    values = [[np.nan if numbers[name] is None else numbers[name] for name in names] for numbers in of_seed]
    return Sample(np.array(values, dtype=float), replicates)


def estimate_json(found: Estimate, names: Sequence[str], keys: Sequence[str]) -> Row:
    """{name: {key: number}} for the `keys` (attributes) of an estimate; None where it is not defined."""
    columns = {key: getattr(found, key).tolist() for key in keys}
    return {name: {key: _none(columns[key][place]) for key in keys} for place, name in enumerate(names)}


def _intervals(of_seed: list[Mapping[str, Any]], replicates: Floats, names: Sequence[str], confidence: float) -> Row:
    found = estimate(sample_of(of_seed, replicates, names), confidence=confidence)
    return estimate_json(found, names, ("low", "high", "standard_error"))


def _mean(values: Floats) -> float | None:
    # -1 is COCOeval's mark of what is not defined, NaN that of `score`; COCOeval's order decides the last bit.
    values = values[values > -1]
    return float(np.mean(values)) if values.size else None


def _none(value: float) -> float | None:
    return None if value != value else value
