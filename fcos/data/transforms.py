"""Make a batch of decoded images: resize, flip, normalise and pad on the device."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from fcos.data.images import resized_size
from fcos.structures import Batch, Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PAD_MULTIPLE = 32


@dataclass(frozen=True)
class View:
    """The size and flip with which the network sees an image."""

    size: tuple[int, int]  # (height, width) after resizing
    flipped: bool = False


def padded_size(sizes: Sequence[tuple[int, int]], multiple: int = PAD_MULTIPLE) -> tuple[int, int]:
    """Return the smallest (height, width) in multiples of `multiple` that holds all `sizes`."""
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
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
    """Return the random training view of an image; it depends only on (seed, epoch, image id), not on the order."""
    rng = np.random.default_rng([seed, epoch, image_id])
    shorter = int(rng.choice(sizes))
    return View(resized_size(size, shorter, longest), bool(rng.random() < horizontal_flip))


def make_batch(
    samples: Sequence[Sample],
    views: Sequence[View],
    device: torch.device,
    memory_format: torch.memory_format = torch.channels_last,
    padded: tuple[int, int] | None = None,
) -> Batch:
    """Return the batch of the samples in their views; its images are float32, normalised and padded with zeros.

    Args:
        padded: (height, width) to pad to; by default `padded_size` of the views.
    """
    height, width = padded or padded_size([view.size for view in views])
    images = torch.empty((len(samples), 3, height, width), device=device, memory_format=memory_format).zero_()
    together: dict[tuple[int, int, tuple[int, int]], list[int]] = defaultdict(list)
    for row, (sample, view) in enumerate(zip(samples, views, strict=True)):
        together[sample.image.shape[0], sample.image.shape[1], view.size].append(row)
    for (*_, size), rows in together.items():
        stacked = _stack([torch.as_tensor(samples[row].image) for row in rows], device)
        for row, image in zip(rows, show(send(stacked, device), size), strict=True):
            images[row, :, : size[0], : size[1]] = image.flip(-1) if views[row].flipped else image
    return Batch(
        images=images,
        image_ids=[sample.image_id for sample in samples],
        image_sizes=send(torch.tensor([view.size for view in views], dtype=torch.float32), device),
        **{name: send(torch.from_numpy(of), device) for name, of in _pad(samples, views).items()},
    )


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device. A copy from the CPU to CUDA is from pinned memory, so that nothing waits."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def _stack(images: list[Tensor], device: torch.device) -> Tensor:
    """Stack images of one size: in pinned memory where `send` would copy them there."""
    if device.type != "cuda" or images[0].device.type != "cpu":
        return torch.stack(images)
    pinned = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
    return torch.stack(images, out=pinned)


def show(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize and normalise images: uint8 (N, H, W, 3) -> float32 (N, 3, height, width).

    Resizing runs in channels first, which for three channels takes a quarter of the time of channels_last.
    """
    images = pixels.permute(0, 3, 1, 2).contiguous().div(255)
    if images.shape[2:] != size:
        images = interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)
    mean, std = _mean_and_std(images.device)
    return images.sub_(mean).div_(std)


@cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and std, (3, 1, 1) each; they are cached, since creating them on a GPU waits for it."""
    mean, std = torch.tensor((IMAGENET_MEAN, IMAGENET_STD), device=device)[..., None, None]
    return mean, std


def show_boxes(boxes: NDArray[np.float32], size: Sequence[int], view: View) -> NDArray[np.float32]:
    """Transform boxes (M, 4) xyxy from pixels of an image of `size` (height, width) to pixels of its view."""
    height, width = view.size
    shown = boxes * np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
    if view.flipped:
        shown[:, [0, 2]] = width - shown[:, [2, 0]]
    return shown


def _pad(samples: Sequence[Sample], views: Sequence[View]) -> dict[str, NDArray[Any]]:
    """Return the boxes of a batch, padded to M, by field of Batch; numpy is faster than torch for small arrays."""
    shape = (len(samples), max(len(sample.ground_truth.labels) for sample in samples))
    boxes = np.zeros((*shape, 4), dtype=np.float32)
    labels = np.full(shape, -1, dtype=np.int64)
    ignored = np.zeros(shape, dtype=np.bool_)
    for row, (sample, view) in enumerate(zip(samples, views, strict=True)):
        truth = sample.ground_truth
        there = slice(len(truth.labels))
        boxes[row, there] = show_boxes(truth.boxes.numpy(), sample.size, view)
        labels[row, there] = truth.labels.numpy()
        ignored[row, there] = truth.ignored.numpy()
    return {"gt_boxes": boxes, "gt_labels": labels, "gt_ignored": ignored}
