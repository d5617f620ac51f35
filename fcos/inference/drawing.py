"""Boxes on pictures, to be looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's palette: told apart by colour-blind eyes too.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
WHITE_ON = ("#0072b2",)  # black is read better on all others

# Pixels of the longer side for one pixel of line or letter: a big picture is looked at made smaller.
PER_LINE, PER_LETTER = 400, 75
MIN_LINE, MIN_LETTER = 2, 12


def draw_boxes(picture: NDArray[np.uint8], records: Sequence[dict[str, Any]]) -> Image.Image:
    """The picture with each record's box, class and score, if any; the first are drawn last, on top."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    line = max(MIN_LINE, round(max(image.size) / PER_LINE))
    font = ImageFont.load_default(max(MIN_LETTER, round(max(image.size) / PER_LETTER)))
    for record in reversed(records):
        x, y, w, h = record["bbox"]
        color = COLORS[record["category_id"] % len(COLORS)]
        draw.rectangle((x, y, x + w, y + h), outline=color, width=line)
        score = f" {record['score']:.2f}" if "score" in record else ""
        _label(draw, (x, y), record["category"] + score, color, font, line)
    return image


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    color: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    line: int,
) -> None:
    """A filled label on the corner of a box: above it where there is room, and never outside the picture."""
    _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right + 2 * line, bottom + line
    picture_width, _ = draw.im.size
    x = max(0, min(corner[0], picture_width - width))
    y = max(0, corner[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=color)
    draw.text((x + line, y), text, fill="white" if color in WHITE_ON else "black", font=font)
