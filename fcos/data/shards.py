"""Images in a few large files of an object store (or any store that fsspec supports), each read by its place in one.

A shard is a tar file named by its sha256. Millions of small files are slow to list, copy and open on network file
systems; a request for a range of a shard costs the same as one for a file, and neighbours come with one request.
"""

import mmap
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.data.split_files import Table, mapped_file
from fcos.errors import UserError
from fcos.files import sha256_bytes, sha256_file, whole_file
from fcos.progress import say, track

PLACES = np.dtype([("id", "<i8"), ("start", "<i8"), ("shard", "<i4"), ("length", "<i4")])
SHARD_BYTES = 64 * 2**20
GAP = 64 * 2**10  # bytes between two images that are fetched together rather than by two requests
FETCHING = 4  # shards, or batches of ranges, that are fetched at the same time
DISK_TIMES = 2  # whole shards must fit this many times into the free space, which has other users
SETTING = "params.yaml: data.shards"
# Some servers give the checksum of the whole file with a part of it, which botocore then takes for damage; `read`
# compares each image with its sha256.
_S3 = {"config_kwargs": {"response_checksum_validation": "when_required"}}
HINT = "fcos prepare --shards URL writes them again"


class Store:
    """A folder of shards at a URL.

    Raises:
        UserError: the URL has an unknown protocol, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self._files, folder = fsspec.core.url_to_fs(url, **(_S3 if url.startswith("s3:") else {}))
        except ImportError as error:
            hint = "pip install 'fcos-study[s3]' for s3://, or the package that fsspec names"
            raise UserError(SETTING, "needs a package that is not installed", found=error, hint=hint) from None
        except ValueError as error:
            expected = "a URL that fsspec supports, such as s3://BUCKET/FOLDER or file:///FOLDER"
            raise UserError(SETTING, "is no URL of a store", found=error, expected=expected) from None
        self._folder = folder.rstrip("/")

    def ask(self) -> None:
        """Check that the store answers."""
        with self._asked("read"):
            self._files.exists(self._folder)

    def write(self, path: Path, name: str) -> None:
        """Upload a file as `name`, unless the store has it."""
        with self._asked("written"):
            self._files.makedirs(self._folder, exist_ok=True)
            if not self._files.exists(self._at(name)):
                self._files.put_file(str(path), self._at(name))

    def read(self, name: str, path: Path) -> None:
        """Download a file to `path`."""
        with self._asked("read"):
            self._files.get_file(self._at(name), str(path))

    def ranges(self, names: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return the bytes start..end of each named file, fetched at the same time."""
        with self._asked("read"):
            found: list[bytes] = self._files.cat_ranges(
                [self._at(name) for name in names], list(starts), list(ends), on_error="raise"
            )
        return found

    def _at(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _asked(self, what: str) -> "_Asked":
        return _Asked(self.url, what)


@dataclass(frozen=True)
class _Asked:
    """A block in which every exception of the store becomes a UserError; each kind of store raises its own types."""

    url: str
    what: str

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            found = str(error) or repr(error)
            expected = "a store that answers, and the rights to use it"
            raise UserError(self.url, f"the images cannot be {self.what}", found=found, expected=expected) from error


def write_shards(url: str, images: Sequence[tuple[int, str, Path]], split: str) -> tuple[list[str], Table]:
    """Write images, given as (id, name, path), to shards at `url`; return the names of the shards and the places.

    Shards that are already there are not uploaded again.
    """
    store, names = Store(url), list[str]()
    places = np.empty(len(images), PLACES)
    row = 0
    with tempfile.TemporaryDirectory() as folder:
        for shard in _shards(images, Path(folder) / "shard.tar", f"write shards of {split}"):
            places[row : row + len(shard.places)] = [
                (key, start, len(names), length) for key, start, length in shard.places
            ]
            row += len(shard.places)
            names.append(f"{shard.sha256}.tar")
            store.write(shard.path, names[-1])
    return names, places


@dataclass
class _Shard:
    path: Path
    places: list[tuple[int, int, int]] = field(default_factory=list)  # id, first byte, number of bytes
    sha256: str = ""


def _shards(images: Sequence[tuple[int, str, Path]], path: Path, description: str) -> Iterator[_Shard]:
    """Write one shard after the other to `path` and yield each when it is complete."""
    remaining = iter(track(images, description, total=len(images), unit="images"))
    following = next(remaining, None)
    while following is not None:
        shard = _Shard(path)
        with path.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
            while following is not None and tar.offset < SHARD_BYTES:
                key, name, source = following
                data = source.read_bytes()
                info = tarfile.TarInfo(name)  # without times and owners: equal images make equal shards
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
                padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                shard.places.append((key, tar.offset - padded, len(data)))
                following = next(remaining, None)
        shard.sha256 = sha256_file(path)
        yield shard


class ShardReader:
    """The images of a split in shards, by id.

    Shards are fetched whole, each once, into a folder that all processes of this machine share. If the disk has no
    room for all of them, each image is a range of a shard.

    Args:
        names: of the shards.
        table: (N,) of `PLACES`.
        folder: for shards; its files may be deleted.
    """

    def __init__(self, url: str, names: Sequence[str], table: Table, folder: Path) -> None:
        self.store, self._names, self._table, self._folder = Store(url), names, table, folder
        self._coming: dict[int, Future[dict[int, bytes]]] = {}  # ranges by image
        self._local: dict[int, Future[mmap.mmap]] = {}  # by shard
        self._lock = Lock()

    def read(self, image: Mapping[str, Any]) -> BytesIO:
        """Return the file of an image of the split, given its entry in the JSON.

        Raises:
            UserError: the store does not answer, or has another image there.
        """
        key = image["id"]
        if self._are_local:
            (place,) = self._table[self._rows([key])].tolist()
            _, start, shard, length = place
            where, data = str(self._path(shard)), self._whole(shard).result()[start : start + length]
            hint = "delete this file, and it is fetched again"
        else:
            with self._lock:
                coming = self._coming.pop(key, None)
            where, data = self.store.url, (self._ranges([key]) if coming is None else coming.result())[key]
            hint = HINT
        if sha256_bytes(data) != image["sha256"]:
            found = f"{len(data)} bytes with another sha256"
            raise UserError(f"{where}: {image['file_name']}", "has changed", found=found, hint=hint)
        return BytesIO(data)

    def fetch(self, image_ids: Sequence[int]) -> None:
        """Begin to fetch images that will be read soon."""
        if self._are_local:
            for shard in np.unique(self._table["shard"][self._rows(image_ids)]).tolist():
                self._whole(shard)
        else:
            coming = self._pool.submit(self._ranges, list(image_ids))
            with self._lock:
                self._coming.update(dict.fromkeys(image_ids, coming))

    @cached_property
    def _are_local(self) -> bool:
        needed = int(self._table["length"].sum(dtype=np.int64))
        needed -= sum(
            self._path(shard).stat().st_size for shard in range(len(self._names)) if self._path(shard).is_file()
        )
        above = next(folder for folder in self._folder.absolute().parents if folder.is_dir())
        room = shutil.disk_usage(above).free if os.access(above, os.W_OK) else 0
        kept = DISK_TIMES * needed <= room
        how = f"kept in {self._folder}" if kept else f"read one by one, since {self._folder} has no room for them"
        say(f"images: from {len(self._names)} shards at {self.store.url}, {how}")
        return kept

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(FETCHING, "shards")

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._table["id"])

    def _rows(self, image_ids: Sequence[int]) -> NDArray[np.int64]:
        return self._order[np.searchsorted(self._table["id"], np.array(image_ids, np.int64), sorter=self._order)]

    def _path(self, shard: int) -> Path:
        return self._folder / self._names[shard]

    def _whole(self, shard: int) -> Future[mmap.mmap]:
        with self._lock:
            if shard not in self._local:
                self._local[shard] = self._pool.submit(self._fetched, shard)
            return self._local[shard]

    def _fetched(self, shard: int) -> mmap.mmap:
        """Return a whole shard; another process that needs it waits until this one has fetched it."""
        from fcos.locks import locked  # needs more than the base install, which reads no shards

        path = self._path(shard)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock")):
                if not path.is_file():
                    with whole_file(path, durable=False) as part:
                        self.store.read(self._names[shard], part)
                        if f"{sha256_file(part)}.tar" != self._names[shard]:
                            raise UserError(f"{self.store.url}: {self._names[shard]}", "has changed", hint=HINT)
        return mapped_file(path)

    def _ranges(self, image_ids: Sequence[int]) -> dict[int, bytes]:
        """Fetch images, neighbours in one piece."""
        places = np.sort(self._table[self._rows(image_ids)], order=("shard", "start"))
        ends = places["start"] + places["length"]
        apart = (np.diff(places["shard"]) != 0) | (places["start"][1:] - ends[:-1] > GAP)
        groups = np.split(np.arange(len(places)), np.flatnonzero(apart) + 1)
        names = [self._names[places["shard"][group[0]]] for group in groups]
        starts = [int(places["start"][group[0]]) for group in groups]
        parts = self.store.ranges(names, starts, [int(ends[group[-1]]) for group in groups])
        return {
            key: part[start - first : start - first + length]
            for group, first, part in zip(groups, starts, parts, strict=True)
            for key, start, _, length in places[group].tolist()
        }
