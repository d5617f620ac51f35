"""Choose settings for a study of new data from the sizes of its images and objects, by rules of thumb."""

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
LARGEST_SIZE = {"cuda": 800, "cpu": 480}  # shorter side in pixels, of the paper and of the published study
SMALL_OBJECT = 16.0  # pixels, square root of the area: two cells of the finest level
TINY_OBJECT = 8.0  # one cell: hardly recognisable
VIEWS = {"cuda": 24_000, "cpu": 8_000}  # images per training, repeats included; the published study has 60,000
FEWEST_EPOCHS, MOST_EPOCHS = 12, 100
WARMUP_STEPS = 100
RATE_PER_IMAGE = 0.00125  # SGD, pretrained: the published study has 0.005 for a batch of 4
LARGEST_RATE = 0.01  # of the paper, for a batch of 16
RATE_FROM_SCRATCH = 0.0005  # AdamW, for batches of 8, as in the study `shapes`
RANGES = (64, 128, 256, 512)  # limits between the five levels, in pixels


@dataclass(frozen=True)
class Facts:
    """Sizes of the P images and N objects of all splits."""

    num_train: int
    image_sizes: NDArray[np.float64]  # (P, 2) height, width in pixels
    object_sizes: NDArray[np.float64]  # (N, 2) height, width in pixels
    sizes_around: NDArray[np.float64]  # (N, 2) height, width of the image of each object

    @property
    def object_roots(self) -> NDArray[np.float64]:
        """Return the square roots of the object areas (N,), in pixels."""
        roots: NDArray[np.float64] = np.sqrt(self.object_sizes.prod(axis=1))
        return roots


@dataclass(frozen=True)
class Settings:
    """Settings that `fcos study new` chooses for a data set."""

    pretrained: bool
    device: str  # cuda or cpu, which the settings were chosen for
    size: int
    max_size: int
    sizes: list[int]
    range_divisor: int  # divisor of the published regression ranges
    epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float

    size_why: str
    epochs_why: str

    @property
    def optimizer(self) -> str:
        """`sgd` for pretrained backbones, `adamw` for networks trained from scratch."""
        return "sgd" if self.pretrained else "adamw"

    @property
    def ranges_why(self) -> str:
        """How the regression ranges relate to the published ones, in words."""
        published = "the published study's, open at the end"
        return published if self.range_divisor == 1 else f"1/{self.range_divisor} of {published}, for small objects"

    @property
    def regression_ranges(self) -> list[list[int | None]]:
        """(low, high) in pixels for each level; the last one has no upper bound."""
        bounds = [0, *(bound // self.range_divisor for bound in RANGES), None]
        return [[low, high] for low, high in pairwise(bounds)]


def facts_of(splits: Sequence[CocoSplit]) -> Facts:
    """Return the facts that settings depend on; the first split is for training, ignored objects are excluded."""
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
    """Return settings for a training on `device` (cuda or cpu) in batches of at most `fitting` images."""
    size, size_why = _size(facts, device)
    max_size = _max_size(facts, size)
    batch_size = _batch_size(facts.num_train, pretrained, device, fitting)
    epochs, epochs_why = (epochs, "as given by --epochs") if epochs else _epochs(facts.num_train, device)
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
    """Return the factors (N,) that resize images of `sizes` (N, 2) to a shorter side `size`, or longer `max_size`."""
    shown: NDArray[np.float64] = np.minimum(size / sizes.min(axis=1), max_size / sizes.max(axis=1))
    return shown


def shown_objects(facts: Facts, settings: Settings) -> NDArray[np.float64]:
    """Return the square roots of the object areas (N,), in pixels of the network's input in the test."""
    return facts.object_roots * scales(facts.sizes_around, settings.size, settings.max_size)


def _size(facts: Facts, device: str) -> tuple[int, str]:
    """Return the shorter side of the images, capped for speed; larger if objects would be small. With a reason."""
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
    """Return the longer side with which nine of ten images reach `size`; more elongated ones are reduced."""
    aspect = float(np.quantile(facts.image_sizes.max(axis=1) / facts.image_sizes.min(axis=1), 0.9))
    return 32 * math.ceil(round(min(aspect, 2.0) * size) / 32)


def _training_sizes(size: int) -> list[int]:
    """Return training sizes from 0.6 of `size` to `size`, as in the published study."""
    step = 32 if size >= 256 else 16
    return list(range(size, round(0.6 * size) - 1, -step))[::-1]


def _range_divisor(facts: Facts, size: int, max_size: int) -> int:
    """Return 1, 2 or 4; the ranges are divided if nine of ten objects would be assigned to the finest level alone."""
    if not len(facts.object_sizes):
        return 1
    longer = facts.object_sizes.max(axis=1) * scales(facts.sizes_around, size, max_size)
    # Assignment uses a location's largest distance: from half the longer side to 12 pixels more.
    return next((divisor for divisor in (1, 2) if float(np.quantile(longer, 0.9)) >= 1.5 * RANGES[0] / divisor), 4)


def _batch_size(num_train: int, pretrained: bool, device: str, fitting: int | None) -> int:
    """Return the batch size: 8 from scratch for BatchNorm, 4 if pretrained, 16 on a GPU if enough steps remain."""
    wanted = 16 if device == "cuda" and num_train >= 1000 else 4 if pretrained else 8
    while wanted > 1 and wanted > min(num_train, wanted if fitting is None else fitting):
        wanted //= 2
    return wanted


def _learning_rate(batch_size: int, pretrained: bool) -> float:
    """Return the learning rate: SGD's is proportional to the batch size, AdamW's to its square root."""
    if pretrained:
        return min(RATE_PER_IMAGE * batch_size, LARGEST_RATE)
    return round(RATE_FROM_SCRATCH * math.sqrt(batch_size / 8), 6)


def most_objects(splits: Sequence[CocoSplit]) -> int:
    """Return the largest number of objects in one image."""
    counts = Counter((number, a["image_id"]) for number, split in enumerate(splits) for a in split.annotations)
    return max(counts.values(), default=0)
