"""Run one `dvc repro` and follow its stages in its output."""

import subprocess
import time
from collections.abc import Mapping, Sequence

from fcos.errors import UserError
from fcos.progress import duration
from fcos.running.dvc import (
    RESTORE_ONLY,
    Began,
    Busy,
    Event,
    Skipped,
    ask_dvc,
    dvc,
    dvc_environment,
    event_of,
    holders,
    is_busy,
    refuse_dead_locks,
)
from fcos.running.parent import STARTED_BY, this_process
from fcos.running.processes import ChildProcesses
from fcos.running.stages import Stage, what_is_open
from fcos.running.study_progress import StudyProgress

RETRY_S = 2.0
SAY_AGAIN_S = 60.0  # interval between two messages about waiting for another DVC


def reproduce(
    stages: Sequence[str],
    environment: Mapping[str, str],
    label: str | None,
    children: ChildProcesses,
    progress: StudyProgress,
) -> bool:
    """Have DVC bring `stages`, or all stages if empty, up to date; return whether all succeeded.

    If DVC finds another DVC running, it is started again until the other one has ended.

    Args:
        label: prefix of each line of output; None for a single DVC, whose stages write straight to the terminal,
            progress bars included.

    Raises:
        UserError: a lock that will never be released.
    """
    command = dvc("repro", *(["--single-item", *stages] if stages else []))
    errors = None if label is None else subprocess.STDOUT
    waiting = _Waiting(label or "dvc", progress)
    while True:
        told = _OutputReader(label, progress)
        with children.start(command, _environment(environment), errors=errors) as child:
            assert child.stdout is not None
            for line in child.stdout:
                told.read(line)
        told.end(well=child.returncode == 0)
        if child.returncode == 0:
            return True
        refuse_dead_locks()
        unread = label is None and not told.began  # errors went to the terminal
        if not (told.busy or (unread and _is_another_at_work())):
            return False
        waiting.say()
        time.sleep(RETRY_S)


def prepare(children: ChildProcesses, progress: StudyProgress) -> list[str]:
    """Bring the data of the study up to date, before any run; return the addresses of their stages.

    Raises:
        UserError: a stage failed.
    """
    addresses = [Stage(name).address for name in ("source", "prepare")]
    if not reproduce(addresses, {}, "prepare", children, progress):
        raise stage_failed("prepare")
    return addresses


def stage_failed(what: str) -> UserError:
    """Return the error for a stage that failed in `what`: a run, or a DVC."""
    return UserError(
        "fcos study run",
        "a stage failed; see its output above",
        found=what,
        hint="fix the cause and run `fcos study run` again; finished stages are skipped",
    )


def restore(stages: Sequence[str], children: ChildProcesses, progress: StudyProgress) -> set[str]:
    """Have DVC restore stages from its caches and its remote, run none, and return the addresses that are now done.

    Args:
        stages: addresses, each after those whose outputs it reads.

    Raises:
        UserError: DVC failed before it came to any stage, as where its remote is away.
    """
    command = dvc("repro", "--pull", "--keep-going", "--single-item", *stages)
    with children.start(command, _environment({RESTORE_ONLY: "1"}), errors=subprocess.STDOUT) as child:
        assert child.stdout is not None
        lines = [line.rstrip() for line in child.stdout]
    # DVC prints nothing about a stage whose lock file existed and whose outputs it has pulled, so it is asked.
    changed, _ = ask_dvc()
    still_open = set(stages) if changed is None else what_is_open(progress.stages, changed)
    done = {address for address in stages if address not in still_open}
    for address in done:
        progress.settle(address, ran=False)
    if child.returncode and not any(event_of(line) for line in lines):
        hint = "check that DVC's remote answers: dvc status --cloud"
        raise UserError("dvc repro --pull", "failed", found="\n".join(lines[-5:]), hint=hint)
    return done


class _OutputReader:
    """Reads the output of one DVC and updates the progress of the study."""

    def __init__(self, label: str | None, progress: StudyProgress) -> None:
        self.label, self.progress = label, progress
        self.busy = self.began = False
        self._running: str | None = None  # address of the running stage

    def read(self, line: str) -> None:
        event = event_of(line)
        if isinstance(event, Began | Skipped):
            self.end(well=True)
        self.busy |= isinstance(event, Busy)
        if line.strip() and not self.busy:
            self.progress.print(f"{self.label} | {line.rstrip()}" if self.label else line.rstrip())
        self._follow(event)

    def _follow(self, event: Event | None) -> None:
        if isinstance(event, Began):
            self.began, self._running = True, event.address
            self.progress.begin(event.address)
        elif isinstance(event, Skipped):
            self.progress.settle(event.address, ran=False)

    def end(self, *, well: bool) -> None:
        """Report the end of the running stage, if there is one."""
        if self._running and well:
            self.progress.settle(self._running, ran=True)
        elif self._running:
            self.progress.fail(self._running)
        self._running = None


def _is_another_at_work() -> bool:
    """Whether another DVC is running, asked when a DVC has failed and its errors went to the terminal."""
    return bool(holders()) or is_busy(ask_dvc()[1])


class _Waiting:
    """Prints which process DVC is waiting for, at once and then every `SAY_AGAIN_S` seconds."""

    def __init__(self, label: str, progress: StudyProgress) -> None:
        self.label, self.progress = label, progress
        self.since: float | None = None
        self.last = 0.0

    def say(self) -> None:
        now = time.monotonic()
        if self.since is not None and now - self.last < SAY_AGAIN_S:
            return
        who = ", ".join(map(str, holders())) or "another DVC"
        so_far = f", for {duration(now - self.since)} now" if self.since is not None else ""
        self.progress.print(f"{self.label} | waiting for another DVC to release its lock{so_far} ({who})")
        self.since, self.last = self.since or now, now


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**dvc_environment(more), STARTED_BY: this_process()}
