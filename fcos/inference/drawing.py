"""Draw boxes on images, and sheets of such images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fcos.palette import COLOURS, WHITE_ON
from fcos.visible import visible_line

# Longer side per pixel of line width or letter height: both grow with the image, since large images are viewed reduced.
PER_LINE, PER_LETTER = 400, 75
MIN_LINE, MIN_LETTER = 2, 12
CAPTION = 18  # height of a line of text on a sheet, in pixels
Box = tuple[float, float, float, float]


def draw_boxes(
    pixels: NDArray[np.uint8], records: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]] = ()
) -> Image.Image:
    """Return the image with box, class and score (if any) of each record; the first records are drawn on top.

    Args:
        pixels: image (H, W, 3).
        records: `bbox` (x, y, width, height), `category_id`, `category`, and optionally `score`.
        objects: annotations with `bbox` and `iscrowd`, drawn below the records as white dashes, or dots if ignored.
    """
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    line = max(MIN_LINE, round(max(image.size) / PER_LINE))
    font = ImageFont.load_default(max(MIN_LETTER, round(max(image.size) / PER_LETTER)))
    for annotation in objects:
        _dashed(draw, _corners(annotation), line, dash=(1 if annotation["iscrowd"] else 3) * line)
    for record in reversed(records):
        corners = _corners(record)
        colour = COLOURS[record["category_id"] % len(COLOURS)]
        draw.rectangle(corners, outline=colour, width=line)
        score = f" {record['score']:.2f}" if "score" in record else ""
        _label(draw, corners[:2], record["category"] + score, colour, font, line)
    return image


@dataclass(frozen=True)
class Tile:
    """An image on a sheet, with the lines of text above it."""

    image: Image.Image
    caption: Sequence[str]
    odd: bool = False  # its caption is red


def sheet(tiles: Sequence[Tile], *, columns: int, side: int, legend: str = "") -> Image.Image:
    """Return an image of tiles in rows, each at most `side` pixels wide and high, with `legend` below them."""
    above = CAPTION * max(len(tile.caption) for tile in tiles)
    rows = -(-len(tiles) // columns)
    size = columns * side, rows * (side + above) + (CAPTION if legend else 0)
    drawn = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(12)
    for number, tile in enumerate(tiles):
        x, y = number % columns * side, number // columns * (side + above)
        drawn.paste(tile.image, (x + (side - tile.image.width) // 2, y + above + (side - tile.image.height) // 2))
        for row, line in enumerate(tile.caption):
            text = _shortened(line, side - 8, draw, font)
            draw.text((x + 4, y + 2 + row * CAPTION), text, fill="#b00000" if tile.odd else "black", font=font)
    draw.text((4, size[1] - CAPTION + 2), _shortened(legend, size[0] - 8, draw, font), fill="black", font=font)
    return drawn


def fitted(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """Return the image (H, W, 3) with its longer side at `side` pixels, and the scale factor of its boxes."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(Image.fromarray(image).resize(size)), scale


def _shortened(
    text: str, width: int, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    text = visible_line(text)
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…"
    return text


def _corners(record: Mapping[str, Any]) -> Box:
    x, y, w, h = record["bbox"]
    return x, y, x + w, y + h


def _dashed(draw: ImageDraw.ImageDraw, corners: Box, line: int, *, dash: int) -> None:
    """Draw white dashes over a black line, visible on bright and dark images; gaps are as long as dashes."""
    left, top, right, bottom = corners
    across = (((left, y), (right, y)) for y in (top, bottom))
    down = (((x, top), (x, bottom)) for x in (left, right))
    sides = (*across, *down)
    for colour, width in (("black", line + 2), ("white", line)):
        for start, end in sides:
            for piece in _pieces(start, end, dash):
                draw.line(piece, fill=colour, width=width)


def _pieces(start: tuple[float, float], end: tuple[float, float], dash: int) -> Iterator[list[tuple[float, float]]]:
    """Yield every second segment of `dash` pixels of a horizontal or vertical line."""
    length = max(end[0] - start[0], end[1] - start[1])
    along = int(end[0] > start[0]), int(end[1] > start[1])
    for begin in range(0, max(1, round(length)), 2 * dash):
        stop = min(begin + dash, length)
        yield [(start[0] + place * along[0], start[1] + place * along[1]) for place in (begin, stop)]


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    line: int,
) -> None:
    """Draw a filled label at the corner of a box, above the box if there is room and always inside the image."""
    text = visible_line(text)
    _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right + 2 * line, bottom + line
    image_width, _ = draw.im.size
    x = max(0, min(corner[0], image_width - width))
    y = max(0, corner[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + line, y), text, fill="white" if colour in WHITE_ON else "black", font=font)
