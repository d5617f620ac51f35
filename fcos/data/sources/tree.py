"""List the files of a folder, following links, and find the files that names in annotations mean."""

import os
import posixpath
import re
import unicodedata
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fcos.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # image suffixes, in lower or upper case
LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass
class Tree:
    """All files below `root`, except hidden ones (names with a leading dot) and system files of macOS and Windows."""

    root: Path
    files: list[str] = field(default_factory=list)  # relative paths with /, sorted by their parts
    num_hidden: int = 0  # hidden files and folders that were left out
    num_leaving: int = 0  # links to outside of the root, which were followed
    num_loops: int = 0  # links to a folder above themselves, which were not followed

    def ending(self, suffixes: Iterable[str]) -> list[str]:
        """Return the files with one of these endings in lower case; files may have them in any case."""
        endings = tuple(suffixes)
        return [file for file in self.files if file.lower().endswith(endings)]


def walk(root: Path) -> Tree:
    """Return the files below `root`.

    Raises:
        UserError: there is a dangling link, a FIFO, socket or device, or a folder that cannot be read.
    """
    tree = Tree(root)
    _walk(tree, "", os.path.realpath(root), frozenset())
    return tree


def _walk(tree: Tree, place: str, real_root: str, above: frozenset[tuple[int, int]]) -> None:
    folder = tree.root / place
    try:
        here = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(folder, "cannot be read", found=error.strerror, expected="a folder") from None
    if (here.st_dev, here.st_ino) in above:
        tree.num_loops += 1
        return
    for entry in entries:
        name = posixpath.join(place, entry.name)
        if entry.name.startswith(".") or entry.name in LITTER:
            tree.num_hidden += 1
            continue
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            tree.num_leaving += not (real == real_root or real.startswith(real_root + os.sep))
        if entry.is_dir():
            _walk(tree, name, real_root, above | {(here.st_dev, here.st_ino)})
        elif entry.is_file():
            tree.files.append(name)
        else:
            _refuse(Path(entry.path), entry.is_symlink())


def _refuse(path: Path, link: bool) -> None:
    lost = link and not path.exists()
    raise UserError(
        path,
        "is a broken link" if lost else "is neither a file nor a folder",
        found=f"-> {path.readlink()}" if lost else "a FIFO, a socket or a device",
        expected="regular files and folders, or links to them",
        hint="restore the target of the link, or remove the link" if lost else "move it away",
    )


class Names:
    """Finds the file among `files` that a name in an annotation means."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = set(files)
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for file in self._files:
            self._by_last[_last(file)].append(file)

    def find(self, name: str) -> tuple[str | None, bool]:
        """Return the file and whether it has exactly this name; else it is the only file with the same last parts."""
        plain = posixpath.normpath(name) if name else ""
        if plain in self._files:
            return plain, True
        parts = name_parts(name)
        found = self._by_last.get(_last(name), [])
        alike = [num_common(parts[::-1], name_parts(file)[::-1]) for file in found]
        best = [file for file, count in zip(found, alike, strict=True) if count == max(alike)]
        return (best[0] if len(best) == 1 else None), False


def num_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the number of first parts that both have in common."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _last(name: str) -> str:
    return (name_parts(name) or [""])[-1]


def name_parts(name: str) -> list[str]:
    """Return the normalised parts of a name from any system: `\\`, drives, URLs, any Unicode composition and case."""
    if re.match(r"[a-z]+://", name):
        name = urllib.parse.unquote(name.split("://", 1)[1].split("?", 1)[0])
    folded = unicodedata.normalize("NFC", name).casefold()
    return [part for part in re.split(r"[/\\]", folded) if part not in ("", ".")]
