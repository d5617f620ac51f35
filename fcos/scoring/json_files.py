"""Read JSON of any tool: compressed or not, one value or JSON lines, with or without a byte order mark."""

import contextlib
import gc
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from fcos.errors import UserError

MAX_RATIO = 100  # of unpacked to packed bytes; JSON of detections has about 5
ALWAYS_UNPACKED = 64 << 20  # bytes that are unpacked at any ratio
_REWRITE = "rewrite the file as COCO JSON"
_BINARY = {  # first bytes of files that hold results in other formats than JSON
    b"\x80": "a Python pickle, which can run any code when it is read",
    b"PK": "a zip archive, or a PyTorch file",
    b"\x1f\x9d": "a compressed archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
}
_AS_JSON = (
    "unpack it, or let the toolbox write JSON: `coco_instances_results.json` of detectron2's COCOEvaluator, "
    "`*.bbox.json` of mmdetection (`test_evaluator.outfile_prefix`), `save_json=True` of Ultralytics"
)


def check_file(path: Path) -> None:
    """Raise a UserError if `path` is not a file; this is checked before other files are processed for hours."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise UserError(path, problem, expected="a JSON file", hint="give the path of COCO JSON")


def read_json_file(path: Path) -> Any:
    """Return the value in a JSON file, .gz or not; for JSON lines, return the list of the values.

    Raises:
        UserError: the file is not found, not JSON (with line and column), or a pickle or archive (with its kind).
    """
    check_file(path)
    return parse(text_of(path), path)


def text_of(path: Path) -> bytes:
    """Return the decompressed content of a text file as UTF-8 without a byte order mark."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = _decompressed(data, path)
    kind = next((kind for start, kind in _BINARY.items() if data.startswith(start)), None)
    if kind is not None:
        raise UserError(path, "is not JSON", found=kind, expected="JSON, or JSON in a .gz file", hint=_AS_JSON)
    encoding = json.detect_encoding(data[:4])
    if encoding.startswith("utf-8"):
        return data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise UserError(path, "is not JSON", found=error, hint=_REWRITE) from None


def _decompressed(data: bytes, path: Path) -> bytes:
    """Return the content of a .gz file, which may have several parts; zeros may follow the last one."""
    most = max(ALWAYS_UNPACKED, MAX_RATIO * len(data))
    parts: list[bytes] = []
    rest = data
    try:
        while rest:
            part = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # with the header and checksum of gzip
            parts.append(part.decompress(rest, most + 1))
            most -= len(parts[-1])
            if most < 0:
                raise UserError(
                    path,
                    f"would unpack to more than {MAX_RATIO} times its size",
                    found=f"{len(data):,} bytes packed",
                    expected="JSON in a .gz file",
                    hint="if that is right, unpack it and name the unpacked file",
                )
            if not part.eof:
                raise EOFError("it ends before its end-of-stream marker")
            rest = part.unused_data.lstrip(b"\0")
    except (EOFError, zlib.error) as error:
        raise UserError(path, "is a damaged .gz file", found=error, hint="copy it again") from None
    return b"".join(parts)


def parse(text: bytes, path: Path) -> Any:
    """Return the value of a JSON text, or for JSON lines the list of the values."""
    with no_collection():
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        if text.lstrip()[:1] == b"{":
            lines = [line for line in text.splitlines() if line.strip()]
            if len(lines) > 1 and _is_value(lines[0]):
                return _parse_lines(text, lines, path)
    return _parse_slowly(text, path)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection: its scans of millions of new objects take longer than reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _is_value(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse_lines(text: bytes, lines: list[bytes], path: Path) -> list[Any]:
    try:
        values: list[Any] = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(values) == len(lines):
            return values
    except orjson.JSONDecodeError:
        pass
    return [
        _parse_slowly(line, f"{path}: line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def _parse_slowly(text: bytes, where: object) -> Any:
    """Use Python's parser, which accepts NaN (a later check names it) and reports the line and column of errors."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(where, "is not JSON", found=error, hint=_REWRITE) from None
