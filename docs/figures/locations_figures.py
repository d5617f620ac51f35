"""Figures about which location is responsible for which object: the pyramid, one location, center sampling."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scene import COLOURS, EVERYWHERE, MODEL, SIZE, Scene, assign, draw_scene, grid, outline, show
from style import BLUE, GREEN, INK, ORANGE, PINK, SKY, SOFT, new_figure, without_axes
from torch import Tensor

from fcos.config.model import STRIDES
from fcos.losses import centerness_targets

LEVELS = [f"P{number}" for number in range(3, 8)]
FOUR_SIZES, OVERLAPPING = 59, 61  # seeds of two images
# On a photograph a text or a dot needs an edge of its own; white and black are the same on every page.
WHITE, BLACK = "#ffffff", "#000000"
HALO = [withStroke(linewidth=3, foreground=WHITE)]


def location() -> Figure:
    """Draw one location with its four target distances and its centerness."""
    scene, locations = draw_scene(FOUR_SIZES), grid()
    targets = assign(scene.boxes[None], locations)
    largest = torch.nonzero(targets.matched_gt_index[0] == 0)[:, 0]
    centerness = centerness_targets(targets.target_ltrb[0, largest])
    chosen = int(largest[centerness.argmin()])
    ltrb, stride = targets.target_ltrb[0, chosen], locations.strides[chosen]
    x, y = locations.xy[chosen].tolist()

    figure = new_figure(3.2)
    ax, words = figure.subplots(1, 2, width_ratios=(1, 0.95))
    show(ax, scene, strength=0.6)
    outline(ax, scene.boxes[0], BLUE, width=2.5)
    x1, y1, x2, y2 = scene.boxes[0].tolist()
    ends = {"l": (x1, y), "t": (x, y1), "r": (x2, y), "b": (x, y2)}
    for (name, end), colour in zip(ends.items(), (BLUE, ORANGE, GREEN, PINK), strict=True):
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "shrinkA": 4, "shrinkB": 0}
        ax.annotate("", end, (x, y), arrowprops=style)
        middle = (x + end[0]) / 2, (y + end[1]) / 2
        ax.text(*middle, name, color=BLACK, fontsize=13, fontweight="bold", ha="center", va="center", path_effects=HALO)
    ax.plot(x, y, "o", color=WHITE, markeredgecolor=BLACK, markersize=8, markeredgewidth=1.5)

    without_axes(words)
    level = LEVELS[int(locations.level_of[chosen])]
    pixels = ltrb * stride
    lines = [
        (f"location ({x:.0f}, {y:.0f}) of {level}, stride {stride:.0f}", INK),
        *(
            (f"{name} = {of_pixels:.0f} px = {of_strides:.2f} strides", colour)
            for name, of_pixels, of_strides, colour in zip(
                ends, pixels.tolist(), ltrb.tolist(), (BLUE, ORANGE, GREEN, PINK), strict=True
            )
        ),
        (f"largest: {pixels.max():.0f} px, in {level}'s range {_range(int(locations.level_of[chosen]))}", SOFT),
        (f"centerness = {float(centerness.min()):.2f}", INK),
    ]
    for row, (line, colour) in enumerate(lines):
        words.text(0, 0.88 - 0.13 * row, line, color=colour, fontsize=10.5, transform=words.transAxes)
    return figure


def pyramid() -> Figure:
    """Draw the five levels over one image, each with its cells and the objects that it is responsible for."""
    scene, locations = draw_scene(FOUR_SIZES), grid()
    matched = assign(scene.boxes[None], locations).matched_gt_index[0]
    figure = new_figure(5.4)
    axes = figure.subplots(2, 3).flatten()
    for level, (ax, stride) in enumerate(zip(axes, STRIDES, strict=False)):
        show(ax, scene, strength=0.35, small=True)
        _cells(ax, stride)
        of_level = locations.level_of == level
        answered = sorted(set(matched[of_level].tolist()) - {-1})
        for number, box in enumerate(scene.boxes):
            mine = number in answered
            outline(ax, box, COLOURS[number] if mine else BLACK, width=2.2 if mine else 0.7, line="-" if mine else ":")
        _dots(ax, locations.xy[of_level], matched[of_level], size=3 + 1.1 * level)
        count = int((matched[of_level] >= 0).sum())
        ax.set_title(f"{LEVELS[level]}: stride {stride}, {SIZE // stride} x {SIZE // stride}", fontsize=9.5)
        ax.text(
            SIZE / 2, SIZE + 34, f"{_range(level)}: {count} positive", ha="center", va="center", fontsize=9, color=SOFT
        )
    _sizes(axes[-1], scene)
    return figure


def levels() -> Figure:
    """Draw how many locations are positive for a square object of each size, level by level."""
    sides = np.geomspace(8, 900, 48)
    size, places = 1024, 16
    locations = grid(size)
    rng = np.random.default_rng(0)
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2)
    for ax, radius, title in (
        (axes[0], EVERYWHERE, "the whole box"),
        (axes[1], MODEL.center_sampling_radius, f"center sampling, {MODEL.center_sampling_radius} strides"),
    ):
        counts = np.zeros((len(STRIDES), len(sides)))
        for column, side in enumerate(sides):
            corners = rng.uniform(0, size - side, size=(places, 2))
            boxes = torch.tensor(np.concatenate((corners, corners + side), axis=1), dtype=torch.float32)[:, None]
            positive = assign(boxes, locations, radius=radius).positive_mask
            counts[:, column] = [int(positive[:, locations.level_of == i].sum()) / places for i in range(len(STRIDES))]
        ax.stackplot(sides, counts, labels=LEVELS, colors=(BLUE, SKY, GREEN, ORANGE, PINK), linewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks([8, 16, 32, 64, 128, 256, 512], labels=["8", "16", "32", "64", "128", "256", "512"])
        ax.set_xlim(8, 900)
        ax.set_title(title)
        ax.set_xlabel("side of a square object, pixels")
    axes[0].set_ylabel("positive locations, mean")
    axes[0].legend(loc="upper left", fontsize=9, handlelength=1)
    return figure


def sampling() -> Figure:
    """Draw one image without and with center sampling; a dot of two colours is a location inside two boxes."""
    scene, locations = draw_scene(OVERLAPPING), grid()
    figure = new_figure(3.6)
    axes = figure.subplots(1, 2)
    for ax, radius, title in (
        (axes[0], EVERYWHERE, "the whole box"),
        (axes[1], MODEL.center_sampling_radius, "center sampling"),
    ):
        matched = assign(scene.boxes[None], locations, radius=radius).matched_gt_index[0]
        # Positive locations of each box as if it were the only one.
        alone = assign(scene.boxes[:, None], locations, radius=radius).positive_mask  # (M, R)
        ambiguous = alone.sum(dim=0) > 1
        show(ax, scene)
        for number, box in enumerate(scene.boxes):
            outline(ax, box, COLOURS[number], width=2.2)
        _dots(ax, locations.xy[~ambiguous], matched[~ambiguous], size=5)
        _claimed(ax, locations.xy, matched, alone)
        ax.set_title(f"{title}: {int((matched >= 0).sum())} positive, {int(ambiguous.sum())} ambiguous", fontsize=9.5)
    return figure


def _range(level: int) -> str:
    low, high = MODEL.regression_ranges[level]
    return f"{low:.0f} to {high:.0f} px"


def _cells(ax: Axes, stride: int) -> None:
    edges = range(0, SIZE + 1, stride)
    lines = [[(edge, 0), (edge, SIZE)] for edge in edges] + [[(0, edge), (SIZE, edge)] for edge in edges]
    ax.add_collection(LineCollection(lines, colors=BLACK, linewidths=0.35, alpha=0.3))


def _dots(ax: Axes, xy: Tensor, matched: Tensor, *, size: float) -> None:
    for number in sorted(set(matched.tolist()) - {-1}):
        x, y = xy[matched == number].T.numpy()
        ax.plot(x, y, "o", color=COLOURS[number], markersize=size, markeredgecolor=WHITE, markeredgewidth=0.6)


def _claimed(ax: Axes, xy: Tensor, matched: Tensor, alone: Tensor) -> None:
    """Draw a location inside two boxes: the left half has the colour of the assigned box, the right half the other."""
    for index in torch.nonzero(alone.sum(dim=0) > 1)[:, 0].tolist():
        winner = int(matched[index])
        loser = next(number for number in range(len(alone)) if alone[number, index] and number != winner)
        ax.plot(
            *xy[index].tolist(),
            "o",
            fillstyle="left",
            markersize=8,
            color=COLOURS[winner],
            markerfacecoloralt=COLOURS[loser],
            markeredgecolor=WHITE,
            markeredgewidth=1,
        )


def _sizes(ax: Axes, scene: Scene) -> None:
    """Return the legend of the colours."""
    without_axes(ax)
    ax.text(0.08, 0.86, "the objects", fontweight="bold", transform=ax.transAxes)
    for number, (box, name) in enumerate(zip(scene.boxes.tolist(), scene.names, strict=True)):
        width, height = box[2] - box[0], box[3] - box[1]
        line = f"{name}, {width:.0f} x {height:.0f} px"
        ax.text(0.08, 0.72 - 0.13 * number, line, color=COLOURS[number], transform=ax.transAxes)
