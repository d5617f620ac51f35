"""Which image and class of the ground truth an id of a results file means: toolboxes write ids, names or numbers."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.scoring.columns import Key, Keys

Ints = NDArray[np.int64]
_IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?|gif|ppm)$", re.IGNORECASE)
BY_ID = "id"


@dataclass(frozen=True)
class Way:
    """One way to read keys: how it is called, and place by key; a key that two entries share is in no table."""

    name: str
    table: dict[Any, int]
    of_key: Callable[[Key], Any]

    @staticmethod
    def of(name: str, entries: Sequence[Any], of_key: Callable[[Key], Any]) -> "Way":
        """`entries` has what each place is called, None where nothing."""
        counts = Counter(entries)
        table = {entry: place for place, entry in enumerate(entries) if entry is not None and counts[entry] == 1}
        return Way(name, table, of_key)

    def find(self, key: Key) -> int:
        """-1 where the key is unknown."""
        return self.table.get(self.of_key(key), -1)


@dataclass(frozen=True)
class Lookup:
    """The ways to read a key, in the order in which they are tried."""

    ways: list[Way]

    def find(self, keys: Keys) -> tuple[Ints, str]:
        """Places (N,) of `keys`, -1 of unknown ones, and the name of the way: the first that knows most of them."""
        whole = self._by_number(keys)
        if whole is not None:
            return whole, self.ways[0].name
        listed: list[Key] = keys.tolist() if isinstance(keys, np.ndarray) else keys
        distinct = list(dict.fromkeys(listed))
        best, most = self.ways[0], -1
        for way in self.ways:
            known = sum(way.find(key) >= 0 for key in distinct)
            if known > most:
                best, most = way, known
            if known == len(distinct):
                break
        place = {key: best.find(key) for key in distinct}
        return np.array([place[key] for key in listed], dtype=np.int64), best.name

    def _by_number(self, keys: Keys) -> Ints | None:
        """Places where all keys are numbers that the first way knows: without Python's dicts."""
        first = self.ways[0]
        if not isinstance(keys, np.ndarray) or not first.table or not all(type(key) is int for key in first.table):
            return None
        known = np.array(list(first.table), dtype=np.int64)
        order = np.argsort(known)
        places = np.array(list(first.table.values()), dtype=np.int64)[order]
        at = np.minimum(np.searchsorted(known[order], keys), len(known) - 1)
        return places[at] if (known[order][at] == keys).all() else None


def image_lookup(ids: Sequence[Key], file_names: Sequence[str | None], *, names_first: bool = False) -> Lookup:
    """By id; else by file name, by its last part, by its stem (as Ultralytics does) or by the number in it.

    Args:
        names_first: ids are nobody's: they were given when a folder was read.
    """
    by_id = [Way.of(BY_ID, ids, _same), Way.of("id as text", [str(i) for i in ids], str)]
    by_name = name_ways(file_names)
    return Lookup([*by_name, *by_id] if names_first else [*by_id, *by_name])


def name_ways(file_names: Sequence[str | None]) -> list[Way]:
    """The ways to find an image by what its file is called."""
    return [
        Way.of("file name", file_names, _slashes),
        Way.of("last part of the file name", [None if n is None else _base(n) for n in file_names], _base),
        Way.of("stem of the file name", [None if n is None else stem(n) for n in file_names], _stem_of_key),
        Way.of("number in the file name", [None if n is None else _number(stem(n)) for n in file_names], _number),
    ]


def class_lookup(categories: Sequence[dict[str, Any]], meant: Sequence[bool] | None = None) -> Lookup:
    """By category id; else by name.

    Args:
        meant: which of the classes a name may mean; None: each.
    """
    ids, names = ([category[key] for category in categories] for key in ("id", "name"))
    names = [name if meant is None or meant[label] else None for label, name in enumerate(names)]
    as_text = Way.of("id as text", [str(i) for i in ids], str)
    return Lookup([Way.of(BY_ID, ids, _same), as_text, Way.of("name", names, str)])


def stem(name: str) -> str:
    """The last part of a file name, without its suffix."""
    return PurePosixPath(_slashes(name)).stem


def _same(key: Key) -> Key:
    return key


def _slashes(name: Key) -> str:
    return str(name).replace("\\", "/")


def _base(name: Key) -> str:
    return PurePosixPath(_slashes(name)).name


def _stem_of_key(key: Key) -> str:
    # `a.b` is the stem of `a.b.jpg`: only what is the suffix of an image goes.
    return _IMAGE_SUFFIX.sub("", _base(key))


def _number(text: Key) -> int | None:
    digits = _stem_of_key(text)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
