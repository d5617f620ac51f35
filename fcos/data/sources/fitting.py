"""The boxes of an image: converted to its pixels, clipped to it, and searched for pairs that are one object."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.data.sources.description import Boxes, SourceBox, SourceImage

NEAR_DUPLICATE_IOU = 0.8
MOST_PAIRS = 20  # near duplicates that are listed per image
ROWS = 256  # boxes of an image that are compared with all of its boxes at once


@dataclass
class Findings:
    """Corrections and suspicious boxes, listed in the manifest."""

    dropped: list[dict[str, Any]] = field(default_factory=list)
    clipped: list[dict[str, Any]] = field(default_factory=list)
    near_duplicates: list[dict[str, Any]] = field(default_factory=list)
    near_duplicates_cut: int = 0  # number of images with more than MOST_PAIRS pairs
    odd: list[dict[str, Any]] = field(default_factory=list)


def in_pixels(fractions: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Convert xywh (M, 4) from fractions to pixels of an image of `size` (height, width).

    Corners are rounded to 1/64 of a pixel, which is about the precision of six digits at 10,000 pixels, so that a box
    at the border does not end 1e-4 pixels outside.
    """
    shape = np.array(size[::-1])
    low = np.rint(64 * (fractions[:, :2] * shape)) / 64
    high = np.rint(64 * ((fractions[:, :2] + fractions[:, 2:]) * shape)) / 64
    return np.concatenate((low, high - low), axis=1)


def fit(image: SourceImage, size: tuple[int, int], split: str, findings: Findings) -> Boxes:
    """Return the boxes clipped to their image, without those of which nothing is left."""
    xywh, (height, width) = image.boxes.xywh, size
    low, sides = xywh[:, :2], xywh[:, 2:]
    if (sides > 0).all() and (low >= 0).all() and (low + sides <= (width, height)).all():
        return image.boxes
    fitted = (_clipped(box, image, size, split, findings) for box in image.boxes)
    return Boxes(box for box in fitted if box is not None)


def _clipped(
    box: SourceBox, image: SourceImage, size: tuple[int, int], split: str, findings: Findings
) -> SourceBox | None:
    x, y, w, h = box.bbox
    entry = {"split": split, "image": image.file_name, "class": box.category, "bbox": box.bbox}
    if w <= 0 or h <= 0:
        findings.dropped.append({**entry, "why": "no area"})
        return None
    height, width = size
    outside = max(-x, -y, x + w - width, y + h - height)
    if outside <= 0:
        return box
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x2 <= x1 or y2 <= y1:
        findings.dropped.append({**entry, "why": "outside the image"})
        return None
    findings.clipped.append(entry)
    return replace(box, bbox=[x1, y1, x2 - x1, y2 - y1])


def near_duplicates(image: SourceImage, split: str) -> list[dict[str, Any]]:
    """Return pairs of boxes of one class with a very high IoU: mostly one object that was annotated twice.

    At most MOST_PAIRS + 1 are returned.
    """
    pairs: list[dict[str, Any]] = []
    xywh, categories = image.boxes.xywh, image.boxes.categories
    low, high, area = xywh[:, :2], xywh[:, :2] + xywh[:, 2:], xywh[:, 2] * xywh[:, 3]
    for first in range(0, len(xywh), ROWS):  # not all pairs at once, of which an image may have many
        rows = slice(first, first + ROWS)
        sides = np.minimum(high[rows, None], high[first:]) - np.maximum(low[rows, None], low[first:])
        overlap = sides.clip(min=0).prod(axis=2)
        iou = np.triu(overlap / (area[rows, None] + area[first:] - overlap), k=1)
        for i, j in np.argwhere(iou > NEAR_DUPLICATE_IOU):
            if categories[first + i] == categories[first + j]:
                entry = {"split": split, "image": image.file_name, "class": categories[first + i]}
                pairs.append({**entry, "iou": round(float(iou[i, j]), 3)})
            if len(pairs) > MOST_PAIRS:
                return pairs
    return pairs
