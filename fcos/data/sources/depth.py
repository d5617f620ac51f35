"""Find how many bits the 16-bit images of a data set use; files do not state it, and 12-bit images look black."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fcos.data.images import SIXTEEN_BITS
from fcos.errors import UserError

FEWEST_BITS, ALL_BITS = 8, 16
BLACK_BITS = 12  # for colours Pillow keeps only the high byte, which has at most 16 levels for 12 bits


@dataclass(frozen=True)
class Deep:
    """A 16-bit image.

    Args:
        highest: its largest value; for colours, only the high byte is known.
    """

    path: Path
    highest: int
    coloured: bool

    @staticmethod
    def of(image: Image.Image, path: Path) -> "Deep | None":
        """Decode `image` if it has 16 bits per value; return None otherwise."""
        if image.mode in SIXTEEN_BITS:
            return Deep(path, int(np.asarray(image).max()), coloured=False)
        if any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
            return Deep(path, 256 * int(np.asarray(image).max()), coloured=True)
        return None


def shared_depth(images: Sequence[Deep]) -> tuple[int, list[str]]:
    """Return the number of bits that the grey images of a data set use, at least 8, and sentences about it.

    Raises:
        UserError: colour images use so few bits that they are nearly black.
    """
    grey = [image for image in images if not image.coloured]
    coloured = [image for image in images if image.coloured]
    bits = max((image.highest.bit_length() for image in grey), default=ALL_BITS)
    bits = max(bits, FEWEST_BITS)
    sentences = []
    if grey:
        most = max(image.highest for image in grey)
        sentences.append(f"{len(grey)} images have 16 bits a pixel and values up to {most}: {bits} bits are shown")
    if coloured:
        highest = max(image.highest for image in coloured)
        if highest.bit_length() <= BLACK_BITS:
            raise UserError(
                coloured[0].path,
                f"{len(coloured)} images with 16 bits a colour would be nearly black: the low byte is not read",
                found=f"values below {1 << highest.bit_length()}",
                expected="values up to 65535",
                hint="convert the images to 8 bits a colour",
            )
        sentences.append(f"{len(coloured)} images have 16 bits a colour: the high byte of each is shown")
    return bits, sentences
