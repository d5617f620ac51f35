"""Images in a few large files of an object store (or any store that fsspec supports), each read by its place in one.

A shard is a tar file named by its sha256. Millions of small files are slow to list, copy and open on network file
systems; a request for a range of a shard costs the same as one for a file, and neighbours come with one request.
"""

import contextlib
import errno
import os
import re
import shutil
import tarfile
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.data.split_files import Table
from fcos.errors import UserError
from fcos.files import sha256_bytes, sha256_file
from fcos.progress import say, track

PLACES = np.dtype([("id", "<i8"), ("start", "<i8"), ("shard", "<i4"), ("length", "<i4")])
SHARD_BYTES = 64 * 2**20
GAP = 64 * 2**10  # bytes between two images that are fetched together rather than by two requests
FETCHING = 4  # shards, or batches of ranges, that are fetched at the same time
DISK_TIMES = 2  # the missing shards must fit this many times into the free space, since other programs use the disk too
SAID_EVERY_S = 20.0
SHARD_NAME = re.compile(r"[0-9a-f]{64}\.tar")
SETTING = "params.yaml: data.shards"
_S3 = {
    "config_kwargs": {
        # For a range request, some servers return the checksum of the whole object, which botocore then takes for
        # damage; `ShardReader.read` compares each image with its sha256.
        "response_checksum_validation": "when_required",
        "max_pool_connections": 64,  # 10 by default
        # A store that accepts connections and never answers is left after two minutes instead of seven.
        "connect_timeout": 10,
        "read_timeout": 30,
        "retries": {"max_attempts": 1},
    }
}
# Object stores have no folders to create; s3fs would create a bucket of a misspelt name.
_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
# Whether a path begins with a slash: a relative one would depend on the current folder, a bucket has a name.
_ABSOLUTE = {"file": True, "local": True, **dict.fromkeys(_WITHOUT_FOLDERS, False)}
_LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
_SECRET = re.compile(r"\w+://[^/\s]*:[^/\s]*@|[?&][^=&]*(sig|token|key|secret|password)[^=&]*=", re.IGNORECASE)


def has_secret(url: str) -> bool:
    """Whether the URL of a store holds a password or a token."""
    return _SECRET.search(url) is not None


class Store:
    """A folder of shards at a URL.

    Args:
        where: the setting or option that the URL is from, for messages.

    Raises:
        UserError: it is no URL, has an unknown protocol, or the package of its protocol is not installed.
    """

    def __init__(self, url: str, where: str = SETTING) -> None:
        import fsspec

        self.url = url
        expected = "a URL that fsspec supports, such as s3://BUCKET/FOLDER or file:///FOLDER"
        protocol, _, path = url.partition("://")
        slash = path.startswith("/")
        if not path or protocol in ("", "memory") or slash is not _ABSOLUTE.get(protocol, slash):
            raise UserError(where, "is not the URL of a store", found=repr(url), expected=expected)
        try:
            with self._asked("read"):
                self._files, folder = fsspec.core.url_to_fs(url, **(_S3 if protocol == "s3" else {}))
        except UserError as error:
            if isinstance(error.__cause__, ImportError):
                hint = "pip install 'fcos-study[s3]' for s3://, or the package that fsspec names"
                problem = "needs a package that is not installed"
                raise UserError(where, problem, found=error.__cause__, hint=hint) from None
            if isinstance(error.__cause__, ValueError):
                raise UserError(where, "is not the URL of a store", found=error.__cause__, expected=expected) from None
            raise
        self._folder = folder.rstrip("/")
        if hasattr(self._files, "retries"):
            self._files.retries = 2  # s3fs tries five times what botocore has tried several times
        self._has_folders = protocol not in _WITHOUT_FOLDERS

    def check(self) -> None:
        """Write a file of a few bytes and delete it."""
        with self._asked("written"):
            if self._has_folders and not self._files.exists(self._folder):
                self._files.mkdir(self._folder, create_parents=False)  # the parent may be a share that is not mounted
            probe = self._at(f".probe-{uuid.uuid4().hex}")
            self._files.pipe_file(probe, b"fcos")
            self._files.rm_file(probe)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with self._asked("read"):
            return bool(self._files.exists(self._at(name)))

    def upload(self, path: Path, name: str) -> None:
        """Upload a file as `name`, unless the store has one of that name and size."""
        with self._asked("written"):
            if not (self._files.exists(self._at(name)) and self._size(name) == path.stat().st_size):
                self._files.put_file(str(path), self._at(name))

    def download(self, name: str, path: Path) -> None:
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

    def _size(self, name: str) -> int:
        self._files.invalidate_cache()
        return int(self._files.info(self._at(name))["size"])

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Turn every exception of the store into a UserError, since each kind of store raises its own types."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _LOCAL_ERRORS:
                raise  # of this machine
            found = str(error) if str(error) and not isinstance(error, FileNotFoundError) else repr(error)
            expected = "a store that answers, an existing bucket or parent folder, and the rights to use it"
            hint = None
            if isinstance(error, FileNotFoundError) and what == "read":
                hint = "fcos prepare --shards URL uploads what is missing"
            elif self.url.startswith("s3"):
                hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
            raise UserError(
                self.url, f"the images cannot be {what}", found=found, expected=expected, hint=hint
            ) from error


