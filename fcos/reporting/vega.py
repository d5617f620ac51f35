"""Charts in Vega-Lite: one specification for the live chart of the page, its SVG and its PNG.

Source: Satyanarayan, Moritz, Wongsuphasawat, Heer, "Vega-Lite: A Grammar of Interactive Graphics", 2017.
"""

import contextlib
import functools
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

from PIL import Image

from fcos.files import write_text
from fcos.palette import COLOURS
from fcos.reporting.png import save_png
from fcos.visible import visible_all

Spec = dict[str, Any]
VERSION = "6.1"  # Vega-Lite version
BUNDLED = "window.vegaEmbed = vegaEmbed;"  # what the script of a page does
WIDTH = 640  # pixels of a static chart; a live chart is as wide as its container
SCALE = 1.5  # PNG pixels per chart pixel
INK, PAPER, QUIET = "#1d2329", "#ffffff", "#7f8790"


@dataclass(frozen=True, kw_only=True)
class Control:
    """A choice that the page offers for a chart."""

    parameter: str  # name in the specification, where its value is the first option
    label: str
    options: list[str]
    files: bool = False  # whether each option has its own files


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of the report; `table` is the number of the table that it belongs to."""

    stem: str  # stem of its files in figures/
    title: str
    caption: str
    spec: Spec  # without size, title and text colours
    controls: tuple[Control, ...] = ()
    table: int | None = None

    @property
    def live(self) -> Spec:
        """Return the specification for the page, whose CSS sets the text colour."""
        size = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        return {**self.spec, **_about("currentColor"), **size, "background": "transparent"}

    def static(self, option: str | None = None) -> Spec:
        """Return the specification for files: the first option of each control, or `option` of the first control."""
        choices = {control.parameter: control.options[0] for control in self.controls}
        if option is not None:
            choices[self.controls[0].parameter] = option
        params = [
            {**param, "value": choices.get(param["name"], param["value"])} for param in self.spec.get("params", [])
        ]
        several = [control for control in self.controls if len(control.options) > 1]
        subtitle = ", ".join(f"{control.label}: {choices[control.parameter]}" for control in several)
        title = {"text": self.title, **({"subtitle": subtitle} if several else {})}
        shape = {"width": WIDTH, "padding": 12, "title": title, "background": PAPER, "params": params}
        spec = {**self.spec, **_about(INK), **shape}
        if "layer" in spec:  # layers that serve only hovering are not drawn
            spec["layer"] = [layer for layer in spec["layer"] if layer["mark"].get("opacity") != 0]
        return spec

    def write(self, folder: Path) -> None:
        """Write STEM.png and STEM.svg, and STEM-OPTION for the other options of the first control if it has `files`."""
        options = self.controls[0].options if self.controls and self.controls[0].files else [None]
        for place, option in enumerate(options):
            stem = f"{self.stem}-{_slug(option)}" if place and option else self.stem
            write_text(folder / f"{stem}.svg", _write_png(self.static(option), folder / f"{stem}.png"))

    def write_png(self, folder: Path) -> None:
        """Write only STEM.png."""
        _write_png(self.static(), folder / f"{self.stem}.png")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _write_png(spec: Spec, path: Path) -> str:
    """Write a PNG of the chart and return the SVG that it is rendered from, so that Vega runs once for both."""
    import vl_convert

    # vl-convert aborts the whole process at characters that SVG does not allow.
    svg: str = vl_convert.vegalite_to_svg(visible_all(spec), vl_version=VERSION)
    save_png(Image.open(io.BytesIO(vl_convert.svg_to_png(svg, scale=SCALE))), path)
    return svg


@functools.cache
def script() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed for an offline page; it defines `vegaEmbed`."""
    packaged = Path(__file__).with_name("vega.js")  # setup.py writes it into the wheel
    if packaged.exists():
        return packaged.read_text(encoding="utf-8")
    import vl_convert

    # Bundling takes 3 seconds, so a virtual environment keeps the result.
    kept = Path(sys.prefix) / "share" / "fcos" / f"vega-{VERSION}-of-vl-convert-{version('vl-convert-python')}.js"
    if kept.exists():
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle(BUNDLED, vl_version=VERSION)
    if sys.prefix != sys.base_prefix:
        with contextlib.suppress(OSError):  # it may be another user's
            write_text(kept, bundle)
    return bundle


def quantitative(field: str, title: str, **more: Any) -> Spec:
    """Return a quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def nominal(field: str, title: str | None, **more: Any) -> Spec:
    """Return a nominal channel, in the order of the data by default."""
    return {"field": field, "type": "nominal", "title": title, "sort": None, **more}


def named(field: str, title: str) -> Spec:
    """Return a tooltip entry with a name."""
    return {"field": field, "type": "nominal", "title": title}


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return the colour of each name, which is the same in every chart and in the page."""
    return dict(zip(names, cycle(COLOURS), strict=False))


def colour_of(names: list[str], field: str = "run") -> Spec:
    """Return a colour channel for `names`."""
    return nominal(field, None, scale={"domain": names, "range": list(colours_of(names).values())})


def choice(parameter: str, value: Any) -> Spec:
    """Return a parameter that a control of the page sets."""
    return {"name": parameter, "value": value}


def shown(names: list[str]) -> tuple[Spec, Spec]:
    """Return the parameter of the shown runs, and the transform that filters by it."""
    return choice("runs", names), {"filter": "indexof(runs, datum.run) >= 0"}


def _about(ink: str) -> Spec:
    text = {"labelColor": ink, "titleColor": ink}
    config = {
        "aria": False,  # the page labels each chart, and tables have its numbers
        "font": "system-ui, -apple-system, Segoe UI, Roboto, Liberation Sans, Arial, sans-serif",
        "mark": {"aria": False},
        "view": {"stroke": None, "continuousHeight": 280},
        "axis": {
            **text,
            "labelFontSize": 11.5,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelLimit": 220,
            "gridColor": "#7f7f7f",
            "gridOpacity": 0.22,
            "domainColor": QUIET,
            "tickColor": QUIET,
        },
        "axisQuantitative": {"tickCount": 8},
        "legend": {
            **text,
            "orient": "bottom",
            "columns": 4,
            "labelFontSize": 11.5,
            "labelLimit": 240,
            "symbolLimit": 40,
        },
        "title": {"color": ink, "subtitleColor": ink, "anchor": "start", "fontSize": 14, "offset": 12},
        "text": {"color": ink, "fontSize": 11.5},
        "rule": {"color": QUIET},
        "point": {"filled": True, "size": 70},
        "line": {"strokeWidth": 2},
    }
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": config}
