"""Tables as text: for a terminal, and in Markdown."""

from collections.abc import Sequence

from tabulate import tabulate

Cells = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Cells) -> str:
    """Columns with two spaces between them; the first is aligned to the left, numbers to the right."""
    align = ["left", *["right"] * (len(header) - 1)]
    return str(tabulate(rows, header, tablefmt="plain", colalign=align, headersalign=align, disable_numparse=True))


def left_table(rows: Cells) -> str:
    """Columns aligned to the left; a row may end early."""
    return str(tabulate(rows, tablefmt="plain", disable_numparse=True))


def markdown_table(header: Sequence[str], rows: Cells, numeric: Sequence[bool]) -> str:
    """A pipe table of cells that are Markdown, those of `numeric` columns aligned to the right."""
    align = ["right" if is_number else "left" for is_number in numeric]
    return str(tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True))
