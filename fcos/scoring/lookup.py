"""Find the images and classes of the ground truth for keys of results files, which are ids, names or numbers."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.scoring.columns import Key, Keys

Ints = NDArray[np.int64]
_IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?|gif|ppm)$", re.IGNORECASE)
BY_ID = "id"
_LARGEST_TABLE = 2**24  # largest array of places by number; larger numbers are looked up by bisection


@dataclass(frozen=True)
class LookupTable:
    """One way to read keys: its name and the place of each key; a key that two entries share is in no table."""

    name: str
    table: dict[Any, int]
    of_key: Callable[[Key], Any]

    @staticmethod
    def of(name: str, entries: Sequence[Any], of_key: Callable[[Key], Any]) -> "LookupTable":
        """Return a way, given the name of each place in `entries` (None for no name)."""
        counts = Counter(entries)
        table = {entry: place for place, entry in enumerate(entries) if entry is not None and counts[entry] == 1}
        return LookupTable(name, table, of_key)

    def find(self, key: Key) -> int:
        """Return the place of the key, -1 if it is unknown."""
        return self.table.get(self.of_key(key), -1)


class Lookup:
    """The ways to read keys, in the order in which they are tried; each is built when it is first needed."""

    def __init__(self, ways: Sequence[Callable[[], LookupTable]]) -> None:
        self._ways = ways
        self._made: dict[int, LookupTable] = {}

    def way(self, number: int) -> LookupTable:
        """Return the way with this number."""
        if number not in self._made:
            self._made[number] = self._ways[number]()
        return self._made[number]

    def find(self, keys: Keys) -> tuple[Ints, str]:
        """Return the places (N,) of `keys` (-1: unknown) and the name of the way: the first that knows most of them."""
        whole = self._by_number(keys)
        if whole is not None:
            return whole, self.way(0).name
        listed: list[Key] = keys.tolist() if isinstance(keys, np.ndarray) else keys
        distinct = list(dict.fromkeys(listed))
        best, most = self.way(0), -1
        for way in map(self.way, range(len(self._ways))):
            known = sum(way.find(key) >= 0 for key in distinct)
            if known > most:
                best, most = way, known
            if known == len(distinct):
                break
        place = {key: best.find(key) for key in distinct}
        return np.array([place[key] for key in listed], dtype=np.int64), best.name

    def _by_number(self, keys: Keys) -> Ints | None:
        """Return the places without Python's dicts, if all keys are numbers that the first way knows, else None."""
        table = self.way(0).table
        if not isinstance(keys, np.ndarray) or not table or set(map(type, table)) != {int}:
            return None
        known = np.array(list(table), dtype=np.int64)
        if known.min() >= 0 and known.max() < _LARGEST_TABLE:
            place_of = np.full(known.max() + 2, -1)  # the last entry is for unknown larger numbers
            place_of[known] = list(table.values())
            places = place_of.take(np.where(keys < 0, len(place_of) - 1, keys), mode="clip")
            return places if places.min(initial=0) >= 0 else None
        order = np.argsort(known)
        places = np.array(list(table.values()), dtype=np.int64)[order]
        at = np.minimum(np.searchsorted(known[order], keys), len(known) - 1)
        return places[at] if (known[order][at] == keys).all() else None


def image_lookup(ids: Sequence[Key], file_names: Sequence[str | None], *, names_first: bool = False) -> Lookup:
    """Return the lookup of images by id, else by file name, its last part, its stem (as Ultralytics does) or its
    number.

    Args:
        names_first: try names before ids, since the ids were only assigned when a folder was read.
    """
    numbers = [key if isinstance(key, int) else None for key in ids]
    by_id = [*id_ways(ids), lambda: LookupTable.of("number of the id", numbers, _number)]
    by_name = name_ways(file_names)
    return Lookup([*by_name, *by_id] if names_first else [*by_id, *by_name])


def class_lookup(categories: Sequence[dict[str, Any]]) -> Lookup:
    """Return the lookup of classes by category id, else by name."""
    names = [category["name"] for category in categories]
    return Lookup([*id_ways([category["id"] for category in categories]), lambda: LookupTable.of("name", names, str)])


def id_ways(ids: Sequence[Key]) -> list[Callable[[], LookupTable]]:
    """Return the ways to find an entry by its id; the number 7 and the text "7" are equal if nothing else fits."""
    return [lambda: LookupTable.of(BY_ID, ids, _same), lambda: LookupTable.of("id as text", [str(i) for i in ids], str)]


def name_ways(file_names: Sequence[str | None]) -> list[Callable[[], LookupTable]]:
    """Return the ways to find an image by its file name."""

    def way(name: str, of_file: Callable[[str], Any], of_key: Callable[[Key], Any]) -> Callable[[], LookupTable]:
        return lambda: LookupTable.of(name, [None if file is None else of_file(file) for file in file_names], of_key)

    return [
        way("file name", _slashes, _slashes),
        way("last part of the file name", _base, _base),
        way("stem of the file name", stem, _stem_of_key),
        way("file name without its suffix", _without_suffix, _without_image_suffix),
        number_way(file_names),
    ]


def number_way(file_names: Sequence[str | None]) -> Callable[[], LookupTable]:
    """Return the way to find an image by the number in its file name, as old Ultralytics write it: 7 for 000007.jpg."""

    def way() -> LookupTable:
        numbers = [None if file is None else _number(stem(file)) for file in file_names]
        return LookupTable.of("number in the file name", numbers, _number)

    return way


def stem(name: str) -> str:
    """Return the last part of a file name without its suffix."""
    base = _base(name)
    before, dot, _ = base.rpartition(".")
    return before if dot and before else base


def _same(key: Key) -> Key:
    return key


def _slashes(name: Key) -> str:
    return str(name).replace("\\", "/")


def _base(name: Key) -> str:
    return _slashes(name).rpartition("/")[2]


def _without_suffix(name: str) -> str:
    folder, slash, _ = _slashes(name).rpartition("/")
    return f"{folder}{slash}{stem(name)}"


def _without_image_suffix(key: Key) -> str:
    # Only suffixes of images are removed, since `a.b` is the stem of `a.b.jpg`.
    return _IMAGE_SUFFIX.sub("", _slashes(key))


def _stem_of_key(key: Key) -> str:
    return _base(_without_image_suffix(key))


def _number(text: Key) -> int | None:
    digits = _stem_of_key(text)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
