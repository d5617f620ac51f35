"""A comparison of detectors in words, as text, Markdown and a chart; see fcos.commands.compare for its content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fcos.files import whole_file
from fcos.reporting.figures import STYLE
from fcos.reporting.intervals import DASH, in_brackets, percent, plus_minus, text_table
from fcos.reporting.markdown import escape
from fcos.scoring.average_precision import AP_METRICS
from fcos.scoring.comparison import p_text

_BAR = 40  # characters
_COLOUR, _SIGNIFICANT, _QUIET = "#0072B2", "#D55E00", "#777777"  # Okabe and Ito's
Content = Mapping[str, Any]
Grid = tuple[list[str], list[list[str]]]


def comparison_text(content: Content) -> str:
    """Rows, their AP as bars, differences, sentences and notes, to be read in a terminal."""
    parts = [
        f"{content['counts']['images']} images, {content['counts']['objects']} objects; percent",
        text_table(*_rows(content)),
        _bars(content),
        text_table(*_pairs(content)),
        "\n".join(pair["sentence"] for pair in content["differences"]),
        "\n".join(_notes(content)),
    ]
    return "\n\n".join(filter(None, parts))  # no bars where AP is not defined


def comparison_markdown(content: Content, *, picture: str) -> str:
    """The same for a browser; `picture` is the chart's file."""
    counted = content["counts"]
    parts = [
        "# Comparison",
        f"{counted['images']} images, {counted['objects']} objects of {counted['classes']} classes; percent.",
        _markdown_table(*_rows(content)),
        f"![AP of each row, and the differences]({picture})",
        "## Differences in AP",
        _markdown_table(*_pairs(content)),
        "\n".join(f"- {escape(pair['sentence'])}" for pair in content["differences"]),
        "## How to read this",
        "\n".join(f"- {escape(note)}" for note in _notes(content)),
    ]
    return "\n\n".join(parts) + "\n"


def draw_comparison(content: Content, path: Path) -> None:
    """Left: AP of each row with its interval; right: the differences with theirs."""
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
            [_against(pair) for pair in pairs],
            [{"value": pair["metrics"]["AP"]["difference"], **pair["metrics"]["AP"]} for pair in pairs],
            [_SIGNIFICANT if pair["significant"] else _QUIET for pair in pairs],
        )
        right.axvline(0, color="black", linewidth=0.8)
        right.set(
            title="Paired differences", xlabel=f"difference in AP (points), with its {level}\norange: significant"
        )
        canvas = FigureCanvasAgg(figure)
        with whole_file(path) as scratch:
            # No metadata: the same numbers give the same bytes.
            canvas.print_figure(scratch, format="png", metadata={"Software": None})


def _intervals(axes: Axes, labels: list[str], estimates: list[Content], colours: list[str]) -> None:
    for place, (of, colour) in enumerate(zip(estimates, colours, strict=True)):
        if of["low"] is not None:
            axes.plot([100 * of["low"], 100 * of["high"]], [place, place], color=colour, linewidth=2.2)
            axes.plot([100 * of["value"]], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(labels)), [label if len(label) <= 32 else f"{label[:31]}…" for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.08)


def _rows(content: Content) -> Grid:
    repeated = any(row["n"] > 1 for row in content["rows"])
    header = ["", *(["n"] if repeated else []), *AP_METRICS, *(["s.d. of AP"] if repeated else [])]
    rows = []
    for row in content["rows"]:
        numbers = [plus_minus(row["metrics"][name], row["intervals"][name]) for name in AP_METRICS]
        spread = DASH if row["spread"]["AP"] is None else f"{100 * row['spread']['AP']:.2f}"
        rows.append([row["name"], *([str(row["n"])] if repeated else []), *numbers, *([spread] if repeated else [])])
    return header, rows


def _pairs(content: Content) -> Grid:
    rows = []
    for pair in content["differences"]:
        ap = pair["metrics"]["AP"]
        rows.append(
            [_against(pair), percent(ap["difference"], sign=True), in_brackets(ap), _p(ap["p_value"]), _p(ap["p_holm"])]
        )
    return ["difference", "AP", "interval", "p", "Holm p"], rows


def _bars(content: Content) -> str:
    """AP of each row as a bar from 0: full up to the low end of its interval, half-tone up to the high one."""
    rows = [row for row in content["rows"] if row["intervals"]["AP"]["high"] is not None]
    width = max((len(row["name"]) for row in rows), default=0)
    top = max([row["intervals"]["AP"]["high"] for row in rows] + [1e-9])
    lines = []
    for row in rows:
        low, high = (round(max(row["intervals"]["AP"][end], 0) / top * _BAR) for end in ("low", "high"))
        bar = ("█" * low + "▒" * max(high - low, 1)).ljust(_BAR + 1)
        lines.append(f"{row['name'].ljust(width)}  {bar} {percent(row['metrics']['AP'])}")
    return "\n".join(lines)


def _notes(content: Content) -> list[str]:
    statistics = content["statistics"]
    notes = [
        f"Intervals are of {100 * statistics['confidence']:g} %: bias-corrected bootstrap, {statistics['replicates']} "
        "draws of the images, the same for all rows; a difference is paired by image. Holm's p is corrected for "
        "all pairs of this table, the intervals are not."
    ]
    single = [row["name"] for row in content["rows"] if row["n"] == 1]
    if single:
        notes.append(
            f"Training noise is not in the intervals of rows of one file ({', '.join(single)}): "
            "repeat with several seeds, NAME=FILE,FILE,..."
        )
    return notes


def _against(pair: Content) -> str:
    return f"{pair['first']} against {pair['second']}"


def _p(value: float | None) -> str:
    return DASH if value is None else p_text(value)


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(escape, cells)) + " |" for cells in (header, rule, *rows))
