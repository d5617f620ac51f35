"""Shared parts of the charts: axes in percent, points with intervals, and conversion of numbers."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fcos.palette import COLOURS
from fcos.records import Interval
from fcos.reporting.vega import (
    Control,
    Spec,
    named,
    quantitative,
)
from fcos.scoring.average_precision import AP_METRICS

if TYPE_CHECKING:
    import pandas as pd  # `fcos compare` draws these charts without it


class Evaluated(Protocol):
    """What a chart shows of a run, or of a results file that `fcos compare` scores."""

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """The analysis and the metrics of each class, as in evaluation.json."""

    @property
    def history(self) -> "pd.DataFrame | None":
        """The training, one row for each step; None if it is not known."""


Row = dict[str, Any]
Runs = Mapping[str, Evaluated]
OURS, OTHER = COLOURS[:2]
METRICS = list(AP_METRICS)
METRIC_CONTROL = Control(parameter="metric", label="metric", options=METRICS)


def of_metric() -> list[Spec]:
    """Return the transforms that set value, low and high to the chosen metric and its interval."""
    return [
        {"calculate": "datum[metric]", "as": "value"},
        {"calculate": "datum[metric + ' low']", "as": "low"},
        {"calculate": "datum[metric + ' high']", "as": "high"},
        {"filter": "isValid(datum.value)"},
    ]


def estimate(field: str = "value") -> list[Spec]:
    """Return tooltip entries for a number and the ends of its interval."""
    return [
        quantitative(field, f"{field} (%)", format=".1f"),
        quantitative("low", "from", format=".1f"),
        quantitative("high", "to", format=".1f"),
    ]


def points_with_intervals(channel: str, of: str, *, width: float, size: float) -> list[Spec]:
    """Return layers of values and intervals along `channel` (x or y); a point is named by its run and field `of`."""
    tooltip = [named(of, of), named("run", "run"), *estimate()]
    return [
        {
            "mark": {"type": "rule", "strokeWidth": width, "opacity": 0.6},
            "encoding": {channel: quantitative("low", "value (%)"), f"{channel}2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "size": size},
            "encoding": {channel: quantitative("value", ""), "tooltip": tooltip},
        },
    ]


def percent_axis(field: str, title: str = "value (%)") -> Spec:
    """Return the Vega-Lite encoding of a field in percent."""
    return quantitative(field, title, scale={"zero": False, "nice": True})


def numbers(row: Mapping[Any, Any]) -> Row:
    """Return the metrics of a row with the ends of their intervals, rounded for the page."""
    columns = [f"{metric}{end}" for metric in METRICS for end in ("", " low", " high")]
    return {column: digits(known(row.get(column)), 5) for column in columns}


def known(value: Any) -> float | None:
    """Return the value as a float, or None for NaN, which JSON does not have."""
    return None if value is None or value != value else float(value)


def known_percent(value: float | None) -> float | None:
    """Return a fraction in percent; None if it is not known."""
    return None if value is None or math.isnan(value) else digits(100 * value, 5)


def ends(interval: Interval) -> Row:
    """Return the ends of an interval in percent."""
    return {"low": known_percent(interval["low"]), "high": known_percent(interval["high"])}


def as_percent(values: Iterable[float]) -> list[float]:
    """Return fractions in percent, with one decimal."""
    return [round(100 * value, 1) for value in values]


def digits(value: float | None, digits: int) -> float | None:
    """Round to significant digits, to keep the page small."""
    return value if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def lookup(names: Mapping[str, str]) -> str:
    """Return a Vega expression of an object with these entries."""
    return "{" + ", ".join(f"'{key}': '{value}'" for key, value in names.items()) + "}"
