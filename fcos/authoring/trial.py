"""Trials of `fcos study new` on this machine: the host of pretrained weights, and a training step.

This is a separate module because torch takes seconds to import, which a refused folder does not need.
"""

import http.client
import urllib.request
from collections.abc import Sequence

import numpy as np

from fcos.authoring.findings import Lines
from fcos.authoring.settings import BACKBONES
from fcos.config.runs import Run
from fcos.data.coco import CocoSplit
from fcos.data.images import resized_size
from fcos.data.transforms import padded_size
from fcos.memory import available_memory
from fcos.model.backbone import imagenet_file
from fcos.model.device import find_device
from fcos.progress import track
from fcos.running.jobs import suitable_jobs
from fcos.study.batch_size import largest_batch, make_trial, seconds_per_image

PROBE_S = 5.0  # timeout for the host of the ImageNet weights


def device() -> str:
    """Return the device that settings are chosen for, cuda or cpu."""
    return "cuda" if find_device("auto").type == "cuda" else "cpu"


def why_no_weights() -> str | None:
    """Return why torchvision's ImageNet weights are not available, or None if they are cached or their host answers."""
    for backbone in BACKBONES:
        url, file = imagenet_file(backbone)
        if file.is_file():
            continue
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_S).close()
        except (OSError, http.client.HTTPException) as error:
            return f"{backbone}: {getattr(error, 'reason', error)}"
    return None


def try_runs(runs: Sequence[Run], split: CocoSplit) -> tuple[int, list[float]]:
    """Return the largest batch that fits all `runs`, and the seconds per image of each run.

    Memory is shared by parallel runs, as in `fcos study run`. Seconds are for the largest training size; a run without
    room for one image has none.
    """
    memory = available_memory() // min(suitable_jobs(runs), len(runs))
    middle = np.median(list(split.image_sizes.values()), axis=0)
    fitting, seconds = [], []
    for run in track(runs, "try", total=len(runs), unit="networks"):
        trial = make_trial(run, len(split.categories))
        fitting.append(largest_batch(trial, run, split, memory=memory)[0])
        height, width = (int(side) for side in middle)
        largest = resized_size((height, width), max(run.train.sizes), run.train.max_size)
        size = padded_size([largest], run.train.pad_multiple)
        if most := min(fitting[-1], run.train.batch_size):
            seconds.append(seconds_per_image(trial, size, most))
    return min(fitting), seconds


def weights_lines(why_not: str | None) -> Lines:
    """Return lines about `model.weights`, given why the ImageNet weights are not available (None: they are)."""
    if why_not is None:
        return [("", "model.weights imagenet: training starts from pretrained backbones, which small data need")]
    files = [imagenet_file(backbone) for backbone in BACKBONES]
    return [
        (
            "note",
            f"model.weights none: ImageNet weights are not available ({why_not}). Training starts from scratch, "
            f"with poor results on small data. Put {' and '.join(url for url, _ in files)} into {files[0][1].parent}, "
            "delete the study and create it again; or give a file to each run: `model: {weights: FILE}`",
        )
    ]
