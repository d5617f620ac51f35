"""Charts of the tables: rows with their intervals, paired differences, and time and AP of TTA."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from fcos.reporting.charts.encodings import (
    METRIC_CONTROL,
    METRICS,
    OTHER,
    OURS,
    estimate,
    known,
    known_percent,
    numbers,
    of_metric,
    percent_axis,
)
from fcos.reporting.vega import (
    QUIET,
    Chart,
    Spec,
    choice,
    named,
    nominal,
    quantitative,
)

if TYPE_CHECKING:
    from fcos.reporting.report_table import ReportTable
    from fcos.reporting.results import RunResults


def table_charts(tables: Sequence["ReportTable"]) -> list[Chart]:
    """Return the charts of AP with intervals, of paired differences, and of time and AP of TTA."""
    charts: list[Chart] = []
    for table in tables:
        if table.config.kind == "tta":
            charts.append(_views(table))
        elif table.config.kind in ("nms", "runs", "results"):
            charts.append(_rows(table))
        if table.comparisons and table.config.kind != "nms":  # eleven thresholds have 55 pairs
            charts.append(_differences(table))
    return charts


def _rows(table: "ReportTable") -> Chart:
    """Return points with intervals for each row, beside the published numbers."""
    label = table.label
    rows = [
        {"label": str(row[label]), "source": row["source"], "runs_of": ", ".join(runs), **numbers(row)}
        for row, runs in zip(table.frame.to_dict("records"), table.runs_of_rows, strict=True)
        if row["source"] in ("ours", "published")
    ]
    tooltip = [named("label", label), named("source", "source"), *estimate(), named("runs_of", "runs")]
    published = any(row["source"] == "published" for row in rows)
    source = nominal(
        "source", None, scale={"domain": ["ours", "published"], "range": [OURS, OTHER]}, legend={"columns": 2}
    )
    colour: Spec = {"color": source, "shape": source} if published else {"color": {"value": OURS}}
    spec: Spec = {
        "data": {"values": rows},
        "params": [choice("metric", METRICS[0])],
        "transform": of_metric(),
        "height": 34 * len({row["label"] for row in rows}),
        "encoding": {"y": nominal("label", label)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.75},
                "encoding": {
                    "x": percent_axis("low"),
                    "x2": {"field": "high"},
                    "color": colour["color"],
                },
            },
            {
                "mark": {"type": "point", "size": 90},
                "encoding": {"x": percent_axis("value"), **colour, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.source == 'ours'"}],
                "mark": {"type": "text", "dy": -11},
                "encoding": {"x": percent_axis("value"), "text": {"field": "value", "format": ".1f"}},
            },
        ],
    }
    return Chart(
        stem=table.stem,
        title=table.config.title,
        caption="Each row of the table with its interval"
        + (", and the published numbers, which have none." if published else "."),
        spec=spec,
        controls=(METRIC_CONTROL,),
        table=table.number,
    )


def _differences(table: "ReportTable") -> Chart:
    """Return the paired difference of every pair of rows with its interval; intervals without 0 are significant."""
    frame = table.difference_frame()
    significant = [
        comparison.is_significant(place) for comparison in table.comparisons for place in range(len(METRICS))
    ]
    rows = [
        {
            "pair": f"{row['row']} \u2212 {row['other']}",
            "metric": row["metric"],
            "value": known(row["difference"]),
            "low": known(row["low"]),
            "high": known(row["high"]),
            "p": known(row["p (Holm)"]),
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
        named("pair", "difference"),
        quantitative("value", "points", format="+.2f"),
        quantitative("low", "from", format="+.2f"),
        quantitative("high", "to", format="+.2f"),
        quantitative("p", "p (Holm)", format=".2g"),
        named("verdict", "verdict"),
    ]
    y = nominal("pair", None, axis={"labelLimit": 320})
    spec: Spec = {
        "data": {"values": rows},
        "params": [choice("metric", METRICS[0])],
        "transform": [{"filter": "datum.metric == metric"}],
        "height": 28 * len(table.comparisons),
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 0}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": {
                    "y": y,
                    "x": quantitative("low", "difference (points), with its interval"),
                    "x2": {"field": "high"},
                    "color": verdict,
                },
            },
            {
                "mark": {"type": "point", "size": 80},
                "encoding": {"y": y, "x": quantitative("value", ""), "color": verdict, "tooltip": tooltip},
            },
        ],
    }
    return Chart(
        stem=f"{table.stem}-differences",
        title=f"{table.config.title}: paired differences",
        caption="Paired differences of all pairs of rows. The colour shows p, corrected for the number of pairs "
        "(Holm). The intervals are not corrected: one can exclude zero although its pair is not significant.",
        spec=spec,
        controls=(METRIC_CONTROL,),
        table=table.number,
    )


def _views(table: "ReportTable") -> Chart:
    """Return the time and AP of each number of views."""
    tta = cast("RunResults", table.results[0]).tta
    rows = [
        {
            "views": step["num_views"],
            "seconds": step["seconds"],
            "times": step["seconds"] / tta["steps"][0]["seconds"] if tta["steps"][0]["seconds"] else None,
            **{metric: known_percent(step["metrics"][metric]) for metric in METRICS},
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
        caption=f"Each point adds one view: time on the x-axis, AP on the y-axis. Run: {table.run_names}.",
        spec=spec,
        controls=(METRIC_CONTROL,),
        table=table.number,
    )
