"""Estimate the time left of a study from the durations of its finished stages and the speed of the running ones."""

import contextlib
import heapq
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fcos.config.params import Params
from fcos.config.runs import Run
from fcos.errors import UserError
from fcos.progress import duration
from fcos.running.stages import DONE, INTERRUPTED, NOT_CHECKED, RUNNING, StageState
from fcos.study.layout import Layout
from fcos.study.run_files import STAGES_OF_A_RUN, read_run_file, written_by

START_S = 5.0  # overhead of a stage (Python, torch, DVC); it dominates the eleven stages of smoke
# The files that record how long a stage took.
_FILES = {stage: [f.name for f in written_by(stage) if f.tells_seconds] for stage in STAGES_OF_A_RUN[1:]}
Network = tuple[str, int]


@dataclass(frozen=True)
class TimeLeft:
    """The estimated time left of a study."""

    seconds: float | None  # None: nothing has been measured to estimate from
    not_counted: list[str]  # kinds of stages without any measurement

    def __str__(self) -> str:
        if self.seconds is None:
            return "time left: unknown until a training has run for a few steps"
        more = f", {', '.join(self.not_counted)} not counted" if self.not_counted else ""
        return f"about {duration(self.seconds)} left{more}"


def cost(run: Run) -> int:
    """Return epochs times layers, to which the time of a training is proportional; 0 for imported weights."""
    epochs = 0 if run.checkpoint else run.train.warmup_epochs + (run.epochs or 0)
    return epochs * int(run.backbone.removeprefix("resnet"))


def longest_first(runs: Mapping[str, Run]) -> list[str]:
    """Return the names of the runs, the longest first, so that it does not run alone at the end."""
    return sorted(runs, key=lambda name: cost(runs[name]), reverse=True)


def time_left(study: Params, states: Sequence[StageState], *, jobs: int) -> TimeLeft:
    """Estimate the time left of the unfinished stages, with `jobs` parallel runs.

    The time of a training is estimated by epochs and layers from trainings of the same network, or from all if there
    are none. The time of another stage is estimated from stages of its kind.
    """
    layout = Layout(study.study)
    pace, took = _TrainingSpeed.of(study, states, layout), _took(study, layout)
    not_counted: dict[str, None] = {}
    of_run: dict[str | None, float] = defaultdict(float)
    working: set[str | None] = set()
    for found in states:
        if found.state in (DONE, NOT_CHECKED) or _has_ended(found, layout):
            continue
        name, run_name = found.stage.name, found.stage.run_name
        if name == "results":
            name, run_name = "evaluate", None  # which is the same work; never in parallel with others
        if found.state == RUNNING:
            working.add(run_name)
        if name == "train" and run_name:
            seconds = _by_own_speed(found) or pace.seconds(study.runs[run_name])
            if seconds is None:
                return TimeLeft(None, [])
            of_run[run_name] += START_S + seconds * _share_left(found, layout)
        elif took[name]:
            of_run[run_name] += START_S + max(0.0, fmean(took[name]) - _since(found))
        else:
            of_run[run_name] += START_S
            not_counted[found.stage.name] = None
    alone = of_run.pop(None, 0.0)  # prepare, results and report, which never run in parallel with others
    order = sorted(of_run, key=lambda run_name: (run_name not in working, -of_run[run_name]))
    return TimeLeft(alone + makespan([of_run[run_name] for run_name in order], jobs), list(not_counted))


class _TrainingSpeed:
    """Seconds of training per unit of cost, by network."""

    def __init__(self) -> None:
        self._of: dict[Network, list[tuple[float, float]]] = defaultdict(list)  # (seconds, cost)

    @staticmethod
    def of(study: Params, states: Sequence[StageState], layout: Layout) -> "_TrainingSpeed":
        """Measure the finished, running and interrupted trainings of the study."""
        pace = _TrainingSpeed()
        for name in study.runs:
            summary = _read(layout, name, "train.json")
            if summary and "training_seconds" in summary["provenance"]:  # absent for imported weights
                with contextlib.suppress(KeyError, ValueError):  # written by another version with other settings
                    was = Run.model_validate({"role": None, **summary["params"]})
                    pace.add(was, summary["provenance"]["training_seconds"], cost(was))
        for found in states:
            if found.stage.name == "train" and found.stage.run_name and (speed := _speed(found.beat)) and found.beat:
                run, worked = study.runs[found.stage.run_name], found.beat["done"] - found.beat["first"]
                pace.add(run, worked / speed, cost(run) * worked / found.beat["total"])
        return pace

    def add(self, run: Run, seconds: float, of_cost: float) -> None:
        self._of[run.backbone, run.num_convs].append((seconds, of_cost))

    def seconds(self, run: Run) -> float | None:
        """Return the seconds of a whole training, or None if none has been measured; weighted by their duration."""
        if not cost(run):
            return 0.0
        measured = self._of.get((run.backbone, run.num_convs)) or [
            pair for pairs in self._of.values() for pair in pairs
        ]
        total = sum(of_cost for _, of_cost in measured)
        return cost(run) * sum(seconds for seconds, _ in measured) / total if total else None


def _took(study: Params, layout: Layout) -> dict[str, list[float]]:
    """Return the seconds of the stages other than trainings, by kind."""
    took: dict[str, list[float]] = defaultdict(list)
    for name in study.runs:
        for stage, files in _FILES.items():
            contents = [content for file in files if (content := _read(layout, name, file))]
            if len(contents) == len(files):
                took[stage].append(sum(content["provenance"].get("seconds", 0.0) for content in contents))
    return took


def _read(layout: Layout, run_name: str, file: str) -> dict[str, Any] | None:
    """Return a JSON file of a run, or None if it is missing or has no provenance."""
    try:
        content: dict[str, Any] = read_run_file(layout.run(run_name) / file, ["provenance"])
    except UserError:
        return None
    return content if isinstance(content.get("provenance"), dict) else None


def _has_ended(found: StageState, layout: Layout) -> bool:
    """Whether the command of a running stage has written its last file; DVC deletes older ones before it starts."""
    return found.state == RUNNING and found.beat is None and found.stage.last_file(layout).exists()


def _speed(beat: Mapping[str, Any] | None) -> float:
    """Return the steps per second of a training; 0 while unknown or while it is still loading images."""
    return max(0.0, float(beat["per_second"])) if beat and beat.get("what") == "train" and beat["total"] else 0.0


def _by_own_speed(found: StageState) -> float | None:
    """Return the total seconds of a running training at its current speed, or None if unknown."""
    speed = _speed(found.beat)
    return found.beat["total"] / speed if found.state == RUNNING and found.beat and speed else None


def _share_left(found: StageState, layout: Layout) -> float:
    """Return the share of a training that is left, for a running one or an interrupted one with a saved state."""
    if not found.beat or not _speed(found.beat):  # an entry without progress has no total yet
        return 1.0
    saved = layout.runs.glob(f".scratch/{found.stage.run_name}-*/state.pt")
    if found.state == INTERRUPTED and not any(saved):
        return 1.0
    return 1.0 - float(found.beat["done"]) / float(found.beat["total"])


def _since(found: StageState) -> float:
    """Return the seconds that a stage has been running."""
    return max(0.0, time.time() - float(found.beat["started"])) if found.beat and found.state == RUNNING else 0.0


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """Return when the last job ends if each starts as soon as one of `jobs` slots is free."""
    free = [0.0] * jobs
    for of_one in seconds:
        heapq.heapreplace(free, free[0] + of_one)
    return max(free)
