"""Find the images of ground truth that are only looked at: nothing is scored by them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fcos.data.images import displayed_size, opened
from fcos.errors import UserError

Row = dict[str, Any]
# Places of images, from the folder of the ground truth.
_BESIDE = (".", "images", "JPEGImages", "..", "../images", "../JPEGImages")


def find_images(gt: Path, given: Path | None, file_names: Sequence[str], known: Path | None = None) -> Path | None:
    """Return the folder in which all these images are, or None if they are not at hand.

    Args:
        gt: the file or folder of the ground truth.
        given: `--images`; None: the `known` folder, or one near the ground truth (`_near`).
        known: the folder of the images, if the ground truth is a folder of a known layout.

    Raises:
        UserError: an image is not in the `given` folder.
    """
    for folder in [given] if given is not None else [known] if known is not None else _near(gt):
        missing = next((name for name in file_names if not is_inside(folder, name)), None)
        if missing is None:
            return folder
        if folder is given:
            hint = "give the folder that the file names in the ground truth are relative to"
            raise UserError(folder / missing, "no such image", expected="the images of the ground truth", hint=hint)
    return None


def with_sizes(image: Row, folder: Path) -> Row:
    """Return the entry of an image, with the size from its file if the ground truth does not say it.

    Raises:
        UserError: the file cannot be read.
    """
    if image["width"] is not None and image["height"] is not None:
        return image
    with opened(folder / image["file_name"]) as pixels:
        height, width = displayed_size(pixels)
    return {**image, "width": width, "height": height}


def _near(gt: Path) -> Iterator[Path]:
    """Yield the folders to look into: each one in a folder of ground truth, or those beside a file."""
    if gt.is_dir():
        yield from (Path(folder) for folder, _, _ in os.walk(gt))
    else:
        yield from (gt.parent / place for place in _BESIDE)


def is_inside(folder: Path, name: str) -> bool:
    """Whether there is a file of this name, which may not lead out of the folder."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and (folder / path).is_file()
