"""Images that are no independent witnesses: groups that splits share, and near copies among the test images."""

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

# A near copy differs from another image by less than MOST of 256 grey levels (root of the mean square) at SIDE x SIDE
# pixels. Nearest others: at least 19 in VOC, COCO and traffic scenes, 12 for 99 % of microscope images of one kind;
# neighbouring frames of films, and copies moved by a hundredth of the width, 0 to 8.
MOST, SIDE = 8.0, 16
FLAT = 8.0  # standard deviation below which an image has nothing to be known by
COMPARED = 10_000  # images; all pairs of more would take minutes
BLOCK = 1000
NAMED = 5  # pairs


def shared_groups(groups: Mapping[str, Sequence[str | None]]) -> list[str]:
    """A note for each two splits that have images of one group, given the group of each image of each split."""
    notes = []
    splits = [(split, set(names) - {None}) for split, names in groups.items()]
    for number, (first, of_first) in enumerate(splits):
        for second, of_second in splits[number + 1 :]:
            shared = of_first & of_second
            count = sum(name in shared for name in groups[second])
            if shared:
                notes.append(
                    f"{len(shared)} groups of images (data.groups) are in {first} and in {second}, where {count} of "
                    f"{len(groups[second])} images are of them: {second} is not independent of {first}"
                )
    return notes


def near_copies(paths: Sequence[Path]) -> dict[str, Any]:
    """How many of the images are near copies of another one: {"images", "compared", "pairs"}, a few of them by name."""
    compared = paths[:COMPARED]
    rows = np.array(track_threads(_thumbnail, compared, "compare test images", unit="images"))
    first_copy: dict[int, int] = {}  # of each image that has one
    for start in range(0, len(rows), BLOCK):
        near = _distances(rows[start : start + BLOCK], rows) < MOST
        near[np.arange(len(near)), start + np.arange(len(near))] = False
        first_copy |= {start + int(place): int(near[place].argmax()) for place in np.flatnonzero(near.any(axis=1))}
    pairs = [(image, copy) for image, copy in first_copy.items() if image < copy or first_copy.get(copy) != image]
    named = [[compared[image].name, compared[copy].name] for image, copy in pairs[:NAMED]]
    return {"images": len(first_copy), "compared": int(np.isfinite(rows[:, 0]).sum()), "pairs": named}


def copies_text(copies: Mapping[str, Any] | None) -> list[str]:
    """A sentence where there are near copies."""
    if not copies or not copies["images"]:
        return []
    first, second = copies["pairs"][0]
    return [
        f"{copies['images']} of {copies['compared']} test images are near copies of another one, such as {first} and "
        f"{second}: intervals take them for independent, and are too narrow; data.groups keeps images together"
    ]


def _thumbnail(path: Path) -> NDArray[np.float32]:
    """(SIDE * SIDE,) grey levels; NaN where there is nothing to be seen, which is near to nothing."""
    grey = np.full(SIDE * SIDE, np.nan, np.float32)
    with contextlib.suppress(UserError), opened(path) as image:  # prediction names a damaged image
        image.draft("L", (4 * SIDE, 4 * SIDE))
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        if (values := np.asarray(small, np.float32).ravel()).std() >= FLAT:
            grey = values
    return grey


def _distances(some: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(S, R) root mean square differences."""
    squares = (some**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * some @ rows.T
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0) / rows.shape[1])
    return distances
