"""Progress of a running study, printed after each stage and shown in a line on a terminal."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

from fcos.config.params import Params
from fcos.errors import UserError
from fcos.running.dvc import ask_dvc, is_busy, is_project, refuse_dead_locks
from fcos.running.heartbeat import Heartbeat, read_heartbeats
from fcos.running.stages import RUNNING, Stage, all_stages, find_states, what_is_open
from fcos.running.time_left import time_left
from fcos.study.layout import Layout
from fcos.study.places import drop_dangling
from fcos.study.source_index import changed_text, source_changes
from fcos.visible import visible

REFRESH_S = 2.0


class StudyProgress:
    """Number of finished stages and time left, printed after each stage and shown in a line on a terminal."""

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
        # While another DVC runs, no stage has been checked.
        unknown: dict[str, str | None] = dict.fromkeys(stage.address for stage in self.stages)
        self.open = unknown if changed is None else what_is_open(self.stages, changed)
        self.begun: set[str] = set()
        self._lock = threading.Lock()
        self._write()

    def begin(self, address: str) -> None:
        """Record that DVC has begun a stage."""
        with self._lock:
            self.begun.add(address)
            self._write()

    def fail(self, address: str) -> None:
        """Record that the running stage at this address has failed."""
        with self._lock:
            self.begun.discard(address)
            self._write()

    def settle(self, address: str, *, ran: bool) -> None:
        """Record that a stage is done, because it ran or because nothing had changed."""
        with self._lock:
            if address not in self.open:
                return
            del self.open[address]
            self.begun.discard(address)
            self._write()
            if ran:
                self.print(self.headline())

    def headline(self, *, with_work: bool = False) -> str:
        """Return how many stages are done, the time left and, with `with_work`, the progress of running stages."""
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
        """Print a line, above the progress line on the terminal."""
        tqdm.write(visible(line), file=sys.stdout)
        sys.stdout.flush()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep a progress line on the terminal; does nothing if the output is not a terminal."""
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


def _unusable(why: str) -> UserError:
    hint = "change to the project folder and run: source .venv/bin/activate"
    if is_project():
        hint = "follow DVC's message; `dvc doctor` and `dvc status -v` show details"
    expected = "DVC in this Python, and a project with dvc.yaml and .dvc/"
    return UserError("DVC", "cannot be used here", found=why, expected=expected, hint=hint)
