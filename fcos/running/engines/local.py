"""This machine: several runs at a time, each by its own DVC with its share of the cores, or with a GPU of its own."""

import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fcos.config.params import Params
from fcos.running.engines.protocol import DONE, FAILED, QUEUED, RUNNING, Job, JobState
from fcos.running.processes import ChildProcesses
from fcos.running.reproduce import reproduce
from fcos.running.stages import stages_of
from fcos.running.study_progress import StudyProgress


class LocalEngine:
    """Runs each job in a thread that follows the output of its DVC; the jobs end with this process."""

    name = "local"
    poll_s = 0.1

    def __init__(
        self, study: Params, slots: Sequence[Mapping[str, str]], children: ChildProcesses, progress: StudyProgress
    ) -> None:
        """Take the environment of each slot; there are as many jobs at a time as slots."""
        self.study, self.children, self.progress = study, children, progress
        self._free: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._pool = ThreadPoolExecutor(len(slots))
        self._done: dict[str, Future[bool]] = {}

    def submit(self, job: Job) -> None:
        """Start the job once a slot is free."""
        self._done[job.run_name] = self._pool.submit(self._run, job.run_name)

    def states(self, jobs: Sequence[Job]) -> Mapping[str, JobState]:
        """Return the states; an error in the thread of a job, such as a dead lock of DVC, is raised here."""
        return {job.run_name: _state(self._done[job.run_name]) for job in jobs}

    def cancel(self, jobs: Sequence[Job]) -> None:  # noqa: ARG002  # they share the processes of this one
        """End all jobs: their processes are asked to end, and killed if they do not."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.children.stop()
        self._pool.shutdown()

    def log(self, job: Job) -> Path | None:  # noqa: ARG002
        """Return None: the output is printed with the name of the run before each line."""
        return None

    def _run(self, name: str) -> bool:
        slot = self._free.get()
        try:
            addresses = [stage.address for stage in stages_of(name, self.study)]
            return reproduce(addresses, slot, name, self.children, self.progress)
        finally:
            self._free.put(slot)


def _state(future: Future[bool]) -> JobState:
    if not future.done():
        return JobState(RUNNING if future.running() else QUEUED)
    return JobState(DONE if future.result() else FAILED)
