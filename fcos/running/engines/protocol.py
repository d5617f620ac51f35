"""What is asked of an engine, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CANCELLED, ENDED = "cancelled", "ended.json"  # files in the folder of a job
QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"


@dataclass(frozen=True)
class Job:
    """The stages of one run, as one job of an engine."""

    name: str  # names study, run and commit: an engine runs one job of a name at a time
    run_name: str
    folder: Path  # has job.json, the script and the log; every node can read it

    @property
    def command(self) -> list[str]:
        """What a node has to run; any Python 3 will do."""
        return ["python3", str(self.folder / "bootstrap.py"), str(self.folder / "job.json")]

    @property
    def is_cancelled(self) -> bool:
        """Whether the user has cancelled the job; an engine and the job itself then do not start it again."""
        return self._cancelled.exists()

    def mark_cancelled(self, yes: bool) -> None:
        """Record whether the user has cancelled the job."""
        if yes:
            self._cancelled.touch()
        else:
            self._cancelled.unlink(missing_ok=True)

    @property
    def _cancelled(self) -> Path:
        return self.folder / CANCELLED

    @property
    def log(self) -> Path:
        """The output of the job, to which a job that is started again appends."""
        return self.folder / "log"


@dataclass(frozen=True)
class JobState:
    """What an engine says of a job."""

    state: str
    node: str | None = None
    requeued: int = 0  # how often it was started again
    why: str | None = None  # why it waits, or how it failed

    @property
    def is_open(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in (QUEUED, RUNNING)

    def __str__(self) -> str:
        text = f"{self.state} on {self.node}" if self.node and self.state != QUEUED else self.state
        if self.why:
            text += f" ({self.why})"
        return text + (f", requeued {self.requeued} x" if self.requeued else "")


class Engine(Protocol):
    """Runs jobs somewhere. Jobs are known by name, so that whoever asks later need not have submitted them."""

    name: str
    poll_s: float  # interval between two questions

    def submit(self, job: Job) -> None:
        """Start the job as soon as there is room for it.

        Raises:
            UserError: the engine refused it.
        """

    def states(self, jobs: Sequence[Job]) -> Mapping[str, JobState]:
        """Return by run the states of those jobs that the engine knows.

        Raises:
            EngineSilent: the engine did not answer, which says nothing about its jobs.
        """

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End the jobs, waiting or running; those that have ended are left alone."""

    def log(self, job: Job) -> Path | None:
        """Return the file with the output of a job, or None if it is printed here."""


class EngineSilent(Exception):
    """An engine did not answer; its jobs may still be running."""
