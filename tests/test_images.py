"""Images are decoded as their annotations expect: channels, bits, orientation and size."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data_helpers import exif, pixels, save_image
from PIL import Image

from fcos.data.images import read_image, reduced, reduction
from fcos.errors import UserError

GREY16 = np.array([[0, 255, 256], [0x1234, 0xFEDC, 0xFFFF]], dtype=np.uint16)


def test_rgb_comes_out_as_it_was_stored(tmp_path: Path) -> None:
    image = read_image(save_image(tmp_path / "a.png"))
    assert image.dtype == np.uint8
    assert np.array_equal(image, pixels("a"))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = pixels("a")[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=2))


def test_alpha_is_left_out(tmp_path: Path) -> None:
    rgb = pixels("a")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(tmp_path / "alpha.png")
    assert np.array_equal(read_image(tmp_path / "alpha.png"), rgb)


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    # Two colours, both half transparent: Pillow warns of that when it converts to RGB.
    image = Image.new("P", (4, 2))
    image.putpalette([200, 10, 20, 30, 40, 50])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "palette.png", transparency=bytes([128, 128]))
    read = read_image(tmp_path / "palette.png")
    assert read[0, 0].tolist() == [30, 40, 50]
    assert read[1, 3].tolist() == [200, 10, 20]


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    rgb = pixels("a")
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    difference = np.abs(read_image(tmp_path / "cmyk.jpg").astype(int) - rgb)
    assert difference.max() <= 8  # JPEG at quality 95; inverted channels would be off by more than 100


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    # Pillow's own conversion clips to 255, so everything above 0x00ff would be white.
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(GREY16).save(path)
    assert read_image(path)[..., 0].tolist() == [[0, 0, 1], [0x12, 0xFE, 0xFF]]


def test_fewer_bits_of_sixteen_are_stretched_and_larger_values_are_white(tmp_path: Path) -> None:
    # Of 12 bits the upper 8 are shown: 0x0fff >> 4 = 0xff, 0x0234 >> 4 = 0x23; 0x1000 and more is beyond them.
    Image.fromarray(np.array([[0x0FFF, 0x0234], [0x1000, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", bits=12)[..., 0].tolist() == [[255, 0x23], [255, 255]]


@pytest.mark.parametrize(
    ("size", "factor"),
    # The target is a shorter side of 240 or a longer side of 320, so (480, 640) is halved.
    [((240, 320), 1), ((479, 638), 1), ((480, 640), 2), ((959, 1270), 2), ((960, 1280), 4), ((3000, 4000), 8),
     ((100, 5000), 8), ((5000, 100), 8), ((9000, 12000), 8)],
)  # fmt: skip
def test_an_image_is_reduced_while_it_stays_as_large_as_it_is_shown(size: tuple[int, int], factor: int) -> None:
    assert reduction(size, 240, 320) == factor


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize(("suffix", "mode"), [("jpg", "RGB"), ("jpg", "L"), ("png", "RGB"), ("png", "P")])
def test_a_reduced_image_is_the_mean_of_blocks(
    tmp_path: Path, suffix: str, mode: str, factor: int, orientation: int
) -> None:
    rows, columns = np.mgrid[:101, :203]
    smooth = np.stack([rows, columns, rows + columns], axis=2).clip(max=255).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    image.save(tmp_path / f"a.{suffix}", exif=exif(orientation), quality=95)
    small = read_image(tmp_path / f"a.{suffix}", (101, 203) if orientation == 1 else (203, 101), factor=factor)
    height, width = -(-101 // factor), -(-203 // factor)
    assert small.shape == ((height, width, 3) if orientation == 1 else (width, height, 3))
    whole = read_image(tmp_path / f"a.{suffix}")
    blocks = whole[: 101 // factor * factor, : 203 // factor * factor] if orientation == 1 else None
    if blocks is None:
        blocks = whole[: 203 // factor * factor, : 101 // factor * factor]
    means = blocks.reshape(blocks.shape[0] // factor, factor, blocks.shape[1] // factor, factor, 3).mean(axis=(1, 3))
    edge = 2 if suffix == "jpg" else 0  # in a rotated JPEG, the partial blocks are at the other end
    inner = (slice(edge, means.shape[0] - edge), slice(edge, means.shape[1] - edge))
    # JPEG's decoder scales blocks in the frequency domain, and colours at half resolution, so levels differ slightly.
    most = 12 if suffix == "jpg" else 1
    assert np.abs(small[: means.shape[0], : means.shape[1]][inner] - means[inner]).max() <= most


def test_a_decoded_image_is_reduced_like_a_file(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", width=61, height=40)
    assert np.array_equal(read_image(path, factor=4), reduced(read_image(path), 4))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(GREY16.astype(dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match="32 bits"):
        read_image(tmp_path / "deep.tif")


# Corners as displayed: of a stored image with A top left and B top right, EXIF turns or mirrors
#   1: nothing   3: by 180 degrees   6: by 90 degrees clockwise   8: by 90 degrees anticlockwise
TURNED = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_image_is_turned_as_exif_says(tmp_path: Path, orientation: int) -> None:
    stored = pixels("a")
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif(orientation))
    displayed = TURNED[orientation](stored)
    assert np.array_equal(read_image(tmp_path / "a.png"), displayed)
    assert np.array_equal(read_image(tmp_path / "a.png", displayed.shape[:2]), displayed)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_is_ignored_where_the_annotations_ignore_it(tmp_path: Path, orientation: int) -> None:
    stored = pixels("a", width=60, height=40)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif(orientation))
    assert np.array_equal(read_image(tmp_path / "a.png", (40, 60)), stored)


def test_another_size_is_refused(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", width=60, height=40)
    with pytest.raises(UserError, match="60 x 40 pixels") as refusal:
        read_image(path, (41, 60))
    assert "60 x 41 pixels" in str(refusal.value)


def test_swapped_sides_are_refused_without_exif(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="differs in size from its annotation"):
        read_image(save_image(tmp_path / "a.png", width=60, height=40), (60, 40))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_half_a_image_is_refused(tmp_path: Path, suffix: str) -> None:
    path = save_image(tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(path)


def test_text_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"a.jpg: is not a supported image\n.*JPEG, JPEG2000, PNG"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="no such image"):
        read_image(tmp_path / "b.jpg")


def test_a_image_of_impossible_size_is_refused(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    path.write_bytes(claim_size(path.read_bytes(), 60_000, 60_000))  # 10.8 GB once decoded
    with pytest.raises(UserError, match=r"is too large\n(.*\n)*.*cut it into tiles"):
        read_image(path)


def test_another_program_is_never_started(tmp_path: Path) -> None:
    """Pillow runs Ghostscript for EPS."""
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
    with pytest.raises(UserError, match="is not a supported image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif", "jp2", "ppm"])
def test_whatever_damaged_bytes_do_to_the_decoder_the_image_is_named(tmp_path: Path, suffix: str) -> None:
    """Single bytes changed at random: Pillow raises ValueError, IndexError, struct.error, NotImplementedError ..."""
    rng = np.random.default_rng(0)
    whole = save_image(tmp_path / f"whole.{suffix}").read_bytes()
    path, refused = tmp_path / f"a.{suffix}", 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).dtype == np.uint8
        except UserError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused


def claim_size(png: bytes, width: int, height: int) -> bytes:
    """Return the PNG with another size in its header: 8 bytes of signature, 4 of length, then type and 13 of header."""
    header = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def damaged_exif(path: Path) -> Path:
    """Return an image whose EXIF ends within its first entry, for which Pillow warns."""
    block = b"Exif\0\0" + b"MM\0*\0\0\0\x08" + b"\0\x03" + b"\x01\x12\0\x03\0\0"
    Image.fromarray(pixels(path.stem)).save(path, exif=block)
    return path


def test_damaged_exif_is_no_reason_to_stop_or_to_warn(tmp_path: Path) -> None:
    path = damaged_exif(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as image:
        image.getexif()
    assert np.array_equal(read_image(path), pixels("a"))  # a warning would be an error here


def test_reading_in_threads_leaves_other_warnings_on(tmp_path: Path) -> None:
    # In several threads, warnings.catch_warnings can restore another thread's list and silence the process permanently.
    path = damaged_exif(tmp_path / "a.png")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [path] * 400))
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)
    assert ("ignore", None, Warning, None, 0) not in warnings.filters
