"""Values of annotation files, read as what they plainly are; None: it is not plain what they are."""

import math
import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_FLAGS = {
    **dict.fromkeys(("", "0", "false", "f", "no", "n", "none", "null", "unspecified"), False),
    **dict.fromkeys(("1", "true", "t", "yes", "y"), True),
}
LARGEST = 2**53  # what readers of JSON hold exactly


def number(value: Any) -> float | None:
    """A finite number, also as text; neither True nor "1,5"."""
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
    """A whole number that a float holds exactly, also as text or as a float."""
    plain = number(value)
    return int(plain) if plain is not None and plain.is_integer() and abs(plain) < LARGEST else None


def flag(value: Any) -> bool | None:
    """Yes or no in any spelling; nothing, and VOC's `Unspecified`, are no."""
    if value is None or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    text = str(value).strip().lower()
    return _FLAGS.get(text) if isinstance(value, str) else None


def identity(value: Any) -> int | float | str | None:
    """What an id is compared by: 7, 7.0 and "7" are one, "007" is another."""
    if type(value) is int:  # most are
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    plain = whole(value)
    if plain is not None and (not isinstance(value, str) or str(plain) == value):
        return plain
    return value if isinstance(value, str) or math.isfinite(value) else None
