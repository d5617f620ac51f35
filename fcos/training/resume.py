"""Temporary files of a training, used under its key only and by one process at a time, until DVC has the results."""

import contextlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fcos.errors import UserError
from fcos.files import link_or_copy, whole_file, write_json
from fcos.locks import has_no_locks
from fcos.model.checkpoint import DIVERGED, check_finite
from fcos.progress import say
from fcos.training.remote_states import RemoteStates

KEPT = 3  # number of unfinished states of a run under keys other than the current one


@dataclass(frozen=True)
class Scratch:
    """A temporary folder named after the run and the key of the training: RUN-KEY.

    The folder holds the last state, `state.pt`, of an unfinished training, or the files of a finished one as hard
    links. The links are needed because DVC deletes the outputs of a stage before it runs the stage again, even if DVC
    was only interrupted before it recorded that the stage had finished.

    Args:
        shared: whether the nodes of a cluster share the folder. Locks are of no use there: the engine starts a training
            again because it believes the first process dead, and that process may hold its lock for minutes, or not be
            seen to hold it. The last one to start then owns the training, and the other stops when it wants to write.
        remote: where the state and its owner are kept for the other nodes, if they share no folder.
    """

    folder: Path
    shared: bool = False
    remote: RemoteStates | None = None
    _mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def path(self) -> Path:
        """The path of the saved state."""
        return self.folder / "state.pt"

    @property
    def finished(self) -> Path:
        """The folder with the files of the finished training."""
        return self.folder / "finished"

    def save(self, state: dict[str, Any]) -> None:
        """Save the state of an unfinished training; if that fails, the previous state is kept and training continues.

        Raises:
            UserError: the weights are not finite, or another process has taken over the training.
        """
        check_finite(state["model"], f"training step {state['step']}", DIVERGED)
        self._check_owner()
        try:
            with whole_file(self.path) as part:
                torch.save(state, part)
            if self.remote:
                self.remote.put(self.path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's zip writer, without a reason
            free = shutil.disk_usage(self.folder).free >> 20
            found = str(error).partition("\n")[0][:200]
            say(
                f"warning: the state of step {state['step']} could not be saved ({found}; {free:,} MB are free at "
                f"{self.folder}); training continues; if stopped, it resumes from the previous state"
            )

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the last saved state with its tensors on `device`, or None if there is no readable one."""
        if self.remote:
            self.remote.get(self.path)
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            if missing := {"model", "optimizer", "history", "seconds", "validation", "step"} - state.keys():
                raise ValueError(f"without {', '.join(sorted(missing))}")
        except FileNotFoundError:
            return None
        except Exception as error:  # torch's reader raises many types
            found = (str(error).partition("\n")[0] or repr(error))[:200]
            say(f"warning: {self.path} is damaged ({found}); starting from the beginning")
            self.path.unlink()
            return None
        return state

    def finish(self, files: Sequence[Path]) -> None:
        """Keep the files of the finished training, not its state, and delete old files of the run's other keys.

        Raises:
            UserError: another process has taken over the training.
        """
        self._check_owner()
        part = self.folder / "finished.part"
        shutil.rmtree(part, ignore_errors=True)
        for file in files:
            link_or_copy(file, part / file.name)
        shutil.rmtree(self.finished, ignore_errors=True)
        part.replace(self.finished)
        self.path.unlink(missing_ok=True)
        self._drop_others()

    def put_back(self, folder: Path) -> bool:
        """Link the files of the finished training into `folder`; return False if the training has not finished."""
        if not self.finished.is_dir():
            return False
        for file in sorted(self.finished.iterdir()):
            link_or_copy(file, folder / file.name)
        return True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process at a time into the block; another one waits and prints which process it waits for.

        The operating system releases the lock of a process that has ended, even if it was killed. In a shared folder
        nobody waits: this process takes over.
        """
        if self.shared or self.remote:
            if owner := self._read_owner():
                say(f"taking over this training from {_named(owner)}")
            self._write_owner({**_this_process(), "mark": self._mark})
            try:
                yield
            finally:
                if self._read_owner().get("mark") == self._mark:
                    with contextlib.suppress(OSError):
                        self._write_owner({})
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        path = self.folder.with_name(f"{self.folder.name}.lock")
        lock = FileLock(path)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except Timeout:
                say(f"waiting: this training is already running in {_holder(path)}")
                stack.enter_context(lock.acquire())
            except OSError as error:
                if not has_no_locks(path, error):
                    raise
            path.write_text(json.dumps(_this_process()), encoding="utf-8")
            yield

    @property
    def _owner(self) -> Path:
        return self.folder / "owner.json"

    def _write_owner(self, owner: dict[str, Any]) -> None:
        write_json(self._owner, owner)
        if self.remote:
            self.remote.put(self._owner)

    def _read_owner(self) -> dict[str, Any]:
        """Return the process that owns the training, empty if there is none; this one if that cannot be read."""
        try:
            if self.remote:
                self._owner.unlink(missing_ok=True)
                self.remote.get(self._owner)
            owner = json.loads(self._owner.read_text(encoding="utf-8"))
            return owner if isinstance(owner, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:  # a shared file system that does not answer
            say(f"warning: it is not known whether another process has taken over this training ({error})")
            return {"mark": self._mark}

    def _check_owner(self) -> None:
        owner = self._read_owner() if self.shared or self.remote else {"mark": self._mark}
        if owner.get("mark") != self._mark:  # or gone: the other process has finished
            raise UserError(
                self.folder,
                "another process has taken over this training, so this one ends and writes nothing",
                found=_named(owner) if owner else "its results are recorded",
                hint="no action is needed: the engine assumed that this process was dead",
            )

    def _drop_others(self) -> None:
        """Delete the finished files of this run's other keys, and all but their `KEPT` newest unfinished states."""
        run = self.folder.name.rpartition("-")[0]
        others = [path for path in self.folder.parent.glob(f"{run}-*") if path.name.rpartition("-")[0] == run]
        others = [path for path in others if path.is_dir() and path != self.folder]
        unfinished = sorted(
            (path for path in others if (path / "state.pt").exists()), key=lambda path: path.stat().st_mtime
        )
        for path in {*others} - {*unfinished[-KEPT:]}:
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node()}


def _holder(lock: Path) -> str:
    """Return the process that holds the lock, as recorded in the lock file."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return _named(json.loads(lock.read_text(encoding="utf-8")))
    return "another process"


def _named(process: dict[str, Any]) -> str:
    return f"process {process.get('pid')} on {process.get('host')}"
