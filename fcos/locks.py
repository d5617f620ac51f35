"""Locks between processes; file systems without locks, such as NFS without its lock service, are tolerated."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from fcos.files import whole_file
from fcos.progress import say

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_told: set[Path] = set()  # folders without locks that the user was told about


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; without locks, print a warning once per folder and continue.

    The operating system releases the lock of a process that has ended, even if it was killed.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path))
        except OSError as error:
            if not has_no_locks(path, error):
                raise
        yield


def write_once(
    file: Path, is_whole: Callable[[], bool], write: Callable[[Path], None], *, durable: bool = True
) -> None:
    """Have one process write a file of all that need it: the others wait for it, and find it whole.

    Args:
        is_whole: whether the file is there and complete.
        write: writes it at the temporary path that it is given.
        durable: as in `whole_file`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_suffix(".lock")):
        if is_whole():
            return
        # Temporary files are from a killed process, since this one holds the lock.
        for left in file.parent.glob(f".{file.name}.*.part"):
            left.unlink(missing_ok=True)
        with whole_file(file, durable=durable) as part:
            write(part)


def has_no_locks(path: Path, error: OSError) -> bool:
    """Whether `error` says that the file system of `path` has no locks; if so, print a warning once per folder."""
    if error.errno not in NO_LOCKS:
        return False
    folder = path.absolute().parent
    if folder not in _told:
        _told.add(folder)
        say(f"warning: the file system of {folder} has no locks ({error.strerror}): run one command at a time there")
    return True
