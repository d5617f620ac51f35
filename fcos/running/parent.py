"""End a command after its DVC or its `fcos study run` was killed, because its outputs would not be used."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import psutil

from fcos.progress import say

STARTED_BY = "FCOS_STARTED_BY"  # identifies the process of `fcos study run` to all processes that it starts
LOOK_S = 0.5
END_S = 30.0  # time between SIGTERM and SIGKILL
SAME_S = 1.0  # tolerance: start times are computed from the boot time, which moves when the clock is set


def this_process() -> str:
    """Return a unique name of this process: its id and start time."""
    me = psutil.Process()
    return f"{me.pid}:{me.create_time()}"


def end_with_parents() -> None:
    """In a DVC stage, send SIGTERM to this process soon after its DVC or its `fcos study run` has ended.

    A library may swallow the exception that the signal raises, so SIGKILL follows after `END_S` seconds.

    A command typed by hand, also under nohup, is not affected, because it is not a child of either.
    """
    if "DVC_STAGE" not in os.environ:
        return
    parents = [*_started_by(), *_dvc_above()]
    if parents:
        threading.Thread(target=_watch, args=(parents,), name="parents", daemon=True).start()


def _watch(parents: list[psutil.Process | None]) -> None:
    look = threading.Event()
    while all(map(_is_alive, parents)):
        look.wait(LOOK_S)
    say("this command stops, since the process that started it was killed")
    os.kill(os.getpid(), signal.SIGTERM)
    look.wait(END_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_alive(process: psutil.Process | None) -> bool:
    with contextlib.suppress(psutil.Error):
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _started_by() -> list[psutil.Process | None]:
    """Return the process of `fcos study run`, with None in its place if it has ended; empty if there was none."""
    if STARTED_BY not in os.environ:
        return []
    with contextlib.suppress(psutil.Error, ValueError):
        pid, created = os.environ[STARTED_BY].split(":")
        process = psutil.Process(int(pid))
        return [process if abs(process.create_time() - float(created)) < SAME_S else None]
    return [None]


def _dvc_above() -> list[psutil.Process]:
    """Return the DVC that runs this stage: the nearest ancestor process named `dvc`."""
    with contextlib.suppress(psutil.Error):
        for parent in psutil.Process().parents():
            if any(Path(word).name == "dvc" for word in parent.cmdline()[:4]):
                return [parent]
    return []
