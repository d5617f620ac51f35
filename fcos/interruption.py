"""Postpone the end that a signal requests to a point where the work can be saved."""

import contextlib
from collections.abc import Callable, Iterator

_postponed: list[bool] = []  # one entry a block: whether a signal has arrived in it


def postpone() -> bool:
    """Postpone the end to the next call of `is_requested`; return False if it must not wait.

    It must not wait outside of a block, and at the second request.
    """
    if not _postponed or _postponed[-1]:
        return False
    _postponed[-1] = True
    return True


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Let a signal wait until the block asks the function that it gets whether the end was requested."""
    _postponed.append(False)
    try:
        yield lambda: _postponed[-1]
    finally:
        _postponed.pop()
