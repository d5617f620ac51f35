"""Test pictures with what a run found in them, as files: for report.md and MLflow; the page has a gallery."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from fcos.data.coco import CocoSplit
from fcos.data.pictures import read_annotated
from fcos.reporting.png import save_png
from fcos.reporting.results import RunResults
from fcos.scoring.errors import SHOWN_SCORE

DPI = 110
NUM_SAMPLES, SAMPLE_COLUMNS, SAMPLES_WIDE = 6, 3, 6.0  # pictures of detections.png; how many inches they fill together
# Okabe and Ito, "Color universal design" (2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#555555"
COLUMNS, SIDE = 5, 2.2  # pictures in a row of worst.png, and how many inches each is wide
MAX_SHOWN = 6  # detections in one of them: the worst have dozens, of which nothing could be read
DARK_COLOURS = frozenset(COLOURS[:3])  # white is read on these, black on the others
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


def draw_run_pictures(
    results: RunResults, split: CocoSplit, detections: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Draw some of the `detections` of a run (detections.png), and the pictures with most errors (worst.png)."""
    draw(folder / "detections.png", _detections, results, detections, split, sample_images(split, NUM_SAMPLES))
    worst = results.evaluation["analysis"]["worst_images"]
    if worst:
        draw(folder / "worst.png", _worst, worst, split, detections, results.run.name)


def sample_images(split: CocoSplit, count: int) -> list[dict[str, Any]]:
    """At most `count` pictures with objects, evenly spread over the split: the same for every run."""
    images = [image for image in split.images if split.annotations_of.get(image["id"])] or split.images
    count = min(count, len(images))
    return [images[index * len(images) // count] for index in range(count)]


def draw(path: Path, function: Callable[..., Figure], *arguments: Any) -> None:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the text of the report has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = function(*arguments)
        figure.set_dpi(DPI)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    save_png(Image.fromarray(np.asarray(canvas.buffer_rgba())), path)


def _detections(
    results: RunResults,
    detections: Sequence[Mapping[str, Any]],
    split: CocoSplit,
    images: Sequence[dict[str, Any]],
) -> Figure:
    """Pictures in rows, with what a run found in them."""
    columns, width = SAMPLE_COLUMNS, SAMPLES_WIDE
    found: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in images}
    for detection in detections:
        if detection["score"] >= SHOWN_SCORE and detection["image_id"] in found:
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
        Line2D([], [], color=GREY, linestyle="--", label="ground truth"),
        Line2D([], [], color=COLOURS[0], label=f"{results.run.name}: class and score from {SHOWN_SCORE} on"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def draw_picture(
    axes: Axes, split: CocoSplit, image: dict[str, Any], detections: Sequence[Mapping[str, Any]], *, pixels: int
) -> None:
    size = image["height"], image["width"]
    picture = Image.fromarray(read_annotated(split.path_of(image), image))
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


def _worst(
    worst: Sequence[Mapping[str, Any]], split: CocoSplit, results: Sequence[Mapping[str, Any]], name: str
) -> Figure:
    image_of = {image["id"]: image for image in split.images}
    images = [image_of[row["image_id"]] for row in worst]
    shown: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for detection in sorted(results, key=lambda result: -result["score"]):
        of_image = shown.get(detection["image_id"], [])
        if detection["score"] >= SHOWN_SCORE and len(of_image) < MAX_SHOWN:
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
