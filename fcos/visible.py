"""Escape untrusted text: control characters, direction marks and Markdown."""

import re
import unicodedata
from typing import Any

LINES = "\n\t"  # allowed in text of several lines
_WITH_PASSWORD = re.compile(r"\w+://[^/\s]*:[^/\s]*@|\w+://[^/\s@]{16,}@")  # user:password@ or token@
_JOINERS = "\u200c\u200d"  # used in Persian, Indic scripts and emoji


def visible(text: str, *, keep: str = LINES) -> str:
    """Return `text` with control characters, direction marks and the like escaped, except for those in `keep`."""
    return text if text.isprintable() else "".join(one if one in keep else _shown(one) for one in text)


def visible_line(text: str) -> str:
    """Return `text` escaped as by `visible`, line breaks and tabs included."""
    return visible(text, keep="")


def visible_all(value: Any) -> Any:
    """Return a JSON value with every string in it escaped as by `visible`."""
    if isinstance(value, dict):
        return {visible_all(key): visible_all(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [visible_all(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


def markdown(text: str) -> str:
    """Return `text` as one line with Markdown and HTML escaped; an underscore inside a word needs no escape."""
    line = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"[\\`*~$\[\]|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
    return re.sub(r"^(\d*)([#+.)-]+ )", r"\1\\\2", line)  # a heading or a list item


def markdown_code(text: str) -> str:
    """Return `text` as one line of Markdown code; backticks and bars are replaced, since code has no escapes."""
    return f"`{visible(' '.join(text.split())).replace('`', chr(39)).replace('|', '¦')}`"


def _shown(one: str) -> str:
    harmless = one.isprintable() or one in _JOINERS or unicodedata.category(one) == "Zs"
    return one if harmless else one.encode("unicode_escape").decode()


def has_password(address: str) -> bool:
    """Whether a URL holds a password or a token."""
    return _WITH_PASSWORD.search(address) is not None


def without_password(address: str) -> str:
    """Return a URL without what is before its host."""
    return re.sub(r"(\w+://)[^\s]*@", r"\1***@", address)
