"""Wait for jobs, whatever the engine."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from fcos.files import read_note
from fcos.running.engines.bootstrap import AGAIN
from fcos.running.engines.protocol import DONE, ENDED, FAILED, Engine, EngineSilent, Job, JobState

SAY_AGAIN_S = 60.0


def ended(engine: Engine, jobs: Sequence[Job], tell: Callable[[str], None]) -> Iterator[tuple[Job, JobState]]:
    """Yield each job with its last state as it ends, and tell of each change of the others.

    A job that asks to be started again is submitted again, unless the engine has already started it. If the engine
    does not answer, that is reported and waited for: its jobs may still be running.
    """
    open_jobs, last, silent_since = list(jobs), dict[str, JobState](), None
    while open_jobs:
        try:
            states = engine.states(open_jobs)
            silent_since = None
        except EngineSilent as error:
            now = time.monotonic()
            if silent_since is None or now - silent_since > SAY_AGAIN_S:
                tell(f"the engine does not answer, but its jobs may still be running: {error}")
                silent_since = now
            time.sleep(engine.poll_s)
            continue
        for job in list(open_jobs):
            state = state_of(job, states)
            if state.state == FAILED and read_note(job.folder / ENDED).get("code") == AGAIN and not job.is_cancelled:
                (job.folder / "job.json").touch()  # makes the predecessor's reports older than the job
                engine.submit(job)
                tell(f"{job.run_name}: stopped on {state.node}, submitted again")
            elif not state.is_open:
                open_jobs.remove(job)
                yield job, state
            elif state != last.get(job.run_name) and engine.log(job):
                tell(f"{job.run_name}: {state}")
            last[job.run_name] = state
        if open_jobs:
            time.sleep(engine.poll_s)


def state_of(job: Job, states: Mapping[str, JobState]) -> JobState:
    """Return what the engine says of a job, or what the job itself has left; cancelled by the user is called so."""
    state = states.get(job.run_name) or last_word(job)
    if state.state == FAILED and job.is_cancelled:
        return replace(state, why="cancelled")
    return state


def last_word(job: Job) -> JobState:
    """Return the final state that a job itself recorded, for an engine that no longer knows the job."""
    end = read_note(job.folder / ENDED)
    if not end:
        return JobState(FAILED, why="the engine does not know the job, and the job left no exit code")
    code, node = end.get("code"), str(end.get("node"))
    return JobState(DONE, node) if code == 0 else JobState(FAILED, node, why=f"exit code {code}")
