"""Settings for a study of data that nobody has seen before: from what was found in it, by rules of thumb."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fcos.data.coco import CocoSplit

BACKBONES = ("resnet18", "resnet34")
NUM_CONVS = 3
LARGEST_SIZE = {"cuda": 800, "cpu": 480}  # shorter side in pixels: the paper's, the published study's
SMALL_OBJECT = 16.0  # pixels, square root of the area: two cells of the finest level
TINY_OBJECT = 8.0  # one cell: little is left to be recognised
VIEWS = {"cuda": 24_000, "cpu": 8_000}  # images shown in a training; the published study: 60,000
FEWEST_EPOCHS, MOST_EPOCHS = 12, 100
WARMUP_STEPS = 100
RATE_PER_IMAGE = 0.00125  # SGD, pretrained: 0.005 for a batch of 4 in the published study ...
LARGEST_RATE = 0.01  # ... and the paper's for one of 16
RATE_FROM_SCRATCH = 0.0005  # AdamW, for batches of 8, as in the study `shapes`
RANGES = (64, 128, 256, 512)  # pixels, between the five levels


@dataclass(frozen=True)
class Facts:
    """Images and objects of all splits; P images, N objects."""

    num_train: int
    image_sizes: NDArray[np.float64]  # (P, 2) height, width in pixels
    object_sizes: NDArray[np.float64]  # (N, 2) height, width in pixels
    sizes_around: NDArray[np.float64]  # (N, 2) height, width of the image of each object

    @property
    def object_roots(self) -> NDArray[np.float64]:
        """(N,) square roots of the areas in pixels."""
        roots: NDArray[np.float64] = np.sqrt(self.object_sizes.prod(axis=1))
        return roots


@dataclass(frozen=True)
class Settings:
    pretrained: bool
    device: str  # cuda or cpu: what the study was made for
    size: int
    max_size: int
    sizes: list[int]
    range_divisor: int  # of the published regression ranges
    epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float

    size_why: str
    epochs_why: str

    @property
    def optimizer(self) -> str:
        return "sgd" if self.pretrained else "adamw"

    @property
    def ranges_why(self) -> str:
        published = "the published study's, open at the end"
        return published if self.range_divisor == 1 else f"1/{self.range_divisor} of {published}, for small objects"

    @property
    def regression_ranges(self) -> list[list[int | None]]:
        bounds = [0, *(bound // self.range_divisor for bound in RANGES), None]
        return [[low, high] for low, high in pairwise(bounds)]


def facts_of(splits: Sequence[CocoSplit]) -> Facts:
    """What the settings depend on; the first split is the one for training. Ignored objects do not count."""
    sizes = [size for split in splits for size in split.image_sizes.values()]
    counted = [
        (split.image_sizes[a["image_id"]], a["bbox"]) for split in splits for a in split.annotations if not a["iscrowd"]
    ]
    return Facts(
        len(splits[0].images),
        np.array(sizes, dtype=np.float64),
        np.array([(h, w) for _, (_, _, w, h) in counted], dtype=np.float64).reshape(-1, 2),
        np.array([size for size, _ in counted], dtype=np.float64).reshape(-1, 2),
    )


def choose_settings(
    facts: Facts, *, pretrained: bool, device: str, fitting: int | None = None, epochs: int | None = None
) -> Settings:
    """Settings for a training on `device` (cuda or cpu) in batches of at most `fitting` images."""
    size, size_why = _size(facts, device)
    max_size = _max_size(facts, size)
    batch_size = _batch_size(facts.num_train, pretrained, device, fitting)
    epochs, epochs_why = (epochs, "as asked for") if epochs else _epochs(facts.num_train, device)
    steps = math.ceil(facts.num_train / batch_size)
    return Settings(
        pretrained=pretrained,
        device=device,
        size=size,
        max_size=max_size,
        sizes=_training_sizes(size),
        range_divisor=_range_divisor(facts, size, max_size),
        epochs=epochs,
        warmup_epochs=max(1, min(math.ceil(WARMUP_STEPS / steps), epochs // 4)),
        batch_size=batch_size,
        learning_rate=_learning_rate(batch_size, pretrained),
        size_why=size_why,
        epochs_why=epochs_why,
    )


def scales(sizes: NDArray[np.float64], size: int, max_size: int) -> NDArray[np.float64]:
    """(N,) by how much images of `sizes` (N, 2) are enlarged to a shorter side of `size`, a longer of `max_size`."""
    shown: NDArray[np.float64] = np.minimum(size / sizes.min(axis=1), max_size / sizes.max(axis=1))
    return shown


def shown_objects(facts: Facts, settings: Settings) -> NDArray[np.float64]:
    """(N,) square roots of the objects' areas in pixels, as the network sees them in the test."""
    return facts.object_roots * scales(facts.sizes_around, settings.size, settings.max_size)


