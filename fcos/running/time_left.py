"""The time left of a study, from what its stages took and the speed of the running ones."""

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
from fcos.running.stages import DONE, INTERRUPTED, NOT_CHECKED, RUNNING, Found
from fcos.study.layout import Layout
from fcos.study.run_files import STAGES_OF_A_RUN, read_run_file, written_by

START_S = 5.0  # of a stage: Python, torch and DVC around it; smoke has eleven of little else
# Where a stage says how long it took.
_FILES = {stage: [f.name for f in written_by(stage) if f.tells_seconds] for stage in STAGES_OF_A_RUN[1:]}
Network = tuple[str, int]


@dataclass(frozen=True)
class TimeLeft:
    seconds: float | None  # None: nothing that could say has been measured
    not_counted: list[str]  # kinds of stages of which none has been measured

    def __str__(self) -> str:
        if self.seconds is None:
            return "time left: unknown until a training has run for a few steps"
        more = f", {', '.join(self.not_counted)} not counted" if self.not_counted else ""
        return f"about {duration(self.seconds)} left{more}"


def cost(run: Run) -> int:
    """Epochs times layers, which a training's time goes along with; nothing for weights that are imported."""
    epochs = 0 if run.checkpoint else run.train.warmup_epochs + (run.epochs or 0)
    return epochs * int(run.backbone.removeprefix("resnet"))


def time_left(study: Params, states: Sequence[Found], *, jobs: int) -> TimeLeft:
    """What is left of the stages that are not done, `jobs` runs at a time.

    A training is reckoned from those with the same network, or else from all, by epochs and layers; another stage from
    those of its kind.
    """
    layout = Layout(study.study)
    pace, took = _Pace.of(study, states, layout), _took(study, layout)
    not_counted: dict[str, None] = {}
    of_run: dict[str | None, float] = defaultdict(float)
    working: set[str | None] = set()
    for found in states:
        if found.state in (DONE, NOT_CHECKED) or _has_ended(found, layout):
            continue
        name, run_name = found.stage.name, found.stage.run_name
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
            not_counted[name] = None
    alone = of_run.pop(None, 0.0)  # prepare and report, beside which nothing runs
    order = sorted(of_run, key=lambda run_name: (run_name not in working, -of_run[run_name]))
    return TimeLeft(alone + _makespan([of_run[run_name] for run_name in order], jobs), list(not_counted))


class _Pace:
    """Seconds that trainings take for each unit of cost, by network."""

    def __init__(self) -> None:
        self._of: dict[Network, list[tuple[float, float]]] = defaultdict(list)  # (seconds, cost)

    @staticmethod
    def of(study: Params, states: Sequence[Found], layout: Layout) -> "_Pace":
        """From the finished trainings of the study, and the running or interrupted ones."""
        pace = _Pace()
        for name in study.runs:
            summary = _read(layout, name, "train.json")
            if summary and "training_seconds" in summary["provenance"]:  # imported weights took none
                with contextlib.suppress(KeyError, ValueError):  # of another version, whose settings were others
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
        """Of a whole training; None where none has been measured. Long ones say more than short ones."""
        if not cost(run):
            return 0.0
        measured = self._of.get((run.backbone, run.num_convs)) or [
            pair for pairs in self._of.values() for pair in pairs
        ]
        total = sum(of_cost for _, of_cost in measured)
        return cost(run) * sum(seconds for seconds, _ in measured) / total if total else None


def _took(study: Params, layout: Layout) -> dict[str, list[float]]:
    """Seconds of the stages other than trainings, by kind."""
    took: dict[str, list[float]] = defaultdict(list)
    for name in study.runs:
        for stage, files in _FILES.items():
            contents = [content for file in files if (content := _read(layout, name, file))]
            if len(contents) == len(files):
                took[stage].append(sum(content["provenance"].get("seconds", 0.0) for content in contents))
    return took


def _read(layout: Layout, run_name: str, file: str) -> dict[str, Any] | None:
    """A JSON file of a run, where it is there and says where it comes from."""
    try:
        content: dict[str, Any] = read_run_file(layout.run(run_name) / file, ["provenance"])
    except UserError:
        return None
    return content if isinstance(content.get("provenance"), dict) else None


def _has_ended(found: Found, layout: Layout) -> bool:
    """Whether the command of a running stage has ended; DVC removed the earlier files before it began."""
    return found.state == RUNNING and found.beat is None and found.stage.last_file(layout).exists()


def _speed(beat: Mapping[str, Any] | None) -> float:
    """Steps a second of a training; 0 while it is not known, or still about its images."""
    return max(0.0, float(beat["per_second"])) if beat and beat.get("what") == "train" and beat["total"] else 0.0


def _by_own_speed(found: Found) -> float | None:
    """Seconds that a running training takes in all, at its own speed."""
    speed = _speed(found.beat)
    return found.beat["total"] / speed if found.state == RUNNING and found.beat and speed else None


def _share_left(found: Found, layout: Layout) -> float:
    """Time left of a running training, or of an interrupted one that has a saved state."""
    if not found.beat or not found.beat["total"] or not _speed(found.beat):
        return 1.0
    saved = layout.runs.glob(f".scratch/{found.stage.run_name}-*/state.pt")
    if found.state == INTERRUPTED and not any(saved):
        return 1.0
    return 1.0 - float(found.beat["done"]) / float(found.beat["total"])


def _since(found: Found) -> float:
    """Seconds that a stage has been running."""
    return max(0.0, time.time() - float(found.beat["started"])) if found.beat and found.state == RUNNING else 0.0


def _makespan(seconds: Iterable[float], jobs: int) -> float:
    """When the last ends if each begins as soon as one of `jobs` is free."""
    free = [0.0] * jobs
    for of_one in seconds:
        heapq.heapreplace(free, free[0] + of_one)
    return max(free)
