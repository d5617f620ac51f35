"""Rows of a comparison as they are typed: `[NAME=]FILE[,FILE...]`."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcos.errors import UserError


@dataclass(frozen=True)
class Row:
    """One row of the comparison: a results file, or several that are repeats (seeds) of each other."""

    name: str
    paths: list[Path]


def parse_rows(arguments: Sequence[str]) -> list[Row]:
    """Return the rows of `[NAME=]FILE[,FILE...]`; a default name is the stem of the first file, with folders if needed.

    Raises:
        UserError: a file name is empty, or two rows have the same name.
    """
    parsed = [_parse(argument) for argument in arguments]
    default = iter(_default_names([paths[0] for name, paths in parsed if not name]))
    rows = [Row(name or next(default), paths) for name, paths in parsed]
    name, count = Counter(row.name for row in rows).most_common(1)[0]
    if count > 1:
        raise UserError(
            "results", "two rows have the same name", found=name, expected="another", hint="name them: NAME=FILE"
        )
    return rows


def _parse(argument: str) -> tuple[str, list[Path]]:
    """Return name ("" if none is given) and files; an argument that is an existing file is not split."""
    name, equals, files = argument.partition("=")
    if Path(argument).exists() or not equals or "/" in name:
        name, files = "", argument
    paths = [argument] if Path(argument).exists() else files.split(",")
    if not all(paths):
        raise UserError(f"argument {argument}", "a file name is empty", expected="[NAME=]FILE[,FILE...]")
    return name, [Path(path) for path in paths]


def _default_names(paths: Sequence[Path]) -> list[str]:
    """Return the stems of `paths`, each with as many parent folders as needed to be unique."""
    # File names that are not UTF-8 are shown with escaped bytes.
    shown = [Path(os.fsencode(path.absolute()).decode(errors="backslashreplace")) for path in paths]
    parts = [_without_suffix(path, given.is_dir()).parts for path, given in zip(shown, paths, strict=True)]
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(of[-length:]) for of, length in zip(parts, lengths, strict=True)]
        seen = Counter(names)
        longer = [
            length + (seen[name] > 1 and length < len(of) - 1)
            for name, length, of in zip(names, lengths, parts, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def _without_suffix(path: Path, is_folder: bool) -> Path:
    """Return `run` for `run.json.gz`, but the whole name of a folder."""
    if is_folder:
        return path
    return (path.with_suffix("") if path.suffix == ".gz" else path).with_suffix("")
