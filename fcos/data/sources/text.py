"""Read text of annotation files: byte order marks, UTF-16, encodings declared in XML, and names in YAML."""

import codecs
import json
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.yaml_text import Texts, parse_yaml

_MARKS = {  # longer marks come first, since the mark of UTF-32 begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*?\?>")
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8 (with or without byte order mark) or UTF-16."""
    return _decode(_read(path), path, "utf-8")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file; `splitlines` would also split at characters that names may contain."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def read_json(path: Path, *, hint: str) -> Any:
    """Return the value in a JSON file; `hint` is the error's hint if the file is not found."""
    if not path.exists():
        raise UserError(path, "no such file", expected="a JSON file", hint=hint)
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(
            path, "is not JSON", found=error, expected="a whole JSON file", hint="restore the file"
        ) from None


def read_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file; tags are in lower case and without namespaces."""
    data = _read(path)
    declared = _DECLARED.match(data)
    text = _decode(data, path, declared[1].decode("ascii") if declared else "utf-8")
    try:
        root = ElementTree.fromstring(_DECLARATION.sub("", text, count=1))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise UserError(path, "is not XML", found=error, hint="fix or restore the file") from None
    for node in root.iter():
        if isinstance(node.tag, str):
            node.tag = node.tag.rpartition("}")[2].lower()
    return root


def read_yaml(path: Path) -> Any:
    """Return the value in a YAML file, with every scalar as text: `no`, `007` and `1.50` are names."""
    return parse_yaml(read_text(path), path, loader=Texts, hint="fix that line; indent with spaces, not with tabs")


def class_name(value: Any, where: object) -> str:
    """Return `value` if it is a valid name: visible text without surrounding white space."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(where, "a class has no name", found=repr(value), expected="a text", hint="write its name there")
    if value != value.strip() or any(map(_is_unseen, value)):
        raise UserError(
            where,
            "a class name has invisible characters or surrounding spaces",
            found=ascii(value),
            expected="text without control characters or surrounding spaces",
            hint="correct the name",
        )
    return value


def _is_unseen(letter: str) -> bool:
    """Whether this is a control character, a surrogate, a noncharacter of Unicode or a direction mark."""
    number = ord(letter)
    never = number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF
    return never or unicodedata.category(letter) in ("Cc", "Cs") or letter in _TURNING


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # reading a FIFO would never end
        raise UserError(path, "is not a regular file", expected="a file of text", hint="move it away")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(path, "cannot be read", found=error.strerror, expected="a file of text") from None


def _decode(data: bytes, path: Path, encoding: str) -> str:
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    unmarked = {(True, False): "utf-16-be", (False, True): "utf-16-le"}  # by the zero byte of the first character
    zeros = (data[:1] == b"\0", data[1:2] == b"\0")
    encoding = marked or unmarked.get(zeros, encoding)
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        raise UserError(
            path, "is not text", found=error, expected=f"text in {encoding}", hint="save it as UTF-8"
        ) from None
    if "\0" in text:
        raise UserError(path, "is not text", found="bytes 0", expected=f"text in {encoding}", hint="restore the file")
    return text
