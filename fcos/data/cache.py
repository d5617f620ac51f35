"""Cache decoded images on the GPU, in RAM, in a file on the disk, or not at all.

Every mode returns the same bytes, so that no metric depends on it.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

import fcos.data.images
from fcos import distributed
from fcos.data.coco import CocoSplit
from fcos.data.images import reduced_size, reduction
from fcos.errors import UserError
from fcos.files import sha256_file, sha256_json
from fcos.locks import write_once
from fcos.memory import available_memory
from fcos.progress import say, track_threads

# `auto` tries these caches in this order. The decoded images must fit this many times into the free space, since a GPU
# holds the network too, and memory and disk have other users.
TIMES_FREE = {"gpu": 4, "ram": 3, "disk": 2}
Shown = tuple[int, int]
PART = 64  # images that are fetched together from shards
KEY = "params.yaml: data.cache"


class Images:
    """The images of a split by index, each a uint8 tensor (height, width, 3) in RGB.

    Without a buffer, an image is decoded at every access. With a buffer, each image is decoded into it at most once,
    and the returned tensor is a view of it.

    Args:
        buffer: (decoded_bytes,) uint8 on any device.
        shown: the largest size at which the network sees an image, as (shorter, longest) side in pixels; an image of
            at least twice that size is reduced. None reduces no image.
        whole: whether the buffer already contains all images.
    """

    def __init__(
        self, split: CocoSplit, buffer: Tensor | None = None, *, shown: Shown | None = None, whole: bool = False
    ) -> None:
        self._split, self._buffer, self._shown = split, buffer, shown
        self._ends = list(accumulate(_num_bytes(split, shown)))
        self._there = [whole] * len(self._ends)
        assert buffer is None or buffer.shape == (decoded_bytes(split, shown),)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Tensor:
        """Return the image; raise UserError if it is missing, damaged or of another size than its annotation."""
        if self._buffer is None:
            return torch.from_numpy(self._decode(index))
        size = self._size(index)
        height, width = reduced_size(size, _factor(size, self._shown))
        kept = self._buffer[self.start(index) : self._ends[index]].view(height, width, 3)
        if not self._there[index]:
            _copy(self._decode(index), kept)
            self._there[index] = True
        return kept

    def start(self, index: int) -> int:
        """Return the offset of the image in a buffer, in bytes."""
        return self._ends[index - 1] if index else 0

    def fetch(self, indices: Iterable[int]) -> None:
        """Begin to fetch images that will be read soon, if they are in shards and not in the buffer."""
        if self._split.shards is not None:
            missing = [index for index in indices if not self._there[index]]
            self._split.shards.fetch(self._split.image_ids[missing].tolist() if missing else [])

    def cancel(self) -> None:
        """Do not fetch what was asked for and has not begun."""
        if self._split.shards is not None:
            self._split.shards.cancel()

    def _decode(self, index: int) -> NDArray[np.uint8]:
        image = self._split.images[index]
        return self._split.pixels(image, _factor(self._size(index), self._shown))

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self._split.sizes[index].tolist()
        return height, width


def _copy(image: NDArray[np.uint8], kept: Tensor) -> None:
    """Copy an image into a buffer on any device; numpy is used for the CPU, since it copies in the calling thread.

    torch copies in parallel and starts a team of OpenMP threads for each calling thread. With more threads than cores,
    libgomp sleeps instead of spinning between parallel regions: a step of ResNet-18 on 8 images of 128 pixels took
    250 ms instead of 170 ms.
    """
    if kept.device.type == "cpu":
        np.copyto(kept.numpy(), image)
        return
    # Not the training's stream, behind whose steps the copy would wait.
    stream = torch.cuda.Stream(kept.device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        kept.copy_(torch.from_numpy(image))  # not pinned: reserving pinned memory waits for the whole device


def decoded_bytes(split: CocoSplit, shown: Shown | None = None) -> int:
    """Return the bytes of all decoded images of the split; `shown` as for `Images`."""
    return sum(_num_bytes(split, shown))


def _num_bytes(split: CocoSplit, shown: Shown | None) -> list[int]:
    bytes_of = {size: 3 * prod(reduced_size(size, _factor(size, shown))) for size in set(split.image_sizes.values())}
    return [bytes_of[size] for size in split.image_sizes.values()]


def _factor(size: tuple[int, int], shown: Shown | None) -> int:
    return 1 if shown is None else reduction(size, *shown)


def keep_images(
    split: CocoSplit, cache: str, *, device: torch.device, folder: Path, shown: Shown | None = None
) -> Images:
    """Return the images of a split, cached as `cache` says: auto, gpu, ram, disk or none.

    Args:
        shown: as for `Images`.
        device: the device of the network; `gpu` requires CUDA.
        folder: folder for `disk`; its files are shared by all processes that read the same images, and may be deleted.

    Raises:
        UserError: the images do not fit, or `gpu` is requested without CUDA.
    """
    needed = decoded_bytes(split, shown)
    factors = [_factor(size, shown) for size in split.image_sizes.values()]
    file = folder / f"{_key(split, factors)}.rgb"
    free = free_bytes(device, file, needed)
    shared = {"gpu": 0, "ram": 0} if distributed.size() > 1 else {}  # one copy for all ranks of a machine
    where = choose(needed, {**free, **shared}) if cache == "auto" else cache
    _check_room(where, needed, free, device)
    said = {
        "gpu": "kept on the GPU",
        "ram": "kept in RAM",
        "disk": f"kept in {file}",
        "none": "decoded each time they are used",
    }
    smaller = sum(factor > 1 for factor in factors)
    much_larger = f"; {smaller} downscaled: more than twice the size the network gets" if smaller else ""
    say(f"images: {len(split.images)} {said[where]}, {needed / 1e6:.0f} MB{much_larger}")
    if where == "none":
        return Images(split, shown=shown)
    if where == "disk":
        _decode_to(file, Images(split, shown=shown), needed)
        return Images(split, _mapped(file), shown=shown, whole=True)
    on = device if where == "gpu" else torch.device("cpu")
    return Images(split, torch.empty(needed, dtype=torch.uint8, device=on), shown=shown)


def choose(needed: int, free: Mapping[str, int]) -> str:
    """Return the cache that `auto` means for `needed` bytes of images, given the free bytes of each place."""
    fitting = (where for where, times in TIMES_FREE.items() if 0 < times * needed <= free[where])
    return next(fitting, "none")


def free_bytes(device: torch.device, file: Path, needed: int) -> dict[str, int]:
    """Return the free bytes of each place; for the disk, an unlimited number if `file` already exists."""
    folder = next(folder for folder in file.absolute().parents if folder.is_dir())
    writable = shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    return {
        "gpu": torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0,
        "ram": available_memory(),
        "disk": sys.maxsize if _is_whole(file, needed) else writable,
    }


def _check_room(where: str, needed: int, free: Mapping[str, int], device: torch.device) -> None:
    hint = "set `cache: auto`"
    if where == "gpu" and device.type != "cuda":
        raise UserError(
            KEY,
            "images can be kept on a CUDA device only",
            found=f"gpu, on {device.type}",
            expected="CUDA",
            hint=hint,
        )
    if needed > free.get(where, needed):
        found = f"{where}, with {free[where] / 1e6:.0f} MB free"
        raise UserError(KEY, "the decoded images do not fit", found=found, expected=f"{needed / 1e6:.0f} MB", hint=hint)


def _key(split: CocoSplit, factors: list[int]) -> str:
    """Return a digest of all that determines the bytes: the images (by sha256), this project's code and the decoder."""
    return sha256_json([split.digest, factors, sha256_file(Path(fcos.data.images.__file__)), PIL.__version__])[:16]


def _is_whole(file: Path, needed: int) -> bool:
    return file.exists() and file.stat().st_size == needed


def _decode_to(file: Path, images: Images, needed: int) -> None:
    """Decode all images into `file`, one after the other; a second process waits for the first one."""
    try:
        write_once(file, lambda: _is_whole(file, needed), lambda part: _write(part, images))
    except OSError as error:
        raise UserError(file, "cannot be written", found=error, hint="free some space, or set `cache: none`") from None


def _mapped(file: Path) -> Tensor:
    """Return the bytes of `file`, memory-mapped; writing to them kills the process.

    The mapping is read-only, since Linux counts a writable mapping as memory and refuses one larger than the RAM.
    """
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r"))


def _write(file: Path, images: Images) -> None:
    file.touch()
    images.fetch(range(min(PART, len(images))))

    def write(index: int) -> None:
        if index % PART == 0:
            images.fetch(range(index + PART, min(index + 2 * PART, len(images))))
        image = images[index]
        with file.open("r+b") as stream:
            stream.seek(images.start(index))
            stream.write(image.numpy().data)

    track_threads(write, range(len(images)), "decode", unit="images")
