"""Write report.md and index.html from the same content by two templates.

Names of classes, files and machines are untrusted: the HTML template escapes every value (jinja2's autoescape), the
Markdown template every value that is not marked as Markdown.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fcos.files import write_text
from fcos.reporting.gallery import Gallery
from fcos.reporting.intervals import DASH
from fcos.reporting.page_data import Grid, page_data
from fcos.reporting.report_table import NOT_SIGNIFICANT, NOT_TESTED, ReportTable
from fcos.reporting.results import StudyResults
from fcos.reporting.text_tables import markdown_table
from fcos.reporting.vega import Chart, colours_of, script
from fcos.visible import markdown as escape
from fcos.visible import visible, visible_all

_HERE = Path(__file__).parent


def write_pages(
    study: StudyResults, tables: Sequence[ReportTable], charts: Sequence[Chart], gallery: Gallery, out_dir: Path
) -> None:
    """Write report.md, with figures in files, and the self-contained index.html into `out_dir`."""
    context = {
        **page_data(study, tables, out_dir),
        "tables": tables,
        "charts_of": lambda number: [chart for chart in charts if chart.table == number],
        "chart": {chart.stem: chart for chart in charts}.get,
        "numeric": is_numeric,
    }
    markdown = _environment(autoescape=False, finalize=_escape_markdown)
    markdown.filters["grid"] = _markdown_grid
    markdown.globals["image"] = _markdown_image
    write_text(out_dir / "report.md", markdown.get_template("report.md.j2").render(context))
    content = gallery.content()
    runs = [{"name": name, "colour": colour} for name, colour in colours_of(list(study.runs)).items()]
    scripts = [script(), (_HERE / "page.js").read_text(encoding="utf-8")]
    page = {
        "run_list": runs,
        "run_names": list(study.runs),
        "gallery": content,
        "report_data": _json({"runs": runs, "charts": {c.stem: c.live for c in charts}, "gallery": content}),
        "style": Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        "licences": Markup((_HERE / "chart_licences.txt").read_text(encoding="utf-8")),
        "scripts": [Markup(text) for text in scripts],
        # The content security policy allows only these scripts, so no text in the data can run as a script.
        "hashes": " ".join(f"'sha256-{_sha256(text)}'" for text in scripts),
    }
    html = _environment(autoescape=True, finalize=_visible)
    write_text(out_dir / "index.html", html.get_template("page.html.j2").render(context | page))


def _json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: none of its text can end the element."""
    return Markup(json.dumps(visible_all(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _environment(**options: Any) -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _escape_markdown(value: Any) -> str:
    return str(value) if isinstance(value, Markup) else escape(str(value))


def _markdown_grid(grid: Grid) -> Markup:
    """Return a pipe table with numeric columns aligned to the right."""
    header, rows = grid
    cells = [[_escape_markdown(cell) for cell in row] for row in (header, *rows)]
    return Markup(markdown_table(cells[0], cells[1:], [is_numeric(rows, column) for column in range(len(header))]))


def _markdown_image(stem: str, title: str, caption: str) -> Markup:
    return Markup(f"\n![{_escape_markdown(title)}](figures/{stem}.png)\n\n*{_escape_markdown(caption)}*\n")


def is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column of text contains only numbers, dashes and blanks."""
    texts = (row[column].removesuffix(NOT_SIGNIFICANT).removesuffix(NOT_TESTED) for row in rows)
    return column > 0 and all(text.strip("+-.0123456789± p<=") in ("", DASH) for text in texts)
