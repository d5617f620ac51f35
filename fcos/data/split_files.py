"""The files of a split: COCO JSON, and two tables of its numbers that are read through memory maps.

SPLIT.json is what people and other tools read. SPLIT.images.npy and SPLIT.objects.npy say where in it each image and
each annotation is written, and repeat their numbers. A million images with 15 objects each take 15 GB as Python
objects; with the tables, only what is asked for is in memory.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from fcos.errors import UserError
from fcos.files import sha256_file, sha256_json, whole_file
from fcos.records import FileDigests

Row = dict[str, Any]
Table = NDArray[np.void]
_PLACE = [("start", "<i8"), ("length", "<i4")]  # bytes of the JSON object in SPLIT.json
IMAGES = np.dtype([("id", "<i8"), *_PLACE, ("height", "<i4"), ("width", "<i4"), ("num_objects", "<i4")])
_OF_OBJECTS: list[Any] = [("bbox", "<f8", (4,)), ("area", "<f8"), *_PLACE, ("label", "<i4")]
OBJECTS = np.dtype([*_OF_OBJECTS, ("image", "<i4"), ("crowd", "?")], align=True)
_WITH_IDS = np.dtype([*_OF_OBJECTS, ("image", "<i8"), ("crowd", "?")])  # image: its id
TOGETHER = 4096  # rows that are written or parsed together
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_canonical = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True)
class Objects:
    """The annotations of a split as arrays, in their order."""

    image: NDArray[np.integer]  # (M,): place of the image in the split
    label: NDArray[np.integer]  # (M,): 0..K-1
    boxes_xywh: NDArray[np.float64]  # (M, 4)
    areas: NDArray[np.float64]  # (M,): in pixels squared
    crowd: NDArray[np.bool_]  # (M,)
    order: NDArray[np.int64] | None  # (M,): sorts them by image; None if they are sorted
    first: NDArray[np.int64]  # (N + 1,): the sorted ones of image i are first[i]:first[i + 1]

    def rows(self, image: int) -> NDArray[np.int64]:
        """Return the places of the annotations of the image at place `image`."""
        first, last = int(self.first[image]), int(self.first[image + 1])
        return np.arange(first, last) if self.order is None else self.order[first:last]


@dataclass(frozen=True)
class Written:
    """What was written of a split."""

    objects: Objects  # memory-mapped
    sha256: FileDigests
    digest: str  # as in `CocoSplit.digest`


def images_file(path: Path) -> Path:
    """Return the file of the table of images beside the JSON of a split."""
    return path.with_suffix(".images.npy")


def objects_file(path: Path) -> Path:
    """Return the file of the table of annotations beside the JSON of a split."""
    return path.with_suffix(".objects.npy")


def shards_file(path: Path) -> Path:
    """Return the file of the table of places in shards beside the JSON of a split."""
    return path.with_suffix(".shards.npy")


def tables_digest(path: Path) -> str:
    """Return the digest of both tables beside the JSON of a split."""
    return sha256_json([sha256_file(images_file(path)), sha256_file(objects_file(path))])


def write_split(
    path: Path, images: Iterable[Row], categories: list[Row], annotations: Iterable[Row], num_annotations: int
) -> Written:
    """Write the JSON of a split row by row, and its tables beside it.

    Args:
        images: each with an id of its own.
        annotations: in the order of their images, with `area` and `iscrowd`.
        num_annotations: number of `annotations`, which stands at the beginning of their table.
    """
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    with whole_file(path) as part, part.open("wb") as stream:
        out = _DigestingWriter(stream)
        out.write(b'{"images":[', b"[[")
        table = np.concatenate([np.empty(0, IMAGES), *_write_rows(out, images, IMAGES, _image_numbers)])
        order = np.argsort(table["id"])
        out.write(b'],"annotations":[', b"]," + _canonical(categories).encode() + b",[")

        def numbers(row: Row) -> tuple[Any, ...]:
            return tuple(row["bbox"]), row["area"], 0, 0, label_of[row["category_id"]], row["image_id"], row["iscrowd"]

        with whole_file(objects_file(path)) as objects_part, objects_part.open("wb") as objects:
            _write_header(objects, OBJECTS, num_annotations)
            for chunk in _write_rows(out, annotations, _WITH_IDS, numbers):
                place = order[np.searchsorted(table["id"], chunk["image"], sorter=order)]
                table["num_objects"] += np.bincount(place, minlength=len(table)).astype(np.int32)
                chunk["image"] = place
                table_of_chunk = np.zeros(len(chunk), OBJECTS)  # zeros between the columns too: equal data, equal file
                for name in OBJECTS.names or ():
                    table_of_chunk[name] = chunk[name]
                table_of_chunk.tofile(objects)
        out.write(b'],"categories":' + _encode(categories).encode() + b"}\n", b"]]")
    write_table(images_file(path), table)
    mapped = read_table(objects_file(path), OBJECTS, num_annotations, hint="")
    assert table["num_objects"].sum() == num_annotations
    return Written(
        objects=objects_of_table(mapped, table["num_objects"]),
        sha256={"json": out.sha256.hexdigest(), "tables": tables_digest(path)},
        digest=out.canonical.hexdigest(),
    )


def _image_numbers(row: Row) -> tuple[Any, ...]:
    return row["id"], 0, 0, row["height"], row["width"], 0


class _DigestingWriter:
    """A file that is written in binary, with its size and sha256 so far, and the digest of its canonical JSON."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.size = stream, 0
        self.sha256, self.canonical = hashlib.sha256(), hashlib.sha256()

    def write(self, data: bytes, canonical: bytes) -> None:
        self._stream.write(data)
        self.sha256.update(data)
        self.canonical.update(canonical)
        self.size += len(data)


