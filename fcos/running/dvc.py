"""Call DVC as a program: run its commands, parse its output (as of 3.67), and find the holders of its locks."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from fcos.errors import UserError
from fcos.progress import say

_BEGAN = re.compile(r"Running stage '(.+)'")
_SKIPPED = re.compile(r"Stage '(.+)' (?:didn't change|is cached)")
# DVC gives up on a lock after three seconds, but another DVC may take longer to hash weights.
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
RESTORE_ONLY = "FCOS_RESTORE_ONLY"  # makes the command of a stage fail at once: what DVC cannot restore is not run
LOCK, RWLOCK = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")
READ_TRIES = 20
_MALFORMED = (ValueError, AttributeError, TypeError, KeyError)  # raised by JSON of an unexpected form
PATIENCE_S = 20.0  # wait before a message says that DVC has not answered yet


@dataclass(frozen=True)
class Began:
    """The command of a stage is about to run; the previous stage has ended."""

    address: str


@dataclass(frozen=True)
class Skipped:
    """The inputs of a stage have not changed, or its outputs were restored from the cache."""

    address: str


@dataclass(frozen=True)
class Busy:
    """Another DVC holds a lock."""


Event = Began | Skipped | Busy


def event_of(line: str) -> Event | None:
    """Return the event that a line of `dvc repro` announces, or None if the line is not about a stage."""
    if began := _BEGAN.match(line):
        return Began(began[1])
    if skipped := _SKIPPED.match(line):
        return Skipped(skipped[1])
    return Busy() if is_busy(line) else None


def dvc(*arguments: str) -> list[str]:
    """Return the command line that runs DVC with this Python."""
    return [sys.executable, "-m", "dvc", *arguments]


def dvc_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this environment and `more` with this Python first on the path, because stages call `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **more, "PATH": path}


def is_project() -> bool:
    """Whether this folder is a DVC project."""
    return Path(".dvc").is_dir() and Path("dvc.yaml").is_file()


def ask_dvc() -> tuple[dict[str, str] | None, str | None]:
    """Return by address why DVC would run each stage; or None and the reason why DVC could not be asked."""
    done = _run("status", "--json", waiting="waiting for `dvc status`: DVC is hashing new files")
    with contextlib.suppress(json.JSONDecodeError):
        if done.returncode == 0:
            return {address: _why(changes) for address, changes in json.loads(done.stdout).items()}, None
    return None, _error(done.stderr)


def push(addresses: Sequence[str]) -> str | None:
    """Push the outputs of stages and their entries of the run cache; return why that failed, or None."""
    done = _run("push", "--run-cache", *addresses, waiting="waiting for `dvc push`")
    return None if done.returncode == 0 else _error(done.stderr)


def default_remote() -> dict[str, str]:
    """Return the settings of DVC's default remote, with its name as `name`; empty if there is none."""
    done = _run("config", "--list", waiting="waiting for `dvc config`")
    pairs = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    name = pairs.get("core.remote")
    start = f"remote.{name}."
    return {"name": name, **_after(start, pairs)} if name else {}


def _after(start: str, pairs: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(start): value for key, value in pairs.items() if key.startswith(start)}


def read_dvc_yaml(path: Path) -> Any:
    """Return what a dvc.yaml or dvc.lock file says; libyaml takes a quarter of the time of PyYAML's own parser."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506, both are safe


def recorded_outputs(lock: Path) -> list[tuple[Path, str]]:
    """Return the outputs that a lock file lists, each with its md5, which ends in `.dir` for a folder."""
    try:
        locked = read_dvc_yaml(lock) or {}
        outputs = [out for stage in locked.get("stages", {}).values() for out in stage.get("outs", [])]
        return [(Path(out["path"]), str(out["md5"])) for out in outputs if "md5" in out]
    except OSError:
        return []
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError):
        hint = f"git checkout -- {lock}, or delete it: `fcos study run` creates it again"
        raise UserError(lock, "is damaged", expected="what DVC wrote", hint=hint) from None


def commit(addresses: Sequence[str]) -> str | None:
    """Have DVC record the existing files as outputs of the stages; return why it could not, or None."""
    done = _run("commit", "--force", *addresses, waiting="waiting for `dvc commit`: DVC is hashing the outputs")
    return None if done.returncode == 0 else _error(done.stderr)


def _run(*arguments: str, waiting: str) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        dvc(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dvc_environment({}),
    )
    with process:
        try:
            output, errors = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            say(waiting)
            output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _error(text: str) -> str:
    """Return DVC's error message: its output from the first line marked as an error."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if "ERROR" in line), len(lines) - 1)
    said = [line for line in lines[max(first, 0) :] if "dvc.org/support" not in line]
    return "\n".join(said[:4]).replace("ERROR: ", "", 1) or "nothing"


