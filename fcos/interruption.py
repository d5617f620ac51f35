"""Postpone the stop that a signal requests until the work can be saved."""

import contextlib
from collections.abc import Callable, Iterator

_postponed: list[bool] = []  # one entry per block: whether a signal has arrived in it


def postpone() -> bool:
    """Postpone the end to the next call of `is_requested`; return False if it must not wait.

    It must not wait outside a block, or after a second request.
    """
    if not _postponed or _postponed[-1]:
        return False
    _postponed[-1] = True
    return True


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Delay a signal until the block asks for it by the yielded function: True if a stop was requested."""
    _postponed.append(False)
    try:
        yield lambda: _postponed[-1]
    finally:
        _postponed.pop()
