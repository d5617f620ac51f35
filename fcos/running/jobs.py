"""Number of trainings that this machine can run in parallel, and what each of them gets."""

import ctypes
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from fcos.config.runs import Run
from fcos.memory import available_memory

JOB_BYTES = 4 << 30  # memory of a training on a CPU; ResNet-101 at 128 pixels takes 2 GB
_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def suitable_jobs(runs: Iterable[Run]) -> int:
    """Return the number of `runs` to train in parallel: one per GPU, or on a CPU one per core, limited by memory.

    A run on several devices is trained alone.
    """
    runs = list(runs)
    devices = {run.train.device for run in runs}
    if any(run.train.devices != 1 for run in runs):
        return 1
    if "mps" in devices or ("auto" in devices and sys.platform == "darwin"):
        return 1
    by_cores = max(1, min(usable_cores(), available_memory() // JOB_BYTES))
    return (num_gpus() if devices != {"cpu"} else 0) or by_cores


def usable_cores() -> int:
    """Return the number of cores that this process may use: SLURM, cpusets and taskset may give it a few only."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots(jobs: int, runs: Iterable[Run]) -> list[dict[str, str]]:
    """Return the environment of each of `jobs` parallel trainings: its share of the cores, and its GPU of several.

    The number of threads that the user has set is kept.
    """
    threads = str(max(1, usable_cores() // jobs))
    shared = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads}
    gpus = num_gpus() if {run.train.device for run in runs} & {"auto", "cuda"} else 0
    if gpus < 2 or jobs == 1:
        return [shared] * jobs
    names = [name for name in os.environ.get(_VISIBLE, "").split(",") if name] or [str(gpu) for gpu in range(gpus)]
    return [{**shared, _VISIBLE: names[job % len(names)]} for job in range(jobs)]


@functools.cache
def num_gpus() -> int:
    """Return the number of GPUs that torch can use here.

    A device file says little: containers hide it, WSL has none, and torch may be built without CUDA. So torch is asked,
    which takes seconds, but only where there is a driver to be asked about.
    """
    if not Path("/dev/kfd").exists() and not any(map(_is_library, _DRIVERS)):
        return 0
    import torch

    return int(torch.cuda.device_count())


def _is_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
