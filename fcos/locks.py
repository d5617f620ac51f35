"""Locks between processes, also on file systems that have none, such as NFS without its lock service."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from fcos.progress import say

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_told: set[Path] = set()  # folders


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; without locks, say so once for a folder and go on.

    The system opens the lock of a process that has ended, however it ended.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path))
        except OSError as error:
            if not has_no_locks(path, error):
                raise
        yield


def has_no_locks(path: Path, error: OSError) -> bool:
    """Whether `error` says that the file system of `path` has no locks; then it is told, once for a folder."""
    if error.errno not in NO_LOCKS:
        return False
    folder = path.absolute().parent
    if folder not in _told:
        _told.add(folder)
        say(f"warning: the file system of {folder} has no locks ({error.strerror}): run one command at a time there")
    return True