def _write_rows(out: _DigestingWriter, rows: Iterable[Row], dtype: np.dtype[np.void], numbers: Any) -> Iterator[Table]:
    """Write the rows of a list and yield tables of them, in which the places are filled in."""
    remaining, comma = iter(rows), ""
    while chunk := list(islice(remaining, TOGETHER)):
        texts = [_encode(row) for row in chunk]  # ASCII: a letter is a byte
        table = np.array([numbers(row) for row in chunk], dtype)
        table["length"] = lengths = np.array([len(text) for text in texts])
        table["start"] = out.size + len(comma) + np.cumsum(lengths + 1) - lengths - 1
        out.write((comma + ",".join(texts)).encode(), (comma + ",".join(_canonical(row) for row in chunk)).encode())
        comma = ","
        yield table


def _write_header(stream: BinaryIO, dtype: np.dtype[np.void], count: int) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(stream, described)


def write_table(path: Path, table: Table) -> None:
    """Write a table, whole or not at all."""
    with whole_file(path) as part, part.open("wb") as stream:
        np.save(stream, table)


def read_table(path: Path, dtype: np.dtype[np.void], count: int, *, hint: str) -> Table:
    """Return a memory-mapped table of `count` rows.

    Raises:
        UserError: it is missing or damaged; `hint` is the command that writes it.
    """
    try:
        table = np.load(path, mmap_mode="r" if count else None, allow_pickle=False)  # an empty table cannot be mapped
    except FileNotFoundError:
        raise UserError(path, "no such file", expected="the table beside the JSON of its split", hint=hint) from None
    except (ValueError, EOFError, SyntaxError):  # numpy's own words speak of pickles
        raise UserError(path, "is damaged", expected=f"a table of {count} rows", hint=hint) from None
    if not isinstance(table, np.ndarray) or table.dtype != dtype or table.shape != (count,):
        found = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else "an archive"
        raise UserError(path, "is damaged", found=found[:200], expected=f"{count} rows", hint=hint)
    return np.asarray(table)


class Rows(Sequence[Row]):
    """The rows of a list in a JSON file, each parsed when it is asked for.

    Args:
        text: the file.
        table: (N,) with `start` and `length` of each row.
    """

    def __init__(self, text: mmap.mmap, table: Table) -> None:
        self._text, self._table = text, table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        start, length = int(self._table["start"][place]), int(self._table["length"][place])
        row: Row = json.loads(self._text[start : start + length])
        return row

    def __iter__(self) -> Iterator[Row]:
        for first in range(0, len(self), TOGETHER):
            table = self._table[first : first + TOGETHER]
            end = int(table["start"][-1]) + int(table["length"][-1])
            yield from json.loads(b"[" + self._text[int(table["start"][0]) : end] + b"]")


def mapped_file(path: Path) -> mmap.mmap:
    """Return the bytes of a file, memory-mapped for reading."""
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def objects_of_rows(
    rows: Sequence[Mapping[str, Any]], image_ids: NDArray[np.int64], label_of: Mapping[int, int]
) -> Objects:
    """Return the annotations of a split that is given as JSON; a missing area is width x height.

    Raises:
        ValueError: an annotation is of no image, or its box is not four numbers.
        KeyError: it is of no category.
    """
    order_of_ids = np.argsort(image_ids)
    of_image = np.array([row["image_id"] for row in rows], dtype=np.int64)
    place = np.searchsorted(image_ids, of_image, sorter=order_of_ids)
    image = order_of_ids[place.clip(max=len(image_ids) - 1)] if len(image_ids) else np.zeros_like(place)
    strange = of_image[image_ids[image] != of_image] if len(image_ids) else of_image
    if len(strange):
        raise ValueError(f"an annotation of image {strange[0]}, which is not among the images")
    return Objects(
        image=image,
        label=np.array([label_of[row["category_id"]] for row in rows], dtype=np.int64),
        boxes_xywh=np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4),
        areas=np.array([_area(row) for row in rows], dtype=np.float64),
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in rows], dtype=bool),
        order=np.argsort(image, kind="stable"),
        first=np.concatenate(([0], np.cumsum(np.bincount(image, minlength=len(image_ids))))),
    )


def _area(row: Mapping[str, Any]) -> float:
    area = row.get("area")
    return float(row["bbox"][2] * row["bbox"][3] if area is None else area)


def objects_of_table(table: Table, counts: NDArray[np.int32]) -> Objects:
    """Return the annotations of a table; `counts` (N,) is their number in each image."""
    return Objects(
        image=table["image"],
        label=table["label"],
        boxes_xywh=table["bbox"],
        areas=table["area"],
        crowd=table["crowd"],
        order=None,
        first=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
    )
