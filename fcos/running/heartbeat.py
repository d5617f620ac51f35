"""Publish the progress of a running command in a small file that `fcos status` reads.

The file is in the study's `.scratch` folder, which DVC does not track. A command that succeeds deletes its file. A
running command holds a lock, which the system releases however the process ends, so a file without a lock belongs to
an interrupted command.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from fcos.errors import UserError
from fcos.files import read_json, write_json
from fcos.locks import NO_LOCKS, has_no_locks
from fcos.progress import Progress, watchers
from fcos.records import odd_value
from fcos.study.layout import Layout

EVERY_S = 1.0  # interval between two writes
LOCK_TRIES = 5
MOST = 2**31  # upper bound of every number in a heartbeat, process ids included
AT_WORK = "at-work"  # folder of the heartbeats
STUDY = "study"  # stands in place of a stage name in the heartbeat of `fcos study run` itself
HeartbeatContent = dict[str, Any]


class Heartbeat:
    """Heartbeat of one running stage of one run; errors in writing its file are ignored."""

    def __init__(self, path: Path, stage: str, run_name: str | None) -> None:
        self.path = path
        self.content: HeartbeatContent = {"stage": stage, "run": run_name, "pid": os.getpid(), "started": time.time()}
        self.write()

    def watch(self, progress: Progress) -> None:
        """Write the progress of the command, at most once per `EVERY_S` seconds and at its end."""
        if progress.done < progress.total and time.monotonic() - self.written < EVERY_S:
            return
        worked_s = time.monotonic() - progress.started
        self.write(
            what=progress.description,
            first=progress.first,
            done=progress.done,
            total=progress.total,
            unit=progress.unit,
            per_second=(progress.done - progress.first) / worked_s if worked_s > 0 else 0.0,
            note=progress.note,
        )

    def write(self, **more: Any) -> None:
        """Add `more` to the content and write the file."""
        self.content |= {**more, "updated": time.time()}
        self.written = time.monotonic()  # the clock may be set back
        with contextlib.suppress(OSError):
            write_json(self.path, self.content, durable=False)


@contextlib.contextmanager
def heartbeat(study: str, stage: str, run_name: str | None = None) -> Iterator[Heartbeat]:
    """Publish the progress of a stage until the block ends; the file is kept if the block fails."""
    path = _folder(study) / (f"{stage}@{run_name}.json" if run_name else f"{stage}.json")
    with _locked(path.with_suffix(".lock")):
        beat = Heartbeat(path, stage, run_name)
        watchers.append(beat.watch)
        try:
            yield beat
        except BaseException as error:
            beat.write(broke_off=_why(error))
            raise
        finally:
            watchers.remove(beat.watch)
        with contextlib.suppress(OSError):
            path.unlink()


def read_heartbeats(study: str, folder: Path | None = None) -> Mapping[tuple[str, str | None], HeartbeatContent]:
    """Return the heartbeats of the study's commands by stage and run; `alive` tells whether the command still runs.

    Args:
        folder: the study's folder for unfinished work; default: that of this process.
    """
    beats = {}
    for path in sorted((folder / AT_WORK if folder else _folder(study)).glob("*.json")):
        with contextlib.suppress(UserError):  # the command has ended in the meantime
            beat = read_json(path, hint="fcos status")
            if _is_beat(beat):
                beats[beat["stage"], beat["run"]] = {**beat, "alive": _is_alive(path.with_suffix(".lock"), beat)}
    return beats


def _is_beat(content: Any) -> bool:
    """Whether `content` is a complete heartbeat, not the remainder that a full disk leaves."""
    kinds: dict[str, Any] = {"stage": str, "run": str | None, "pid": int, "started": float, "updated": float}
    if isinstance(content, dict) and "what" in content:
        kinds |= {
            "what": str,
            "first": int,
            "done": int,
            "total": int,
            "unit": str,
            "per_second": float,
            "note": str | None,
        }
    if isinstance(content, dict) and "jobs" in content:  # the heartbeat of `fcos study run`
        kinds |= {"jobs": int, "open": dict[str, str | None], "begun": list[str]}
    if not isinstance(content, dict) or any(odd_value(content.get(key), kind) for key, kind in kinds.items()):
        return False
    return all(0 <= content.get(key, 0) < MOST for key in ("first", "done", "total", "jobs", "pid"))


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    return str(error).splitlines()[0] if isinstance(error, UserError) else type(error).__name__


def _folder(study: str) -> Path:
    return Layout(study).unfinished / AT_WORK


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(path.open("a"))
            for _ in range(LOCK_TRIES):  # a reader may hold it briefly; if all tries fail, the same stage runs twice
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.05)
        except OSError as error:  # the folder is not writable
            has_no_locks(path, error)
        yield


def _is_alive(path: Path, beat: HeartbeatContent) -> bool:
    """Whether the command of a heartbeat holds its lock; without file locks, whether its process is running here."""
    try:
        with path.open() as stream:  # a shared lock, which filelock lacks: two readers do not block each other
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in NO_LOCKS and psutil.pid_exists(beat["pid"])
    return False
