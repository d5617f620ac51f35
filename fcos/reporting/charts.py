"""The charts of the report: of its tables, of the trainings, and of what is wrong with the models.

Each takes what is on disk and returns a `Chart`; rows with a `run` can be filtered by run in the page.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import RunResults, StudyResults
from fcos.reporting.vega import (
    COLOURS,
    QUIET,
    Chart,
    Control,
    Spec,
    choice,
    colour_of,
    nominal,
    quantitative,
    shown,
)
from fcos.scoring.average_precision import AP_METRICS
from fcos.scoring.errors import ERROR_KINDS

Row = dict[str, Any]
Runs = Mapping[str, RunResults]
MAX_POINTS = 200  # of a curve in the page; more cannot be told apart
MAX_READABLE = 24  # classes of a confusion matrix with a number in each cell
MAX_APART = 120  # runs of classes with a line each; more share the line of their class
OURS, OTHER = COLOURS[:2]
METRICS = list(AP_METRICS)
CURVES = {
    "loss": "total loss",
    "loss_classification": "classification loss (focal)",
    "loss_regression": "regression loss (GIoU)",
    "loss_centerness": "centerness loss (BCE)",
    "lr": "learning rate",
    "images_per_s": "images/s",
    "num_positives": "positive locations in a batch",
}
MEAN = "mean of all classes"
_METRIC = Control(parameter="metric", label="metric", options=METRICS)


def table_charts(tables: Sequence[ReportTable]) -> list[Chart]:
    """AP of the rows with their intervals, their paired differences, and what TTA costs and brings."""
    charts: list[Chart] = []
    for table in tables:
        if table.config.kind == "tta":
            charts.append(_views(table))
        elif table.config.kind in ("nms", "runs"):
            charts.append(_rows(table))
        if table.comparisons and table.config.kind != "nms":  # of eleven thresholds there are 55 pairs
            charts.append(_differences(table))
    return charts


def study_charts(study: StudyResults) -> list[Chart]:
    """Accuracy against time, then all charts of the runs together."""
    return [_pareto(study.runs), *run_charts(study.runs)]


def run_charts(runs: Runs) -> list[Chart]:
    """What there is data for, of one run or of several in one chart: curves, errors, precision-recall and the like."""
    analyses = {name: results.evaluation["analysis"] for name, results in runs.items()}
    charts = [
        _curves({name: results.history for name, results in runs.items() if len(results.history)}),
        _per_class(runs),
        _errors(_with(analyses, lambda analysis: analysis["errors"]["AP50"] is not None)),
        _precision_recall(_with(analyses, lambda analysis: analysis["precision_recall"]["mean"]["0.50"] is not None)),
        _confusion(_with(analyses, lambda analysis: bool(analysis["confusion"]["counts"]))),
        _calibration(_with(analyses, lambda a: a["calibration"]["expected_calibration_error"] is not None)),
        _difficulty(_with(analyses, lambda analysis: analysis["errors"]["AP50"] is not None)),
    ]
    return [chart for chart in charts if chart is not None]


def _with(analyses: Mapping[str, Any], has_data: Callable[[Any], bool]) -> dict[str, Any]:
    return {name: analysis for name, analysis in analyses.items() if has_data(analysis)}


# Tables ---------------------------------------------------------------------------------------------------------------


def _rows(table: ReportTable) -> Chart:
    """Points with intervals for each row, published numbers beside them."""
    label = table.label
    rows = [
        {"label": str(row[label]), "source": row["source"], "runs_of": ", ".join(runs), **_numbers(row)}
        for row, runs in zip(table.frame.to_dict("records"), table.runs_of_rows, strict=True)
        if row["source"] in ("ours", "published")
    ]
    tooltip = [nominal("label", label), nominal("source", "source"), *_estimate(), nominal("runs_of", "runs")]
    published = any(row["source"] == "published" for row in rows)
    source = nominal(
        "source", None, scale={"domain": ["ours", "published"], "range": [OURS, OTHER]}, legend={"columns": 2}
    )
    colour: Spec = {"color": source, "shape": source} if published else {"color": {"value": OURS}}
    spec: Spec = {
        "data": {"values": rows},
        "params": [choice("metric", METRICS[0])],
        "transform": _of_metric(),
        "height": 34 * len({row["label"] for row in rows}),
        "encoding": {"y": nominal("label", label)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.75},
                "encoding": {
                    "x": _percent_axis("low"),
                    "x2": {"field": "high"},
                    "color": colour["color"],
                },
            },
            {
                "mark": {"type": "point", "size": 90},
                "encoding": {"x": _percent_axis("value"), **colour, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.source == 'ours'"}],
                "mark": {"type": "text", "dy": -11},
                "encoding": {"x": _percent_axis("value"), "text": {"field": "value", "format": ".1f"}},
            },
        ],
    }
    return Chart(
        stem=table.stem,
        title=table.config.title,
        caption="Each row of the table with its interval"
        + (", and the published numbers, which have none." if published else "."),
        spec=spec,
        controls=(_METRIC,),
        table=table.number,
    )


def _differences(table: ReportTable) -> Chart:
    """Every pair of rows: the paired difference and its interval; away from zero is significant."""
    frame = table.difference_frame()
    significant = [
        comparison.is_significant(place) for comparison in table.comparisons for place in range(len(METRICS))
    ]
    rows = [
        {
            "pair": f"{row['row']} \u2212 {row['other']}",
            "metric": row["metric"],
            "value": _known(row["difference"]),
            "low": _known(row["low"]),
            "high": _known(row["high"]),
            "p": _known(row["p (Holm)"]),
            "verdict": "significant" if sure else "not significant",
        }
        for row, sure in zip(frame.to_dict("records"), significant, strict=True)
    ]
    verdict = nominal(
        "verdict",
        None,
        scale={"domain": ["significant", "not significant"], "range": [OTHER, QUIET]},
        legend={"columns": 2},
    )
    tooltip = [
        nominal("pair", "difference"),
        quantitative("value", "points", format="+.2f"),
        quantitative("low", "from", format="+.2f"),
        quantitative("high", "to", format="+.2f"),
        quantitative("p", "p (Holm)", format=".2g"),
        nominal("verdict", "verdict"),
    ]
    y = nominal("pair", None, axis={"labelLimit": 320})
    spec: Spec = {
        "data": {"values": rows},
        "params": [choice("metric", METRICS[0])],
        "transform": [{"filter": "datum.metric == metric"}],
        "height": 28 * len(table.comparisons),
        "encoding": {"y": y},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 0}, "y": None}},
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": {
                    "x": quantitative("low", "difference (points), with its interval"),
                    "x2": {"field": "high"},
                    "color": verdict,
                },
            },
            {
                "mark": {"type": "point", "size": 80},
                "encoding": {"x": quantitative("value", ""), "color": verdict, "tooltip": tooltip},
            },
        ],
    }
    return Chart(
        stem=f"{table.stem}-differences",
        title=f"{table.config.title}: paired differences",
        caption="Paired differences of all pairs of rows. The colour goes by p, which is corrected for the number of "
        "pairs (Holm); the intervals are not, so one may leave out zero and its pair still be not significant.",
        spec=spec,
        controls=(_METRIC,),
        table=table.number,
    )


def _views(table: ReportTable) -> Chart:
    """What each further view costs in time and brings in AP."""
    tta = table.results[0].tta
    rows = [
        {
            "views": step["num_views"],
            "seconds": step["seconds"],
            "times": step["seconds"] / tta["steps"][0]["seconds"] if tta["steps"][0]["seconds"] else None,
            **{metric: _known_percent(step["metrics"][metric]) for metric in METRICS},
        }
        for step in tta["steps"]
    ]
    tooltip = [
        quantitative("views", "views"),
        quantitative("value", "value (%)", format=".1f"),
        quantitative("seconds", "seconds", format=".2f"),
        quantitative("times", "times the first view", format=".1f"),
    ]
    x = quantitative("seconds", f"inference, whole {tta['split']} split (s)", scale={"zero": True})
    y = quantitative("value", f"value on {tta['split']} (%)", scale={"zero": False})
    spec: Spec = {
        "data": {"values": rows},
        "params": [choice("metric", METRICS[0])],
        "transform": [{"calculate": "datum[metric]", "as": "value"}],
        "height": 280,
        "encoding": {"x": x, "y": y},
        "layer": [
            {"mark": {"type": "line", "color": OURS}, "encoding": {"order": {"field": "views"}}},
            {"mark": {"type": "point", "size": 90, "color": OURS}, "encoding": {"tooltip": tooltip}},
            {
                "transform": [{"calculate": "datum.views + (datum.views == 1 ? ' view' : ' views')", "as": "text"}],
                "mark": {"type": "text", "align": "left", "dx": 8, "dy": 12},
                "encoding": {"text": {"field": "text"}},
            },
        ],
    }
    return Chart(
        stem=f"{table.stem}-cost",
        title="Test-time augmentation: cost against gain",
        caption=f"Each point adds a view: its time to the right, what it brings upwards. Run: {table.run_names}.",
        spec=spec,
        controls=(_METRIC,),
        table=table.number,
    )


# All runs -------------------------------------------------------------------------------------------------------------


def _pareto(runs: Runs) -> Chart:
    """Accuracy against time; a line joins the runs that no other beats in both."""
    times = {"prediction (ms/image)": "ms", "training (s)": "training"}
    rows: list[Row] = []
    for name, results in runs.items():
        timing = results.timing["views"]["test"]
        interval = results.evaluation["intervals"]["AP"]
        ap = _known_percent(results.metrics["AP"])
        for what, time in zip(times, (timing["ms_per_image"], results.training_s), strict=True):
            if ap is not None and time is not None:
                rows.append({"run": name, "what": what, "time": time, "AP": ap, **_ends(interval)})
    for row in rows:
        others = [other for other in rows if other["what"] == row["what"] and other is not row]
        row["front"] = not any(_beats(other, row) for other in others)
    names = list(runs)
    parameter, only_shown = shown(names)
    x = quantitative("time", "time", scale={"zero": True})
    tooltip = [nominal("run", "run"), quantitative("time", "time", format=".1f"), *_estimate("AP")]
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
                "encoding": {"y": _percent_axis("AP", "AP (%)")},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.6, "opacity": 0.6},
                "encoding": {
                    "y": _percent_axis("low", "AP (%)"),
                    "y2": {"field": "high"},
                    "color": colour_of(names),
                },
            },
            {
                "mark": {"type": "point", "size": 110},
                "encoding": {"y": _percent_axis("AP", "AP (%)"), "color": colour_of(names), "tooltip": tooltip},
            },
        ],
    }
    return Chart(
        stem="accuracy-and-time",
        title="Accuracy against time",
        caption="Up is better, left is faster; the dashed line joins those of all runs that no other beats in both. "
        "Times are of the machine named above.",
        spec=spec,
        controls=(Control(parameter="what", label="time of", options=list(times)),),
    )


def _beats(one: Row, other: Row) -> bool:
    """As good in both, and better in one."""
    no_worse = one["time"] <= other["time"] and one["AP"] >= other["AP"]
    return bool(no_worse and (one["time"], one["AP"]) != (other["time"], other["AP"]))


def _curves(histories: Mapping[str, pd.DataFrame]) -> Chart | None:
    if not histories:
        return None
    names = list(histories)
    rows = [{"run": name, **row} for name, history in histories.items() for row in thinned(history)]
    parameter, only_shown = shown(names)
    curve_of = {title: column for column, title in CURVES.items()}
    tooltip = [
        nominal("run", "run"),
        quantitative("step", "step"),
        quantitative("epoch", "epoch"),
        quantitative("value", "value", format=".4~g"),
    ]
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter, choice("curve", CURVES["loss"])],
        "transform": [
            only_shown,
            # An object of the titles: the reader sees words, the rows have short keys.
            {"calculate": f"datum[{_lookup(curve_of)}[curve]]", "as": "value"},
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
        caption=f"Means over equal stretches of each training, at most {MAX_POINTS}; history.csv has each step.",
        spec=spec,
        controls=(Control(parameter="curve", label="curve", options=list(curve_of), files=True),),
    )


def thinned(history: pd.DataFrame) -> list[Row]:
    """Rows of a history as at most `MAX_POINTS` means of consecutive steps, to four digits."""
    size = -(-len(history) // MAX_POINTS)
    columns = ["step", "epoch", *(column for column in CURVES if column in history)]
    means = history[columns].groupby(pd.RangeIndex(len(history)) // size).mean()
    return [{str(key): _digits(value, 4) for key, value in row.items()} for row in means.to_dict("records")]


def _per_class(runs: Runs) -> Chart:
    rows = []
    for name, results in runs.items():
        for of_class in results.evaluation["per_class"]:
            for metric in ("AP", "AP50"):
                interval = of_class["intervals"].get(metric, {"low": None, "high": None})
                value = _known_percent(of_class[metric])
                row = {"run": name, "class": of_class["name"], "metric": metric, "value": value}
                rows.append(row | _ends(interval))
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
        "layer": _points_with_intervals("x", "class", width=1.6, size=50),
    }
    return Chart(
        stem="classes",
        title="Each class",
        caption="AP or AP50 of each class and run, with its interval where there is one.",
        spec=spec,
        controls=(Control(parameter="metric", label="metric", options=["AP", "AP50"]),),
    )


def _errors(analyses: Mapping[str, Any]) -> Chart | None:
    if not analyses:
        return None
    rows = [
        {
            "run": name,
            "kind": kind,
            "gain": _known_percent(analysis["errors"][kind]["delta_ap50"]),
            "count": analysis["errors"][kind]["count"],
        }
        for name, analysis in analyses.items()
        for kind in ERROR_KINDS
    ]
    names = list(analyses)
    parameter, only_shown = shown(names)
    tooltip = [
        nominal("run", "run"),
        nominal("kind", "kind of error"),
        quantitative("gain", "AP50 it costs (points)", format=".1f"),
        quantitative("count", "how often", format=","),
    ]
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter],
        "transform": [only_shown],
        "height": len(ERROR_KINDS) * (11 * len(names) + 16),
        "mark": {"type": "bar"},
        "encoding": {
            "y": nominal("kind", None),
            "yOffset": nominal("run", None, scale={"domain": names}),
            "x": quantitative("gain", "AP50 that repairing it would gain (points)"),
            "color": colour_of(names),
            "tooltip": tooltip,
        },
    }
    return Chart(
        stem="errors",
        title="What costs AP50",
        caption="What AP50 would gain if one kind of error alone were repaired (TIDE, Bolya et al., ECCV 2020); the "
        "gains do not add up.",
        spec=spec,
    )


def _precision_recall(analyses: Mapping[str, Any]) -> Chart | None:
    if not analyses:
        return None
    rows = []
    for name, analysis in analyses.items():
        curves = analysis["precision_recall"]
        for iou, precision in curves["mean"].items():
            rows.append({"run": name, "of": MEAN, "iou": iou, "precision": _as_percent(precision)})
        for of_class in curves["per_class"]:
            if of_class["0.50"] is not None:
                precision = _as_percent(of_class["0.50"])
                rows.append({"run": name, "of": of_class["name"], "iou": "0.50", "precision": precision})
    names = list(analyses)
    parameter, only_shown = shown(names)
    classes = list(dict.fromkeys(row["of"] for row in rows))
    tooltip = [
        nominal("run", "run"),
        nominal("iou", "IoU"),
        quantitative("recall", "recall (%)"),
        quantitative("precision", "precision (%)", format=".1f"),
    ]
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter, choice("of", MEAN)],
        "transform": [
            only_shown,
            {"filter": "datum.of == of"},
            {"flatten": ["precision"]},
            {"window": [{"op": "row_number", "as": "place"}], "groupby": ["run", "iou"]},
            {"calculate": "datum.place - 1", "as": "recall"},  # the 101 steps are percents
        ],
        "height": 320,
        "encoding": {
            "x": quantitative("recall", "recall (%)", scale={"domain": [0, 100]}),
            "y": quantitative("precision", "precision (%)", scale={"domain": [0, 100]}),
            "color": colour_of(names),
        },
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {"strokeDash": nominal("iou", "IoU", scale={"domain": ["0.50", "0.75"]})},
            },
            {"mark": {"type": "point", "opacity": 0, "size": 90}, "encoding": {"tooltip": tooltip}},
        ],
    }
    return Chart(
        stem="precision-recall",
        title="Precision and recall",
        caption="Precision at 101 steps of recall: the mean of the classes at IoU 0.50 and 0.75, or one class at 0.50.",
        spec=spec,
        controls=(Control(parameter="of", label="class", options=classes),),
    )


def _confusion(analyses: Mapping[str, Any]) -> Chart | None:
    if not analyses:
        return None
    rows = []
    for name, analysis in analyses.items():
        labels, counts = analysis["confusion"]["labels"], analysis["confusion"]["counts"]
        totals: dict[int, int] = {}
        for truth, _, count in counts:
            totals[truth] = totals.get(truth, 0) + count
        rows += [
            {
                "run": name,
                "truth": labels[truth],
                "found": labels[found],
                "count": count,
                "share": round(100 * count / totals[truth], 1),
            }
            for truth, found, count in counts
        ]
    names = list(analyses)
    labels = next(iter(analyses.values()))["confusion"]["labels"]
    score = next(iter(analyses.values()))["confusion"]["min_score"]
    tooltip = [
        nominal("truth", "is"),
        nominal("found", "was called"),
        quantitative("count", "how often", format=","),
        quantitative("share", "of these (%)"),
    ]
    axis = {"scale": {"domain": labels}}
    spec: Spec = {
        "data": {"values": rows},
        "params": [choice("one", names[0])],
        "transform": [{"filter": "datum.run == one"}],
        "height": (30 if len(labels) <= MAX_READABLE else 14) * len(labels),
        "encoding": {
            "x": nominal("found", "was called", axis={"labelAngle": -40, "orient": "top"}, **axis),
            "y": nominal("truth", "is", **axis),
        },
        "layer": [
            {
                "mark": {"type": "rect"},
                "encoding": {
                    # From see-through: the same on a light page as on a dark one.
                    "color": {"value": OURS},
                    "opacity": quantitative(
                        "share", "share of the row (%)", scale={"domain": [0, 100], "range": [0.06, 0.85]}
                    ),
                    "tooltip": tooltip,
                },
            },
            *(
                [{"mark": {"type": "text"}, "encoding": {"text": {"field": "count"}}}]
                if len(labels) <= MAX_READABLE
                else []
            ),
        ],
    }
    return Chart(
        stem="confusion",
        title="Confusion matrix",
        caption=f"What became of the objects of each class, and of what is none: detections that score at least "
        f"{score}, each with the free object that it overlaps most, by an IoU of at least 0.5.",
        spec=spec,
        controls=(Control(parameter="one", label="run", options=names),),
    )


def _calibration(analyses: Mapping[str, Any]) -> Chart | None:
    if not analyses:
        return None
    rows = [
        {
            "run": name,
            "score": _digits(of_bin["mean_score"], 4),
            "precision": _known_percent(of_bin["precision"]),
            "num": of_bin["num"],
        }
        for name, analysis in analyses.items()
        for of_bin in analysis["calibration"]["bins"]
        if of_bin["num"]
    ]
    names = list(analyses)
    parameter, only_shown = shown(names)
    tooltip = [
        nominal("run", "run"),
        quantitative("score", "mean score", format=".2f"),
        quantitative("precision", "right (%)", format=".1f"),
        quantitative("num", "detections", format=","),
    ]
    spec: Spec = {
        "height": 320,
        "params": [parameter],
        "layer": [
            {
                "data": {"values": [{"score": 0, "precision": 0}, {"score": 1, "precision": 100}]},
                "mark": {"type": "line", "strokeDash": [4, 4], "color": QUIET, "strokeWidth": 1.2},
                "encoding": {"x": quantitative("score", "score"), "y": quantitative("precision", "right (%)")},
            },
            {
                "data": {"values": rows},
                "transform": [only_shown],
                "mark": {"type": "line", "point": {"size": 45}, "strokeWidth": 1.6},
                "encoding": {
                    "x": quantitative("score", "score", scale={"domain": [0, 1]}),
                    "y": quantitative("precision", "right at IoU 0.50 (%)", scale={"domain": [0, 100]}),
                    "color": colour_of(names),
                    "tooltip": tooltip,
                },
            },
        ],
    }
    return Chart(
        stem="calibration",
        title="Calibration",
        caption="Share of right detections by score, in ten bins; on the dashed line the score is the probability to "
        "be right.",
        spec=spec,
    )


def _difficulty(analyses: Mapping[str, Any]) -> Chart | None:
    if not analyses:
        return None
    rows = []
    for name, analysis in analyses.items():
        groups = [("objects in the picture", row["objects"], row) for row in analysis["by_crowding"]["groups"]]
        groups += [("size of the object", size, row) for size, row in analysis["by_size"].items()]
        for by, group, row in groups:
            for metric in ("AP", "AP50"):
                value = _known_percent(row[metric])
                shown_row = {"run": name, "by": by, "group": group, "metric": metric, "value": value}
                rows.append(shown_row | _ends(row["intervals"][metric]))
    names = list(analyses)
    parameter, only_shown = shown(names)
    kinds = list(dict.fromkeys(str(row["by"]) for row in rows))
    spec: Spec = {
        "data": {"values": rows},
        "params": [parameter, choice("by", kinds[0]), choice("metric", "AP")],
        "transform": [only_shown, {"filter": "datum.by == by && datum.metric == metric && isValid(datum.value)"}],
        "height": 280,
        "encoding": {
            "x": nominal("group", None, axis={"labelAngle": 0}),
            "xOffset": nominal("run", None, scale={"domain": names}),
            "color": colour_of(names),
        },
        "layer": _points_with_intervals("y", "group", width=1.8, size=60),
    }
    return Chart(
        stem="difficulty",
        title="Crowding and size",
        caption="AP and AP50 by the number of objects in a picture and by their size, with bootstrap intervals.",
        spec=spec,
        controls=(
            Control(parameter="by", label="by", options=kinds),
            Control(parameter="metric", label="metric", options=["AP", "AP50"]),
        ),
    )


# Helpers --------------------------------------------------------------------------------------------------------------


def _of_metric() -> list[Spec]:
    """The chosen metric and its interval as value, low and high."""
    return [
        {"calculate": "datum[metric]", "as": "value"},
        {"calculate": "datum[metric + ' low']", "as": "low"},
        {"calculate": "datum[metric + ' high']", "as": "high"},
        {"filter": "isValid(datum.value)"},
    ]


def _estimate(field: str = "value") -> list[Spec]:
    """A number with the ends of its interval, for a tooltip."""
    return [
        quantitative(field, f"{field} (%)", format=".1f"),
        quantitative("low", "from", format=".1f"),
        quantitative("high", "to", format=".1f"),
    ]


def _points_with_intervals(channel: str, of: str, *, width: float, size: float) -> list[Spec]:
    """Layers of values with their intervals along x or y, of runs; `of` is what else names a point."""
    tooltip = [nominal(of, of), nominal("run", "run"), *_estimate()]
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


def _percent_axis(field: str, title: str = "value (%)") -> Spec:
    return quantitative(field, title, scale={"zero": False, "nice": True})


def _numbers(row: Mapping[Any, Any]) -> Row:
    columns = [f"{metric}{end}" for metric in METRICS for end in ("", " low", " high")]
    return {column: _digits(_known(row.get(column)), 5) for column in columns}


def _known(value: Any) -> float | None:
    """None, which JSON has, for NaN, which it has not."""
    return None if value is None or pd.isna(value) else float(value)


def _known_percent(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else _digits(100 * value, 5)


def _ends(interval: Mapping[str, float | None]) -> Row:
    return {end: _known_percent(interval[end]) for end in ("low", "high")}


def _as_percent(values: Iterable[float]) -> list[float]:
    return [round(100 * value, 1) for value in values]


def _digits(value: float | None, digits: int) -> float | None:
    """To so many significant digits: a page of long numbers is a large page."""
    return value if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def _lookup(names: Mapping[str, str]) -> str:
    """A Vega expression of an object."""
    return "{" + ", ".join(f"'{key}': '{value}'" for key, value in names.items()) + "}"
