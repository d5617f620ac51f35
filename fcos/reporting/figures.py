"""The figures of the report, drawn without a display; small files, colours that the colour-blind can tell apart."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from fcos.data.coco import CocoSplit
from fcos.data.pictures import read_picture
from fcos.files import whole_file
from fcos.reporting.intervals import DASH
from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import RunResults, StudyResults

DPI = 110
MIN_SCORE = 0.3  # of the detections that are drawn
# Okabe and Ito, "Color universal design" (2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DARK_COLOURS = frozenset(COLOURS[:3])  # white is read on these, black on the others
LOSSES = {
    "loss_classification": "classification (focal)",
    "loss_regression": "regression (GIoU)",
    "loss_centerness": "centerness (BCE)",
}
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and runs are data: a $ in them is a $
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, kw_only=True)
class FigureFile:
    """A figure on disk; `table` is the number of the table that it goes with."""

    path: Path  # relative to the report
    caption: str
    table: int | None = None


def draw_figures(study: StudyResults, tables: Sequence[ReportTable], out_dir: Path) -> list[FigureFile]:
    """Draw the figures of the study that there is data for."""
    return [*_training_figures(study, tables, out_dir), *_table_figures(tables, out_dir)]


def draw_run_figures(
    results: RunResults, split: CocoSplit, detections: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Draw the losses and some of the `detections` of a run into `folder`."""
    if len(results.history):
        draw(folder / "losses.png", _loss_parts_and_total, results, dpi=80)
    draw(folder / "detections.png", _detections, results, detections, split, sample_images(split, 8)[:6], (3, 6.0))