def _size(facts: Facts, device: str) -> tuple[int, str]:
    """The images' shorter side, capped for speed; larger where objects would be small."""
    own, most = float(np.median(facts.image_sizes.min(axis=1))), LARGEST_SIZE[device]
    size, why = (own, "that of the images") if own <= most else (most, f"less than the images' {own:.0f}, for speed")
    if len(facts.object_sizes):
        share = float(np.quantile(facts.object_roots / facts.sizes_around.min(axis=1), 0.25))
        needed = min(SMALL_OBJECT / share, own, 5 / 3 * most)
        if needed > size:
            size, why = needed, "more than usual, for small objects"
    return max(64, 32 * round(size / 32)), why


def _epochs(num_train: int, device: str) -> tuple[int, str]:
    epochs = math.ceil(VIEWS[device] / num_train)
    if epochs < FEWEST_EPOCHS:
        return FEWEST_EPOCHS, "as in the published study"
    if epochs > MOST_EPOCHS:
        return MOST_EPOCHS, f"more would not help with {num_train} images"
    return epochs, f"so that a training shows {VIEWS[device]:,} images"


def _max_size(facts: Facts, size: int) -> int:
    """Such that nine of ten images reach `size`; a longer one is shown smaller."""
    aspect = float(np.quantile(facts.image_sizes.max(axis=1) / facts.image_sizes.min(axis=1), 0.9))
    return 32 * math.ceil(round(min(aspect, 2.0) * size) / 32)


def _training_sizes(size: int) -> list[int]:
    """From 0.6 of the size to the size, as in the published study."""
    step = 32 if size >= 256 else 16
    return list(range(size, round(0.6 * size) - 1, -step))[::-1]


def _range_divisor(facts: Facts, size: int, max_size: int) -> int:
    """Halve the ranges once or twice where nine of ten objects would fall to the finest level alone."""
    if not len(facts.object_sizes):
        return 1
    longer = facts.object_sizes.max(axis=1) * scales(facts.sizes_around, size, max_size)
    # A location answers for a box by its largest distance, half of the longer side at least and 12 pixels more at most.
    return next((divisor for divisor in (1, 2) if float(np.quantile(longer, 0.9)) >= 1.5 * RANGES[0] / divisor), 4)


def _batch_size(num_train: int, pretrained: bool, device: str, fitting: int | None) -> int:
    """From scratch BatchNorm needs eight; on a GPU 16 are faster, where enough steps are left."""
    wanted = 16 if device == "cuda" and num_train >= 1000 else 4 if pretrained else 8
    while wanted > 1 and wanted > min(num_train, wanted if fitting is None else fitting):
        wanted //= 2
    return wanted


def _learning_rate(batch_size: int, pretrained: bool) -> float:
    """SGD's rate goes with the batch, AdamW's with its square root."""
    if pretrained:
        return min(RATE_PER_IMAGE * batch_size, LARGEST_RATE)
    return round(RATE_FROM_SCRATCH * math.sqrt(batch_size / 8), 6)


def most_objects(splits: Sequence[CocoSplit]) -> int:
    """Largest number of objects in one image."""
    counts = Counter((number, a["image_id"]) for number, split in enumerate(splits) for a in split.annotations)
    return max(counts.values(), default=0)
