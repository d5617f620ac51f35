"""Large results lists of plain records, parsed by several processes at once.

A parser holds Python's interpreter, so threads would wait for each other. The text is cut between two records; that
each piece is a JSON list shows that the cut was right. Whatever is not plain is left to the careful reader.
"""

import mmap
import os
import re
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from fcos.scoring.columns import Floats, floats_or_none, wholes_or_none
from fcos.scoring.json_files import no_collection

_SMALLEST = 4 * 2**20  # bytes: below, a process starts no sooner than the text is read
_INNER = re.compile(rb"\s*\[\s*\{")
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_NAMES = "file_name"  # where records say it, it may count for more than their ids
_ROW = 7 * 8  # bytes of a record: two ids, four sides, a score


@dataclass(frozen=True)
class Plain:
    """The columns of D records with whole ids."""

    image_id: NDArray[np.int64]
    category_id: NDArray[np.int64]
    boxes_xywh: Floats  # (D, 4)
    score: Floats


def read_plain(text: bytes) -> Plain | None:
    """The columns of a results list; None where it is short or not plain, or where processes cannot be forked."""
    if len(text) < _SMALLEST or not hasattr(os, "fork") or sys.platform == "darwin":
        return None
    pieces = _pieces(text, min(os.cpu_count() or 1, 8))
    if pieces is None:
        return None
    with no_collection():
        children = [_Child(text, *piece) for piece in pieces[1:]]
        own = columns_of(_list(text, *pieces[0]))
        parts = [own, *(child.columns() for child in children)]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    image_id, category_id, boxes_xywh, score = (
        np.concatenate(column) for column in zip(*map(_tuple, whole), strict=True)
    )
    return Plain(image_id, category_id, boxes_xywh, score)


def columns_of(piece: bytes) -> Plain | None:
    """The columns of a list of records; None where they are not plain."""
    try:
        records = orjson.loads(piece)
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


def _pieces(text: bytes, number: int) -> list[tuple[int, int]] | None:
    """Where the records of several lists of about equal length lie; None where the text is no list of objects."""
    begin, end = _INNER.match(text), text.rfind(b"}") + 1
    if begin is None or text[end:].strip() != b"]":
        return None
    cuts = [begin.end() - 1]
    for part in range(1, number):
        cut = _BETWEEN.search(text, max(cuts[-1], end * part // number), end)
        if cut is None:
            break
        cuts += [cut.start() + 1, cut.end() - 1]
    cuts.append(end)
    return list(zip(cuts[::2], cuts[1::2], strict=True))


def _list(text: bytes, begin: int, end: int) -> bytes:
    return b"[" + text[begin:end] + b"]"


class _Child:
    """A process that parses one piece into memory that it shares with this one."""

    def __init__(self, text: bytes, begin: int, end: int) -> None:
        self.memory = mmap.mmap(-1, 8 + _ROW * text.count(b"}", begin, end))
        with warnings.catch_warnings():
            # The child runs nothing that other threads may have locked: a parser, and copies of arrays.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = os.fork()
        if self.process == 0:
            self._write(text, begin, end)

    def _write(self, text: bytes, begin: int, end: int) -> None:
        code = 1
        try:
            found = columns_of(_list(text, begin, end))
            if found is not None:
                self.memory.write(len(found.score).to_bytes(8, "little"))
                for column in _tuple(found):
                    self.memory.write(column.data.cast("B"))
                code = 0
        finally:
            os._exit(code)

    def columns(self) -> Plain | None:
        """What it found, once it has ended; None where that is nothing."""
        _, status = os.waitpid(self.process, 0)
        if status != 0:
            return None
        count = int.from_bytes(self.memory[:8], "little")
        numbers = np.frombuffer(self.memory, dtype=np.int64, count=count * 7, offset=8)
        image_id, category_id, sides, score = np.split(numbers, [count, 2 * count, 6 * count])
        return Plain(image_id, category_id, sides.view(float).reshape(-1, 4), score.view(float))


def _tuple(plain: Plain) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    return plain.image_id, plain.category_id, plain.boxes_xywh, plain.score
