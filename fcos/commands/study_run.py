"""`fcos study run`: the active study by DVC, several trainings at a time.

One training of small pictures does not use all cores, and none while a process starts or writes; `dvc repro` runs one
stage after the other. So the stages of each run go through a DVC of their own, and a last `dvc repro` does the rest.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from fcos.commands.by_hand import drop_recorded, record_pending
from fcos.commands.children import Children
from fcos.commands.dvc import (
    BEGINS,
    SKIPPED,
    allow_without_git,
    ask_dvc,
    dvc,
    dvc_environment,
    holders,
    is_busy,
    is_project,
    refuse_dead_locks,
)
from fcos.commands.heartbeat import STUDY, Heartbeat, heartbeat, read_heartbeats
from fcos.commands.layout import Layout
from fcos.commands.parent import STARTED_BY, this_process
from fcos.commands.places import drop_dangling
from fcos.commands.source import changed_text, source_changes
from fcos.commands.stages import RUNNING, Stage, all_stages, find_states, stages_of, what_is_open
from fcos.commands.time_left import cost, time_left
from fcos.config import params
from fcos.config.params import Params
from fcos.errors import UserError
from fcos.memory import available_memory
from fcos.progress import duration, say

JOB_BYTES = 4 << 30  # for a training on a CPU; ResNet-101 at 128 pixels takes 2 GB
RETRY_S = 2.0
SAY_AGAIN_S = 60.0  # between two lines on what is waited for
REFRESH_S = 2.0
ACCELERATORS = ("/dev/nvidia0", "/dev/kfd")


def run_study(jobs: int | None) -> None:
    """Bring the active study up to date.

    Args:
        jobs: trainings at a time, each with its share of the cores; None: as many as cores and memory allow, and one
            at a time on a GPU.

    Raises:
        UserError: a stage failed; what the others made is kept.
    """
    study = params.read()
    jobs = min(jobs or suitable_jobs(), len(study.runs))
    allow_without_git()
    with heartbeat(study.study, STUDY) as beat:
        record_pending(study.study, all_stages(study))
        children, count = Children(), _Count(study, jobs, beat)
        if count.open:
            _bring_up_to_date(study, jobs, children, count)
        else:
            count.print(count.headline())
        drop_recorded(study.study)


def _bring_up_to_date(study: Params, jobs: int, children: Children, count: "_Count") -> None:
    if jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        say(f"{len(study.runs)} runs, {jobs} at a time, with {threads} {'thread' if threads == 1 else 'threads'} each")
        with count.shown():
            if not _reproduce([Stage(name).address for name in ("source", "prepare")], {}, "prepare", children, count):
                raise _failure("prepare")
            failed = _run_all(study, jobs, {"OMP_NUM_THREADS": str(threads)}, children, count)
        if failed:
            raise _failure(", ".join(failed))
    if not _reproduce([], {}, None, children, count):
        raise _failure("dvc repro")


def _failure(what: str) -> UserError:
    return UserError(
        "fcos study run",
        "a stage failed; what it said stands above",
        found=what,
        do="mend it and type `fcos study run` again: nothing that ended well runs twice",
    )


def _unusable(why: str) -> UserError:
    hint = "go to the folder of the project; source .venv/bin/activate"
    if is_project():
        hint = "do what DVC says; `dvc doctor` and `dvc status -v` say more"
    expected = "DVC in this Python, and a project with dvc.yaml and .dvc/"
    return UserError("DVC", "cannot be used here", found=why, expected=expected, do=hint)


class _Count:
    """How many stages are done, and how long the others will take: said after each, and in a line on a terminal."""

    def __init__(self, study: Params, jobs: int, beat: Heartbeat) -> None:
        self.study, self.jobs, self.beat = study, jobs, beat
        self.stages = all_stages(study)
        layout = Layout(study.study)
        drop_dangling(layout)
        refuse_dead_locks()
        changed, why_not = ask_dvc()
        if why_not and not is_busy(why_not):
            raise _unusable(why_not)
        if changed and Stage("source").address in changed and (changes := source_changes(layout)):
            self.print(changed_text(changes))
        # Where another DVC is at work, nobody has looked at any of them.
        unknown: dict[str, str | None] = dict.fromkeys(stage.address for stage in self.stages)
        self.open = unknown if changed is None else what_is_open(self.stages, changed)
        self.begun: set[str] = set()
        self._lock = threading.Lock()
        self._write()

    def begin(self, address: str) -> None:
        """DVC is at work at a stage."""
        with self._lock:
            self.begun.add(address)
            self._write()

    def fail(self, address: str) -> None:
        with self._lock:
            self.begun.discard(address)
            self._write()

    def settle(self, address: str, *, ran: bool) -> None:
        """A stage is done, by work or since nothing had changed."""
        with self._lock:
            if address not in self.open:
                return
            del self.open[address]
            self.begun.discard(address)
            self._write()
            if ran:
                self.print(self.headline())

    def headline(self, *, with_work: bool = False) -> str:
        beats = read_heartbeats(self.study.study)
        states = find_states(self.stages, Layout(self.study.study), beats, self.open, self.begun)
        total = len(self.stages)
        parts = [f"{total - len(self.open)} of {total} stages done"]
        parts += [str(time_left(self.study, states, jobs=self.jobs))] if self.open else []
        if with_work:
            at_work = [found for found in states if found.state == RUNNING and found.beat and found.beat.get("total")]
            parts += [f"{f.stage} {100 * f.beat['done'] // f.beat['total']} %" for f in at_work if f.beat]
        return ", ".join(parts)

    def print(self, line: str) -> None:
        """Print a line, above the one on the terminal."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep a line on the terminal that says how far all is; elsewhere nothing."""
        if not sys.stderr.isatty():
            yield
            return
        ended = threading.Event()
        with tqdm(bar_format="{desc}", dynamic_ncols=True) as line:

            def refresh() -> None:
                while not ended.wait(REFRESH_S):
                    line.set_description_str(self.headline(with_work=True)[: os.get_terminal_size(2).columns - 1])

            thread = threading.Thread(target=refresh, name="line", daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()

    def _write(self) -> None:
        self.beat.write(jobs=self.jobs, open=self.open, begun=sorted(self.begun))


def _run_all(study: Params, jobs: int, environment: Mapping[str, str], children: Children, count: _Count) -> list[str]:
    """Bring every run up to date; the names of those that failed. One that fails does not stop the others."""
    # The longest first: nobody waits at the end for one that began last.
    names = sorted(study.runs, key=lambda name: cost(study.runs[name]), reverse=True)

    def of_run(name: str) -> bool:
        addresses = [stage.address for stage in stages_of(name, study)]
        return _reproduce(addresses, environment, name, children, count)

    pool = ThreadPoolExecutor(jobs)
    try:
        done = list(pool.map(of_run, names))
    except BaseException:
        children.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is begun
    return [name for name, ended_well in zip(names, done, strict=True) if not ended_well]


def suitable_jobs() -> int:
    """Trainings at a time: on a CPU one for each core with memory for it, with an accelerator one."""
    if sys.platform == "darwin" or any(Path(device).exists() for device in ACCELERATORS):
        return 1
    return max(1, min(os.cpu_count() or 1, available_memory() // JOB_BYTES))


def _reproduce(
    stages: Sequence[str], environment: Mapping[str, str], label: str | None, children: Children, count: _Count
) -> bool:
    """Have DVC run the stages that are not up to date, or all there are; whether all ended well.

    Args:
        label: before each of its lines; None where it is alone, and what its stages say of themselves, bars too, goes
            straight to the terminal.
    """
    single = ["--single-item", *stages] if stages else []
    errors = None if label is None else subprocess.STDOUT
    waiting = _Waiting(label or "dvc", count)
    while True:
        busy, at_work, began = False, None, False
        with children.start(dvc("repro", *single), _environment(environment), errors=errors) as child:
            assert child.stdout is not None
            for line in child.stdout:
                begins, skipped = BEGINS.match(line), SKIPPED.match(line)
                if at_work and (begins or skipped):
                    count.settle(at_work, ran=True)
                    at_work = None
                busy |= is_busy(line)
                if line.strip() and not busy:
                    count.print(f"{label} | {line.rstrip()}" if label else line.rstrip())
                if begins:
                    at_work, began = begins[1], True
                    count.begin(at_work)
                elif skipped:
                    count.settle(skipped[1], ran=False)
        ended_well = child.returncode == 0
        if at_work and ended_well:
            count.settle(at_work, ran=True)
        elif at_work:
            count.fail(at_work)
        if not ended_well:
            refuse_dead_locks()
            if errors is None and not began:  # why, it told the terminal
                busy = bool(holders()) or is_busy(ask_dvc()[1])
        if ended_well or not busy:
            return ended_well
        waiting.say()
        time.sleep(RETRY_S)


class _Waiting:
    """Says whom a DVC is waited for, at first and now and then."""

    def __init__(self, label: str, count: _Count) -> None:
        self.label, self.count = label, count
        self.since: float | None = None
        self.last = 0.0

    def say(self) -> None:
        now = time.monotonic()
        if self.since is not None and now - self.last < SAY_AGAIN_S:
            return
        who = ", ".join(map(str, holders())) or "another DVC"
        so_far = f", for {duration(now - self.since)} now" if self.since is not None else ""
        self.count.print(f"{self.label} | waiting for another DVC to let go of the repository{so_far} ({who})")
        self.since, self.last = self.since or now, now


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**dvc_environment(more), STARTED_BY: this_process()}
