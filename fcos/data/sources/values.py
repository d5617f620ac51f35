"""Convert values of annotation files; the functions return None for a value that is not clear."""

import math
import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_FLAGS = {
    **dict.fromkeys(("", "0", "false", "f", "no", "n", "none", "null", "unspecified"), False),
    **dict.fromkeys(("1", "true", "t", "yes", "y"), True),
}
LARGEST = 2**53  # JSON readers hold smaller whole numbers exactly


def number(value: Any) -> float | None:
    """Return a finite number, which may be text; True and "1,5" are not numbers."""
    if type(value) is float:  # most are
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value := value.strip()):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def whole(value: Any) -> int | None:
    """Return a whole number that a float can hold exactly; it may be text or a float."""
    plain = number(value)
    return int(plain) if plain is not None and plain.is_integer() and abs(plain) < LARGEST else None


def flag(value: Any) -> bool | None:
    """Return yes or no in any spelling as a bool; a missing value and VOC's `Unspecified` are False."""
    if value is None or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    text = str(value).strip().lower()
    return _FLAGS.get(text) if isinstance(value, str) else None


def identity(value: Any) -> int | float | str | None:
    """Return the value by which ids are compared: 7, 7.0 and "7" are equal, but "007" is not."""
    if type(value) is int:  # most are
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    plain = whole(value)
    if plain is not None and (not isinstance(value, str) or str(plain) == value):
        return plain
    return value if isinstance(value, str) or math.isfinite(value) else None
