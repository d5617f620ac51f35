"""Child processes that end with the process that started them."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

STOP_S = 30.0  # time for a child to end after SIGINT, before it is killed


class ChildProcesses:
    """Running child processes, each the leader of its own process group, since DVC does not forward SIGINT."""

    def __init__(self) -> None:
        self.stopped = False
        self._at_work: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, errors: int | None
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a child process whose standard output can be read; it has ended when the block ends."""
        with self._lock:
            if self.stopped:
                raise KeyboardInterrupt
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                env=environment,
                process_group=0,
            )
            self._at_work.add(child)
        try:
            yield child
        except BaseException:
            self.stop()
            raise
        finally:
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
            self._at_work.discard(child)

    def stop(self) -> None:
        """Send SIGINT to all running processes; kill them after `STOP_S` seconds or another Ctrl-C."""
        with self._lock:
            self.stopped = True
        try:
            self._send(signal.SIGINT)
            until = time.monotonic() + STOP_S
            while any(child.poll() is None for child in list(self._at_work)) and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            self._send(signal.SIGKILL)

    def _send(self, what: signal.Signals) -> None:
        for child in list(self._at_work):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, what)
