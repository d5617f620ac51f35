"""A whole training epoch from files on disk (decode, resize, flip, step): ours against torchvision's, ResNet-18.

    python benchmarks/epoch.py --out FILE [--device cuda --batch-size 16 --number 512 --workers 8]

Ours is `fit`, as `fcos train` calls it: a first epoch, which decodes, and a later one, which has the images decoded.
torchvision's is its reference script (references/detection), all of whose epochs are alike: CocoDetection, its flip, a
DataLoader with as many worker processes as ours has threads, its loop; (a) in float32 (with --amp on a GPU), and (b)
given our number format and memory layout too. All drawn images have one size, so that neither side pads more.
"""

import contextlib
import io
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import torchvisions
from PIL import Image
from side_by_side import device_named, in_turn, line, parser, write_report
from synthetic import CLASS_WEIGHTS, HEIGHT, WIDTH, draw_images, write_images
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection
from torchvision.transforms.functional import convert_image_dtype, hflip, pil_to_tensor
from training_step import MODEL, TEST, format_of, name_of

from fcos.config.runs import Run
from fcos.config.train import TrainConfig
from fcos.data.cache import keep_images
from fcos.data.coco import CocoSplit
from fcos.data.dataset import DetectionDataset
from fcos.files import write_json
from fcos.model.device import autocast, find_dtype, find_memory_format
from fcos.study.assigner import build_assigner
from fcos.study.build import build_model
from fcos.training.loop import Plan, fit
from fcos.training.resume import Scratch
from fcos.training.validation import Validation

NUM_CLASSES = len(CLASS_WEIGHTS)


def main() -> None:
    options = parser(__doc__, repetitions=3)
    options.add_argument("--number", type=int, default=24, help="images")
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width in training")
    options.add_argument("--device", type=device_named, default="cpu", metavar="{cpu,cuda}")
    arguments = options.parse_args()
    device = arguments.device
    gpu = device.type == "cuda"
    dtype = find_dtype("auto", device)
    layout = find_memory_format(device, dtype)
    train = TrainConfig(
        learning_rate=1e-4, warmup_epochs=0, batch_size=arguments.batch_size, workers=arguments.workers,
        sizes=[min(arguments.size)], max_size=max(arguments.size),
    )  # fmt: skip
    run = Run(
        study="bench", name="resnet18", backbone="resnet18", num_convs=3, epochs=1, seed=0, checkpoint=None,
        role=None, model=MODEL, train=train,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        truth = draw_images(np.random.default_rng(0), arguments.number)
        write_images(Path(folder), truth)
        first, later = our_epochs(run, truth, Path(folder), device, dtype)
        amp = torch.float16 if gpu else torch.float32
        programs = {
            "first": first,
            "later": later,
            "plain": their_epoch(run, truth, Path(folder), device, amp),
            "given": their_epoch(run, truth, Path(folder), device, dtype, memory_format=layout),
        }
        seconds = in_turn(programs, arguments.repetitions, label="epoch")
    of = f"{arguments.number} files of {HEIGHT} x {WIDTH}, resnet18, {train.sizes[0]} x {train.max_size}"
    plain = "torchvision as shipped" + (", --amp" if gpu else ", float32")
    given = f"torchvision, {format_of(device, dtype)}"
    lines = [
        line(
            f"{epoch} training epoch, {of}, batch {train.batch_size}",
            seconds[epoch],
            seconds[theirs],
            peer=peer,
            target=target,
        )
        for epoch in ("first", "later")
        for theirs, peer, target in (("plain", plain, 3.0 if gpu else 1.5), ("given", given, 1.2))
    ]
    write_report(arguments.out, "Training epoch", lines, dtype=name_of(dtype), workers=train.workers)


Program = Callable[[], Any]


def our_epochs(
    run: Run, truth: dict[str, Any], folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[Program, Program]:
    """Return a first epoch, before which no image is decoded, and a later one, which uses the cache of the first."""
    split = CocoSplit(truth["images"], truth["categories"], truth["annotations"], folder)
    model = build_model(run, NUM_CLASSES, pretrained=False)
    assigner = build_assigner(run.model)
    plan = Plan(image_sizes=split.image_sizes, epochs=1, seed=run.seed, config=run.train)
    scratch = Scratch(folder / ".scratch")
    none = Validation(None, run.train, num_epochs=plan.num_epochs)
    kept: list[DetectionDataset] = []

    def first() -> None:
        # Not `auto`, since the next repetition would find a file on the disk.
        where = "gpu" if device.type == "cuda" else "ram"
        kept[:] = [DetectionDataset(split, keep_images(split, where, device=device, folder=folder))]
        later()

    def later() -> None:
        where = {"device": device, "dtype": dtype, "scratch": scratch}
        fit(model, kept[0], assigner, plan, **where, validation=none, on_rows=lambda _: None)  # type: ignore[arg-type]
        shutil.rmtree(scratch.folder, ignore_errors=True)  # no epoch resumes from the state of another one

    return first, later


def their_epoch(
    run: Run,
    truth: dict[str, Any],
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Program:
    """`train_one_epoch` of torchvision's reference script on what its `get_dataset` gives."""
    model = torchvisions(run, NUM_CLASSES, TEST, min_size=run.train.sizes[0], max_size=run.train.max_size)
    model.to(device, memory_format=memory_format).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=run.train.learning_rate,
        momentum=run.train.momentum,
        weight_decay=run.train.weight_decay,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    annotations = folder / "instances.json"
    write_json(annotations, truth)
    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDetection(folder, str(annotations), transforms=flip_and_convert)
    # A process with a GPU cannot be forked safely: its workers are started apart, and once, which no epoch counts.
    apart: dict[str, Any] = {"multiprocessing_context": "forkserver", "persistent_workers": True}
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=run.train.batch_size,
        shuffle=True,
        num_workers=run.train.workers,
        collate_fn=collate,
        **apart if device.type == "cuda" else {},
    )

    def epoch() -> None:
        for pixels, truths in loader:
            images = [image.to(device) for image in pixels]
            targets = [{name: tensor.to(device) for name, tensor in of.items()} for of in truths]
            with autocast(device, dtype):
                losses = model(images, targets)
                loss = sum(losses.values())
            if not math.isfinite(loss.item()):
                raise SystemExit(f"torchvision's loss is {loss.item()}")
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return epoch


def flip_and_convert(image: Image.Image, annotations: list[dict[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
    """The reference's `hflip` preset: half of the PIL images mirrored, then float tensors of 0 to 1; boxes xyxy."""
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = torch.tensor([a["category_id"] - 1 for a in annotations], dtype=torch.int64)
    if torch.rand(1) < 0.5:
        image = hflip(image)
        boxes[:, [0, 2]] = image.width - boxes[:, [2, 0]]
    return convert_image_dtype(pil_to_tensor(image)), {"boxes": boxes, "labels": labels}


def collate(samples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples, strict=True))


if __name__ == "__main__":
    main()
