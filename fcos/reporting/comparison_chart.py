"""Draw the chart of a comparison of detectors; see fcos.reporting.comparison for its text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fcos.palette import COLOURS
from fcos.reporting.comparison import against
from fcos.visible import visible_line

Content = Mapping[str, Any]

_COLOUR, _SIGNIFICANT, _QUIET = *COLOURS[:2], "#777777"
_LABELS, _PLOT, _GAP = 230, 290, 24  # pixels: a label, the scale beside it, and the space after them
_TOP, _ROW, _BOTTOM = 44, 28, 64
_LONGEST_LABEL = 34
_TICKS = 5


@dataclass(frozen=True)
class _Bar:
    """A labelled estimate."""

    label: str
    found: tuple[float, float, float] | None  # low end, value and high end, in percent; None: the value is not defined
    colour: str


def comparison_svg(content: Content) -> str:
    """Return AP of each row with its interval (left) and the differences with their intervals (right) as SVG.

    Equal numbers give equal bytes.
    """
    level = f"with its {100 * content['statistics']['confidence']:g} % interval"
    rows = [_bar(row["name"], row["metrics"]["AP"], row["intervals"]["AP"], _COLOUR) for row in content["rows"]]
    pairs = [
        _bar(against(pair), estimate["difference"], estimate, _SIGNIFICANT if pair["significant"] else _QUIET)
        for pair in content["differences"]
        for estimate in [pair["metrics"]["AP"]]
    ]
    panel = _LABELS + _PLOT + _GAP
    height = _TOP + _ROW * max(len(rows), len(pairs), 2) + _BOTTOM
    parts = [
        *_panel("AP", [f"AP (%), {level}"], rows, left=0),
        *_panel(
            "Paired differences", [f"difference in AP (points), {level}", "orange: significant"], pairs, left=panel
        ),
    ]
    size = f'width="{2 * panel}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * panel} {height}" {size}'
        ' font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="AP and paired differences">\n'
        f'<rect {size} fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(label: str, value: float | None, interval: Content, colour: str) -> _Bar:
    found = None
    if value is not None and not math.isnan(value):
        low, high = (value if interval[end] is None else interval[end] for end in ("low", "high"))
        found = (100 * low, 100 * value, 100 * high)
    return _Bar(visible_line(label), found, colour)


def _panel(title: str, below: Sequence[str], bars: Sequence[_Bar], *, left: int) -> Iterator[str]:
    """Yield the elements of one half of the chart; zero is a black line where the scale has it."""
    drawn = [number for bar in bars for number in bar.found or ()]
    ticks = _ticks(min(drawn, default=0.0), max(drawn, default=1.0))
    start, bottom = left + _LABELS, _TOP + _ROW * max(len(bars), 2)

    def x_of(value: float) -> float:
        return start + _PLOT * (value - ticks[0]) / (ticks[-1] - ticks[0])

    yield _text(start + _PLOT / 2, 24, title, "middle", "bold")
    for tick in ticks:
        yield _line(x_of(tick), _TOP, x_of(tick), bottom, "#000000" if tick == 0 else "#e4e4e4", 1)
        yield _text(x_of(tick), bottom + 18, f"{tick:g}", "middle")
    for number, line in enumerate(below):
        yield _text(start + _PLOT / 2, bottom + 38 + 18 * number, line, "middle")
    for number, bar in enumerate(bars):
        y = _TOP + _ROW * (number + 0.5)
        short = bar.label if len(bar.label) <= _LONGEST_LABEL else f"{bar.label[: _LONGEST_LABEL - 1]}…"
        yield _text(start - 10, y + 4.5, short, "end")
        if bar.found is not None:
            low, value, high = map(x_of, bar.found)
            yield _line(low, y, high, y, bar.colour, 3)
            yield f'<circle cx="{value:.1f}" cy="{y:.1f}" r="4.5" fill="{bar.colour}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Return round values, evenly spaced, the first at or below `low` and the last at or above `high`."""
    width = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(width / _TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if width / (factor * power) <= _TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(text)}</text>"
