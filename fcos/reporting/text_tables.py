"""Format tables as text for a terminal, as Markdown, or as HTML for a notebook."""

import html
from collections.abc import Sequence

from tabulate import tabulate

Cells = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Cells) -> str:
    """Return columns separated by two spaces; the first is aligned to the left, numbers to the right."""
    return _first_left(header, rows, "plain")


def left_table(rows: Cells) -> str:
    """Return columns aligned to the left; rows may have fewer cells."""
    return str(tabulate(rows, tablefmt="plain", disable_numparse=True))


def markdown_table(header: Sequence[str], rows: Cells, numeric: Sequence[bool]) -> str:
    """Return a pipe table of Markdown cells, with `numeric` columns aligned to the right."""
    align = ["right" if is_number else "left" for is_number in numeric]
    return str(tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True))


def html_table(header: Sequence[str], rows: Cells) -> str:
    """Return an HTML table, with all text escaped; the first column is aligned to the left, the others to the right."""
    return _first_left(header, rows, "html")


def _first_left(header: Sequence[str], rows: Cells, tablefmt: str) -> str:
    align = ["left", *["right"] * (len(header) - 1)]
    return str(tabulate(rows, header, tablefmt=tablefmt, colalign=align, headersalign=align, disable_numparse=True))


def html_list(sentences: Sequence[str]) -> str:
    """Return an HTML list, with all text escaped; empty without sentences."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""
