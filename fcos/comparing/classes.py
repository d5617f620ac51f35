"""The classes of a comparison as JSON and as lines of CSV files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fcos.scoring.bootstrap import Sample, Spread, estimate
from fcos.scoring.class_comparison import METRICS, ClassDifferences
from fcos.scoring.numbers import estimate_json

Row = dict[str, Any]
_INTERVAL = ("low", "high", "standard_error")
_DIFFERENCE = ("difference", *_INTERVAL, "p_value", "p_holm")
_CLASS = ("category_id", "name", "num_objects")
PER_CLASS_CSV = [
    "row",
    "class",
    "category_id",
    "objects",
    *(f"{m}{end}" for m in METRICS for end in ("", " low", " high")),
]
CLASS_DIFFERENCES_CSV = [
    "first", "second", "class", "category_id", "objects", *_DIFFERENCE,
]  # fmt: skip

_SLICE = ("slice", "images", "objects")
SLICES_CSV = ["row", *_SLICE, *(f"{m}{end}" for m in METRICS for end in ("", " low", " high"))]
SLICE_DIFFERENCES_CSV = ["first", "second", *_SLICE, *_DIFFERENCE]


def per_class_json(
    classes: Sequence[Row], sample: Sample, *, confidence: float, spread: Spread | None, keys: Sequence[str] = _CLASS
) -> list[Row]:
    """Return AP and AP50 of each class of a row with their intervals; they are means over its files.

    Args:
        classes: "per_class" of any file, or the slices, for the `keys` that name them.
        sample: (S, K, 2) of the row.
        spread: between seeds of other rows, used for a row of one file.
    """
    found = estimate(sample, confidence=confidence, spread=spread)
    numbers = [estimate_json(found.of(label), METRICS, ("value", *_INTERVAL)) for label in range(len(classes))]
    return [
        {
            **{key: of_class[key] for key in keys},
            **{name: of.pop("value") for name, of in of_metrics.items()},
            "intervals": of_metrics,
        }
        for of_class, of_metrics in zip(classes, numbers, strict=True)
    ]


def class_differences_json(
    pair: ClassDifferences,
    classes: Sequence[Row],
    confidence: float,
    *,
    keys: Sequence[str] = _CLASS,
    what: tuple[str, str] = ("class", "classes"),
) -> Row:
    """Return {"classes": the difference in AP of each class, largest regression first, "classes_sentence"}.

    Args:
        what: the word for one and for several, if they are slices; the second one is the key.
    """
    rows = []
    for label in pair.worst_first():
        numbers = estimate_json(pair.found.of(label), METRICS, ("value", *_INTERVAL, "p_value"))["AP"]
        p_holm = float(pair.corrected_p[label])
        named = {key: classes[label][key] for key in keys}
        difference = {"difference": numbers.pop("value"), **numbers, "p_holm": None if np.isnan(p_holm) else p_holm}
        rows.append(named | difference)
    return {what[1]: rows, f"{what[1]}_sentence": _sentence(pair, rows, 1 - confidence, what)}


def _sentence(pair: ClassDifferences, rows: Sequence[Row], level: float, what: tuple[str, str]) -> str:
    """Return how many classes or slices differ significantly, with the largest regression and gain among them."""
    about, (one, many) = f"{pair.row} against {pair.other}", what
    if len(rows) == 1:
        return f"{about}: there is one {one}, so its difference is the one above."
    tested = [row for row in rows if row["p_holm"] is not None]
    sure = [row for row in tested if row["p_holm"] < level]
    of_all = f"{len(rows)} {many}" + (f" ({len(tested)} of them can be tested)" if len(tested) < len(rows) else "")
    if not tested:
        return f"{about}: no {one} has an interval that its difference could be judged by."
    if not sure:
        return f"{about}: none of {of_all} shows a difference in AP (Holm over all {many} and pairs)."
    lower, higher = [row for row in sure if row["difference"] < 0], [row for row in sure if row["difference"] > 0]
    said = [
        f"{len(part)} {word} ({_most(part)})" for part, word in ((lower, "lower"), (higher[::-1], "higher")) if part
    ]
    return f"{about}: of {of_all}, {' and '.join(said)} in AP (significant by Holm over all {many} and pairs)."


def _most(rows: Sequence[Row]) -> str:
    """Return the first classes with their differences."""
    shown = ", ".join(f"{row['name']} {100 * row['difference']:+.1f}" for row in rows[:3])
    return shown + (", ..." if len(rows) > 3 else "")


def per_class_lines(content: Mapping[str, Any]) -> list[Row]:
    """Return a line for each row and class, as in per_class.csv."""
    return _metric_lines(content, "per_class", _named)


def class_difference_lines(content: Mapping[str, Any]) -> list[Row]:
    """Return a line for each pair and class, as in class_differences.csv."""
    return _difference_lines(content, "classes", _named)


def slice_lines(content: Mapping[str, Any]) -> list[Row]:
    """Return a line for each row and slice, as in slices.csv."""
    return _metric_lines(content, "slices", _named_slice)


def slice_difference_lines(content: Mapping[str, Any]) -> list[Row]:
    """Return a line for each pair and slice, as in slice_differences.csv."""
    return _difference_lines(content, "slices", _named_slice)


def _metric_lines(content: Mapping[str, Any], key: str, named: Callable[[Row], Row]) -> list[Row]:
    return [
        {
            "row": row["name"],
            **named(part),
            **{name: part[name] for name in METRICS},
            **{f"{name} {end}": part["intervals"][name][end] for name in METRICS for end in ("low", "high")},
        }
        for row in content["rows"]
        for part in row[key]
    ]


def _difference_lines(content: Mapping[str, Any], key: str, named: Callable[[Row], Row]) -> list[Row]:
    return [
        {"first": pair["first"], "second": pair["second"], **named(part), **{name: part[name] for name in _DIFFERENCE}}
        for pair in content["differences"]
        for part in pair[key]
    ]


def _named_slice(of_slice: Row) -> Row:
    return {"slice": of_slice["name"], "images": of_slice["num_images"], "objects": of_slice["num_objects"]}


def _named(of_class: Row) -> Row:
    return {"class": of_class["name"], "category_id": of_class["category_id"], "objects": of_class["num_objects"]}
