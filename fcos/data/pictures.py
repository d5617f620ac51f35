"""Reading a picture as the annotations mean it."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcos.errors import UserError

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


def read_picture(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode a picture of any mode to (height, width, 3) RGB, turned as EXIF says.

    Args:
        size: (height, width) that the annotations speak of. Where only the picture as stored has it, the
            annotations ignore EXIF, and so does this.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")  # damaged EXIF blocks are no reason to talk for each picture
            stored = (picture.height, picture.width)
            turned = displayed_size(picture)
            if size is not None and size not in (turned, stored):
                raise UserError(path, "is not the picture of its annotation", found=_text(turned), expected=_text(size))
            if size in (None, turned):
                picture = ImageOps.exif_transpose(picture)  # type: ignore[assignment]
            return np.array(picture.convert("RGB"))
    except FileNotFoundError:
        raise UserError(path, "no such picture", expected="a picture", do="put it back") from None
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise UserError(
            path, "cannot be decoded", found=error, expected="a whole picture", do="fetch the file again"
        ) from None


def displayed_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) after turning as EXIF says; the picture is not decoded."""
    turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
