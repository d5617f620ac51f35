"""Write report.md and index.html from the same content by two templates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fcos.files import write_text
from fcos.reporting.gallery import Gallery
from fcos.reporting.html import environment, is_numeric, render
from fcos.reporting.page_data import Grid, page_data
from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import StudyResults
from fcos.reporting.text_tables import markdown_table
from fcos.reporting.vega import Chart
from fcos.visible import markdown as escape


def write_pages(
    study: StudyResults, tables: Sequence[ReportTable], charts: Sequence[Chart], gallery: Gallery | None, out_dir: Path
) -> None:
    """Write report.md, with figures in files, and the self-contained index.html into `out_dir`.

    Args:
        gallery: None if the images are not known.
    """
    context = {
        **page_data(study, tables, out_dir),
        "tables": tables,
        "linked": list(study.everyone),
        "files": True,
        "has_images": gallery is not None,
        "has_time": any(chart.stem in ("accuracy-and-time", "training-curves") for chart in charts),
        "charts_of": lambda number: [chart for chart in charts if chart.table == number],
    }
    # Every value that is not marked as Markdown is escaped.
    markdown = environment(autoescape=False, finalize=_escape_markdown)
    markdown.filters["grid"] = _markdown_grid
    markdown.globals["image"] = _markdown_image
    markdown.globals["chart"] = {chart.stem: chart for chart in charts}.get
    write_text(out_dir / "report.md", markdown.get_template("report.md.j2").render(context))
    content = None if gallery is None else gallery.content()
    page = render("page.html.j2", context, run_names=list(study.everyone), charts=charts, gallery=content)
    write_text(out_dir / "index.html", page)


def _escape_markdown(value: Any) -> str:
    return str(value) if isinstance(value, Markup) else escape(str(value))


def _markdown_grid(grid: Grid) -> Markup:
    """Return a pipe table with numeric columns aligned to the right."""
    header, rows = grid
    cells = [[_escape_markdown(cell) for cell in row] for row in (header, *rows)]
    return Markup(markdown_table(cells[0], cells[1:], [is_numeric(rows, column) for column in range(len(header))]))


def _markdown_image(stem: str, title: str, caption: str) -> Markup:
    return Markup(f"\n![{_escape_markdown(title)}](figures/{stem}.png)\n\n*{_escape_markdown(caption)}*\n")
