"""`runs/STUDY/.scratch/engine.json`: the jobs that were last submitted, for `fcos status` and `fcos study cancel`."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcos.config.section import validate
from fcos.errors import UserError
from fcos.files import read_json, write_json
from fcos.running.engines.choice import make_engine
from fcos.running.engines.options import EngineOptions
from fcos.running.engines.protocol import Engine, Job
from fcos.study.layout import Layout


@dataclass(frozen=True)
class Submitted:
    """Jobs of one study at one engine."""

    engine_name: str
    options: EngineOptions
    jobs: list[Job]

    def engine(self) -> Engine:
        """Connect to the engine.

        Raises:
            UserError: it cannot be used on this machine.
        """
        return make_engine(self.engine_name, self.options)

    def cancel(self) -> list[str]:
        """End the jobs that wait or run, and return their runs.

        Raises:
            UserError: the engine cannot be used on this machine.
            EngineSilent: the engine does not answer.
        """
        engine = self.engine()
        states = engine.states(self.jobs)
        ended = [job for job in self.jobs if job.run_name in states and states[job.run_name].is_open]
        for job in ended:
            job.mark_cancelled(True)
        engine.cancel(ended)
        return [job.run_name for job in ended]


def keep_jobs(study: str, engine: str, options: EngineOptions, jobs: Sequence[Job]) -> None:
    """Write down the jobs."""
    folders = {job.run_name: str(job.folder) for job in jobs}
    write_json(_path(study), {"engine": engine, "options": options.model_dump(), "jobs": folders})


def forget_jobs(study: str) -> None:
    """Delete the file once all results are here."""
    _path(study).unlink(missing_ok=True)


def submitted(study: str) -> Submitted | None:
    """Return the jobs that were last submitted, or None if there are none."""
    with contextlib.suppress(UserError, KeyError, TypeError, AttributeError):
        note = read_json(_path(study), hint="fcos study run")
        options = validate(note["options"], EngineOptions, path=_path(study))
        jobs = [Job(Path(folder).name, run, Path(folder)) for run, folder in note["jobs"].items()]
        return Submitted(str(note["engine"]), options, jobs)
    return None


def _path(study: str) -> Path:
    return Layout(study).own_unfinished / "engine.json"
