"""`fcos status`: the state of each stage of the active study, and the estimated time left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.config import params
from fcos.config.params import Params
from fcos.progress import duration
from fcos.reporting.text_tables import left_table
from fcos.running.dvc import ask_dvc
from fcos.running.engines.cluster_status import ClusterStatus, ask_cluster
from fcos.running.heartbeat import STUDY, HeartbeatContent, read_heartbeats
from fcos.running.jobs import suitable_jobs
from fcos.running.stages import (
    DONE,
    INTERRUPTED,
    NOT_CHECKED,
    RUNNING,
    Stage,
    StageState,
    all_stages,
    find_states,
    what_is_open,
)
from fcos.running.time_left import TimeLeft, time_left
from fcos.study.layout import Layout
from fcos.study.places import drop_dangling
from fcos.study.run_files import STAGES_OF_A_RUN
from fcos.study.source_index import source_changes
from fcos.visible import visible

REFRESH_S = 3.0
MOST_REASONS = 8
# DVC writes or reads these files, so its answer cannot change while they do not.
_WATCHED = ("params.yaml", "dvc.lock", "stages/*/dvc.lock", "fcos/**/*.py")


@dataclass(frozen=True)
class Status:
    """State of the active study."""

    study: str
    jobs: int
    states: list[StageState]
    left: TimeLeft
    unasked: str | None  # why DVC was not asked what is up to date
    whole: HeartbeatContent | None  # heartbeat of `fcos study run`, running or interrupted
    cluster: ClusterStatus | None = None  # the jobs last submitted

    def count(self, state: str) -> int:
        """Return the number of stages in a state."""
        return sum(found.state == state for found in self.states)

    @property
    def has_runs(self) -> bool:
        """Whether the study has runs, some of which may be done at a time."""
        return any(found.stage.name in STAGES_OF_A_RUN for found in self.states)

    @property
    def at_work(self) -> bool:
        """Whether a stage or `fcos study run` is running."""
        return bool(self.count(RUNNING) or (self.whole and self.whole["alive"]))

    @property
    def headline(self) -> str:
        """How many stages are done, and the time left if there are others."""
        unknown = self.count(NOT_CHECKED)
        done = f"{self.count(DONE)} of {len(self.states)} stages done" + (f", {unknown} not checked" if unknown else "")
        return done if self.count(DONE) + unknown == len(self.states) else f"{done}, {self.left}"


class StatusReader:
    """Reads the state of the active study; cheap to call often, since slow DVC is asked only after a change."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self._answer: tuple[dict[str, str] | None, str | None] = (None, "not asked (--quick)")
        self._asked_at: tuple[list[tuple[str, int]], str] | None = None

    def __call__(self) -> Status:
        study = params.read()
        layout = Layout(study.study)
        stages = all_stages(study)
        beats = dict(read_heartbeats(study.study))
        whole = beats.pop((STUDY, None), None)
        at_work = [beat for beat in beats.values() if beat["alive"]]
        unasked, begun = None, []
        if whole and whole["alive"] and "open" in whole:
            still_open, begun = whole["open"], whole["begun"]
        elif whole and whole["alive"]:
            still_open, unasked = dict.fromkeys(stage.address for stage in stages), "`fcos study run` is checking"
        else:
            changed, unasked = (None, "it is running") if at_work else self._ask(layout)
            addresses: list[str] = [stage.address for stage in stages]
            still_open = dict.fromkeys(addresses) if changed is None else what_is_open(stages, changed)
        cluster = ask_cluster(study.study)
        states = find_states(stages, layout, {**beats, **(cluster.beats if cluster else {})}, still_open, begun)
        jobs = _jobs(study, whole, at_work)
        return Status(study.study, jobs, states, time_left(study, states, jobs=jobs), unasked, whole, cluster)

    def _ask(self, layout: Layout) -> tuple[dict[str, str] | None, str | None]:
        """Return DVC's answer, with the changes of the source added."""
        if self.quick:
            return self._answer
        drop_dangling(layout)
        changes = source_changes(layout)
        seen = sorted((str(path), path.stat().st_mtime_ns) for glob in _WATCHED for path in Path().glob(glob))
        now = (seen, str(changes))
        if now != self._asked_at:
            self._answer, self._asked_at = ask_dvc(), now
        changed, why_not = self._answer
        source = Stage("source").address
        return {**changed, source: str(changes)} if changed and source in changed and changes else changed, why_not


def _jobs(study: Params, whole: HeartbeatContent | None, at_work: Sequence[HeartbeatContent]) -> int:
    """Return the number of parallel runs: reported by `fcos study run`, or those running, or what it would start."""
    if whole and whole["alive"] and "jobs" in whole:
        return int(whole["jobs"])
    return len(at_work) or max(1, min(suitable_jobs(study.runs.values()), len(study.runs)))


