"""Read images in the orientation and depth that the annotations refer to."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcos.errors import UserError

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
# Supported formats. Pillow reads the JPEGs with a second image of many phones (MPO) as JPEG. Its other formats are not
# allowed, since EPS, for example, starts another program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
REDUCTIONS = (8, 4, 2)  # factors that JPEG decoders support
BOUNDLESS = ("I", "F")  # modes with 32 bits per pixel, which have no common value range
_PILLOW = re.compile(r"PIL\.")


def resized_size(size: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """Return the (height, width) with the shorter side at `shorter`, or the longer one at `longest` if that is smaller.

    The size is computed in integers, since 375 rows scaled by 480/375 in float32 result in 479.
    """
    low, high = min(size), max(size)
    numerator, denominator = (shorter, low) if high * shorter <= longest * low else (longest, high)
    height, width = (max(1, side * numerator // denominator) for side in size)
    return height, width


def reduction(size: tuple[int, int], shorter: int, longest: int) -> int:
    """Return the factor (1, 2, 4 or 8) by which an image of `size` is reduced before it is resized.

    The reduced image is at least as large as the resized one. An image less than twice as large is not changed.
    """
    shown = resized_size(size, shorter, longest)
    times = min(side // of_view for side, of_view in zip(size, shown, strict=True))
    return next((factor for factor in REDUCTIONS if factor <= times), 1)


def reduced_size(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """Return the (height, width) of an image of `size` with its sides divided by `factor`."""
    return -(-size[0] // factor), -(-size[1] // factor)


def reduced(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) reduced by `factor`; each pixel is the mean of a block."""
    return image if factor == 1 else np.array(Image.fromarray(image).reduce(factor))


def read_annotated(source: Path | BytesIO, image: Mapping[str, Any], factor: int = 1) -> NDArray[np.uint8]:
    """Return an image with the size and depth of its entry in `images` of prepared data; see `read_image`."""
    name = None if isinstance(source, Path) else str(image["file_name"])
    return read_image(source, (image["height"], image["width"]), image.get("bits", 16), factor, name)


def read_image(
    source: Path | BytesIO,
    size: tuple[int, int] | None = None,
    bits: int = 16,
    factor: int = 1,
    name: str | None = None,
) -> NDArray[np.uint8]:
    """Return an image of any mode as uint8 RGB (height, width, 3), rotated according to EXIF.

    Args:
        size: (height, width) that the annotations refer to. If only the stored, unrotated image has this size, the
            annotations ignore EXIF, and the image is not rotated.
        bits: number of bits that a 16-bit grey image uses; larger values become white.
        factor: 1, 2, 4 or 8, by which the sides are divided; a JPEG is decoded at the reduced size, which is faster.
        name: as for `opened`.

    Raises:
        UserError: the image is missing, damaged, too large, of another size or of an unsupported kind.
    """
    with opened(source, name) as image:
        stored = (image.height, image.width)
        turned = displayed_size(image)
        if size is not None and size not in (turned, stored):
            raise UserError(
                name or str(source), "differs in size from its annotation", found=_text(turned), expected=_text(size)
            )
        # A decoder that reduces the image itself, such as JPEG's, leaves nothing to reduce afterwards.
        divided = factor > 1 and image.draft(None, (stored[1] // factor, stored[0] // factor)) is not None
        if size in (None, turned):
            image = ImageOps.exif_transpose(image)
        if image.mode in SIXTEEN_BITS:  # convert() would clip to 255; for RGB, Pillow takes the high byte too
            image = Image.fromarray((np.asarray(image) >> (bits - 8)).clip(max=255).astype(np.uint8))
        return reduced(np.array(image.convert("RGB")), 1 if divided else factor)


@contextlib.contextmanager
def opened(source: Path | BytesIO, name: str | Path | None = None) -> Iterator[Image.Image]:
    """Open an image; any exception of Pillow in the block becomes a UserError.

    For damaged files, Pillow's decoders raise many types: ValueError, IndexError, NotImplementedError ...

    Args:
        name: name of the image in errors (default: its path).
    """
    name = name or str(source)
    try:
        hush()
        with Image.open(source, formats=FORMATS) as image:
            refuse_boundless(Path(name), image.mode)
            yield image
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(name, "no such image", expected="an image", hint="put it back") from None
    except Image.DecompressionBombError as error:
        most = f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million pixels"
        raise UserError(name, "is too large", found=error, expected=most, hint="cut it into tiles") from None
    except UnidentifiedImageError:
        expected = f"one of {', '.join(FORMATS)}"
        raise UserError(
            name, "is not a supported image", expected=expected, hint="convert it, or fetch it again"
        ) from None
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError(
            name, "cannot be decoded", found=found, expected="a whole image", hint="fetch the file again"
        ) from None


def hush() -> None:
    """Ignore Pillow's warnings, such as those about damaged EXIF blocks.

    `warnings.catch_warnings` is not used, since in the threads that read images it can leave all warnings disabled.
    """
    if ("ignore", None, Warning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def refuse_boundless(path: Path, mode: str) -> None:
    """Raise UserError if the colour mode has 32-bit pixels, which have no fixed range."""
    if mode in BOUNDLESS:
        raise UserError(
            path,
            "its pixels have 32 bits, without a range to show them in",
            found=f"colour mode {mode}",
            expected="8 or 16 bits",
            hint="convert the image",
        )


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """Return the (height, width) after the rotation that EXIF says; the image is not decoded."""
    turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
