"""The end of a command whose DVC, or whose `fcos study run`, was killed: nobody would want what it makes."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import psutil

from fcos.progress import say

STARTED_BY = "FCOS_STARTED_BY"  # the process of `fcos study run`, for all that it starts
LOOK_S = 0.5
END_S = 30.0  # for this process to end by itself
SAME_S = 1.0  # the time of its beginning is reckoned from that of the machine's, which a clock that is set moves


def this_process() -> str:
    """A name of this process that no later one has: its number and when it began."""
    me = psutil.Process()
    return f"{me.pid}:{me.create_time()}"


def end_with_parents() -> None:
    """In a stage of DVC, end this process by SIGTERM soon after the DVC that started it, or its `fcos study run`.

    A library may swallow what the signal raises: after a while it is killed.

    A command typed by hand is left alone, also under nohup: it is no child of theirs.
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
    say("the process that started this command was killed: it ends too")
    os.kill(os.getpid(), signal.SIGTERM)
    look.wait(END_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_alive(process: psutil.Process | None) -> bool:
    with contextlib.suppress(psutil.Error):
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _started_by() -> list[psutil.Process | None]:
    """The `fcos study run` above all; None in its place where it is gone already."""
    if STARTED_BY not in os.environ:
        return []
    with contextlib.suppress(psutil.Error, ValueError):
        pid, created = os.environ[STARTED_BY].split(":")
        process = psutil.Process(int(pid))
        return [process if abs(process.create_time() - float(created)) < SAME_S else None]
    return [None]


def _dvc_above() -> list[psutil.Process]:
    """The DVC that runs this stage: the nearest process above of its name."""
    with contextlib.suppress(psutil.Error):
        for parent in psutil.Process().parents():
            if any(Path(word).name == "dvc" for word in parent.cmdline()[:4]):
                return [parent]
    return []
