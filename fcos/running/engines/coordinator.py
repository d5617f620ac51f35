"""`fcos study run --engine slurm | ray`: submit what is open, follow the jobs, and take their results from the remote.

Everything that must survive this process is in the shared scratch and in the names of the jobs, so it may be killed and
started again, or not wait at all.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos.config import params
from fcos.config.params import Params
from fcos.config.runs import Run
from fcos.errors import UserError
from fcos.files import read_note, sha256_bytes, sha256_file, write_json, write_text
from fcos.formats import FORMAT
from fcos.running.by_hand import drop_recorded, record_pending
from fcos.running.dvc import push
from fcos.running.engines import bootstrap, checks
from fcos.running.engines.follow import ended
from fcos.running.engines.jobs_file import forget_jobs, keep_jobs
from fcos.running.engines.node import ask_node
from fcos.running.engines.options import EngineOptions
from fcos.running.engines.protocol import DONE, ENDED, FAILED, Engine, EngineSilent, Job, JobState
from fcos.running.heartbeat import STUDY, heartbeat
from fcos.running.processes import ChildProcesses
from fcos.running.reproduce import prepare, reproduce, restore
from fcos.running.stages import all_stages, stages_of
from fcos.running.study_progress import StudyProgress
from fcos.running.time_left import longest_first
from fcos.study.layout import Layout
from fcos.training.remote_states import RemoteStates

LAST_LINES = 20  # of the log of a failed run
KEPT_JOBS = 100  # folders of jobs with their logs


def run_on_cluster(engine: Engine, options: EngineOptions, *, detach: bool) -> list[str]:
    """Bring the active study up to date with the trainings as jobs of `engine`; return the runs that failed.

    Args:
        detach: return once all is submitted; the same command later takes the results.

    Raises:
        UserError: the study cannot run there; nothing was submitted.
    """
    study = params.read()
    scratch = checks.shared_scratch(options)
    checks.states_url(options)
    tracking_uri = checks.tracking_uri(os.environ)
    commit, repository = checks.commit_to_run(options)
    dvc_config = checks.dvc_config()
    with heartbeat(study.study, STUDY) as beat:
        record_pending(study.study, all_stages(study))
        children, progress = ChildProcesses(), StudyProgress(study, len(study.runs), beat)
        if not progress.open:
            progress.print(progress.headline())
            return []
        jobs = [_job(name, study, scratch, commit) for name in _open_runs(study, progress)]
        if jobs:
            _running_there(engine, jobs)  # asked before any work, in case it does not answer
            _prepare(children, progress)
            spec = _common(study, options, scratch)
            spec |= {"commit": commit, "repository": repository}
            spec |= {"tracking_uri": tracking_uri, "dvc_config": dvc_config}
            jobs = _restore(study, jobs, children, progress)
            keep_jobs(study.study, engine.name, options, jobs)
            _submit(engine, options, jobs, spec, study, progress)
            if detach:
                progress.print("not waiting: `fcos status` shows the jobs; run this again to fetch their results")
                return []
            if failed := _follow(engine, jobs, study, children, progress):
                return failed
        if not reproduce([], {}, None, children, progress):
            return ["dvc repro"]
        forget_jobs(study.study)
        drop_recorded(study.study)
        drop_recorded(study.study, scratch / study.study)
        if options.states:
            RemoteStates(f"{options.states.rstrip('/')}/{study.study}").drop()
        return []


def _open_runs(study: Params, progress: StudyProgress) -> list[str]:
    """Return the runs that have an open stage, the longest first."""
    return [
        name
        for name in longest_first(study.runs)
        if any(stage.address in progress.open for stage in stages_of(name, study))
    ]


def _job(name: str, study: Params, scratch: Path, commit: str) -> Job:
    place = sha256_bytes(str(scratch).encode())[:6]  # two copies of a study may share a cluster
    full = f"{study.study}-{name}-{commit[:12]}-{place}"
    return Job(full, name, scratch / study.study / "jobs" / full)


def _prepare(children: ChildProcesses, progress: StudyProgress) -> None:
    """Prepare the data here and push them."""
    addresses = prepare(children, progress)
    progress.print("pushing the prepared data")
    if why := push(addresses):
        hint = "check that the remote answers: dvc status --cloud; nothing new was submitted"
        raise UserError("dvc push", "the prepared data could not be pushed", found=why, hint=hint)


def _common(study: Params, options: EngineOptions, scratch: Path) -> dict[str, Any]:
    """Return what job.json says for all runs."""
    return {
        "format": FORMAT,
        "study": study.study,
        "options": options.model_dump(),
        "scratch": str(scratch),
        "prepared": Path("stages/prepare/dvc.lock").read_text(encoding="utf-8"),
        "manifest": sha256_file(Layout(study.study).data / "manifest.json"),
    }


def _restore(study: Params, jobs: Sequence[Job], children: ChildProcesses, progress: StudyProgress) -> list[Job]:
    """Take from the remote what it has, and return the jobs of the runs that are still open."""
    stages = [stage.address for job in jobs for stage in stages_of(job.run_name, study)]
    restored = restore([address for address in stages if address in progress.open], children, progress)
    if restored:
        progress.print(f"{len(restored)} stages were restored from the remote")
    still_open = set(_open_runs(study, progress))
    return [job for job in jobs if job.run_name in still_open]


def _submit(
    engine: Engine,
    options: EngineOptions,
    jobs: Sequence[Job],
    spec: Mapping[str, Any],
    study: Params,
    progress: StudyProgress,
) -> None:
    """Submit those jobs that the engine is not already running."""
    there = _running_there(engine, jobs)
    _drop_old({job.folder for job in jobs})
    for job in jobs:
        if (state := there.get(job.run_name)) and state.is_open:
            progress.print(f"{job.run_name}: {state}, already submitted{_with_other_options(job, options)}")
            continue
        (job.folder / ENDED).unlink(missing_ok=True)
        job.mark_cancelled(False)
        stages = [stage.name for stage in stages_of(job.run_name, study)]
        weights = _weights(study.runs[job.run_name], options)
        write_json(job.folder / "job.json", {**spec, **weights, "run": job.run_name, "stages": stages})
        write_text(job.folder / "bootstrap.py", Path(bootstrap.__file__).read_text(encoding="utf-8"))
        engine.submit(job)
        progress.print(f"{job.run_name}: submitted to {engine.name}")


def _running_there(engine: Engine, jobs: Sequence[Job]) -> Mapping[str, JobState]:
    """Return the states of the jobs that the engine knows.

    Raises:
        UserError: it does not answer.
    """
    try:
        return engine.states(jobs) if jobs else {}
    except EngineSilent as error:
        hint = "see that squeue (or ray status) works in this shell, and run this again"
        problem = "the cluster does not answer; nothing was submitted"
        raise UserError(f"--engine {engine.name}", problem, found=error, hint=hint) from None


def _with_other_options(job: Job, options: EngineOptions) -> str:
    if read_note(job.folder / "job.json").get("options") == options.model_dump():
        return ""
    return " with an earlier engine.yaml; to use the present one: fcos study cancel, then run again"


def _weights(run: Run, options: EngineOptions) -> dict[str, Any]:
    """Return what a node is asked, and what it must answer for weights that equal those of the other nodes."""
    here = ask_node("cpu", run.train.precision)
    on_cuda = "bfloat16" if run.train.precision == "auto" else run.train.precision
    precision = options.precision or (on_cuda if options.device == "cuda" else here["precision"])
    return {
        "asked": {"device": run.train.device, "precision": run.train.precision},
        "expected": {"torch": here["torch"], "device": options.device, "precision": precision},
    }


def _drop_old(in_use: set[Path]) -> None:
    """Delete the folders of all but the `KEPT_JOBS` last jobs."""
    folders = {folder for used in in_use for folder in used.parent.glob("*") if folder.is_dir()}
    for folder in sorted(folders - in_use, key=lambda path: path.stat().st_mtime)[:-KEPT_JOBS]:
        shutil.rmtree(folder, ignore_errors=True)


def _follow(
    engine: Engine, jobs: Sequence[Job], study: Params, children: ChildProcesses, progress: StudyProgress
) -> list[str]:
    """Wait for the jobs, take the results of each as it ends, and return the runs that failed."""
    failed = []
    with progress.shown(), _leaving_jobs(progress):
        for job, state in ended(engine, jobs, progress.print):
            addresses = [stage.address for stage in stages_of(job.run_name, study)]
            wanted = [address for address in addresses if address in progress.open]
            # Whatever the engine reports, since a job that it considered dead may have finished on its node.
            if restore(wanted, children, progress).issuperset(wanted):
                progress.print(f"{job.run_name}: done" + (f" on {state.node}" if state.state == DONE else ""))
            else:
                failed.append(job.run_name)
                progress.print(failure_text(job, state, engine.log(job)))
    return failed


@contextlib.contextmanager
def _leaving_jobs(progress: StudyProgress) -> Iterator[None]:
    """Tell whoever stops the coordinator that the jobs keep running."""
    try:
        yield
    except KeyboardInterrupt:
        progress.print("the jobs keep running; `fcos status` shows them, `fcos study cancel` stops them")
        raise


def failure_text(job: Job, state: JobState, log: Path | None) -> str:
    """Return what is known of a failed job: node, reason, log and its last lines."""
    what = str(state) if state.state == FAILED else f"{state}, but DVC's remote does not have all of its results"
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log else []
    shown = [f"{job.run_name} | {line}" for line in lines[-LAST_LINES:]]
    return "\n".join([f"{job.run_name}: {what}; log: {log}", *shown])
