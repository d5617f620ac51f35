"""Checks of all boxes and images of a source together, and the handling of damaged items."""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcos.data.sources.description import BoxFormat, Damaged, Seen, SourceBox, SourceImage
from fcos.errors import UserError

CLIP_TOLERANCE = 1.0  # pixels; annotation tools differ by one pixel, more is a mistake
FEW, LARGE_SHARE = 3, 0.2  # this number and share of boxes outside are not single mistakes
LISTED = 10  # items that an error lists
TOGETHER = 4096  # images whose boxes are checked together
SAME_OBJECT = 0.5  # IoU of boxes in copies of one image
COMMON_SHARE, COMMON_IMAGES = 0.5, 5  # a property of over half of a split (of five or more images) is not odd


@dataclass(frozen=True, slots=True)
class Sized:
    """An image of a split with its size; its boxes are in pixels."""

    split: str
    image: SourceImage
    size: tuple[int, int]  # (height, width) that the boxes refer to
    sha256: str


def refuse_strange_boxes(images: Sequence[Sized], box_format: BoxFormat, *, clip: bool) -> None:
    """Raise a UserError if the boxes seem to be in another format than `box_format`, or are outside of their images.

    Args:
        clip: whether the user wants boxes outside to be clipped.
    """
    seen = _Extents(box_format)
    for start in range(0, len(images), TOGETHER):
        seen.add(images[start : start + TOGETHER])
    if seen.first is not None and seen.all_tiny:
        problem = f"all {seen.count} boxes are smaller than a pixel"
        raise _strange(
            seen.first, problem, "numbers in pixels", "are they fractions of the image? multiply by its size"
        )
    if seen.first_outside is None:
        return
    if seen.outside >= FEW and seen.all_as_corners:
        problem = f"{seen.outside} of {seen.count} boxes exceed their image, but all are inside if read as corners"
        expected = "x, y, width, height" if box_format == "xywh" else "cx, cy, width, height"
        raise _strange(seen.first_outside, problem, expected, "convert x1, y1, x2, y2 to that")
    if clip:
        return
    many = seen.outside >= FEW and seen.outside > LARGE_SHARE * seen.count
    switch = "data.outside_boxes: clip (fcos study new: --outside-boxes clip)"
    question = "check that the boxes have the layout's format and fit these images; only then: "
    hint = question + switch if many else f"fix the annotation, or clip such boxes: {switch}"
    problem = "a box lies outside its image; nothing was changed"
    if seen.outside > 1:
        problem = f"{seen.outside} of {seen.count} boxes lie outside their image; nothing was changed. The first: "
        problem += "a box lies outside its image"
    raise _strange(seen.first_outside, problem, "boxes inside", hint)


