"""Postpone the stop that a signal requests until the work can be saved."""

import contextlib
import time
from collections.abc import Callable, Iterator

SAME_S = 2.0  # requests within this time are one: SLURM, DVC and a parent process may all send a signal
_since: list[float | None] = []  # one entry per block: when a stop was first requested in it


def postpone() -> bool:
    """Postpone the end to the next call of `is_requested`; return False if it must not wait.

    It must not wait outside a block, or after a second request.
    """
    if not _since:
        return False
    now = time.monotonic()
    first = _since[-1] = _since[-1] or now
    return now - first < SAME_S


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Delay a signal until the block asks for it by the yielded function: True if a stop was requested."""
    _since.append(None)
    try:
        yield lambda: _since[-1] is not None
    finally:
        _since.pop()
