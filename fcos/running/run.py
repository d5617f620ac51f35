"""`fcos study run`: bring the active study up to date by DVC, several trainings in parallel.

One training of small images does not use all cores, and uses none while its process starts or writes files. Since
`dvc repro` runs one stage at a time, each run has its own DVC, and a last `dvc repro` runs the remaining stages.
"""

from pathlib import Path

from fcos.config import params
from fcos.config.params import Params
from fcos.progress import say
from fcos.running.by_hand import drop_recorded, record_pending
from fcos.running.dvc import allow_without_git
from fcos.running.engines.follow import ended
from fcos.running.engines.local import LocalEngine
from fcos.running.engines.protocol import FAILED, Job
from fcos.running.heartbeat import STUDY, heartbeat
from fcos.running.jobs import slots, suitable_jobs
from fcos.running.processes import ChildProcesses
from fcos.running.reproduce import prepare, reproduce, stage_failed
from fcos.running.stages import all_stages
from fcos.running.study_progress import StudyProgress
from fcos.running.time_left import longest_first


def run_study(jobs: int | None) -> None:
    """Bring the active study up to date.

    Args:
        jobs: number of parallel trainings, each with its share of the cores; None: as many as cores and memory allow,
            and one per GPU.

    Raises:
        UserError: a stage failed; the outputs of the others are kept.
    """
    study = params.read()
    jobs = max(1, min(jobs or suitable_jobs(study.runs.values()), len(study.runs)))
    allow_without_git()
    with heartbeat(study.study, STUDY) as beat:
        record_pending(study.study, all_stages(study))
        children, progress = ChildProcesses(), StudyProgress(study, jobs, beat)
        if progress.open:
            _bring_up_to_date(study, jobs, children, progress)
        else:
            progress.print(progress.headline())
        drop_recorded(study.study)


def _bring_up_to_date(study: Params, jobs: int, children: ChildProcesses, progress: StudyProgress) -> None:
    if jobs > 1:
        of_each = slots(jobs, study.runs.values())
        threads = of_each[0].get("OMP_NUM_THREADS")
        each = f", with {threads} {'thread' if threads == '1' else 'threads'} each" if threads else ""
        say(f"{len(study.runs)} runs, {jobs} at a time{each}")
        with progress.shown():
            prepare(children, progress)
            failed = _run_all(study, LocalEngine(study, of_each, children, progress), progress)
        if failed:
            raise stage_failed(", ".join(failed))
    if not reproduce([], {}, None, children, progress):
        raise stage_failed("dvc repro")


def _run_all(study: Params, engine: LocalEngine, progress: StudyProgress) -> list[str]:
    """Bring every run up to date and return the names of those that failed; a failure does not stop other runs."""
    jobs = [Job(name, name, Path()) for name in longest_first(study.runs)]
    for job in jobs:
        engine.submit(job)
    try:
        return [job.run_name for job, state in ended(engine, jobs, progress.print) if state.state == FAILED]
    except BaseException:
        engine.cancel(jobs)
        raise
