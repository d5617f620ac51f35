"""Draw the chart of a comparison of detectors; see fcos.reporting.comparison for its text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fcos.files import whole_file
from fcos.palette import COLOURS
from fcos.reporting.comparison import against
from fcos.visible import visible_line

_COLOUR, _SIGNIFICANT, _QUIET = *COLOURS[:2], "#777777"
Content = Mapping[str, Any]
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
    "text.parse_math": False,  # row names are data, so a $ in them is literal
    "figure.constrained_layout.use": True,
}


def draw_comparison(content: Content, path: Path) -> None:
    """Draw AP of each row with its interval (left) and the differences with their intervals (right)."""
    rows, pairs = content["rows"], content["differences"]
    level = f"{100 * content['statistics']['confidence']:g} % interval"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.6 + 0.32 * max(len(rows), len(pairs), 2)), dpi=110)
        left, right = figure.subplots(1, 2)
        _intervals(
            left,
            [row["name"] for row in rows],
            [{"value": row["metrics"]["AP"], **row["intervals"]["AP"]} for row in rows],
            [_COLOUR] * len(rows),
        )
        left.set(title="AP", xlabel=f"AP (%), with its {level}")
        _intervals(
            right,
            [against(pair) for pair in pairs],
            [{"value": pair["metrics"]["AP"]["difference"], **pair["metrics"]["AP"]} for pair in pairs],
            [_SIGNIFICANT if pair["significant"] else _QUIET for pair in pairs],
        )
        right.axvline(0, color="black", linewidth=0.8)
        right.set(
            title="Paired differences", xlabel=f"difference in AP (points), with its {level}\norange: significant"
        )
        canvas = FigureCanvasAgg(figure)
        with whole_file(path) as scratch:
            # Without metadata, equal numbers give equal bytes.
            canvas.print_figure(scratch, format="png", metadata={"Software": None})


def _intervals(axes: Axes, labels: list[str], estimates: list[Content], colours: list[str]) -> None:
    for place, (of, colour) in enumerate(zip(estimates, colours, strict=True)):
        if of["low"] is not None:
            axes.plot([100 * of["low"], 100 * of["high"]], [place, place], color=colour, linewidth=2.2)
            axes.plot([100 * of["value"]], [place], "o", color=colour, markersize=6)
    shown = [visible_line(label) for label in labels]
    axes.set_yticks(range(len(labels)), [label if len(label) <= 32 else f"{label[:31]}…" for label in shown])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.08)
