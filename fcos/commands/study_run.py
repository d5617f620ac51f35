"""`fcos study run`: the active study by DVC, several trainings at a time.

One training of small pictures does not use all cores, and none while a process starts or writes; `dvc repro` runs one
stage after the other. So the stages of each run go through a DVC of their own, and a last `dvc repro` does the rest.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fcos.config import params
from fcos.config.params import Params
from fcos.config.runs import Run
from fcos.errors import UserError
from fcos.memory import available_memory
from fcos.progress import say

JOB_BYTES = 4 << 30  # for a training on a CPU; ResNet-101 at 128 pixels takes 2 GB
# DVC asks for its locks for three seconds only; another one may be hashing weights.
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
RETRY_S = 2.0
ACCELERATORS = ("/dev/nvidia0", "/dev/kfd")


def run_study(jobs: int | None) -> None:
    """Bring the active study up to date.

    Args:
        jobs: trainings at a time, each with its share of the cores; None: as many as cores and memory allow, and one
            at a time on a GPU.

    Raises:
        UserError: a stage failed; what the others made is kept.
    """
    study = params.read()
    jobs = min(jobs or suitable_jobs(), len(study.runs))
    if jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        say(f"{len(study.runs)} runs, {jobs} at a time, with {threads} {'thread' if threads == 1 else 'threads'} each")
        if not _reproduce(["stages/prepare/dvc.yaml:prepare"], {}, "prepare"):
            raise _failure("prepare")
        failed = _run_all(study, jobs, {"OMP_NUM_THREADS": str(threads)})
        if failed:
            raise _failure(", ".join(failed))
    if subprocess.run(_dvc("repro"), env=_environment({}), check=False).returncode != 0:
        raise _failure("dvc repro")


def _failure(what: str) -> UserError:
    return UserError(
        "fcos study run",
        "a stage failed; what it said stands above",
        found=what,
        do="mend it and type `fcos study run` again: nothing that ended well runs twice",
    )


def _run_all(study: Params, jobs: int, environment: Mapping[str, str]) -> list[str]:
    """Bring every run up to date; the names of those that failed. One that fails does not stop the others."""
    # The longest first: nobody waits at the end for one that began last.
    names = sorted(study.runs, key=lambda name: _cost(study.runs[name]), reverse=True)
    pool = ThreadPoolExecutor(jobs)
    try:
        done = list(pool.map(lambda name: _reproduce(stages_of(name, study), environment, name), names))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is begun
    return [name for name, ended_well in zip(names, done, strict=True) if not ended_well]


def suitable_jobs() -> int:
    """Trainings at a time: on a CPU one for each core with memory for it, with an accelerator one."""
    if sys.platform == "darwin" or any(Path(device).exists() for device in ACCELERATORS):
        return 1
    return max(1, min(os.cpu_count() or 1, available_memory() // JOB_BYTES))


def stages_of(name: str, study: Params) -> list[str]:
    """DVC's addresses of the stages of a run, in their order."""
    stages = ["train", "predict", "evaluate"]
    stages += ["evaluate_tta"] if name in study.tta.runs else []
    stages += ["sweep_nms"] if name in study.nms_sweep.runs else []
    return [f"stages/{stage}/dvc.yaml:{stage}@{name}" for stage in stages]


def _cost(run: Run) -> int:
    """Epochs times layers; nothing for weights that are imported."""
    return 0 if run.checkpoint else (run.epochs or 0) * int(run.backbone.removeprefix("resnet"))


def _reproduce(stages: Sequence[str], environment: Mapping[str, str], label: str) -> bool:
    """Have DVC run the stages that are not up to date, its lines marked; whether all ended well."""
    waiting = False
    while True:
        with subprocess.Popen(
            _dvc("repro", "--single-item", *stages),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(environment),
        ) as process:
            assert process.stdout is not None
            busy = False
            for line in process.stdout:
                busy |= any(sign in line for sign in BUSY)
                if line.strip() and not busy:
                    _print(f"{label} | {line.rstrip()}")
        if process.returncode == 0 or not busy:
            return process.returncode == 0
        if not waiting:
            _print(f"{label} | waiting for another DVC to let go of the repository")
        waiting = True
        time.sleep(RETRY_S)


_printing = threading.Lock()


def _print(line: str) -> None:
    with _printing:
        print(line, flush=True)


def _dvc(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """This one's, with this Python first on the path, for the stages call `python`; what the user has set stays."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**more, **os.environ, "PATH": path}
