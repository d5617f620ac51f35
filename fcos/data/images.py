"""Reading an image as the annotations mean it."""

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
# What is read; the JPEG with a second image of many phones (MPO) is a JPEG to Pillow. It knows more formats, EPS among
# them, which starts another program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
REDUCTIONS = (8, 4, 2)  # that decoders of JPEG know
BOUNDLESS = ("I", "F")  # 32 bits a pixel: no range that all agree on
_PILLOW = re.compile(r"PIL\.")


def resized_size(size: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `shorter`, or the longer one at `longest` where that is smaller.

    In integers: in float32, 375 rows scaled by 480/375 come out as 479.
    """
    low, high = min(size), max(size)
    numerator, denominator = (shorter, low) if high * shorter <= longest * low else (longest, high)
    height, width = (max(1, side * numerator // denominator) for side in size)
    return height, width


def reduction(size: tuple[int, int], shorter: int, longest: int) -> int:
    """By what the sides of an image of `size` are divided, 1, 2, 4 or 8, before it is shown at `shorter` and `longest`.

    What is left is at least as large as what is shown. An image less than twice as large is left as it is, to the bit.
    """
    shown = resized_size(size, shorter, longest)
    times = min(side // of_view for side, of_view in zip(size, shown, strict=True))
    return next((factor for factor in REDUCTIONS if factor <= times), 1)


def reduced_size(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """(height, width) of an image of `size` with its sides divided by `factor`."""
    return -(-size[0] // factor), -(-size[1] // factor)


def reduced(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """An image (height, width, 3) with its sides divided by `factor`: each pixel is the mean of a block."""
    return image if factor == 1 else np.array(Image.fromarray(image).reduce(factor))


def read_annotated(path: Path, image: Mapping[str, Any], factor: int = 1) -> NDArray[np.uint8]:
    """`read_image` for an entry of `images` in prepared data."""
    return read_image(path, (image["height"], image["width"]), image.get("bits", 16), factor)


def read_image(path: Path, size: tuple[int, int] | None = None, bits: int = 16, factor: int = 1) -> NDArray[np.uint8]:
    """Decode an image of any mode to (height, width, 3) RGB, turned as EXIF says.

    Args:
        size: (height, width) that the annotations speak of. Where only the image as stored has it, the
            annotations ignore EXIF, and so does this.
        bits: how many of a 16-bit grey image are in use; a larger value is white.
        factor: 1, 2, 4 or 8, by which the sides are divided; a JPEG is decoded at that size, in a fraction of the time.

    Raises:
        UserError: the image is missing, damaged, too large, of another size or of a kind that is not read.
    """
    with opened(path) as image:
        stored = (image.height, image.width)
        turned = displayed_size(image)
        if size is not None and size not in (turned, stored):
            raise UserError(path, "is not the image of its annotation", found=_text(turned), expected=_text(size))
        # What a decoder divides by itself, as JPEG's does, is not left to be done.
        divided = factor > 1 and image.draft(None, (stored[1] // factor, stored[0] // factor)) is not None
        if size in (None, turned):
            image = ImageOps.exif_transpose(image)
        if image.mode in SIXTEEN_BITS:  # convert() clips to 255; of RGB Pillow takes the high byte too
            image = Image.fromarray((np.asarray(image) >> (bits - 8)).clip(max=255).astype(np.uint8))
        return reduced(np.array(image.convert("RGB")), 1 if divided else factor)


@contextlib.contextmanager
def opened(source: Path | BytesIO, name: str | Path | None = None) -> Iterator[Image.Image]:
    """An image to be looked at or decoded in the block; whatever Pillow raises there becomes a UserError.

    Damaged bytes make its decoders raise nearly anything: ValueError, IndexError, NotImplementedError ...

    Args:
        name: of the image in messages; None: its path.
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
            name, "is not an image that is read", expected=expected, hint="convert it, or fetch it again"
        ) from None
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError(
            name, "cannot be decoded", found=found, expected="a whole image", hint="fetch the file again"
        ) from None


def hush() -> None:
    """Damaged EXIF blocks are no reason to talk for each image.

    Not by `warnings.catch_warnings`: images are read in threads, where it can leave every warning switched off.
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
            hint="convert the image",
        )


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) after turning as EXIF says; the image is not decoded."""
    turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
