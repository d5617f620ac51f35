"""Parse large results lists of plain records with several processes.

JSON parsers hold the GIL, so threads would wait for each other. The text is cut between records, and each piece must be
a valid JSON list, which proves that the cut is correct. Files that are not plain are left to the general reader.
"""

import mmap
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from fcos.scoring.columns import Floats, floats_or_none, wholes_or_none
from fcos.scoring.json_files import no_collection

_SMALLEST = 4 * 2**20  # bytes; smaller texts are parsed faster than a process starts
_INNER = re.compile(rb"\s*\[\s*\{")
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_NAMES = "file_name"  # if records have this key, it may take precedence over their ids
_KEYS = {"image_id", "category_id", "bbox", "score"}
_DIGITS = b"0123456789.+-"
_WORDS = b'{}[]":_ \t\r\n' + bytes(range(ord("a"), ord("z") + 1))  # never in a number without exponent
_SHORTEST = len('{"image_id":1,"category_id":1,"bbox":[1,1,1,1],"score":1},')
_WINDOW = 2**20  # bytes; every window of this size contains the end of a record
_ROW = 7 * 8  # bytes of a record: two ids, four box values, a score


Part = Callable[[int, int], bytes]  # returns the bytes of a text between two places


@dataclass(frozen=True)
class Plain:
    """The columns of D records whose ids are whole numbers."""

    image_id: NDArray[np.int64]
    category_id: NDArray[np.int64]
    boxes_xywh: Floats  # (D, 4)
    score: Floats


def read_plain(path: Path) -> Plain | None:
    """Return the columns of a results list in a file, of which each process reads a part.

    Returns None if the list is short or not plain, or if processes cannot be forked.
    """
    with path.open("rb", buffering=0) as file:
        return _read(lambda begin, end: os.pread(file.fileno(), end - begin, begin), path.stat().st_size)


def read_plain_text(text: bytes) -> Plain | None:
    """Like `read_plain`, for a text in memory that was decompressed or decoded."""
    return _read(lambda begin, end: text[begin:end], len(text))


def _read(part: Part, size: int) -> Plain | None:
    if size < _SMALLEST or not hasattr(os, "fork") or sys.platform == "darwin":
        return None
    pieces = _pieces(part, size, min(os.cpu_count() or 1, 8))
    if pieces is None:
        return None
    with no_collection():
        children = [_Child(part, *piece) for piece in pieces[1:]]
        own = columns_of(part(*pieces[0]))
        parts = [own, *(child.columns() for child in children)]
    whole = [columns for columns in parts if columns is not None]
    if len(whole) < len(parts):
        return None
    image_id, category_id, boxes_xywh, score = (
        np.concatenate(column) for column in zip(*map(_tuple, whole), strict=True)
    )
    return Plain(image_id, category_id, boxes_xywh, score)


def columns_of(piece: bytes) -> Plain | None:
    """Return the columns of records `{...}, {...}`, or None if they are not plain."""
    return _columns_of_alike(piece) or _columns_of_records(piece)


def _columns_of_alike(piece: bytes) -> Plain | None:
    """Return the columns of records that are all formatted like the first one.

    The text without its keys is a flat list of numbers, which is parsed in half of the time, since no object is created
    for a record. Returns None if a record differs in more than the digits of its numbers, or if a number has an
    exponent.
    """
    end = piece.find(b"}") + 1
    keys = _keys_of(piece[:end])
    if keys is None:
        return None
    alike = piece[:end].translate(None, _DIGITS)
    following = piece[end : max(end, piece.find(b"{", end))] + alike
    text = piece.translate(None, _DIGITS)
    if text != alike + (len(text) - len(alike)) // len(following) * following:
        return None
    try:
        numbers = np.array(orjson.loads(b"[" + piece.translate(None, _WORDS) + b"]"), dtype=float)
    except orjson.JSONDecodeError:
        return None
    return _columns_in(numbers.reshape(-1, 7), keys)


