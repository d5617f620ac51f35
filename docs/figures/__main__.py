"""Draw the figures of docs/explained.md, each computed with the package's own functions.

python docs/figures [--out FOLDER] [NAME ...]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import chance_figures
import locations_figures
import loss_figures
import matplotlib as mpl
import nms_figure
from matplotlib.figure import Figure
from style import STYLE, write

OUT = Path(__file__).resolve().parents[1] / "images" / "explained"
FIGURES: dict[str, Callable[[], Figure]] = {
    function.__name__: function
    for function in (
        locations_figures.location,
        locations_figures.pyramid,
        locations_figures.levels,
        locations_figures.sampling,
        loss_figures.giou,
        loss_figures.centerness,
        loss_figures.focal,
        nms_figure.nms,
        chance_figures.interval,
        chance_figures.paired,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all if left out")
    arguments = parser.parse_args()
    for name in arguments.names or FIGURES:
        with mpl.rc_context(STYLE):
            write(FIGURES[name](), arguments.out, name)


if __name__ == "__main__":
    main()
