"""Check that files still have the content that DVC recorded.

DVC trusts the size and time of a file. It does not notice a change by a disk error or a careless program that keeps
both. If `cache.type` allows hard links, it even restores the changed content from the cache, since workspace and cache
are two names of one file then.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fcos.files import md5_file
from fcos.progress import track
from fcos.running.dvc import recorded_outputs

CACHE = Path(".dvc/cache/files/md5")
LOCKS = ("dvc.lock", "stages/*/dvc.lock")
FOLDER = ".dir"  # suffix of the md5 of a folder, whose cache file lists its content


@dataclass(frozen=True)
class Verified:
    """The result of `fcos doctor --verify`."""

    count: int  # files checked
    damaged: list[list[Path]]  # all names of each file whose content differs from what DVC recorded


def verify() -> Verified:
    """Return which files differ from DVC's records, after hashing every output and every file in DVC's cache again."""
    names: dict[tuple[int, int], dict[Path, str]] = {}
    for path, md5 in [*_cached(), *_outputs()]:
        if path.is_file():
            status = path.stat()
            names.setdefault((status.st_dev, status.st_ino), {})[path] = md5
    checked = track(names.items(), "verify", total=len(names), unit="files")
    damaged = {file: sorted(of) for file, of in checked if {*of.values()} != {md5_file(next(iter(of)))}}
    for kept in Path("runs").glob("*/.scratch/*/finished/*"):  # a third name, to restore a training
        file = kept.stat().st_dev, kept.stat().st_ino
        if file in damaged:
            damaged[file].append(kept)
    return Verified(len(names), list(damaged.values()))


def _cached() -> Iterator[tuple[Path, str]]:
    """Yield each file of the cache and the md5 in its name."""
    for path in CACHE.glob("[0-9a-f][0-9a-f]/*"):
        md5 = (path.parent.name + path.name).removesuffix(FOLDER)
        if len(md5) == 32:
            yield path, md5


def _outputs() -> Iterator[tuple[Path, str]]:
    """Yield each output file that the lock files list, and its md5."""
    for lock in (path for pattern in LOCKS for path in Path().glob(pattern)):
        for path, md5 in recorded_outputs(lock):
            if not md5.endswith(FOLDER):
                yield path, md5
            elif (listed := CACHE / md5[:2] / md5[2:]).is_file():
                yield from _listed(path, listed)


def _listed(folder: Path, listed: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a folder; nothing if its list is damaged, which the md5 of the list reveals."""
    try:
        content = json.loads(listed.read_text(encoding="utf-8"))
        yield from [(folder / entry["relpath"], entry["md5"]) for entry in content]
    except (ValueError, TypeError, KeyError):
        return
