"""The index of a study's source files when they were last linked, and the changes since then."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.files import read_json, sha256_file, sha256_json, write_json
from fcos.study.layout import Layout
from fcos.study.places import SLOTS

NAMED = 3  # changed files that a message lists
# Images are compared only by size and time, since reading them all takes as long as `fcos prepare`.
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".npy"})
Index = dict[str, list[Any]]  # slot/path -> size, modification time in ns and, for annotations, sha256


@dataclass(frozen=True)
class Changes:
    """Files of the source that have changed since it was last linked."""

    changed: list[str]
    new: list[str]
    gone: list[str]

    def __bool__(self) -> bool:
        return bool(self.changed or self.new or self.gone)

    def __str__(self) -> str:
        named = [*self.changed, *self.new, *self.gone]
        names = ", ".join([*named[:NAMED], *([f"and {len(named) - NAMED} more"] if len(named) > NAMED else [])])
        counts = f"{_files(len(self.changed))} changed, {len(self.new)} new, {len(self.gone)} gone"
        return f"{counts} ({names})" if named else counts


def changed_text(changes: Changes) -> str:
    """Describe the changes and the stages that they cause to run."""
    return f"the source changed: {changes}; prepare will run again, and so will the stages that read a changed split"


def source_changes(layout: Layout) -> Changes | None:
    """Return the changes of the source since it was last linked, or None if they are unknown."""
    before = _read_index(layout)
    try:
        return None if before is None else _differences(before, _index(layout, before))
    except (OSError, UserError):  # the source is not available
        return None


def write_index(layout: Layout) -> Changes | None:
    """Write the index of the source and return the changes since the last one, or None if there was none."""
    before, now = _read_index(layout), _index(layout)
    write_json(_index_path(layout), now, indent=None)
    return None if before is None else _differences(before, now)


def held_out_digest(layout: Layout) -> str:
    """Return a digest of the index of training and validation images, since validation images may be from training."""
    index = _read_index(layout) or {}
    return sha256_json(
        {name: _anywhere(entry) for name, entry in index.items() if not name.split("/")[0].endswith("-test")}
    )


def _anywhere(entry: list[Any]) -> Any:
    """Return the part that is equal on all machines: digest or size, but no time, which copying changes."""
    return entry[2] if len(entry) > 2 else entry[0]


def _index(layout: Layout, known: Index | None = None) -> Index:
    """Index each file of the source; digests are taken from `known` for files with equal size and time."""
    index: Index = {}
    for slot in SLOTS:
        for path, status in _walk(layout.source / slot):
            name = str(path.relative_to(layout.source))
            entry = [status.st_size, status.st_mtime_ns]
            earlier = (known or {}).get(name)
            if earlier and earlier[:2] == entry:
                index[name] = earlier
            elif path.suffix.lower() in _IMAGES:
                index[name] = entry
            else:
                index[name] = [*entry, sha256_file(path)]
    return index


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files at and below `top` as DVC sees them; links to folders below `top` are not followed."""
    paths = [top] if top.is_file() else (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise UserError(path, "is a broken link", found=path.readlink(), hint="remove it") from None
        if not stat.S_ISREG(status.st_mode):
            raise UserError(path, "is not a file", expected="images and annotations only", hint="remove it")
        yield path, status


def _differences(before: Index, now: Index) -> Changes:
    both = [name for name in now if name in before]
    return Changes(
        changed=[name for name in both if _differs(before[name], now[name])],
        new=[name for name in now if name not in before],
        gone=[name for name in before if name not in now],
    )


def _differs(one: list[Any], other: list[Any]) -> bool:
    digests = one[2:], other[2:]
    return digests[0] != digests[1] if all(digests) else one != other


def _read_index(layout: Layout) -> Index | None:
    try:
        index = read_json(_index_path(layout), hint="fcos source")
    except UserError:
        return None
    whole = isinstance(index, dict) and all(isinstance(of, list) and len(of) > 1 for of in index.values())
    return index if whole else None


def _index_path(layout: Layout) -> Path:
    return layout.source / "index.json"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