class _Extents:
    """What is known of the extents of the boxes that have an area."""

    def __init__(self, box_format: BoxFormat) -> None:
        self._format = box_format
        self.count = self.outside = 0
        self.first: tuple[Sized, SourceBox] | None = None
        self.first_outside: tuple[Sized, SourceBox] | None = None
        self.all_tiny = True  # smaller than a pixel
        self.all_as_corners = box_format != "corners"  # inside, if their numbers are read as x1, y1, x2, y2

    def add(self, images: Sequence[Sized]) -> None:
        counts = [len(one.image.boxes) for one in images]
        owner = np.repeat(np.arange(len(images)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        sizes = np.array([one.size[::-1] for one in images], dtype=float)  # width, height
        xywh = np.concatenate([one.image.boxes.xywh for one in images])
        real = np.flatnonzero((xywh[:, 2:] > 0).all(axis=1))
        owner, place, xywh = owner[real], place[real], xywh[real]
        low, sides, size = xywh[:, :2], xywh[:, 2:], sizes[owner]
        outside = np.flatnonzero(np.maximum(-low, low + sides - size).max(axis=1, initial=-np.inf) > CLIP_TOLERANCE)
        self.count += len(real)
        self.outside += len(outside)
        self.all_tiny &= bool((sides < (2 if self._format == "corners" else 1)).all())
        start = low + sides / 2 if self._format == "center" else low  # the first two numbers in the file
        as_corners = (start >= 0) & (start < sides) & (sides <= size + CLIP_TOLERANCE)
        self.all_as_corners &= bool(as_corners.all())

        def box(row: int) -> tuple[Sized, SourceBox]:
            one = images[owner[row]]
            return one, one.image.boxes[int(place[row])]

        if self.first is None and len(real):
            self.first = box(0)
        if self.first_outside is None and len(outside):
            self.first_outside = box(outside[0])


def _strange(first: tuple[Sized, SourceBox], problem: str, expected: str, hint: str) -> UserError:
    one, box = first
    height, width = one.size
    numbers = [round(side, 4) for side in box.bbox]
    return UserError(
        f"{one.image.described_in}: {one.image.file_name}",
        problem,
        found=f"{box.category} {numbers} (x, y, width, height) in {width} x {height} pixels",
        expected=expected,
        hint=hint,
    )


def merge_twins(images: Iterable[Sized], seen: Seen) -> set[int]:
    """Move the boxes of copies of one image to the first copy, if the copies have different boxes.

    A box that overlaps one of the same class is the same object. Copies with equal boxes are kept. Returns the Python
    `id` of the copies that are to be left out.
    """
    copies: dict[tuple[str, str], list[Sized]] = defaultdict(list)
    for one in images:
        copies[one.split, one.sha256].append(one)
    left_out = set()
    for first, *others in copies.values():
        for other in others:
            if _boxes(first) == _boxes(other):
                other.image.odd.append(f"same content as another image ({first.image.file_name})")
                continue
            for box in [box for box in other.image.boxes if not _is_among(box, first.image.boxes)]:
                first.image.boxes.append(box)
            first.image.odd.append(f"the boxes of a copy are merged into it ({other.image.file_name})")
            seen.counts["copies of an image with other boxes, merged into the first"] += 1
            left_out.add(id(other.image))
    return left_out


def _boxes(one: Sized) -> list[tuple[Any, ...]]:
    return sorted((box.category, *box.bbox, box.ignored) for box in one.image.boxes)


def _is_among(box: SourceBox, others: Iterable[SourceBox]) -> bool:
    return any(box.category == other.category and _iou(box.bbox, other.bbox) > SAME_OBJECT for other in others)


def _iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the IoU of two xywh boxes."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = first, second
    width = max(0.0, min(ax + aw, bx + bw) - max(ax, bx))
    height = max(0.0, min(ay + ah, by + bh) - max(ay, by))
    union = aw * ah + bw * bh - width * height
    return width * height / union if union > 0 else 0.0


def refuse_damaged(items: Sequence[Damaged], *, leave_out: bool) -> None:
    """Raise one error with the number of damaged items, ten of them and the option to leave them out.

    Nothing is raised if `leave_out` or if there are none.
    """
    if leave_out or not items:
        return
    switch = "or leave it out: data.damaged: leave-out (fcos study new: --damaged leave-out)"
    if len(items) == 1:
        (item,) = items
        item.args = (f"{item}\n  {'or:':<10}{switch.removeprefix('or ')}",)
        raise item
    all_of_them = switch.replace("leave it", "leave all of them")
    kinds = Counter(item.problem for item in items)
    counted = [f"{count} x {problem.split(';')[0]}" for problem, count in kinds.most_common(LISTED)]
    above = posixpath.commonpath([posixpath.dirname(str(item.where)) for item in items])
    listed = [_said(item, above) for item in _some_of_each(items)]
    more = [f"... and {len(items) - LISTED} more"] if len(items) > LISTED else []
    raise UserError(
        items[0].where,
        f"{len(items)} images, annotations or lines cannot be used; nothing was changed",
        found="\n            ".join([*counted, f"these are, in {above or '.'}:", *listed, *more]),
        expected=items[0].expected if len(kinds) == 1 else None,
        hint=f"{items[0].hint if len(kinds) == 1 and items[0].hint else 'fix them'}, {all_of_them}",
    )


def _some_of_each(items: Sequence[Damaged]) -> list[Damaged]:
    """Return the first items of each kind."""
    seen: Counter[str] = Counter()
    ranks = []
    for item in items:
        ranks.append(seen[item.problem])
        seen[item.problem] += 1
    order = sorted(range(len(items)), key=lambda position: ranks[position])[:LISTED]
    return [items[position] for position in sorted(order)]


def _said(item: Damaged, above: str) -> str:
    place = str(item.where).removeprefix(above).lstrip("/")[:120]
    found = f" ({item.entry['found']})" if item.entry["found"] else ""
    return f"{place}: {item.problem.split(';')[0]}{found if len(found) < 80 else ''}"


def state_common(odd: list[dict[str, Any]], images: Mapping[str, int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the suspicious properties, and sentences about those too common in a split to be suspicious."""
    counts = Counter((entry["split"], entry["what"]) for entry in odd)
    common = {
        key: count for key, count in counts.items()
        if images[key[0]] >= COMMON_IMAGES and count > COMMON_SHARE * images[key[0]]
    }  # fmt: skip
    sentences = [f"{split}: {what} in {count} of {images[split]} images" for (split, what), count in common.items()]
    return [entry for entry in odd if (entry["split"], entry["what"]) not in common], sentences
