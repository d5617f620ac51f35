"""Atomic writing of files and folders, and digests of their content."""

import contextlib
import csv
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos.errors import UserError

NOT_UTF8 = "backslashreplace"  # how file names that are not UTF-8 are written


def project_root() -> Path:
    """Return the folder of dvc.yaml: `DVC_ROOT` inside a DVC stage, else the current folder."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def in_project(path: str) -> Path:
    """Return a path of params.yaml; in DVC's temporary copies, which have only tracked files, that of the original."""
    here = Path(path)
    return here if here.exists() or "DVC_ROOT" not in os.environ else project_root() / here


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` when the block ends without an error.

    Args:
        durable: wait until the content is on the disk; otherwise a renamed file may be empty after a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _part(path)
    try:
        yield scratch
        scratch.chmod(0o644)  # some writers make their files readable by the owner alone
        if durable:
            with scratch.open("rb") as stream:
                os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """Return this process's temporary path beside `path`, which processes of other machines may write too."""
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.part")


def link_or_copy(source: Path, target: Path) -> None:
    """Make the file `source` available at `target` as a hard link, or as a copy if hard links are not supported."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    part.unlink(missing_ok=True)
    try:
        try:
            part.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_dir(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    scratch.chmod(0o755)
    try:
        yield scratch
        if path.exists():
            shutil.rmtree(path)
        scratch.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file that appears whole or not at all."""
    with whole_file(path, durable=durable) as scratch:
        scratch.write_text(text, encoding="utf-8", errors=NOT_UTF8)


def write_json(path: Path, value: Any, *, indent: int | None = 2, durable: bool = True) -> None:
    """Write JSON in full float precision; NaN and infinity raise ValueError, since JSON has neither."""
    separators = (",", ":") if indent is None else None
    write_text(path, json.dumps(value, indent=indent, separators=separators, allow_nan=False) + "\n", durable=durable)


def read_json(path: Path, *, hint: str) -> Any:
    """Read JSON; `hint` is the command to run if the file is missing or damaged.

    Raises:
        UserError: the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise UserError(path, "no such file", expected="a JSON file", hint=hint) from None
    except IsADirectoryError:
        raise UserError(path, "is a folder", expected="a JSON file", hint=hint) from None
    except (ValueError, RecursionError) as error:  # such as a number of 5,000 digits, or 3,000 nested lists
        raise UserError(path, "is not JSON", found=error, hint=hint) from None


def read_note(path: Path) -> dict[str, Any]:
    """Read a JSON object that only helps if it is there; empty if it is missing or damaged."""
    with contextlib.suppress(UserError):
        content = read_json(path, hint="")
        return content if isinstance(content, dict) else {}
    return {}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a CSV file that appears whole or not at all; keys of `rows` beyond `columns` are errors."""
    with whole_file(path) as scratch, scratch.open("w", newline="", encoding="utf-8", errors=NOT_UTF8) as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digests(names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of modules of this package, given as paths in its folder."""
    return {name: sha256_file(Path(__file__).parent / name) for name in names}


def md5_file(path: Path) -> str:
    """Return the md5 of a file in hex, as DVC computes it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON; it does not depend on key order or white space."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