def sample_images(split: CocoSplit, count: int) -> list[dict[str, Any]]:
    """At most `count` pictures with objects, evenly spread over the split: the same for every run."""
    images = [image for image in split.images if split.annotations_of.get(image["id"])] or split.images
    count = min(count, len(images))
    return [images[index * len(images) // count] for index in range(count)]


def _training_figures(study: StudyResults, tables: Sequence[ReportTable], out_dir: Path) -> list[FigureFile]:
    """Losses and rate of the `trained` table's run or of the first run with a history; detections of that run."""
    trained = [(table.number, table.results[0]) for table in tables if table.config.kind == "trained"]
    others = [(None, results) for results in study.runs.values()]
    table, shown = next((pair for pair in [*trained, *others] if len(pair[1].history)), [*trained, *others][0])
    name = shown.run.name
    drawn = []
    if len(shown.history):
        for stem, function, caption in (
            ("losses", _losses, f"The three losses of {name} at each training step, and their running mean."),
            ("total-loss", _total_loss, f"The total loss of {name}: the plain sum of the three."),
            ("learning-rate", _learning_rate, f"The learning rate of {name}: linear warm-up, then cosine to 0."),
        ):
            path = draw(out_dir / "figures" / f"{stem}.png", function, shown)
            drawn.append(FigureFile(path=path.relative_to(out_dir), caption=caption, table=table))
    path = draw(
        out_dir / "figures" / "detections.png",
        _detections,
        shown,
        shown.detections(),
        study.split,
        sample_images(study.split, 8),
        (4, 9.0),
    )
    caption = (
        f"Test pictures, evenly spread over the split, with the detections of {name} that score above {MIN_SCORE}."
    )
    return [*drawn, FigureFile(path=path.relative_to(out_dir), caption=caption, table=table)]


def _table_figures(tables: Sequence[ReportTable], out_dir: Path) -> list[FigureFile]:
    drawn: list[FigureFile] = []
    for table in tables:
        vary = getattr(table.config, "vary", None)
        key = f"{table.config.kind} {vary}" if vary else table.config.kind
        has_history = any(len(results.history) for results in table.results)
        if key not in _OF_TABLE or (vary == "epochs" and not has_history):
            continue
        stem, function, caption = _OF_TABLE[key]
        path = out_dir / "figures" / f"{stem}.png"
        if path.exists():  # a second table of this kind
            path = path.with_stem(f"{stem}-{table.number}")
        draw(path, function, table)
        text = f"{caption} Runs: {table.run_names}."
        drawn.append(FigureFile(path=path.relative_to(out_dir), caption=text, table=table.number))
    return drawn


def draw(path: Path, function: Callable[..., Figure], *arguments: Any, dpi: int = DPI) -> Path:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the text of the report has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = function(*arguments)
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    # A palette makes the file a third as large. No metadata: the same numbers give the same bytes.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with whole_file(path) as scratch:
        picture.save(scratch, format="PNG", optimize=True)
    return path


def one_axes(title: str, x: str, y: str, size: tuple[float, float] = (8.0, 3.9)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def legend_below(figure: Figure, axes: Axes, **more: Any) -> None:
    """Outside of the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 4), **more)


def _window(steps: int) -> int:
    return max(1, steps // 40)


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(_window(len(values)), center=True, min_periods=1).mean()


def _curve(axes: Axes, history: pd.DataFrame, column: str, *, label: str, colour: str, raw: bool = True) -> None:
    if raw:
        axes.plot(history["step"], history[column], color=colour, linewidth=0.6, alpha=0.35)
    axes.plot(history["step"], _smooth(history[column]), color=colour, linewidth=1.8, label=label)


def _losses(results: RunResults, total: bool = False) -> Figure:
    history = results.history
    figure, axes = one_axes(f"Losses of {results.run.name}", "training step", "loss (no unit)")
    if total:
        _curve(axes, history, "loss", label="total", colour="#333333")
    for (column, label), colour in zip(LOSSES.items(), COLOURS, strict=False):
        _curve(axes, history, column, label=label, colour=colour)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    legend_below(figure, axes, title=f"thin: each step; bold: mean of {_window(len(history))} steps")
    return figure


def _loss_parts_and_total(results: RunResults) -> Figure:
    return _losses(results, total=True)


def _total_loss(results: RunResults) -> Figure:
    figure, axes = one_axes(f"Total loss of {results.run.name}", "training step", "loss (no unit)")
    _curve(axes, results.history, "loss", label="total loss", colour=COLOURS[0])
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    legend_below(figure, axes, title=f"thin: each step; bold: mean of {_window(len(results.history))} steps")
    return figure


def _learning_rate(results: RunResults) -> Figure:
    figure, axes = one_axes(f"Learning rate of {results.run.name}", "training step", "learning rate", (8.0, 3.0))
    axes.plot(results.history["step"], results.history["lr"], color=COLOURS[0], linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    return figure


def _epochs(table: ReportTable) -> Figure:
    figure, axes = one_axes("Total loss by length of training", "training step", "total loss (no unit)")
    trained = [results for results in table.results if len(results.history)]
    for index, results in enumerate(trained):
        label = f"{results.run.epochs} epochs ({results.run.name})"
        _curve(axes, results.history, "loss", label=label, colour=COLOURS[index % len(COLOURS)], raw=False)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    legend_below(figure, axes, title="running means")
    return figure


def _views(table: ReportTable) -> Figure:
    steps, split = table.results[0].tta["steps"], table.results[0].tta["split"]
    counts = [step["num_views"] for step in steps]
    figure = Figure(figsize=(8.0, 3.4))
    time, score = figure.subplots(1, 2)
    time.plot(counts, [step["seconds"] for step in steps], "o-", color=COLOURS[0])
    time.set(title="Time", xlabel="number of views", ylabel=f"inference, whole {split} split (s)")
    time.set_ylim(bottom=0)
    score.plot(counts, percents(step["metrics"]["AP"] for step in steps), "o-", color=COLOURS[1])
    score.set(title="AP", xlabel="number of views", ylabel=f"AP (%), {split} split")
    for axes in (time, score):
        axes.set_xticks(counts)
    return figure


def _nms(table: ReportTable) -> Figure:
    steps, split = table.results[0].nms_sweep["steps"], table.results[0].nms_sweep["split"]
    thresholds = [step["nms_iou_threshold"] for step in steps]
    figure, axes = one_axes("AP by NMS threshold", "NMS threshold (IoU)", f"AP (%), {split} split")
    for metric, colour, marker in zip(("AP", "AP50", "AP75"), COLOURS, "os^", strict=False):
        values = percents(step["metrics"][metric] for step in steps)
        axes.plot(thresholds, values, marker + "-", color=colour, label=metric)
    axes.set_xticks(thresholds)
    axes.set_ylim(bottom=0)
    legend_below(figure, axes)
    return figure


def _backbones(table: ReportTable) -> Figure:
    ours = table.frame[table.frame["source"] == "ours"]
    published = table.frame[table.frame["source"] == "published"].set_index(table.label)
    published = published[~published.index.duplicated()].reindex(ours[table.label])
    figure, axes = one_axes("Backbones", "", "AP (%)")
    for index, metric in enumerate(("AP", "AP50", "AP75")):
        x = np.arange(len(ours)) + (index - 1) * 0.27
        heights, theirs = (frame[metric].astype(float).to_numpy() for frame in (ours, published))
        ends = [ours[f"{metric} {end}"].astype(float).to_numpy() for end in ("low", "high")]
        axes.bar(x, heights, 0.25, color=COLOURS[index], label=metric)
        axes.vlines(x, ends[0], ends[1], color="#555555", linewidth=1.6)
        if not np.isnan(theirs).all():
            # A label that begins with _ stays out of the legend.
            label = "_" if index else "published"
            axes.plot(x, theirs, "D", color="white", markeredgecolor="black", markersize=5, label=label)
        for place, height, top in zip(x, heights, np.fmax(np.fmax(heights, theirs), ends[1]), strict=True):
            text = f"{height:.1f}" if height == height else DASH
            above = place, np.nan_to_num(top)
            axes.annotate(text, above, xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(np.arange(len(ours)), list(ours[table.label]))
    axes.grid(axis="x", visible=False)
    legend_below(figure, axes)
    return figure


def _number(value: float | None) -> float:
    """NaN, which is not drawn, where there is no number."""
    return np.nan if value is None else value


def percents(fractions: Iterable[float | None]) -> list[float]:
    return [100 * _number(value) for value in fractions]


def _detections(
    results: RunResults,
    detections: Sequence[Mapping[str, Any]],
    split: CocoSplit,
    images: Sequence[dict[str, Any]],
    shape: tuple[int, float],
) -> Figure:
    """Pictures in rows; `shape` is how many there are in a row, and how many inches they fill together."""
    columns, width = shape
    found: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in images}
    for detection in detections:
        if detection["score"] > MIN_SCORE and detection["image_id"] in found:
            found[detection["image_id"]].append(detection)
    rows = -(-len(images) // columns)
    tallest = max(image["height"] / image["width"] for image in images)
    figure = Figure(figsize=(width, rows * min(max(tallest, 0.6), 1.2) * width / columns + 0.4))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, image in zip(grid, images, strict=False):
        draw_picture(axes, split, image, found[image["id"]], pixels=round(width / columns * DPI))
    handles = [
        Line2D([], [], color="#555555", linestyle="--", label="ground truth"),
        Line2D([], [], color=COLOURS[0], label=f"{results.run.name}: class and score above {MIN_SCORE}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def draw_picture(
    axes: Axes, split: CocoSplit, image: dict[str, Any], detections: Sequence[Mapping[str, Any]], *, pixels: int
) -> None:
    size = image["height"], image["width"]
    picture = Image.fromarray(read_picture(split.path_of(image), size))
    picture.thumbnail((pixels, pixels))
    axes.imshow(picture, extent=(0, size[1], size[0], 0))
    for annotation in split.annotations_of.get(image["id"], []):
        _box(axes, annotation["bbox"], "white", linestyle=":" if annotation["iscrowd"] else "--", stroke=True)
    for detection in sorted(detections, key=lambda d: d["score"]):  # the surest on top
        label = split.label_of[detection["category_id"]]
        colour = COLOURS[label % len(COLOURS)]
        _box(axes, detection["bbox"], colour)
        text = f"{split.categories[label]['name']} {detection['score']:.2f}"
        axes.text(
            max(detection["bbox"][0], 0),
            max(detection["bbox"][1], 0),
            text,
            fontsize=6,
            color="white" if colour in DARK_COLOURS else "black",
            verticalalignment="top",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )


def _box(axes: Axes, bbox: Sequence[float], colour: str, *, linestyle: str = "-", stroke: bool = False) -> None:
    x, y, width, height = bbox
    box = Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.3, linestyle=linestyle)
    if stroke:  # seen on bright ground as on dark
        box.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
    axes.add_patch(box)


_OF_TABLE: dict[str, tuple[str, Callable[[ReportTable], Figure], str]] = {
    "tta": ("views-time", _views, "What each further view costs in inference time, and what it brings in AP."),
    "nms": ("nms", _nms, "AP, AP50 and AP75 at each NMS threshold."),
    "runs backbone": (
        "backbones",
        _backbones,
        "The backbones compared, with intervals; the numbers above the bars are ours.",
    ),
    "runs epochs": ("epochs-loss", _epochs, "Running mean of the total loss for each length of training."),
}
