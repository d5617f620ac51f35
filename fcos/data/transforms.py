"""From decoded pictures to a batch: resize, flip, normalise, pad, all on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fcos.data.dataset import Sample
from fcos.structures import Batch, GroundTruth

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PAD_MULTIPLE = 32


@dataclass(frozen=True)
class View:
    """How one picture is shown to the network."""

    size: tuple[int, int]  # (height, width) after resizing
    flipped: bool = False


def resized_size(size: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `shorter`, or the longer one at `longest` where that is smaller.

    In integers: in float32, 375 rows scaled by 480/375 come out as 479.
    """
    low, high = min(size), max(size)
    numerator, denominator = (shorter, low) if high * shorter <= longest * low else (longest, high)
    height, width = (max(1, side * numerator // denominator) for side in size)
    return height, width


def padded_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The smallest (height, width) in multiples of 32 that holds all `sizes`."""
    height, width = (-(-max(side) // PAD_MULTIPLE) * PAD_MULTIPLE for side in zip(*sizes, strict=True))
    return height, width


def draw_view(
    size: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    image_id: int,
    sizes: Sequence[int],
    longest: int,
    horizontal_flip: float,
) -> View:
    """The training view of a picture: a function of (seed, epoch, image id) alone, whoever asks and in what order."""
    rng = np.random.default_rng([seed, epoch, image_id])
    shorter = int(rng.choice(sizes))
    return View(resized_size(size, shorter, longest), bool(rng.random() < horizontal_flip))


def make_batch(samples: Sequence[Sample], views: Sequence[View], device: torch.device) -> Batch:
    """Show each sample in its view; pictures (B, 3, height, width) in channels_last, padded with zeros."""
    height, width = padded_size([view.size for view in views])
    images = torch.zeros((len(samples), 3, height, width), device=device)
    images = images.to(memory_format=torch.channels_last)
    truths = []
    for image, sample, view in zip(images, samples, views, strict=True):
        image[:, : view.size[0], : view.size[1]] = show(sample.picture, view, device)
        truths.append(show_boxes(sample.ground_truth, sample.picture.shape[:2], view))
    most = max((len(truth.labels) for truth in truths), default=0)
    return Batch(
        images=images,
        image_ids=[sample.image_id for sample in samples],
        image_sizes=torch.tensor([view.size for view in views], dtype=torch.float32, device=device),
        gt_boxes=torch.stack([_pad(truth.boxes, most, 0.0) for truth in truths]).to(device),
        gt_labels=torch.stack([_pad(truth.labels, most, -1) for truth in truths]).to(device),
        gt_ignored=torch.stack([_pad(truth.ignored, most, False) for truth in truths]).to(device),
    )


def show(picture: np.ndarray, view: View, device: torch.device) -> Tensor:
    """A uint8 picture (H, W, 3) as the network sees it: float32 (3, height, width), normalised."""
    image = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float().div_(255)
    if image.shape[2:] != view.size:
        image = interpolate(image, size=view.size, mode="bilinear", align_corners=False, antialias=False)
    mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=device)[:, None, None]
    image = (image[0] - mean) / std
    return image.flip(-1) if view.flipped else image


def show_boxes(truth: GroundTruth, size: Sequence[int], view: View) -> GroundTruth:
    """Boxes in pixels of a picture of `size` (height, width) -> in pixels of its view."""
    height, width = view.size
    scale = torch.tensor([width / size[1], height / size[0]]).repeat(2)
    boxes = truth.boxes * scale
    if view.flipped:
        x1, y1, x2, y2 = boxes.unbind(1)
        boxes = torch.stack((width - x2, y1, width - x1, y2), dim=1)
    return GroundTruth(boxes, truth.labels, truth.ignored)


def _pad(values: Tensor, length: int, fill: float) -> Tensor:
    padding = values.new_full((length - len(values), *values.shape[1:]), fill)
    return torch.cat((values, padding))
