"""Find images that are not independent: groups that splits share, and near copies among the test images."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcos.data.images import opened
from fcos.errors import UserError
from fcos.progress import track_threads

# A near copy differs from another image by less than MOST of 256 grey levels (root mean square) at SIDE x SIDE pixels.
# The closest different images differ by at least 19 in VOC, COCO and traffic scenes, and by 12 for 99 % of microscope
# images of one kind. Neighbouring frames of videos, and copies shifted by 1 % of the width, differ by 0 to 8.
MOST, SIDE = 8.0, 16
FLAT = 8.0  # grey levels; an image with a lower standard deviation is too uniform to be compared
COMPARED = 10_000  # images; comparing all pairs of more would take minutes
BLOCK = 1000
NAMED = 5  # pairs that are listed


def shared_groups(groups: Mapping[str, Sequence[str | None]]) -> list[str]:
    """Return a note for each pair of splits that share a group, given the group of each image of each split."""
    notes = []
    splits = [(split, set(names) - {None}) for split, names in groups.items()]
    for number, (first, of_first) in enumerate(splits):
        for second, of_second in splits[number + 1 :]:
            shared = of_first & of_second
            count = sum(name in shared for name in groups[second])
            if shared:
                notes.append(
                    f"{len(shared)} groups (data.groups) are in both {first} and {second} ({count} of "
                    f"{len(groups[second])} {second} images): {second} is not independent of {first}"
                )
    return notes


def near_copies(paths: Sequence[Path]) -> dict[str, Any]:
    """Count the images that are near copies of another one; return {"images", "compared", "pairs": a few names}."""
    compared = paths[:COMPARED]
    rows = np.array(track_threads(_thumbnail, compared, "compare test images", unit="images"))
    first_copy: dict[int, int] = {}  # image -> its first near copy
    for start in range(0, len(rows), BLOCK):
        near = _distances(rows[start : start + BLOCK], rows) < MOST
        near[np.arange(len(near)), start + np.arange(len(near))] = False
        first_copy |= {start + int(place): int(near[place].argmax()) for place in np.flatnonzero(near.any(axis=1))}
    pairs = [(image, copy) for image, copy in first_copy.items() if image < copy or first_copy.get(copy) != image]
    named = [[compared[image].name, compared[copy].name] for image, copy in pairs[:NAMED]]
    return {"images": len(first_copy), "compared": int(np.isfinite(rows[:, 0]).sum()), "pairs": named}


def copies_text(copies: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence about near copies, if there are any."""
    if not copies or not copies["images"]:
        return []
    first, second = copies["pairs"][0]
    return [
        f"{copies['images']} of {copies['compared']} test images are near copies of another one, such as {first} and "
        f"{second}: intervals are too narrow, except for images whose annotated objects coincide, which are resampled "
        "together; data.groups keeps images together"
    ]


def _thumbnail(path: Path) -> NDArray[np.float32]:
    """Return grey levels (SIDE * SIDE,), or NaN for a uniform or unreadable image, which is then close to no other."""
    grey = np.full(SIDE * SIDE, np.nan, np.float32)
    with contextlib.suppress(UserError), opened(path) as image:  # prediction reports a damaged image
        image.draft("L", (4 * SIDE, 4 * SIDE))
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        if (values := np.asarray(small, np.float32).ravel()).std() >= FLAT:
            grey = values
    return grey


def _distances(some: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the root mean square differences (S, R)."""
    squares = (some**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * some @ rows.T
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0) / rows.shape[1])
    return distances
