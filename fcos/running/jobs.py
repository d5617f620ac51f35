"""Number of trainings that this machine can run in parallel."""

import os
import sys
from pathlib import Path

from fcos.memory import available_memory

JOB_BYTES = 4 << 30  # memory of a training on a CPU; ResNet-101 at 128 pixels takes 2 GB
ACCELERATORS = ("/dev/nvidia0", "/dev/kfd")


def suitable_jobs() -> int:
    """Return the number of parallel trainings: on a CPU one per core, limited by memory; on an accelerator one."""
    if sys.platform == "darwin" or any(Path(device).exists() for device in ACCELERATORS):
        return 1
    return max(1, min(os.cpu_count() or 1, available_memory() // JOB_BYTES))