def _keys_of(record: bytes) -> list[str] | None:
    """Return the four keys in their order, or None if the record has other keys or values other than numbers."""
    try:
        content = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    if type(content) is not dict or content.keys() != _KEYS or type(content["bbox"]) is not list:
        return None
    numbers = [*content["bbox"], *(content[key] for key in _KEYS - {"bbox"})]
    return list(content) if len(numbers) == 7 and set(map(type, numbers)) <= {int, float} else None


def _columns_in(rows: Floats, keys: list[str]) -> Plain | None:
    """Return the columns of rows (D, 7) in the order of `keys`; None if an id is not a whole number below 2**53."""
    begins, place = {}, 0
    for key in keys:
        begins[key] = place
        place += 4 if key == "bbox" else 1
    ids = rows[:, [begins["image_id"], begins["category_id"]]]
    if (ids != np.floor(ids)).any() or (np.abs(ids) >= 2**53).any() or not np.isfinite(rows).all():
        return None
    image_id, category_id = np.ascontiguousarray(ids.T.astype(np.int64))
    boxes = np.ascontiguousarray(rows[:, begins["bbox"] : begins["bbox"] + 4])
    return Plain(image_id, category_id, boxes, np.ascontiguousarray(rows[:, begins["score"]]))


def _columns_of_records(piece: bytes) -> Plain | None:
    try:
        records = orjson.loads(b"[" + piece + b"]")
        if type(records) is not list or set(map(type, records)) != {dict} or _NAMES in records[0]:
            return None
        image_id = wholes_or_none([record["image_id"] for record in records])
        category_id = wholes_or_none([record["category_id"] for record in records])
        score = floats_or_none([record["score"] for record in records])
        boxes = [record["bbox"] for record in records]
    except (orjson.JSONDecodeError, KeyError):
        return None
    if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
        return None
    sides = floats_or_none([side for box in boxes for side in box])
    if image_id is None or category_id is None or score is None or sides is None:
        return None
    return Plain(image_id, category_id, sides.reshape(-1, 4), score)


def _pieces(part: Part, size: int, number: int) -> list[tuple[int, int]] | None:
    """Return the bounds of `number` pieces of about equal length, or None if the text is not a list of objects."""
    last = max(0, size - _WINDOW)
    head, tail = part(0, min(_WINDOW, size)), part(last, size)
    begin, end = _INNER.match(head), tail.rfind(b"}") + 1
    if begin is None or tail[end:].strip() != b"]":
        return None
    cuts = [begin.end() - 1]
    for place in range(1, number):
        at = size * place // number
        cut = _BETWEEN.search(part(at, min(at + _WINDOW, size)))
        if cut is None:
            return None
        cuts += [at + cut.start() + 1, at + cut.end() - 1]
    cuts.append(last + end)
    return list(zip(cuts[::2], cuts[1::2], strict=True))


class _Child:
    """A process that parses one piece into memory shared with this process."""

    def __init__(self, part: Part, begin: int, end: int) -> None:
        self.memory = mmap.mmap(-1, 8 + _ROW * ((end - begin) // _SHORTEST + 1))
        with warnings.catch_warnings():
            # Forking with threads is safe here: the child only parses and copies arrays, which need no locks of others.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = os.fork()
        if self.process == 0:
            self._write(part, begin, end)

    def _write(self, part: Part, begin: int, end: int) -> None:
        code = 1
        try:
            found = columns_of(part(begin, end))
            if found is not None:
                self.memory.write(len(found.score).to_bytes(8, "little"))
                for column in _tuple(found):
                    self.memory.write(column.data.cast("B"))
                code = 0
        finally:
            os._exit(code)

    def columns(self) -> Plain | None:
        """Wait for the process and return its columns, or None if the piece is not plain."""
        _, status = os.waitpid(self.process, 0)
        if status != 0:
            return None
        count = int.from_bytes(self.memory[:8], "little")
        numbers = np.frombuffer(self.memory, dtype=np.int64, count=count * 7, offset=8)
        image_id, category_id, sides, score = np.split(numbers, [count, 2 * count, 6 * count])
        return Plain(image_id, category_id, sides.view(float).reshape(-1, 4), score.view(float))


def _tuple(plain: Plain) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    return plain.image_id, plain.category_id, plain.boxes_xywh, plain.score
