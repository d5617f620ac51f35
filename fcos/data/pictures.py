"""Reading a picture as the annotations mean it."""

import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcos.errors import UserError

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
BOUNDLESS = ("I", "F")  # 32 bits a pixel: no range that all agree on
UNREADABLE = (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)
_PILLOW = re.compile(r"PIL\.")


def read_picture(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode a picture of any mode to (height, width, 3) RGB, turned as EXIF says.

    Args:
        size: (height, width) that the annotations speak of. Where only the picture as stored has it, the
            annotations ignore EXIF, and so does this.
    """
    try:
        hush()
        with Image.open(path) as picture:
            refuse_boundless(path, picture.mode)
            stored = (picture.height, picture.width)
            turned = displayed_size(picture)
            if size is not None and size not in (turned, stored):
                raise UserError(path, "is not the picture of its annotation", found=_text(turned), expected=_text(size))
            if size in (None, turned):
                picture = ImageOps.exif_transpose(picture)  # type: ignore[assignment]
            if picture.mode in SIXTEEN_BITS:  # convert() clips to 255; of RGB Pillow takes the high byte too
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))  # type: ignore[assignment]
            return np.array(picture.convert("RGB"))
    except FileNotFoundError:
        raise UserError(path, "no such picture", expected="a picture", do="put it back") from None
    except UNREADABLE as error:
        raise UserError(
            path, "cannot be decoded", found=error, expected="a whole picture", do="fetch the file again"
        ) from None


def hush() -> None:
    """Damaged EXIF blocks are no reason to talk for each picture.

    Not by `warnings.catch_warnings`: pictures are read in threads, where it can leave every warning switched off.
    """
    if ("ignore", None, Warning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def refuse_boundless(path: Path, mode: str) -> None:
    if mode in BOUNDLESS:
        raise UserError(
            path,
            "its pixels have 32 bits, without a range to show them in",
            found=f"colour mode {mode}",
            expected="8 or 16 bits",
            do="convert the picture",
        )


def displayed_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) after turning as EXIF says; the picture is not decoded."""
    turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
