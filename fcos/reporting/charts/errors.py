"""Charts of the errors of the models: kinds of error, precision-recall, confusion, calibration, difficulty."""

from collections.abc import Mapping
from typing import Any

from fcos.reporting.charts.encodings import OURS, as_percent, digits, ends, known_percent, points_with_intervals
from fcos.reporting.charts.runs import MEAN
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
from fcos.scoring.errors import ERROR_KINDS

MAX_READABLE = 24  # largest number of classes for which the cells of a confusion matrix show numbers


def errors_chart(analyses: Mapping[str, Any]) -> Chart | None:
    """Return the chart of AP50 lost by kind of error (as in TIDE); None without analyses."""
    if not analyses:
        return None
    rows = [
        {
            "run": name,
            "kind": kind,
            "gain": known_percent(analysis["errors"][kind]["delta_ap50"]),
            "count": analysis["errors"][kind]["count"],
        }
        for name, analysis in analyses.items()
        for kind in ERROR_KINDS
    ]
    names = list(analyses)
    parameter, only_shown = shown(names)
    tooltip = [
        named("run", "run"),
        named("kind", "kind of error"),
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
            "x": quantitative("gain", "AP50 that repairing it would gain (points)", stack=None),
            "color": colour_of(names),
            "tooltip": tooltip,
        },
    }
    return Chart(
        stem="errors",
        title="AP50 lost to each kind of error",
        caption="Gain in AP50 if only one type of error were fixed (TIDE, Bolya et al., ECCV 2020); the "
        "gains do not add up.",
        spec=spec,
    )


def precision_recall_chart(analyses: Mapping[str, Any]) -> Chart | None:
    """Return the chart of precision against recall; None without analyses."""
    if not analyses:
        return None
    rows = []
    for name, analysis in analyses.items():
        curves = analysis["precision_recall"]
        for iou, precision in curves["mean"].items():
            rows.append({"run": name, "of": MEAN, "iou": iou, "precision": as_percent(precision)})
        for of_class in curves["per_class"]:
            if of_class["0.50"] is not None:
                precision = as_percent(of_class["0.50"])
                rows.append({"run": name, "of": of_class["name"], "iou": "0.50", "precision": precision})
    names = list(analyses)
    parameter, only_shown = shown(names)
    classes = list(dict.fromkeys(row["of"] for row in rows))
    tooltip = [
        named("run", "run"),
        named("iou", "IoU"),
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
            {"calculate": "datum.place - 1", "as": "recall"},  # the 101 recall steps are in percent
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


def confusion_chart(analyses: Mapping[str, Any]) -> Chart | None:
    """Return the confusion matrix of the classes; None without analyses."""
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
        named("truth", "is"),
        named("found", "was called"),
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
                    # Opacity starts at 0, so that it works on a light and on a dark page.
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
        caption="True class against predicted class, with missed objects and false positives. Each detection that "
        f"scores at least {score} is matched to the free object of highest IoU (at least 0.5).",
        spec=spec,
        controls=(Control(parameter="one", label="run", options=names),),
    )


def calibration_chart(analyses: Mapping[str, Any]) -> Chart | None:
    """Return the chart of precision against score; None without analyses."""
    if not analyses:
        return None
    rows = [
        {
            "run": name,
            "score": digits(of_bin["mean_score"], 4),
            "precision": known_percent(of_bin["precision"]),
            "num": of_bin["num"],
        }
        for name, analysis in analyses.items()
        for of_bin in analysis["calibration"]["bins"]
        if of_bin["num"]
    ]
    names = list(analyses)
    parameter, only_shown = shown(names)
    tooltip = [
        named("run", "run"),
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
        caption="Precision of the detections in ten bins of score; on the dashed line, precision and score are equal.",
        spec=spec,
    )


def difficulty_chart(analyses: Mapping[str, Any]) -> Chart | None:
    """Return the chart of AP by the number and the size of objects; None without analyses."""
    if not analyses:
        return None
    rows = []
    for name, analysis in analyses.items():
        groups = [("objects in the image", row["objects"], row) for row in analysis["by_crowding"]["groups"]]
        groups += [("size of the object", size, row) for size, row in analysis["by_size"].items()]
        for by, group, row in groups:
            for metric in ("AP", "AP50"):
                value = known_percent(row[metric])
                shown_row = {"run": name, "by": by, "group": group, "metric": metric, "value": value}
                rows.append(shown_row | ends(row["intervals"][metric]))
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
        "layer": points_with_intervals("y", "group", width=1.8, size=60),
    }
    return Chart(
        stem="difficulty",
        title="Crowding and size",
        caption="AP and AP50 by the number of objects in an image and by their size, with bootstrap intervals.",
        spec=spec,
        controls=(
            Control(parameter="by", label="by", options=kinds),
            Control(parameter="metric", label="metric", options=["AP", "AP50"]),
        ),
    )
