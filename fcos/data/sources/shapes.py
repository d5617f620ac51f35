"""Synthetic images drawn from a seed: coloured shapes on a textured background, in all three COCO area ranges."""

import colorsys
import math
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fcos.data.sources.description import Boxes, Source, SourceBox, SourceImage, SourceSplit
from fcos.progress import track

NAMES = ("circle", "square", "triangle")
MIN_CONTRAST = 200  # sum of the differences of the three channels
HUE_SPREAD = 0.04  # in turns; the classes' hues are a third apart, so that hues of two classes almost never overlap
MOST_COVERED, TRIES = 0.15, 10  # covered share of an earlier object; an object without such a place is left out
OVERSAMPLING = 3  # images are drawn larger and averaged down, for smooth edges
# (share of objects, low, high): range of an object's side as a fraction of the image's side.
SIDE_RANGES = ((0.35, 0.14, 0.24), (0.5, 0.26, 0.7), (0.15, 0.76, 0.96))


def draw_shapes(
    out_dir: Path, *, num_train: int, num_test: int, image_size: int, max_objects: int, seed: int
) -> Source:
    """Draw both splits into `out_dir`/images; the same arguments give the same pixels."""
    splits = {}
    for split, count in (("train", num_train), ("test", num_test)):
        image_dir = out_dir / "images" / split
        image_dir.mkdir(parents=True)
        numbers = track(range(1, count + 1), f"draw {split}", total=count, unit="images")
        first_id = 1 if split == "train" else num_train + 1
        splits[split] = SourceSplit(
            image_dir, [_draw(image_dir, first_id + n - 1, image_size, max_objects, seed) for n in numbers]
        )
    return Source([{"id": i + 1, "name": name} for i, name in enumerate(NAMES)], splits)


def _draw(image_dir: Path, image_id: int, size: int, max_objects: int, seed: int) -> SourceImage:
    rng = np.random.default_rng([seed, image_id])
    image = Image.fromarray(_texture(rng, size)).resize((size * OVERSAMPLING,) * 2, Image.Resampling.BICUBIC)
    boxes: list[SourceBox] = []
    # Large objects are drawn first, so that small ones stay visible.
    sides = sorted((_side(rng, size) for _ in range(rng.integers(1, max_objects + 1))), reverse=True)
    for side in sides:
        label = int(rng.integers(len(NAMES)))
        outline = _place(rng, label, side, size, [box.bbox for box in boxes])
        if outline is not None:
            _paint(image, rng, label, outline)
            boxes.append(SourceBox(NAMES[label], _box_of(outline)))
    name = f"{image_id:06d}.png"
    image = image.resize((size, size), Image.Resampling.BOX)
    image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.6)))).save(image_dir / name)
    return SourceImage(image_dir, name, image_dir / name, image_id, (size, size), Boxes(boxes))


def _texture(rng: Generator, size: int) -> NDArray[np.uint8]:
    """Return a background of coloured noise at two scales."""
    base = np.full(3, rng.uniform(30, 225)) + rng.uniform(-25, 25, size=3)  # nearly grey
    ground = np.broadcast_to(base, (size, size, 3)).astype(np.float64)
    for cells, strength in ((4, 8.0), (16, 4.0)):
        noise = rng.normal(0, strength, size=(cells, cells, 3)) + 128
        tile = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        ground = ground + np.asarray(tile, dtype=np.float64) - 128
    return (ground + rng.normal(0, 4, ground.shape)).clip(0, 255).astype(np.uint8)


def _side(rng: Generator, size: int) -> float:
    shares = [share for share, _, _ in SIDE_RANGES]
    _, low, high = SIDE_RANGES[rng.choice(len(SIDE_RANGES), p=shares)]
    return float(rng.uniform(low, high)) * size


def _place(
    rng: Generator, label: int, side: float, size: int, earlier: list[list[float]]
) -> NDArray[np.float64] | None:
    """Return the corners (P, 2) of a shape in pixels at a place where earlier boxes stay visible, or None."""
    outline = _outline(rng, NAMES[label])
    outline = outline / outline.max() * side
    for _ in range(TRIES):
        placed: NDArray[np.float64] = outline + rng.uniform(0, np.maximum(size - outline.max(axis=0), 0))
        if all(_covered(box, _box_of(placed)) <= MOST_COVERED for box in earlier):
            return placed
    return None


def _box_of(outline: NDArray[np.float64]) -> list[float]:
    """Return the tight box as xywh."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    return [round(float(value), 2) for value in (*low, *(high - low))]


def _paint(image: Image.Image, rng: Generator, label: int, outline: NDArray[np.float64]) -> None:
    points = [(float(x), float(y)) for x, y in outline * OVERSAMPLING]
    middle_x, middle_y = ((outline.min(axis=0) + outline.max(axis=0)) / 2 * OVERSAMPLING).astype(int).tolist()
    color = _contrasting(rng, label, image.getpixel((middle_x, middle_y)))
    edge = tuple(value // 2 for value in color)
    ImageDraw.Draw(image).polygon(points, fill=color, outline=edge, width=OVERSAMPLING)


def _contrasting(rng: Generator, label: int, ground: object) -> tuple[int, ...]:
    """Return a colour that contrasts with `ground`, the RGB behind it; its hue is only a hint at the class."""
    while True:
        hue = (label / len(NAMES) + rng.normal(0, HUE_SPREAD)) % 1.0
        color = colorsys.hsv_to_rgb(hue, *rng.uniform(0.35, 1.0, size=2))
        rgb = tuple(round(255 * channel) for channel in color)
        if np.abs(np.asarray(rgb) - np.asarray(ground)).sum() >= MIN_CONTRAST:
            return rgb


def _outline(rng: Generator, name: str) -> NDArray[np.float64]:
    """Return the corners of a randomly stretched shape of about unit size, with the corner of its box at 0."""
    corners = {"circle": 40, "square": 4, "triangle": 3}[name]
    angle = (math.pi / 4 if name == "square" else -math.pi / 2) + np.arange(corners) * 2 * math.pi / corners
    points = np.stack((np.cos(angle), np.sin(angle)), axis=1) * rng.uniform(0.75, 1.0, size=2)
    upright: NDArray[np.float64] = points - points.min(axis=0)
    return upright


def _covered(behind: list[float], front: list[float]) -> float:
    """Return the share of the box `behind` that the box `front` covers."""
    overlap = 1.0
    for axis in (0, 1):
        start = max(behind[axis], front[axis])
        end = min(behind[axis] + behind[axis + 2], front[axis] + front[axis + 2])
        overlap *= max(0.0, end - start)
    return overlap / (behind[2] * behind[3])
