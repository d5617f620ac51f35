"""Assign image ids: the source's ids if possible; a later split does not change the ids of an earlier one."""

import re
from typing import Any

from fcos.data.sources.description import SourceImage, SourceSplit
from fcos.data.sources.values import LARGEST

# Offsets that are added to the ids of a split if they collide with those of an earlier split.
MOVED = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}


def number_images(described: dict[str, SourceSplit]) -> None:
    """Set the ids of COCO images: positive whole numbers are kept, otherwise a split's ids become 1, 2, ...

    An offset is added to the ids of a split if they collide with those of other images in an earlier split. An id that
    two splits use for the same file name is kept, to be refused later as one image in two splits.
    """
    taken: dict[int, str] = {}
    for name, split in described.items():
        images = split.images
        kept = all(isinstance(image.original_id, int) and 0 < image.original_id < LARGEST for image in images)
        ids = [image.original_id if kept else position for position, image in enumerate(images, start=1)]
        clash = [taken[number] != image.file_name for number, image in zip(ids, images, strict=True) if number in taken]
        moved = MOVED[name] if clash and all(clash) else 0
        for number, image in zip(ids, images, strict=True):
            image.image_id = number + moved
            if image.original_id == image.image_id:
                image.original_id = None
            taken[image.image_id] = image.file_name


def number_by_name(described: dict[str, SourceSplit]) -> None:
    """Set the ids of VOC images to the digits of their names (000005 is 5), or to 1, 2, ... if these are not unique."""
    taken: dict[Any, str] = {}
    for name, split in described.items():
        ids = _digits(split.images, taken)
        if ids is None:
            by_name = sorted(split.images, key=lambda image: image.file_name)
            position = {image.file_name: number for number, image in enumerate(by_name, start=MOVED[name] + 1)}
            ids = [position[image.file_name] for image in split.images]
        for number, image in zip(ids, split.images, strict=True):
            image.image_id = number
            taken[number] = image.file_name


def _digits(images: list[SourceImage], taken: dict[Any, str]) -> list[int] | None:
    digits = [re.sub(r"\D", "", image.path.stem, flags=re.ASCII) for image in images]
    if not all(digits) or not all(len(text) < 17 and int(text) < LARGEST for text in digits):
        return None
    ids = [int(text) for text in digits]
    apart = len(set(ids)) == len(ids)
    free = all(taken.get(number, image.file_name) == image.file_name for number, image in zip(ids, images, strict=True))
    return ids if apart and free else None
