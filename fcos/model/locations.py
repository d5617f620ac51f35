"""The image location of every cell of every level."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Locations:
    """All locations of all levels of one padded image size."""

    xy: Tensor  # (R, 2) pixels
    strides: Tensor  # (R,) nominal stride of the level
    level_of: Tensor  # (R,) int64


def make_locations(
    feature_sizes: Sequence[tuple[int, int]],
    padded_size: tuple[int, int],
    *,
    strides: Sequence[int],
    offset: float,
    step_from_padding: bool,
    device: torch.device,
) -> Locations:
    """Return the locations ((x + offset) * step_x, (y + offset) * step_y) of all levels, row by row.

    The step is the level's nominal stride or, if `step_from_padding`, padded size // cells on each axis, as in
    torchvision: at P7 of an image with 480 rows, 120 pixels instead of 128.
    """
    xy, stride_of, level_of = [], [], []
    for level, ((rows, columns), stride) in enumerate(zip(feature_sizes, strides, strict=True)):
        step_y, step_x = stride, stride
        if step_from_padding:
            step_y, step_x = padded_size[0] // rows, padded_size[1] // columns
        y = (torch.arange(rows, dtype=torch.float32, device=device) + offset) * step_y
        x = (torch.arange(columns, dtype=torch.float32, device=device) + offset) * step_x
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        xy.append(torch.stack((grid_x.flatten(), grid_y.flatten()), dim=1))
        stride_of.append(torch.full((rows * columns,), float(stride), device=device))
        level_of.append(torch.full((rows * columns,), level, dtype=torch.int64, device=device))
    return Locations(torch.cat(xy), torch.cat(stride_of), torch.cat(level_of))


@dataclass(frozen=True, kw_only=True)
class LocationGrid:
    """`make_locations` with its settings and a cache of its results."""

    strides: tuple[int, ...]
    offset: float
    step_from_padding: bool
    _made: dict[tuple[object, ...], Locations] = field(default_factory=dict, compare=False, repr=False)

    def __call__(
        self, feature_sizes: tuple[tuple[int, int], ...], padded_size: tuple[int, int], device: torch.device
    ) -> Locations:
        key = (feature_sizes, padded_size, device)
        if key not in self._made:
            self._made[key] = make_locations(
                feature_sizes,
                padded_size,
                strides=self.strides,
                offset=self.offset,
                step_from_padding=self.step_from_padding,
                device=device,
            )
        return self._made[key]
