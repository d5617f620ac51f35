"""Unpack an archive: nothing but files and folders, and only inside the folder that is given.

Python's readers are not relied on for that: links of several members can lead its `data` filter out of the folder
(CVE-2025-4517), and its zip reader renames members silently.
"""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from fcos.errors import UserError
from fcos.progress import track

CHUNK = 1 << 20
MAX_RATIO = 100  # of the unpacked size to that of the archive; that of annotations is below 10
STORE = ".downloads"  # folder in the root for archives, and for notes which of them are unpacked
EXPECTED = "a whole archive of files and folders, none of them outside its folder"


@dataclass(frozen=True)
class _Member:
    """A member of an archive; `kind` is what else it is than a file or a folder."""

    name: str
    size: int
    is_folder: bool
    kind: str | None
    open: Callable[[], IO[bytes]]


class _Refused(Exception):
    """What is wrong with a member of the archive."""


def unpack(path: Path, root: Path) -> None:
    """Unpack the .tar or .zip archive at `path` into `root`; all its names are checked before anything is written.

    Raises:
        UserError: the archive is damaged, or has a member that is not written for safety.
        OSError: a file cannot be written.
    """
    with ExitStack() as stack:
        try:
            members = list((_in_tar if path.suffix == ".tar" else _in_zip)(path, stack))
            targets = _targets(members, path.stat().st_size)
        except Exception as error:  # for damaged archives, Python's readers raise many types
            raise _unusable(path, error) from None
        for member, target in track(targets, f"unpack {path.name}", total=len(targets), unit="files"):
            if member.is_folder:
                (root / target).mkdir(parents=True, exist_ok=True)
                continue
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            with (root / target).open("wb") as stream:
                for chunk in _chunks(member, path):
                    stream.write(chunk)


def _in_tar(path: Path, stack: ExitStack) -> Iterator[_Member]:
    # Compression is not accepted, since the unpacked size would not be known beforehand.
    archive = stack.enter_context(tarfile.TarFile(path))
    for info in archive:
        if info.size < 0:  # the next member would be this one again
            raise _Refused(f"{info.name!r} has {info.size} bytes")
        kind = None
        if info.issparse():
            kind = "a sparse file"
        elif not (info.isreg() or info.isdir()):
            kind = "a link" if info.islnk() or info.issym() else "a device or pipe"
        yield _Member(info.name, info.size, info.isdir(), kind, partial(tarfile.ExFileObject, archive, info))


def _in_zip(path: Path, stack: ExitStack) -> Iterator[_Member]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for info in archive.infolist():
        kind_of_file = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive does not say it
        kind = None if kind_of_file in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or device"
        if info.flag_bits & 1:
            kind = "encrypted"
        yield _Member(info.orig_filename, info.file_size, info.is_dir(), kind, partial(archive.open, info))


def _targets(members: Sequence[_Member], archive_size: int) -> list[tuple[_Member, Path]]:
    """Return the members with their paths relative to the root.

    Raises:
        _Refused: a member is neither file nor folder or has a forbidden name, or all together are too large.
    """
    found = [(member, _target(member)) for member in members]
    files, folders = set[str](), set[str]()
    for member, target in found:
        folded, *above = (str(path).casefold() for path in (target, *target.parents))  # some file systems ignore case
        if folded in files or (not member.is_folder and folded in folders) or not files.isdisjoint(above):
            raise _Refused(f"{member.name!r} would replace another member")
        (folders if member.is_folder else files).add(folded)
        folders.update(above)
    total = sum(member.size for member in members)
    if total > MAX_RATIO * archive_size:
        raise _Refused(f"it would unpack to {total:,} bytes, {total // archive_size:,} times its size")
    return found


def _target(member: _Member) -> Path:
    """Return the path of a member relative to the root; raise _Refused unless it is one below the root."""
    name = PurePosixPath(member.name)
    if member.kind is not None:
        raise _Refused(f"{member.name!r} is {member.kind}")
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise _Refused(f"{member.name!r} is no relative path")
    if name.parts[:1] == (STORE,) or not (name.parts or member.is_folder):
        raise _Refused(f"{member.name!r} is a forbidden name")
    return Path(name)


def _chunks(member: _Member, path: Path) -> Iterator[bytes]:
    """Yield the content of a file; a reader's error becomes a UserError, to distinguish it from those of the disk."""
    size = 0
    try:
        with member.open() as source:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                yield chunk
        if size != member.size:
            raise _Refused(f"{member.name!r} has {size:,} bytes and not {member.size:,}")
    except Exception as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> UserError:
    found = str(error) or type(error).__name__
    return UserError(path, "cannot be unpacked", found=found, expected=EXPECTED, hint="fetch it again")
