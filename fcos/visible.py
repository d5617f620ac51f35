"""Text of others made harmless: what would steer a terminal, turn a line around or mean something in Markdown."""

import re
import unicodedata
from typing import Any

LINES = "\n\t"  # what text of several lines may hold
_JOINERS = "\u200c\u200d"  # between letters in Persian and in Indic scripts, and in emoji


def visible(text: str, *, keep: str = LINES) -> str:
    """`text` with control characters, marks of direction and the like escaped, all but those of `keep`."""
    return text if text.isprintable() else "".join(one if one in keep else _shown(one) for one in text)


def visible_line(text: str) -> str:
    """The same as one line."""
    return visible(text, keep="")


def visible_all(value: Any) -> Any:
    """The same of every text in JSON."""
    if isinstance(value, dict):
        return {visible_all(key): visible_all(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [visible_all(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


def markdown(text: str) -> str:
    """One line without a meaning in Markdown or HTML; an underscore inside a word has none."""
    line = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"[\\`*~$\[\]|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
    return re.sub(r"^(\d*)([#+.)-]+ )", r"\1\\\2", line)  # a heading or an item of a list


def markdown_code(text: str) -> str:
    """One line as code in Markdown, in which nothing can be escaped."""
    return f"`{visible(' '.join(text.split())).replace('`', chr(39)).replace('|', '¦')}`"


def _shown(one: str) -> str:
    harmless = one.isprintable() or one in _JOINERS or unicodedata.category(one) == "Zs"
    return one if harmless else one.encode("unicode_escape").decode()
