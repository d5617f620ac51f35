"""Convert JSON records to numpy columns, checked as a whole; single records are checked only to name a wrong one.

Types are compared with `type`, since JSON has few types and isinstance would accept a boolean as a number.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fcos.errors import UserError

Key = int | str
Keys = list[Key] | NDArray[np.int64]  # the id of each record; int64 if all ids are whole numbers
Floats = NDArray[np.float64]
Records = list[dict[str, Any]]
_LARGEST = sys.float_info.max
_SHOWN = 10  # ids that an error lists


def check_objects(records: Sequence[Any], where: str) -> None:
    """Raise a UserError if a record is not a JSON object."""
    if not set(map(type, records)) <= {dict}:
        place = _first(records, lambda record: type(record) is dict)
        raise UserError(
            f"{where}[{place}]", "is not an object", found=what(records[place or 0]), expected='{"key": value}'
        )


def values_of(records: Records, where: str, key: str, *, expected: str) -> list[Any]:
    """Return the values of `key`; an error names the first record that lacks it."""
    try:
        return [record[key] for record in records]
    except KeyError:
        place = _first(records, lambda record: key in record) or 0
        keys = ", ".join(records[place]) or "none"
        raise UserError(f"{where}[{place}].{key}", "is missing", found=f"keys {keys}", expected=expected) from None


def numbers(values: list[Any], where: str, key: str, *, expected: str = "a finite number") -> Floats:
    """Return the values as a float column (N,); an error names the first wrong value."""
    column = floats_or_none(values)
    if column is None:
        _refuse(values, where, key, _is_number, expected)
    return column


def boxes(values: list[Any], where: str, key: str = "bbox") -> Floats:
    """Return the boxes as a float column (N, 4); an error names the first wrong value."""
    right = set(map(type, values)) <= {list} and set(map(len, values)) <= {4}
    column = floats_or_none(list(chain.from_iterable(values))) if right else None
    if column is not None:
        return column.reshape(-1, 4)
    return _refuse(values, where, key, _is_box, "four finite numbers: x, y, width, height")


def keys(values: list[Any], where: str, key: str, *, expected: str) -> Keys:
    """Return the ids, which are whole numbers (1.0 is 1) or text; an error names the first wrong value."""
    types = set(map(type, values))
    column = wholes_or_none(values)
    if column is not None:
        return column
    if not types <= {str} and not all(map(_is_key, values)):
        _refuse(values, where, key, _is_key, expected)
    return [int(value) if type(value) is float else value for value in values]


def refuse_at(place: int, values: Sequence[Any], where: str, key: str, problem: str, expected: str) -> NoReturn:
    """Raise a UserError about the record at `place`."""
    raise UserError(f"{where}[{place}].{key}", problem, found=what(values[place]), expected=expected)


def what(value: Any) -> str:
    """Describe a JSON value in one line."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:_SHOWN])) or 'no keys'}"
    text = repr(value)
    if isinstance(value, list) and len(text) > 60:
        return f"a list of {len(value)}"
    kind = {str: "text ", bool: "a boolean, "}.get(type(value), "")
    return kind + (text if len(text) <= 60 else f"{text[:57]}...")


def some(ids: Collection[Any], of: str) -> str:
    """Return the sorted ids as text, without the middle of a long list."""
    ordered = [str(i) for i in sorted(ids, key=lambda i: (isinstance(i, str), i))]
    if len(ordered) > _SHOWN:
        ordered = [*ordered[: _SHOWN - 1], "...", ordered[-1]]
    return f"{of} {', '.join(ordered)}" + (f" ({len(ids)} of them)" if len(ids) > _SHOWN else "")


def floats_or_none(values: list[Any]) -> Floats | None:
    """Return the values as floats (N,), or None if one is not a finite number."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        column = np.array(values, dtype=float)
    except OverflowError:  # an int too large for a float
        return None
    return column if np.isfinite(column).all() else None


def wholes_or_none(values: list[Any]) -> NDArray[np.int64] | None:
    """Return the values as int64 (N,), or None if one is not a whole number of 64 bits."""
    types = set(map(type, values))
    if not types <= {int, float}:
        return None
    try:
        if float not in types:
            return np.array(values, dtype=np.int64)
        if all(type(value) is int or value.is_integer() for value in values):
            return np.array([int(value) for value in values], dtype=np.int64)
    except OverflowError:
        pass
    return None


def _refuse(values: list[Any], where: str, key: str, is_right: Callable[[Any], bool], expected: str) -> NoReturn:
    place = _first(values, is_right)
    assert place is not None  # the column is wrong because of such a value
    refuse_at(place, values, where, key, "a wrong value", expected)


def _first(values: Iterable[Any], is_right: Callable[[Any], bool]) -> int | None:
    """Return the place of the first wrong value, or None."""
    return next((place for place, value in enumerate(values) if not is_right(value)), None)


def _is_key(value: Any) -> bool:
    if type(value) is float:
        return value.is_integer() and abs(value) < 2**63
    return type(value) is str or (type(value) is int and -(2**63) <= value < 2**63)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # false for NaN and infinity


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))
