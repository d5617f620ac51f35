"""A training step at VOC sizes: ours against torchvision's FCOS, from decoded images to new weights.

    python benchmarks/training_step.py --out FILE [--device cuda --batch-size 16]

torchvision's runs (a) as its reference script has it, with its own transform, in float32 (with --amp on a GPU), and
(b) given our number format and memory layout too. Same layers, same starting weights, same images and boxes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from networks import torchvisions
from numpy.typing import NDArray
from side_by_side import device_named, in_turn, line, parser, write_report
from torch import nn

from fcos.config.model import ModelConfig
from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.config.train import TrainConfig
from fcos.data.transforms import View, make_batch
from fcos.model.device import autocast, find_dtype, find_memory_format
from fcos.model.graphs import make_graphs
from fcos.structures import GroundTruth, Sample
from fcos.study.assigner import build_assigner
from fcos.study.build import build_model
from fcos.training.largest_batch import saved_bytes
from fcos.training.optimizer import make_optimizer
from fcos.training.step import compute_losses, train_step

NUM_CLASSES = 20
OBJECTS = 3  # a VOC2007 image has 2.4 objects on average
MODEL = ModelConfig(weights="none", batch_norm="frozen", fpn_channels=128, group_norm_groups=32)
TEST = TestConfig()


def main() -> None:
    options = parser(__doc__, repetitions=5)
    options.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"])
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--steps", type=int, default=1, help="in each repetition")
    options.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width")
    options.add_argument("--device", type=device_named, default="cpu", metavar="{cpu,cuda}")
    arguments = options.parse_args()
    device = arguments.device
    dtype = find_dtype("auto", device)
    lines, memory = [], {}
    for backbone in arguments.backbones:
        run = Run(
            study="bench", name=backbone, backbone=backbone, num_convs=3, epochs=1, seed=0, checkpoint=None,
            role=None, model=MODEL, train=TrainConfig(learning_rate=1e-4),
        )  # fmt: skip
        samples = make_samples(arguments.batch_size, *arguments.size)
        ours, ours_parts = our_step(run, samples, device, dtype)
        plain, plain_parts = their_step(run, samples, device, torch.float16 if device.type == "cuda" else torch.float32)
        given, _ = their_step(run, samples, device, dtype, memory_format=find_memory_format(device, dtype))
        programs = {"ours": ours, "plain": plain, "given": given}
        repeated = {name: repeat(step, arguments.steps) for name, step in programs.items()}
        seconds = in_turn(repeated, arguments.repetitions, label=backbone)
        gpu = device.type == "cuda"
        what = f"training step, {backbone}, {arguments.size[0]} x {arguments.size[1]}, batch {arguments.batch_size}"
        as_shipped = "torchvision as shipped" + (", --amp" if gpu else ", float32")
        lines.append(line(what, seconds["ours"], seconds["plain"], peer=as_shipped, target=3.0 if gpu else 2.5))
        peer = f"torchvision, {format_of(device, dtype)}"
        lines.append(line(what, seconds["ours"], seconds["given"], peer=peer, target=1.2))
        memory[backbone] = {
            "ours_mb_per_image": round(saved_bytes(*ours_parts) / 2**20 / arguments.batch_size, 1),
            "torchvision_mb_per_image": round(saved_bytes(*plain_parts) / 2**20 / arguments.batch_size, 1),
        }
    write_report(arguments.out, "Training step", lines, dtype=name_of(dtype), activations=memory)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def format_of(device: torch.device, dtype: torch.dtype) -> str:
    """Return our number format as text."""
    layout = "channels_last" if find_memory_format(device, dtype) == torch.channels_last else "channels first"
    return f"{name_of(dtype)}, {layout}"


def repeat(step: Callable[[], Any], times: int) -> Callable[[], Any]:
    return lambda: [step() for _ in range(times)]


def make_samples(count: int, height: int, width: int) -> list[Sample]:
    """Return images of noise with boxes of VOC-like sizes."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(count):
        image: NDArray[np.uint8] = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        corner = generator.random((OBJECTS, 2)) * [width / 2, height / 2]
        side = np.exp(generator.normal(4.8, 0.7, (OBJECTS, 2))).clip(16, [width / 2, height / 2])
        boxes = torch.from_numpy(np.concatenate((corner, corner + side), axis=1)).float()
        labels = torch.from_numpy(generator.integers(0, NUM_CLASSES, OBJECTS))
        truth = GroundTruth(boxes, labels, torch.zeros(OBJECTS, dtype=torch.bool))
        samples.append(Sample(number, image, truth, (height, width)))
    return samples


Step = tuple[Callable[[], Any], tuple[Callable[[], Any], list[nn.Parameter]]]


def our_step(run: Run, samples: list[Sample], device: torch.device, dtype: torch.dtype) -> Step:
    """Return a whole step as in `fcos train`, its forward pass, and the parameters."""
    model = build_model(run, NUM_CLASSES, pretrained=False)
    memory_format = find_memory_format(device, dtype)
    model.to(device, memory_format=memory_format).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(model, run.train)
    views = [View((sample.image.shape[0], sample.image.shape[1])) for sample in samples]
    assigner = build_assigner(run.model)
    graphs = make_graphs(model, device, dtype, wanted=run.train.cuda_graphs)

    def step() -> Any:
        batch = make_batch(samples, views, device, memory_format)
        return train_step(model, batch, assigner, optimizer, dtype=dtype, clip_grad_norm=None, graphs=graphs)

    forward = lambda: compute_losses(model, make_batch(samples, views, device, memory_format), assigner, dtype)  # noqa: E731
    return step, (forward, list(model.parameters()))


def their_step(
    run: Run,
    samples: list[Sample],
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Step:
    """Run the body of torchvision's reference loop, from float images on the CPU."""
    size = samples[0].image.shape[:2]
    model = torchvisions(run, NUM_CLASSES, TEST, min_size=min(size), max_size=max(size))
    model.to(device, memory_format=memory_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    pixels = [torch.from_numpy(s.image).permute(2, 0, 1).contiguous().float() / 255 for s in samples]

    def forward() -> torch.Tensor:
        images = [image.to(device) for image in pixels]
        targets = [
            {"boxes": s.ground_truth.boxes.to(device), "labels": s.ground_truth.labels.to(device)} for s in samples
        ]
        with autocast(device, dtype):
            losses = model(images, targets)
        return torch.stack(list(losses.values())).sum()

    def step() -> float:
        loss = forward()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()  # as in the reference script, which stops on NaN

    return step, (forward, list(model.parameters()))


if __name__ == "__main__":
    main()
