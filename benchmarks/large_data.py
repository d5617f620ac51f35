"""What a data set of a hundred thousand or a million images takes: prepare, the start of a training, one epoch's data.

    python benchmarks/large_data.py --images 100000 --images 1000000 --out FILE

A YOLO folder with 15 boxes an image, of which a thousandth is for testing. Only the pixels are not read: an image's
size, and a sha256 of its name, stand for them. Each part runs in a process of its own: its seconds and peak memory,
mapped files included, and how both grow from the first number of images to the last.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

BOXES = 15
SIZES = ((48, 64), (64, 48), (56, 56))  # height and width
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--images", type=int, action="append")
    parser.add_argument("--measure", nargs=2, metavar=("PART", "FOLDER"), help="one part, for memory of its own")
    given = parser.parse_args()
    if given.measure:
        part, folder = given.measure
        measured = PARTS[part][1](Path(folder))
        print(json.dumps({**measured, "peak_gb": peak_gb()}))
        return
    rows = [row for count in given.images for row in measure(count)]
    from side_by_side import write_report  # which imports torch, as `prepare` does not

    write_report(given.out, "Large data", [line(part, [row for row in rows if row["part"] == part]) for part in PARTS])


def measure(count: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), count)
        for part in PARTS:
            command = [sys.executable, __file__, "--measure", part, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"part": part, "size": count, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], flush=True)
    return rows


def line(part: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the growth from the first to the last number of images: the exponent of seconds, GB for a million more."""
    first, last = rows[0], rows[-1]
    seconds = [max(row["seconds"], 0.01) for row in (first, last)]
    exponent = math.log(seconds[1] / seconds[0]) / math.log(last["size"] / first["size"])
    slope = (last["peak_gb"] - first["peak_gb"]) / (last["size"] - first["size"]) * 1e6
    of = {"what": PARTS[part][0], "unit": "images", "rows": rows}
    return {**of, "exponent": round(exponent, 2), "gb_per_million": round(slope, 2)}


def write_folder(folder: Path, count: int) -> None:
    """Write the labels and, for each image, a file of no bytes."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / "set" / kind / part).mkdir(parents=True)
    for number in range(count):
        part = "val" if number % 1000 == 1 else "train"
        sides = rng.uniform(0.05, 0.4, (BOXES, 2))
        centers = rng.uniform(sides / 2, 1 - sides / 2)
        lines = [
            f"{number % 3} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for (x, y), (w, h) in zip(centers, sides, strict=True)
        ]
        (folder / "set" / "labels" / part / f"{number:07d}.txt").write_text("".join(lines))
        os.close(os.open(folder / "set" / "images" / part / f"{number:07d}.jpg", os.O_CREAT))


def size_of(name: str) -> tuple[int, int]:
    return SIZES[int(Path(name).stem) % len(SIZES)]


def prepare(folder: Path) -> dict[str, Any]:
    from fcos.data.sources import assemble
    from fcos.data.sources.yolo import YoloSplit, read_yolo

    def inspect(image: Any) -> Any:
        digest = hashlib.sha256(image.file_name.encode()).hexdigest()
        return assemble._File(size_of(image.file_name), digest, "RGB", 1, None)

    started = time.perf_counter()
    root = folder / "set"
    splits = {
        split: YoloSplit(root / "images" / part, root / "labels" / part)
        for split, part in (("train", "train"), ("test", "val"))
    }
    with mock.patch.object(assemble, "_inspect", inspect), mock.patch.object(assemble, "_copies", lambda _: None):
        source = read_yolo(splits, names=["a", "b", "c"])
        assemble.assemble(source, folder / "data", clip_outside=False)
    return {"seconds": round(time.perf_counter() - started, 2)}


def train(folder: Path) -> dict[str, Any]:
    """Read the split and train for some steps; `epoch_s` is the time until the first batch of an epoch is known.

    Afterwards all boxes are read once, so that the peak memory is that of a training of an epoch or more.
    """
    import torch

    from fcos.data import cache, coco
    from fcos.data.coco import read_split
    from fcos.data.dataset import DetectionDataset
    from fcos.study.assigner import build_assigner
    from fcos.study.build import build_model
    from fcos.training.loop import Plan, fit
    from fcos.training.resume import Scratch
    from fcos.training.validation import Validation

    class Enough(Exception):
        pass

    def stop(_: Any) -> None:
        raise Enough

    started = time.perf_counter()
    split = read_split(folder / "data", "train")
    read_s = time.perf_counter() - started
    run = training_run()
    plan = Plan(image_sizes=split.image_sizes, epochs=2, seed=0, config=run.train)
    epoch_started = time.perf_counter()
    next(plan.batches(plan.steps_per_epoch))
    epoch_s = time.perf_counter() - epoch_started
    with mock.patch.object(coco, "read_annotated", pixels):
        images = cache.keep_images(split, "none", device=torch.device("cpu"), folder=folder)
        with contextlib.suppress(Enough):
            fit(
                build_model(run, len(split.categories), pretrained=False),
                DetectionDataset(split, images),
                build_assigner(run.model),
                plan,
                device=torch.device("cpu"),
                dtype=torch.float32,
                scratch=Scratch(folder / ".scratch"),
                validation=Validation(None, run.train, num_epochs=plan.num_epochs),
                on_rows=stop,
            )
    seconds = time.perf_counter() - started
    epoch(folder)
    return {"seconds": round(seconds, 2), "read_s": round(read_s, 2), "epoch_s": round(epoch_s, 3)}


def epoch(folder: Path) -> dict[str, Any]:
    """Draw the views and read the boxes of every image of an epoch, in the order of the training."""
    from fcos.data.coco import read_split
    from fcos.data.dataset import DetectionDataset
    from fcos.training.loop import Plan

    split = read_split(folder / "data", "train")
    plan = Plan(image_sizes=split.image_sizes, epochs=1, seed=0, config=training_run().train)
    dataset = DetectionDataset(split)
    started, boxes = time.perf_counter(), 0
    for batch in plan.batches(0):
        boxes += sum(len(dataset.ground_truth(index).labels) for index in batch)
    assert boxes == BOXES * len(dataset)
    return {"seconds": round(time.perf_counter() - started, 2)}


def training_run() -> Any:
    from fcos.config.model import ModelConfig
    from fcos.config.runs import Run
    from fcos.config.train import TrainConfig

    train = TrainConfig(sizes=[64], max_size=128, batch_size=BATCH, workers=2, warmup_epochs=0)
    model = ModelConfig(weights="none", batch_norm="trained")
    return Run(
        study="large",
        name="resnet18",
        backbone="resnet18",
        epochs=2,
        num_convs=4,
        seed=0,
        checkpoint=None,
        role=None,
        model=model,
        train=train,
    )


def pixels(_: Path, image: dict[str, Any], factor: int = 1) -> Any:
    return np.zeros((image["height"] // factor, image["width"] // factor, 3), np.uint8)


def peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


PARTS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "prepare": ("prepare, 15 boxes an image, pixels not read", prepare),
    "train": ("start of a training on these, 20 steps included", train),
    "epoch": ("views and boxes of a whole epoch of it", epoch),
}


if __name__ == "__main__":
    main()
