"""The stages of a study and their states, found from the running commands, from DVC and from the files."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcos.config.params import Params
from fcos.running.heartbeat import HeartbeatContent
from fcos.study.layout import Layout
from fcos.study.run_files import written_by

# The stage of the same run whose outputs each stage reads. Every training also reads prepare, and the report
# reads every stage.
_READS = {"predict": "train", "evaluate": "predict", "nms_sweep": "predict", "tta": "train"}
_LAST_FILE_OF_STUDY: Mapping[str, Callable[[Layout], Path]] = {
    "source": lambda layout: layout.source / "index.json",
    "prepare": lambda layout: layout.data / "manifest.json",
    "report": lambda layout: layout.report / "index.html",
}
DONE, RUNNING, TO_DO, OUT_OF_DATE = "done", "running", "to do", "out of date"
INTERRUPTED, NOT_CHECKED = "interrupted", "not checked"
KILLED = "the process was killed (by a user, or out of memory)"


@dataclass(frozen=True)
class Stage:
    """A stage of one run, of one entry of `results`, or of the whole study."""

    name: str
    run_name: str | None = None

    @property
    def address(self) -> str:
        """Return DVC's name of the stage."""
        if self.name == "report":
            return self.name
        return f"stages/{self.name}/dvc.yaml:{self.name}" + (f"@{self.run_name}" if self.run_name else "")

    def last_file(self, layout: Layout) -> Path:
        """Return the file that the stage writes last."""
        if self.name == "results":
            return layout.run(str(self.run_name)) / "1" / written_by("evaluate")[-1].name
        if self.run_name:
            return layout.run(self.run_name) / written_by(self.name)[-1].name
        return _LAST_FILE_OF_STUDY[self.name](layout)

    def __str__(self) -> str:
        return f"{self.name} {self.run_name}" if self.run_name else self.name


@dataclass(frozen=True)
class StageState:
    """State of a stage."""

    stage: Stage
    state: str
    why: str | None = None
    beat: HeartbeatContent | None = None  # only for a running or interrupted stage


def stages_of(name: str, study: Params) -> list[Stage]:
    """Return the stages of a run, in order."""
    stages = ["train", "predict", "evaluate"]
    stages += ["tta"] if name in study.tta.runs else []
    stages += ["nms_sweep"] if name in study.nms_sweep.runs else []
    return [Stage(stage, name) for stage in stages]


def all_stages(study: Params) -> list[Stage]:
    """Return the stages of a study, in order."""
    of_runs = [stage for name in study.runs for stage in stages_of(name, study)]
    given = [Stage("results", name) for name in study.results]
    return [Stage("source"), Stage("prepare"), *of_runs, *given, Stage("report")]


def what_is_open(stages: Sequence[Stage], changed: Mapping[str, str]) -> dict[str, str | None]:
    """Return by address why each stage must run: those in `changed`, and those that read outputs of such a stage."""
    why: dict[str, str | None] = {}
    for stage in stages:
        pending = next((need for need in _needs(stage, stages) if need.address in why), None)
        if stage.address in changed:
            why[stage.address] = changed[stage.address]
        elif pending:
            why[stage.address] = f"reads what {pending} will write"
    return why


def find_states(
    stages: Sequence[Stage],
    layout: Layout,
    beats: Mapping[tuple[str, str | None], HeartbeatContent],
    still_open: Mapping[str, str | None],
    begun: Collection[str] = (),
) -> list[StageState]:
    """Return the state of each of `stages`.

    Args:
        beats: the heartbeats of commands, by stage and run.
        still_open: by address, why a stage must run; None if it was not checked.
        begun: addresses of stages that DVC has begun, even if their command has not started yet or has ended.
    """
    found = []
    for stage in stages:
        beat = beats.get((stage.name, stage.run_name))
        if stage.address in begun or (beat and beat["alive"]):
            found.append(StageState(stage, RUNNING, beat=beat if beat and beat["alive"] else None))
        else:
            found.append(_find(stage, layout, beat, still_open))
    return found


def _find(
    stage: Stage, layout: Layout, beat: HeartbeatContent | None, still_open: Mapping[str, str | None]
) -> StageState:
    if stage.address not in still_open:
        return StageState(stage, DONE)
    if beat:
        return StageState(stage, INTERRUPTED, beat.get("broke_off", KILLED), beat)
    if not stage.last_file(layout).exists():
        return StageState(stage, TO_DO)
    why = still_open[stage.address]
    return StageState(stage, OUT_OF_DATE if why else NOT_CHECKED, why)


def _needs(stage: Stage, stages: Sequence[Stage]) -> list[Stage]:
    if stage.name == "report":
        return [other for other in stages if other != stage]
    if stage.name == "prepare":
        return []  # DVC itself sees through the links that source makes
    if stage.name in ("train", "results"):
        return [Stage("prepare")]
    return [Stage(_READS[stage.name], stage.run_name)] if stage.run_name else []