def watch(look: Callable[[], Status], show: Callable[[str], None], *, terminal: bool) -> None:
    """Show the status repeatedly until interrupted; on a terminal, each status replaces the previous one."""
    while True:
        status = look()
        text = visible(status_text(status))
        if terminal:  # clear each line to its end and everything below the last line, to avoid flicker
            text = "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in text.splitlines()) + "\x1b[J"
        show(text)
        time.sleep(REFRESH_S)


def status_text(status: Status) -> str:
    """Return the status as text: a headline, a table, and a line for each stage that is running or has a reason."""
    lines = [f"study {status.study}: {status.headline}"]
    if status.count(DONE) < len(status.states) and status.has_runs:
        at_a_time = "one run" if status.jobs == 1 else f"{status.jobs} runs"
        lines[0] += f" ({at_a_time} at a time)"
    lines += ["", _table(status.states), ""]
    lines += [f"{found.stage}: {_progress(found.beat)}" for found in status.states if found.state == RUNNING]
    odd = [found for found in status.states if found.state == INTERRUPTED or (found.why and not status.at_work)]
    lines += [f"{found.stage}: {found.state}: {_reason(found)}" for found in odd[:MOST_REASONS]]
    if len(odd) > MOST_REASONS:
        lines.append(f"and {len(odd) - MOST_REASONS} more: fcos status --json")
    if status.cluster:
        lines += ["", *status.cluster.lines()]
    if status.count(NOT_CHECKED):
        lines.append(
            f"not checked: outputs exist, but DVC was not asked whether they are up to date ({status.unasked})"
        )
    if not status.at_work and status.count(DONE) < len(status.states):
        again = "to resume" if status.whole or status.count(INTERRUPTED) else "to run what is left"
        engine = f" --engine {status.cluster.engine}" if status.cluster else ""
        lines.append(f"{again}: fcos study run{engine}")
    return "\n".join(lines).rstrip()


def _table(states: Sequence[StageState]) -> str:
    """Return the table of runs by stages, between the stages of the whole study."""
    of = {(found.stage.name, found.stage.run_name): _cell(found) for found in states}
    given = [[str(found.stage), _cell(found)] for found in states if found.stage.name == "results"]
    named = [found.stage.run_name for found in states if found.stage.name in STAGES_OF_A_RUN]
    runs = [name for name in dict.fromkeys(named) if name]
    columns = [column for column in STAGES_OF_A_RUN if any((column, name) in of for name in runs)]
    rows = [[name, *(of.get((column, name), "-") for column in columns)] for name in runs]
    rows = [["", *columns], *rows] if runs else []
    first = [[name, of[name, None]] for name in ("source", "prepare")]
    return left_table([*first, *rows, *given, ["report", of["report", None]]])


def _cell(found: StageState) -> str:
    total = found.beat.get("total") if found.beat else None
    if found.state != RUNNING or not total or not found.beat:
        return found.state
    return f"{found.state} {100 * found.beat['done'] // total} %"


def _progress(beat: HeartbeatContent | None) -> str:
    """Return progress, speed and time left of a running command."""
    if beat is None:
        return "DVC is running"
    if not beat.get("total"):
        return f"for {duration(max(0.0, time.time() - beat['started']))}"
    parts = [f"{beat['what']}, {beat['done']} of {beat['total']} {beat['unit']}"]
    if beat["per_second"]:
        parts.append(f"{beat['per_second']:.3g} {beat['unit']}/s")
        parts.append(f"{duration((beat['total'] - beat['done']) / beat['per_second'])} left")
    return ", ".join([*parts, *filter(None, [beat["note"]])])


def _reason(found: StageState) -> str:
    if found.beat is None:
        return str(found.why)
    at = f" at {found.beat['done']} of {found.beat['total']} {found.beat['unit']}" if found.beat.get("total") else ""
    return f"{found.why}{at}"


def status_json(status: Status) -> dict[str, Any]:
    """Return the status as JSON for scripts."""
    return {
        "study": status.study,
        "done": status.count(DONE),
        "total": len(status.states),
        "jobs": status.jobs,
        "seconds_left": status.left.seconds,
        "not_counted": status.left.not_counted,
        "dvc": status.unasked or "asked",
        "cluster": status.cluster.as_json() if status.cluster else None,
        "stages": [
            {
                "stage": found.stage.name,
                "run": found.stage.run_name,
                "state": found.state,
                "why": found.why,
                "at_work": found.beat,
            }
            for found in status.states
        ],
    }
