"""Progress of a command: a bar on a terminal, a line at intervals everywhere else."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from fcos.visible import visible, visible_line

T = TypeVar("T")
Result = TypeVar("Result")
PLAIN_INTERVAL_S = 20.0
AT_ONCE = 4096  # items that wait for a thread: each takes about 2 KB
FEW = 8  # so few items are done before threads for them would have started
# Of several ranks (fcos/distributed.py), the first one speaks for all.
_is_silent = int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"
# Callbacks for every update, from which `fcos status` knows the progress of a command (fcos/running/heartbeat.py).
watchers: list[Callable[["Progress"], None]] = []


def duration(seconds: float) -> str:
    """Format seconds for people: `45 s`, `6 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Show no progress and no lines until the block ends."""
    global _is_silent
    before, _is_silent = _is_silent, True
    try:
        yield
    finally:
        _is_silent = before


def say(message: str) -> None:
    """Print a line to standard error without breaking a progress bar; control characters in it are escaped."""
    if _is_silent:
        return
    tqdm.write(visible(message), file=sys.stderr)


class Progress:
    """Counts `total` units of work; `update(n, note)` adds `n` finished ones."""

    def __init__(self, description: str, total: int, *, unit: str = "it", done: int = 0) -> None:
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self.note = ""
        self.started = self.last_line = time.monotonic()
        self.first = done
        self.bar = (
            tqdm(total=total, initial=done, desc=visible_line(description), unit=unit, dynamic_ncols=True)
            if sys.stderr.isatty() and not _is_silent
            else None
        )
        self._tell()

    def update(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished units; `note` is shown behind them."""
        self.done += count
        self.note = note
        if self.bar is not None:
            self.bar.set_postfix_str(visible_line(note), refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.last_line >= PLAIN_INTERVAL_S:
            self._line()
        self._tell()

    def close(self) -> None:
        """Print the last state and end the line."""
        if self.bar is not None:
            self.bar.close()
        else:
            self._line()

    def _tell(self) -> None:
        for watcher in watchers:
            watcher(self)

    def _line(self) -> None:
        if _is_silent:
            return
        self.last_line = time.monotonic()
        elapsed = self.last_line - self.started
        worked = self.done - self.first
        left = f", {duration(elapsed / worked * (self.total - self.done))} left" if 0 < worked < self.total else ""
        note = f", {self.note}" if self.note else ""
        counted = f"{self.done}/{self.total} {self.unit}"
        line = f"{self.description}: {counted}, {duration(elapsed)}{left}{note}"
        print(visible_line(line), file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, *, total: int, unit: str = "it") -> Iterator[T]:
    """Yield `items` and show how many of `total` are finished."""
    progress = Progress(description, total, unit=unit)
    try:
        for item in items:
            yield item
            progress.update()
    finally:
        progress.close()


def track_threads(function: Callable[[T], Result], items: Sequence[T], description: str, *, unit: str) -> list[Result]:
    """Return `function(item)` of each item in order, computed on all cores, and show how many are finished."""
    if len(items) <= FEW:
        return list(track(map(function, items), description, total=len(items), unit=unit))
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        parts = (items[first : first + AT_ONCE] for first in range(0, len(items), AT_ONCE))
        results = (result for part in parts for result in pool.map(function, part))
        return list(track(results, description, total=len(items), unit=unit))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining items
