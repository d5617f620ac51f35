"""The largest batch size with which a run can train on this machine."""

import numpy as np

from fcos.config.runs import Run
from fcos.data.cache import choose, decoded_bytes
from fcos.data.coco import CocoSplit
from fcos.data.images import resized_size
from fcos.data.transforms import padded_size
from fcos.memory import available_memory
from fcos.model.device import find_device, find_dtype
from fcos.study.assigner import build_assigner
from fcos.study.build import build_model
from fcos.training.largest_batch import Trial, largest

LARGEST_BATCH = 256  # images; no study needs more
TRIED_PIXELS = 1_000_000  # pixels of a timed batch


def make_trial(run: Run, num_classes: int) -> Trial:
    """Return a Trial of the network of `run` with new weights, on the device and in the dtype of its training."""
    device = find_device(run.train.device)
    return Trial(
        build_model(run, num_classes, pretrained=False),
        build_assigner(run.model),
        run.train,
        device=device,
        dtype=find_dtype(run.train.precision, device),
    )


def largest_batch(trial: Trial, run: Run, split: CocoSplit, *, memory: int | None = None) -> tuple[int, int]:
    """Return the largest batch size as in `batch_finding`, and the upper limit of the search."""
    image_size = largest_size(run, split)
    at_most = min(len(split.images), max(LARGEST_BATCH, run.train.batch_size))
    most_boxes = int(np.diff(split.objects.first).max(initial=0))
    if trial.device.type == "cuda":
        return largest(lambda batch_size: trial.fits(batch_size, image_size, most_boxes), at_most), at_most
    room = available_memory() if memory is None else memory
    room, estimate = room - _kept_bytes(split, run, room), trial.estimate()
    return largest(lambda batch_size: estimate.bytes_for(batch_size, image_size, most_boxes) <= room, at_most), at_most


def seconds_per_image(trial: Trial, image_size: tuple[int, int], most: int) -> float:
    """Return the seconds of a training step per image of `image_size` (height, width), in batches of at most `most`."""
    batch_size = min(most, max(1, TRIED_PIXELS // (image_size[0] * image_size[1])))
    return trial.seconds(batch_size, image_size) / batch_size


def largest_size(run: Run, split: CocoSplit) -> tuple[int, int]:
    """Return the (height, width) of a batch with every training image at the largest of train.sizes."""
    shorter, longest = max(run.train.sizes), run.train.max_size
    sizes = [resized_size(size, shorter, longest) for size in set(split.image_sizes.values())]
    return padded_size(sizes, run.train.pad_multiple)


def _kept_bytes(split: CocoSplit, run: Run, memory: int) -> int:
    """Return the bytes of decoded images that a training keeps in memory with `data.cache: auto`."""
    needed = decoded_bytes(split, (max(run.train.sizes), run.train.max_size))
    return needed if choose(needed, {"gpu": 0, "ram": memory, "disk": 0}) == "ram" else 0
