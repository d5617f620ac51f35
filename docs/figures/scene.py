"""The images that the figures show: drawn by the source `shapes`, looked at as the published study does."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from style import BLUE, GREEN, ORANGE, PINK, without_axes
from torch import Tensor

from fcos.assignment import assign_targets
from fcos.boxes import xywh_to_xyxy
from fcos.config.model import STRIDES, ModelConfig
from fcos.data.sources import shapes
from fcos.data.sources.shapes import draw_shapes
from fcos.data.transforms import View, show_boxes
from fcos.model.locations import Locations
from fcos.structures import LocationTargets
from fcos.study.build import build_grid

SIZE = 512  # side in pixels of the network's input
MODEL = ModelConfig()
EVERYWHERE = 1e9  # a radius of center sampling that covers every box
COLOURS = (BLUE, ORANGE, GREEN, PINK)


@dataclass(frozen=True)
class Scene:
    """An image as the network sees it, with its objects from large to small."""

    image: NDArray[np.uint8]  # (H, W, 3), at half of the network's resolution
    boxes: Tensor  # (M, 4) in pixels of SIZE x SIZE
    names: list[str]


@cache
def draw_scene(seed: int) -> Scene:
    """The first image that `shapes` draws from `seed`, where objects may hide more of each other."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(shapes, "MOST_COVERED", 0.6):
        source = draw_shapes(Path(folder), num_train=1, num_test=0, image_size=SIZE // 2, max_objects=6, seed=seed)
        image = source.splits["train"].images[0]
        canvas = np.asarray(Image.open(image.path).convert("RGB"))
    boxes = xywh_to_xyxy(torch.tensor([box.bbox for box in image.boxes])).numpy()
    seen = show_boxes(boxes, canvas.shape[:2], View((SIZE, SIZE)))
    return Scene(canvas, torch.from_numpy(seen), [box.category for box in image.boxes])


def grid(size: int = SIZE) -> Locations:
    """All locations of a square image of `size` pixels."""
    cells = tuple((-(-size // stride),) * 2 for stride in STRIDES)
    return build_grid(MODEL)(cells, (size, size), torch.device("cpu"))


def assign(boxes: Tensor, locations: Locations, *, radius: float = MODEL.center_sampling_radius) -> LocationTargets:
    """`assign_targets` for boxes (B, M, 4) of one class, with the study's settings but for the radius."""
    labels = torch.zeros(boxes.shape[:2], dtype=torch.int64)
    return assign_targets(
        locations.xy,
        locations.strides,
        locations.level_of,
        boxes,
        labels,
        torch.zeros_like(labels, dtype=torch.bool),
        regression_ranges=MODEL.regression_ranges,
        center_sampling_radius=radius,
        inclusive=MODEL.center_bounds == "inclusive",
    )


def show(ax: Axes, scene: Scene, *, strength: float = 0.45, small: bool = False) -> None:
    """The image, faded, without axes; `small`: a quarter of its pixels, which is a quarter of the file."""
    without_axes(ax)
    extent = (0, SIZE, SIZE, 0)
    image = np.asarray(Image.fromarray(scene.image).reduce(2)) if small else scene.image
    ax.imshow(image, extent=extent, interpolation="none", alpha=strength)
    ax.set_xlim(-4, SIZE + 4)
    ax.set_ylim(SIZE + 4, -4)


def outline(ax: Axes, box: Tensor, colour: str, *, width: float = 1.8, line: str = "-") -> None:
    x1, y1, x2, y2 = box.tolist()
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width, linestyle=line))
