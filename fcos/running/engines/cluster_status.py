"""The jobs of a study on a cluster: their states from the engine, and the progress that each job reports."""

import time
from dataclasses import dataclass
from typing import Any

from fcos.errors import UserError
from fcos.progress import duration
from fcos.reporting.text_tables import left_table
from fcos.running.engines.follow import state_of
from fcos.running.engines.jobs_file import submitted
from fcos.running.engines.protocol import RUNNING, EngineSilent, Job, JobState
from fcos.running.heartbeat import HeartbeatContent, read_heartbeats

SILENT_S = 60.0  # a job without a report for this long is called silent; only the engine knows whether it is dead


@dataclass(frozen=True)
class ClusterStatus:
    """The jobs that were last submitted."""

    engine: str
    silent: str | None  # why the engine did not answer
    jobs: list[tuple[Job, JobState, HeartbeatContent | None]]

    @property
    def beats(self) -> dict[tuple[str, str | None], HeartbeatContent]:
        """Return the progress of the stages of running jobs, by stage and run."""
        return {
            (beat["stage"], beat["run"]): {**beat, "alive": True}
            for _, state, beat in self.jobs
            if beat and state.state == RUNNING
        }

    def lines(self) -> list[str]:
        """Return a headline, and a line for each job."""
        if self.silent:
            return [f"{self.engine} does not answer, but its jobs may still be running: {self.silent}"]
        rows = [[job.run_name, str(state), _progress(state, beat)] for job, state, beat in self.jobs]
        return [f"jobs on {self.engine}:", *left_table(rows).splitlines()]

    def as_json(self) -> dict[str, Any]:
        """Return the jobs as JSON for scripts."""
        return {
            "engine": self.engine,
            "silent": self.silent,
            "jobs": [
                {
                    "run": job.run_name,
                    "state": state.state,
                    "node": state.node,
                    "requeued": state.requeued,
                    "why": state.why,
                    "log": str(job.log),
                    "at_work": beat,
                }
                for job, state, beat in self.jobs
            ],
        }


def ask_cluster(study: str) -> ClusterStatus | None:
    """Return the jobs of the study that were last submitted, or None if there are none."""
    found = submitted(study)
    if found is None:
        return None
    beats = read_heartbeats(study, found.options.shared / study)
    of_run = {run: beat for (_, run), beat in sorted(beats.items(), key=lambda item: item[1]["updated"])}
    try:
        states = found.engine().states(found.jobs)
    except (EngineSilent, UserError) as error:
        return ClusterStatus(found.engine_name, str(error), [])
    jobs = [(job, state_of(job, states), _of(job, of_run.get(job.run_name))) for job in found.jobs]
    return ClusterStatus(found.engine_name, None, jobs)


def _of(job: Job, beat: HeartbeatContent | None) -> HeartbeatContent | None:
    """Return the report of a job, or None if it is one of an earlier job."""
    try:
        return beat if beat and beat["updated"] >= (job.folder / "job.json").stat().st_mtime else None
    except OSError:
        return None


def _progress(state: JobState, beat: HeartbeatContent | None) -> str:
    if state.state != RUNNING:
        return ""
    if beat is None:  # no stage is running
        return "making the environment, or transferring data"
    text = str(beat["stage"])
    if beat.get("total"):
        text += f" {beat['done']} of {beat['total']} {beat['unit']}"
    silent_s = time.time() - beat["updated"]
    return text + (f", silent for {duration(silent_s)}" if silent_s > SILENT_S else "")