@dataclass(frozen=True)
class ToWrite:
    """An image for a shard."""

    image_id: int
    name: str
    path: Path
    sha256: str  # of the file as it was checked


def write_shards(url: str, images: Sequence[ToWrite], split: str) -> tuple[list[str], Table]:
    """Write images to shards at `url`; return the names of the shards and the places of the images.

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
            store.upload(shard.path, names[-1])
    return names, places


@dataclass
class _Shard:
    path: Path
    places: list[tuple[int, int, int]] = field(default_factory=list)  # id, first byte, number of bytes
    sha256: str = ""


def _shards(images: Sequence[ToWrite], path: Path, description: str) -> Iterator[_Shard]:
    """Write one shard after the other to `path` and yield each when it is complete."""
    remaining = iter(track(images, description, total=len(images), unit="images"))
    following = next(remaining, None)
    while following is not None:
        shard = _Shard(path)
        with path.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
            while following is not None and tar.offset < SHARD_BYTES:
                data = following.path.read_bytes()
                if sha256_bytes(data) != following.sha256:
                    hint = "run fcos prepare again when nothing writes to the images"
                    raise UserError(following.path, "changed while it was prepared; nothing was changed", hint=hint)
                info = tarfile.TarInfo(following.name)  # without times and owners: equal images make equal shards
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
                padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                shard.places.append((following.image_id, tar.offset - padded, len(data)))
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
        self._coming: dict[int, deque[Future[dict[int, bytes]]]] = {}  # ranges by image, one for each read to come
        self._whole: dict[int, Future[Path]] = {}  # by shard
        # `cancel` may run in the middle of the others in the same thread, when a generator is collected.
        self._lock = RLock()
        self._pool = ThreadPoolExecutor(FETCHING, "shards")
        self._said = time.monotonic()

    def read(self, image: Mapping[str, Any]) -> BytesIO:
        """Return the file of an image of the split, given its entry in the JSON.

        Raises:
            UserError: the store does not answer, or has another image there, or none.
        """
        where, data = self._read_local(image) if self._keeps_whole else self._read_range(image)
        if sha256_bytes(data) != image["sha256"]:
            found = f"{len(data)} bytes with another sha256"
            hint = "delete this file; if that does not help, delete it in the store and run fcos prepare --shards URL"
            raise UserError(f"{where}: {image['file_name']}", "has changed", found=found, hint=hint)
        return BytesIO(data)

    def fetch(self, image_ids: Sequence[int]) -> None:
        """Begin to fetch images that will be read soon, each once for each time that it is asked for."""
        if not image_ids:
            return
        if self._keeps_whole:
            for shard in np.unique(self._table["shard"][self._rows(image_ids)]).tolist():
                self._begin(shard)
            return
        with self._lock:
            coming = self._coming
            missing = [key for key in dict.fromkeys(image_ids) if key not in coming]
            if missing:
                fetched = self._pool.submit(self._ranges, missing)
                coming.update((key, deque([fetched])) for key in missing)
            for key in set(image_ids) - set(missing):
                coming[key].append(coming[key][-1])

    def cancel(self) -> None:
        """Do not fetch what was asked for and has not begun."""
        with self._lock:
            coming, self._coming = self._coming, {}
            for futures in list(coming.values()):
                futures[0].cancel()
            whole, self._whole = self._whole, {}
            self._whole |= {shard: future for shard, future in list(whole.items()) if not future.cancel()}

    def _read_local(self, image: Mapping[str, Any]) -> tuple[str, bytes]:
        (place,) = self._table[self._rows([image["id"]])].tolist()
        _, start, shard, length = place
        for last in (False, True):
            path = self._begin(shard).result()
            try:
                with path.open("rb") as stream:
                    stream.seek(start)
                    return str(path), stream.read(length)
            except FileNotFoundError:  # which people may do at any time
                if last:
                    raise
                with self._lock:
                    self._whole.pop(shard, None)
        raise AssertionError("unreachable")

    def _read_range(self, image: Mapping[str, Any]) -> tuple[str, bytes]:
        key = image["id"]
        with self._lock:
            futures = self._coming.get(key)
            coming = futures.popleft() if futures else None
            if not futures:
                self._coming.pop(key, None)
        found = self._ranges([key]) if coming is None else coming.result()
        (row,) = self._rows([key])
        return f"{self.store.url}/{self._names[self._table['shard'][row]]}", found[key]

    @cached_property
    def _keeps_whole(self) -> bool:
        """Whether shards are kept on the disk; decided, and said, at the first image."""
        needed = sum(int(self._sizes[shard]) for shard in range(len(self._names)) if not self._is_kept(shard))
        folder = self._folder.absolute()
        above = next(place for place in (folder, *folder.parents) if place.is_dir())
        writable = os.access(above, os.W_OK)
        kept = needed == 0 or (writable and DISK_TIMES * needed <= shutil.disk_usage(above).free)
        why = "has no room for them" if writable else "is not writable"
        how = f"kept in {self._folder}" if kept else f"read image by image, because {above} {why}"
        count = f"{len(self._names)} shard{'' if len(self._names) == 1 else 's'}"
        say(f"images: from {count} at {self.store.url}, {how}")
        return kept

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """(S,): bytes of each shard at least, without what a tar file has at its end."""
        sizes = np.zeros(len(self._names), np.int64)
        np.maximum.at(sizes, self._table["shard"], self._table["start"] + self._table["length"])
        return sizes

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._table["id"])

    def _rows(self, image_ids: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows of the table with these ids.

        Raises:
            UserError: there is none, since the JSON was changed by hand.
        """
        ids, wanted = self._table["id"], np.array(image_ids, np.int64)
        rows: NDArray[np.int64] = self._order[np.searchsorted(ids, wanted, sorter=self._order).clip(max=len(ids) - 1)]
        if not np.array_equal(ids[rows], wanted):
            found = f"image id {wanted[ids[rows] != wanted][0]}"
            raise UserError(self.store.url, "an image is in no shard", found=found, hint="fcos prepare")
        return rows

    def _is_kept(self, shard: int) -> bool:
        """Whether there is a shard of at least the size it must have; after a power failure a file may be empty."""
        path = self._folder / self._names[shard]
        return path.is_file() and path.stat().st_size >= self._sizes[shard]

    def _begin(self, shard: int) -> Future[Path]:
        """Begin to fetch a shard, unless that was done; a failure is tried again."""
        with self._lock:
            future = self._whole.get(shard)
            if future is None or (future.done() and (future.cancelled() or future.exception() is not None)):
                future = self._whole[shard] = self._pool.submit(self._fetched, shard)
            return future

    def _fetched(self, shard: int) -> Path:
        """Return the path of a whole shard; another process that needs it waits until this one has fetched it."""
        from fcos.locks import write_once  # needs more than the base install, which reads no shards

        name = self._names[shard]
        path = self._folder / name
        if self._is_kept(shard):
            return path

        def download(part: Path) -> None:
            self.store.download(name, part)
            if f"{sha256_file(part)}.tar" != name:
                found, hint = "another sha256", "delete it in the store and run fcos prepare --shards URL"
                raise UserError(f"{self.store.url}/{name}", "has changed", found=found, hint=hint)

        write_once(path, lambda: self._is_kept(shard), download, durable=False)
        with self._lock:
            if time.monotonic() - self._said > SAID_EVERY_S:
                self._said = time.monotonic()
                kept = sum(self._is_kept(number) for number in range(len(self._names)))
                say(f"shards: {kept} of {len(self._names)} are kept here")
        return path

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