def _why(changes: Sequence[Any]) -> str:
    """Return DVC's list of changes of a stage as one line."""
    named = []
    for change in changes:
        if not isinstance(change, Mapping):
            named.append(str(change))
            continue
        for path, how in [item for part in change.values() for item in part.items()]:
            keys = [f"{path} {key} {what}" for key, what in how.items()] if isinstance(how, Mapping) else []
            named += keys or [f"{path} {how}"]
    return ", ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "")


@dataclass(frozen=True)
class Holder:
    """A process that is listed in one of DVC's lock files."""

    pid: int
    command: str  # command line of the running process

    @property
    def is_dvc(self) -> bool:
        """Whether the process that holds the lock is a DVC."""
        return re.search(r"(^|[\s/])dvc(\s|$)", self.command) is not None

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command[:80]}"


def is_busy(said: str | None) -> bool:
    """Whether DVC reports that another DVC is running."""
    return said is not None and any(sign in said for sign in _BUSY)


def holders() -> list[Holder]:
    """Return the running processes that DVC's lock files list."""
    with contextlib.suppress(*_MALFORMED):
        return _living([*_pid_of_lock(), *_pids_of_rwlock()])
    return []


def refuse_dead_locks() -> None:
    """Raise an error if waiting for DVC's lock would never end.

    Raises:
        UserError: the lock file is damaged or names a process that is not DVC; with the process, if any, and a hint.
    """
    cure = f"if no DVC is running: rm {RWLOCK}"
    for _ in range(READ_TRIES):  # a running DVC may be writing it
        with contextlib.suppress(*_MALFORMED):
            pids = _pids_of_rwlock()
            break
        time.sleep(0.1)
    else:
        problem = "is damaged and blocks DVC: a DVC process was killed while writing it"
        raise UserError(RWLOCK, problem, found=f"{RWLOCK.stat().st_size} bytes", expected="JSON", hint=cure)
    strangers = [holder for holder in _living(pids) if not holder.is_dvc]
    if strangers:
        problem = "lists a process that is not DVC: DVC was killed, and its process id was reused"
        raise UserError(RWLOCK, problem, found=", ".join(map(str, strangers)), expected="processes of DVC", hint=cure)


def _living(pids: Iterable[int]) -> list[Holder]:
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found[pid] = Holder(pid, " ".join(psutil.Process(pid).cmdline()))
    return list(found.values())


def _pid_of_lock() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):
        yield int(LOCK.read_text(encoding="utf-8").split()[0])


def _pids_of_rwlock() -> list[int]:
    """Return the processes that hold a path; raises one of `_MALFORMED` if the JSON has an unexpected form."""
    if not RWLOCK.is_file():
        return []
    content = json.loads(RWLOCK.read_text(encoding="utf-8"))
    writers, readers = content.get("write", {}).values(), content.get("read", {}).values()
    return sorted({int(info["pid"]) for info in [*writers, *(info for part in readers for info in part)] if info})


def allow_without_git() -> None:
    """Let DVC work outside a git repository, for example in an unpacked archive."""
    config = Path(".dvc/config.local")
    said = config.is_file() and "no_scm" in config.read_text(encoding="utf-8")
    if Path(".dvc").is_dir() and not said and not _is_tracked():
        subprocess.run(dvc("config", "--local", "core.no_scm", "true"), check=False, capture_output=True)


def _is_tracked() -> bool:
    """Whether git tracks this project, in its own repository or as part of a larger one."""
    try:
        command = ["git", "ls-files", "--error-unmatch", "dvc.yaml"]
        tracked = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
    return tracked or Path(".git").exists()
