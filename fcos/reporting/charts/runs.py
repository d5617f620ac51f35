"""Charts of the runs: accuracy against time, training curves, and AP of each class."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fcos.records import NO_INTERVAL
from fcos.reporting.charts.encodings import (
    Row,
    Runs,
    digits,
    ends,
    estimate,
    known_percent,
    lookup,
    percent_axis,
    points_with_intervals,
)
from fcos.reporting.vega import (
    QUIET,
    Chart,
    Control,
    Spec,
    choice,
    colour_of,
    named,
    nominal,
    quantitative,
    shown,
)
from fcos.training.history import CURVES

if TYPE_CHECKING:
    import pandas as pd

    from fcos.reporting.results import Results

MAX_APART = 120  # most (run, class) pairs with one line each; above, the runs share the line of their class
MAX_POINTS = 200  # points per curve in the page; more cannot be distinguished
MEAN = "mean of all classes"


def pareto_chart(runs: Mapping[str, "Results"], given: Collection[str]) -> Chart | None:
    """Return accuracy against time, with a line that connects the Pareto front; None if no time is known.

    Args:
        given: the names of results that were not trained here, whose times params.yaml says.
    """
    times = {"prediction (ms/image)": "ms", "training (s)": "training"}
    rows: list[Row] = []
    for name, results in runs.items():
        interval = results.evaluation["intervals"]["AP"]
        ap = known_percent(results.metrics["AP"])
        for what, time in zip(times, (results.ms_per_image, results.training_s), strict=True):
            if ap is not None and time is not None:
                rows.append({"run": name, "what": what, "time": time, "AP": ap, **ends(interval)})
    if not rows:
        return None
    for row in rows:
        others = [other for other in rows if other["what"] == row["what"] and other is not row]
        row["front"] = not any(_beats(other, row) for other in others)
    names = list(runs)
    parameter, only_shown = shown(names)
    x = quantitative("time", "time", scale={"zero": True})
    tooltip = [named("run", "run"), quantitative("time", "time", format=".1f"), *estimate("AP")]
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter, choice("what", next(iter(times)))],
        "transform": [only_shown, {"filter": "datum.what == what"}],
        "height": 320,
        "encoding": {"x": x},
        "layer": [
            {
                "transform": [{"filter": "datum.front"}],
                "mark": {"type": "line", "strokeDash": [5, 4], "color": QUIET},
                "encoding": {"y": percent_axis("AP", "AP (%)")},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.6, "opacity": 0.6},
                "encoding": {
                    "y": percent_axis("low", "AP (%)"),
                    "y2": {"field": "high"},
                    "color": colour_of(names),
                },
            },
            {
                "mark": {"type": "point", "size": 110},
                "encoding": {"y": percent_axis("AP", "AP (%)"), "color": colour_of(names), "tooltip": tooltip},
            },
        ],
    }
    return Chart(
        stem="accuracy-and-time",
        title="Accuracy against time",
        caption="Higher is better, further left is faster; the dashed line connects the Pareto front. "
        "Times were measured on the machine named above"
        + ("; those of detectors that were not trained here are what params.yaml says." if given else "."),
        spec=spec,
        controls=(Control(parameter="what", label="time of", options=list(times)),),
    )


def _beats(one: Row, other: Row) -> bool:
    """Whether `one` is at least as good as `other` in both and better in one (Pareto dominance)."""
    no_worse = one["time"] <= other["time"] and one["AP"] >= other["AP"]
    return bool(no_worse and (one["time"], one["AP"]) != (other["time"], other["AP"]))


def curves_chart(histories: Mapping[str, "pd.DataFrame"]) -> Chart | None:
    """Return the chart of losses, learning rate and validation AP by step; None without histories."""
    if not histories:
        return None
    names = list(histories)
    rows = [{"run": name, **row} for name, history in histories.items() for row in thinned(history)]
    parameter, only_shown = shown(names)
    curve_of = {title: column for column, title in CURVES.items() if any(column in row for row in rows)}
    tooltip = [
        named("run", "run"),
        quantitative("step", "step"),
        quantitative("epoch", "epoch"),
        quantitative("value", "value", format=".4~g"),
    ]
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter, choice("curve", CURVES["loss"])],
        "transform": [
            only_shown,
            # Maps the titles that the reader sees to the short keys of the rows.
            {"calculate": f"datum[{lookup(curve_of)}[curve]]", "as": "value"},
            {"filter": "isValid(datum.value)"},
        ],
        "height": 320,
        "encoding": {
            "x": quantitative("step", "training step"),
            "y": quantitative("value", "value"),
            "color": colour_of(names),
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.8}},
            {
                "mark": {"type": "point", "opacity": 0, "size": 120},
                "encoding": {"tooltip": tooltip},
            },
        ],
    }
    return Chart(
        stem="training-curves",
        title="Training curves",
        caption=f"Each point is the mean of consecutive steps, at most {MAX_POINTS} points a run; "
        "history.csv has every step.",
        spec=spec,
        controls=(Control(parameter="curve", label="curve", options=list(curve_of), files=True),),
    )


def thinned(history: "pd.DataFrame") -> list[Row]:
    """Return a history as at most `MAX_POINTS` means of consecutive steps, to four digits."""
    size = -(-len(history) // MAX_POINTS)
    columns = ["step", "epoch", *(column for column in CURVES if column in history)]
    means = history[columns].groupby(np.arange(len(history)) // size).mean()
    return [
        {str(key): digits(value, 4) for key, value in row.items() if value == value} for row in means.to_dict("records")
    ]


def per_class_chart(runs: Runs) -> Chart:
    """Return the chart of AP and AP50 of each class."""
    rows = []
    for name, results in runs.items():
        for of_class in results.evaluation["per_class"]:
            for metric, number in (("AP", of_class["AP"]), ("AP50", of_class["AP50"])):
                interval = of_class["intervals"].get(metric, NO_INTERVAL)
                value = known_percent(number)
                row = {"run": name, "class": of_class["name"], "metric": metric, "value": value}
                rows.append(row | ends(interval))
    num_classes = len({row["class"] for row in rows})
    apart = num_classes * len(runs) <= MAX_APART
    names = list(runs)
    parameter, only_shown = shown(names)
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter, choice("metric", "AP")],
        "transform": [only_shown, {"filter": "datum.metric == metric && isValid(datum.value)"}],
        "height": num_classes * (14 * len(names) + 8 if apart else 16),
        "encoding": {
            "y": nominal("class", None),
            "color": colour_of(names),
            **({"yOffset": nominal("run", None, scale={"domain": names})} if apart else {}),
        },
        "layer": points_with_intervals("x", "class", width=1.6, size=50),
    }
    return Chart(
        stem="classes",
        title="Each class",
        caption="AP or AP50 of each class and run, with its interval where there is one.",
        spec=spec,
        controls=(Control(parameter="metric", label="metric", options=["AP", "AP50"]),),
    )
