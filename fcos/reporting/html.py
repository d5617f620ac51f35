"""Render the pages: self-contained, with every value escaped, and live charts and a gallery by their script.

Names of classes, files and machines are untrusted: the templates escape every value (jinja2's autoescape).
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fcos.reporting.intervals import DASH, NOT_SIGNIFICANT, NOT_TESTED
from fcos.reporting.vega import Chart, colours_of, script
from fcos.visible import visible, visible_all

_HERE = Path(__file__).parent


def render(
    template: str,
    context: Mapping[str, Any],
    *,
    run_names: Sequence[str],
    charts: Sequence[Chart],
    gallery: Mapping[str, Any] | None,
) -> str:
    """Return the page of a template.

    Args:
        run_names: the runs that a reader can choose among; charts and gallery know them by these names.
        gallery: content of a `Gallery`, or None for a page without one.
    """
    runs = [{"name": name, "colour": colour} for name, colour in colours_of(list(run_names)).items()]
    is_live = bool(charts) or gallery is not None
    scripts = [script(), (_HERE / "page.js").read_text(encoding="utf-8")] if is_live else []
    page = {
        "run_list": runs,
        "run_names": list(run_names),
        "chart": {chart.stem: chart for chart in charts}.get,
        "numeric": is_numeric,
        "gallery": gallery,
        "report_data": _json({"runs": runs, "charts": {c.stem: c.live for c in charts}, "gallery": gallery}),
        "style": Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        "licences": Markup((_HERE / "chart_licences.txt").read_text(encoding="utf-8") if is_live else ""),
        "scripts": [Markup(text) for text in scripts],
        # The content security policy allows only these scripts, so no text in the data can run as a script.
        "hashes": " ".join(f"'sha256-{_sha256(text)}'" for text in scripts) or "'none'",
    }
    html = environment(autoescape=True, finalize=_visible)
    return html.get_template(template).render({**context, **page})


def environment(**options: Any) -> Environment:
    """Return the environment of the templates, in which an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(_HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


def is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column of text contains only numbers, dashes and blanks."""
    texts = (row[column].removesuffix(NOT_SIGNIFICANT).removesuffix(NOT_TESTED) for row in rows)
    return column > 0 and all(text.strip("+-.0123456789± p<=") in ("", DASH) for text in texts)


def _json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: none of its text can end the element."""
    return Markup(json.dumps(visible_all(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
