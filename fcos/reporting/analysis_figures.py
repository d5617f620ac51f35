"""The figures of one run's error analysis, in the style of the others."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from fcos.data.coco import CocoSplit
from fcos.reporting.figures import (
    COLOURS,
    DPI,
    MIN_SCORE,
    draw,
    draw_picture,
    legend_below,
    one_axes,
    percents,
)
from fcos.scoring.errors import ERROR_KINDS

Row = Mapping[str, Any]
RECALL_PERCENT = np.linspace(0, 100, 101)
GREY = "#555555"
COLUMNS, SIDE = 5, 2.2  # pictures in a row of worst.png, and how many inches each is wide
MAX_SHOWN = 6  # detections in one of them: the worst have dozens, of which nothing could be read


def draw_analysis(
    analysis: Row, split: CocoSplit, results: Sequence[Mapping[str, Any]], out_dir: Path, name: str
) -> list[tuple[Path, str]]:
    """Draw what there is data for into `out_dir`: errors, precision-recall, calibration, crowding and worst (.png).

    Args:
        analysis: what `fcos.scoring.analysis.analyse` gave.
        split: the scored split; its pictures are read for the worst of them.
        results: the detections that were scored, as COCO results.
        name: of the run.

    Returns:
        The path and the caption of each figure, in order.

    Raises:
        UserError: a picture is missing or cannot be decoded.
    """
    has_objects = analysis["errors"]["AP50"] is not None
    figures: list[tuple[str, bool, Callable[..., Figure], tuple[Any, ...], str]] = [
        (
            "errors",
            has_objects,
            _errors,
            (analysis["errors"],),
            "What AP50 would gain if one kind of error alone were repaired (TIDE). The gains do not add up.",
        ),
        (
            "precision-recall",
            has_objects,
            _precision_recall,
            (analysis["precision_recall"],),
            "Precision at 101 steps of recall: thin each class at IoU 0.50, bold the mean of the classes.",
        ),
        (
            "calibration",
            analysis["calibration"]["expected_calibration_error"] is not None,
            _calibration,
            (analysis["calibration"],),
            "Share of right detections (IoU 0.50) by score; on the diagonal the score is the probability to be right.",
        ),
        (
            "crowding",
            has_objects,
            _crowding,
            (analysis["by_crowding"]["groups"], analysis["by_size"]),
            "AP and AP50 by the number of objects in a picture and by their size, with bootstrap intervals.",
        ),
        (
            "worst",
            bool(analysis["worst_images"]),
            _worst,
            (analysis["worst_images"], split, results),
            "The pictures with the most missed objects and false positives, each with its surest detections: at most "
            f"{MAX_SHOWN}, above a score of {MIN_SCORE}. The title counts all above it.",
        ),
    ]
    return [
        (draw(out_dir / f"{stem}.png", function, *arguments, name), f"{caption} Run: {name}.")
        for stem, drawn, function, arguments, caption in figures
        if drawn
    ]


def _errors(errors: Row, name: str) -> Figure:
    figure, axes = one_axes(f"What costs {name} AP50", "AP50 that repairing it would gain (points)", "", (8.0, 3.2))
    gains = percents(errors[kind]["delta_ap50"] for kind in ERROR_KINDS)
    places = np.arange(len(ERROR_KINDS))
    axes.barh(places, gains, 0.68, color=COLOURS[0])
    for place, kind, gain in zip(places, ERROR_KINDS, gains, strict=True):
        count = errors[kind]["count"]
        things = ("object" if kind == "missed" else "detection") + "s" * (count != 1)
        text = f"+{gain:.1f}   ({count:,} {things})"
        axes.annotate(text, (gain, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(places, ERROR_KINDS)
    axes.invert_yaxis()
    axes.set_xlim(0, max(*gains, 1) * 1.3)  # room for the text
    axes.grid(axis="y", visible=False)
    return figure


def _precision_recall(curves: Row, name: str) -> Figure:
    figure, axes = one_axes(f"Precision and recall of {name}", "recall (%)", "precision (%)", (8.0, 4.4))
    of_classes = [row["0.50"] for row in curves["per_class"] if row["0.50"] is not None]
    for number, curve in enumerate(of_classes):
        label = "_" if number else "one class, IoU 0.50"  # a label that begins with _ stays out of the legend
        axes.plot(RECALL_PERCENT, percents(curve), color="#9a9a9a", linewidth=0.6, alpha=0.7, label=label)
    for (iou, curve), colour in zip(curves["mean"].items(), COLOURS, strict=False):
        axes.plot(RECALL_PERCENT, percents(curve), color=colour, linewidth=2.2, label=f"mean of classes, IoU {iou}")
    axes.set(xlim=(0, 100), ylim=(0, 102))
    legend_below(figure, axes)
    return figure


def _calibration(calibration: Row, name: str) -> Figure:
    bins = calibration["bins"]
    middle, width = [(row["low"] + row["high"]) / 2 for row in bins], bins[0]["high"] - bins[0]["low"]
    figure = Figure(figsize=(8.0, 5.0))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(middle, percents(row["precision"] for row in bins), width * 0.92, color=COLOURS[5], label="precision")
    upper.plot([0, 1], [0, 100], "--", color=GREY, linewidth=1.2, label="score = precision")
    points = [(row["mean_score"], 100 * row["precision"]) for row in bins if row["num"]]
    upper.plot(*zip(*points, strict=True), "o-", color=COLOURS[0], markersize=4, label="at the mean score of the bin")
    error = 100 * calibration["expected_calibration_error"]
    upper.set(title=f"Calibration of {name}: expected error {error:.1f} points", ylabel="precision at IoU 0.50 (%)")
    upper.set(xlim=(0, 1), ylim=(0, 100))
    lower.bar(middle, [row["num"] for row in bins], width * 0.92, color="#9a9a9a")
    lower.set(xlabel="score", ylabel="detections", yscale="log", xticks=np.linspace(0, 1, 11))
    lower.set_ylim(bottom=0.8)  # one detection is seen
    lower.yaxis.set_minor_locator(NullLocator())
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))  # the default one needs math text
    legend_below(figure, upper)
    return figure


def _crowding(groups: Sequence[Row], by_size: Mapping[str, Row], name: str) -> Figure:
    figure = Figure(figsize=(9.0, 3.9))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 3))
    _with_intervals(left, groups, [f"{row['objects']}\n{row['num_images']:,} pictures" for row in groups])
    sizes = [f"{size}\n{row['num_objects']:,} objects" for size, row in by_size.items()]
    _with_intervals(right, list(by_size.values()), sizes)
    left.set(title=f"{name} by crowding", xlabel="objects in the picture", ylabel="AP, AP50 (%)")
    right.set(title="by size", xlabel="area of the object")
    left.set_ylim(bottom=0)
    legend_below(figure, left)
    return figure


def _with_intervals(axes: Axes, rows: Sequence[Row], labels: Sequence[str]) -> None:
    for metric, colour, shift, marker in (("AP", COLOURS[0], -0.1, "o"), ("AP50", COLOURS[1], 0.1, "s")):
        x = np.arange(len(rows)) + shift
        low, high = (percents(row["intervals"][metric][end] for row in rows) for end in ("low", "high"))
        # Lines of their own: an interval that is moved by the bias need not hold the number.
        axes.vlines(x, low, high, color=colour, linewidth=2, alpha=0.55)
        values = percents(row[metric] for row in rows)
        axes.plot(x, values, marker, color=colour, markersize=6, label=metric)
        for place, value in zip(x, values, strict=True):
            if not np.isnan(value):
                side = -1 if shift < 0 else 1
                axes.annotate(
                    f"{value:.1f}",
                    (place, value),
                    xytext=(7 * side, 0),
                    textcoords="offset points",
                    ha="right" if side < 0 else "left",
                    va="center",
                    fontsize=8,
                )
    axes.set_xticks(np.arange(len(rows)), labels)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", visible=False)


def _worst(worst: Sequence[Row], split: CocoSplit, results: Sequence[Mapping[str, Any]], name: str) -> Figure:
    image_of = {image["id"]: image for image in split.images}
    images = [image_of[row["image_id"]] for row in worst]
    shown: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for detection in sorted(results, key=lambda result: -result["score"]):
        of_image = shown.get(detection["image_id"], [])
        if detection["score"] > MIN_SCORE and len(of_image) < MAX_SHOWN:
            of_image.append(dict(detection))
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    side = max(SIDE, 2 * SIDE / columns)  # wide enough for the legend
    tallest = max(image["height"] / image["width"] for image in images)
    height = rows * (min(max(tallest, 0.6), 1.3) * side + 0.45) + 0.4
    figure = Figure(figsize=(columns * side, height))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, image, row in zip(grid, images, worst, strict=False):
        draw_picture(axes, split, image, shown[image["id"]], pixels=round(side * DPI))
        text = f"{Path(row['file_name']).name[-28:]}\n{row['missed']} missed, {row['false_positives']} false"
        axes.set_title(text, fontsize=8, fontweight="normal", pad=4)
    handles = [
        Line2D([], [], color=GREY, linestyle="--", label="ground truth"),
        Line2D([], [], color=COLOURS[0], label=f"{name}: the surest, with class and score"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
