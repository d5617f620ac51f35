"""Style of the figures: one SVG each, whose colours follow the colour scheme of the page."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcos.palette import COLOURS

WIDTH = 6.8  # inches: width of the text column
# What stands in the file -> what a dark page gets. A page says which by `color-scheme`, elsewhere the system does.
INK, SOFT, GRID = "#222733", "#5b6270", "#d9dce2"
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = (colour.lower() for colour in COLOURS[:6])
DARK = {
    INK: "#e8eaf0",
    SOFT: "#a9b0bf",
    GRID: "#3d4250",
    BLUE: "#4aa8e0",
    ORANGE: "#f2803a",
    GREEN: "#2fc79a",
    PINK: "#dd94c0",
    YELLOW: "#f0b73d",
    SKY: "#8accf2",
}
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 2,
}


def new_figure(height: float) -> Figure:
    """Return an empty figure as wide as the text and `height` inches high; call it within `mpl.rc_context(STYLE)`."""
    return Figure(figsize=(WIDTH, height))


def without_axes(ax: Axes) -> None:
    ax.set_axis_off()
    ax.grid(visible=False)


def as_svg(figure: Figure, name: str) -> str:
    """Return the text of the SVG file, which is reproducible, with each colour as a variable that dark mode changes."""
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    for number, colour in enumerate(DARK):
        svg = svg.replace(f": {colour}", f": var(--c{number}, {colour})")
    light = ";".join(f"--c{number}:{colour}" for number, colour in enumerate(DARK))
    dark = ";".join(f"--c{number}:{colour}" for number, colour in enumerate(DARK.values()))
    # The color-scheme is for a figure that is opened alone, which would otherwise be white even in dark mode.
    rule = f"<style>:root{{color-scheme:light dark;{light}}}"
    rule += f"@media (prefers-color-scheme: dark){{:root{{{dark}}}}}</style>"
    return svg.replace("<defs>", f"{rule}\n <defs>", 1)


def write(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_text(as_svg(figure, name), encoding="utf-8")
