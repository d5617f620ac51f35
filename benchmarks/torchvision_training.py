"""Train our FCOS and torchvision's on the same data, from the same weights, on the same batches, and score both.

python benchmarks/torchvision_training.py --root VOC_FOLDER --out DIR --seeds 3

writes DIR/gt.json, DIR/{ours,torchvision}-SEED.json (COCO results) and DIR/summary.json. Data, views, batches,
optimizer, schedule and scorer are the package's own on both sides; network, losses, assignment, decoding and NMS are
each one's own. torchvision's FCOS runs as it ships; ours as `fcos train` and `fcos predict` run it: with the study's
locations and bounds, and in bfloat16 where the machine computes in it.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch
from networks import torchvisions
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from fcos.config.data import VocData
from fcos.config.model import ModelConfig
from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.config.train import Precision, TrainConfig
from fcos.data.cache import keep_images
from fcos.data.coco import read_split
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.transforms import View, make_batch
from fcos.detections import Detections
from fcos.errors import UserError
from fcos.evaluation.predictor import Predictor, predict_split
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.files import write_json
from fcos.model.device import find_device, find_dtype
from fcos.progress import Progress, say
from fcos.structures import Batch, Sample
from fcos.study.assigner import build_assigner
from fcos.study.build import build_grid, build_model
from fcos.study.data import write_data
from fcos.study.provenance import provenance
from fcos.training.loop import Plan
from fcos.training.optimizer import make_optimizer
from fcos.training.step import compute_losses

# Settings that torchvision fixes: 32 groups, ranges of 4 to 8 strides, and no upper bound at the last level.
MODEL = ModelConfig(
    weights="none",
    batch_norm="trained",
    fpn_channels=64,
    group_norm_groups=32,
    prior_probability=0.1,
    class_tower_init="normal",
    regression_ranges=[[0, 64], [64, 128], [128, 256], [256, 512], [512, None]],
)
TRAIN = TrainConfig(optimizer="adamw", learning_rate=5e-4, batch_size=4, sizes=[208, 224, 240], max_size=320)
TEST = TestConfig(size=240, max_size=320, score_threshold=0.05)


class Detector(Protocol):
    """One of the two implementations: a network with its loss and its detections."""

    @property
    def model(self) -> nn.Module: ...

    def loss(self, batch: Batch) -> Tensor: ...

    def detections(self, dataset: DetectionDataset) -> dict[int, Detections]: ...


class Ours:
    """Train, predict and score as the commands of this project do."""

    def __init__(self, run: Run, num_classes: int, device: torch.device) -> None:
        self.model = build_model(run, num_classes, pretrained=False)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.grid = build_grid(run.model)
        self.dtype = find_dtype(run.train.precision, device)
        self.assigner = build_assigner(run.model)

    def loss(self, batch: Batch) -> Tensor:
        losses, _ = compute_losses(self.model, batch, self.assigner, self.dtype)
        return torch.stack(list(losses.values())).sum()

    def detections(self, dataset: DetectionDataset) -> dict[int, Detections]:
        predictor = Predictor(
            model=self.model,
            grid=self.grid,
            device=next(self.model.parameters()).device,
            dtype=self.dtype,
            score_threshold=TEST.score_threshold,
            max_candidates=TEST.max_candidates,
        )
        candidates = _predict(predictor, dataset)
        return detect_all(candidates, nms_iou_threshold=TEST.nms_iou_threshold, max_detections=TEST.max_detections)


class Torchvisions:
    """torchvision's network, losses and detections, from the weights with which ours starts."""

    def __init__(self, run: Run, num_classes: int, device: torch.device) -> None:
        self.model = torchvisions(run, num_classes, TEST)
        self.model.to(device)

    def loss(self, batch: Batch) -> Tensor:
        outputs, anchors, per_level = self._run(batch)
        objects = (batch.gt_labels >= 0) & ~batch.gt_ignored
        truth = [
            {"boxes": boxes[mask], "labels": labels[mask]}
            for boxes, labels, mask in zip(batch.gt_boxes, batch.gt_labels, objects, strict=True)
        ]
        losses = self.model.compute_loss(truth, outputs, anchors, per_level)
        return torch.stack(list(losses.values())).sum()

    def detections(self, dataset: DetectionDataset) -> dict[int, Detections]:
        self.model.eval()
        return _predict(self, dataset)

    @torch.inference_mode()
    def __call__(self, samples: list[Sample], views: list[View]) -> list[Detections]:
        """Return the detections of each sample, in pixels of its image."""
        batch = make_batch(samples, views, next(self.model.parameters()).device)
        outputs, anchors, per_level = self._run(batch)
        found = self.model.postprocess_detections(
            {name: list(torch.split(output, per_level, dim=1)) for name, output in outputs.items()},
            [list(torch.split(of_image, per_level)) for of_image in anchors],
            [view.size for view in views],
        )
        results = []
        for sample, view, detections in zip(samples, views, found, strict=True):
            rows, columns, _ = sample.image.shape
            scale = torch.tensor([columns / view.size[1], rows / view.size[0]]).repeat(2)
            boxes, scores, labels = (detections[name].cpu() for name in ("boxes", "scores", "labels"))
            results.append(Detections((boxes * scale).numpy(), scores.numpy(), labels.numpy()))
        return results

    def _run(self, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """Return head outputs, the anchors of each image, and the number of anchors of each level."""
        images = batch.images.contiguous()
        features = list(self.model.backbone(images).values())
        sizes = [(int(height), int(width)) for height, width in batch.image_sizes.tolist()]
        anchors = self.model.anchor_generator(ImageList(images, sizes), features)
        return self.model.head(features), anchors, [f.shape[2] * f.shape[3] for f in features]


IMPLEMENTATIONS: dict[str, Callable[[Run, int, torch.device], Detector]] = {"ours": Ours, "torchvision": Torchvisions}


def _predict(predictor: Any, dataset: DetectionDataset) -> dict[int, Detections]:
    found, _ = predict_split(
        predictor,
        dataset,
        shorter=TEST.size,
        longest=TEST.max_size,
        batch_size=TEST.batch_size,
        workers=TEST.workers,
        description="predict",
    )
    return found


def batches(dataset: DetectionDataset, plan: Plan, device: torch.device) -> Iterator[Batch]:
    """Return the batches of a whole training, which depend only on the seed of the plan."""
    for step, samples in enumerate(load_ahead(dataset, plan.batches(0), workers=plan.config.workers)):
        epoch = step // plan.steps_per_epoch
        yield make_batch(samples, [plan.view(epoch, sample.image_id) for sample in samples], device)


def train(detector: Detector, dataset: DetectionDataset, plan: Plan, device: torch.device, name: str) -> float:
    """Train the detector's network in place; return the seconds it took."""
    detector.model.train()
    optimizer = make_optimizer(detector.model, plan.config)
    progress = Progress(f"train {name}", plan.num_steps, unit="steps")
    started = time.perf_counter()
    for step, batch in enumerate(batches(dataset, plan, device)):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr(step)
        loss = detector.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert loss.isfinite(), f"step {step} of {name}: the loss is {loss.item()}"
        progress.update(1, f"loss {loss.item():.3f}")
    progress.close()
    return time.perf_counter() - started


def run_one(out: Path, implementation: str, seed: int, epochs: int, precision: Precision) -> dict[str, Any]:
    """Train, detect and score once, on one thread; write the results file and return the row of the summary."""
    torch.set_num_threads(1)
    config = TRAIN.model_copy(update={"precision": precision})
    device = find_device(config.device)
    train_split, test_split = read_split(out / "data", "train"), read_split(out / "data", "test")
    # Images are decoded once, as in `fcos train`, and kept wherever there is room.
    images = keep_images(train_split, "auto", device=device, folder=out)
    train_set, test_set = DetectionDataset(train_split, images), DetectionDataset(test_split)
    run = Run(
        study="bccd", name=f"seed-{seed}", backbone="resnet18", num_convs=3, epochs=epochs, seed=seed,
        checkpoint=None, role=None, model=MODEL, train=config,
    )  # fmt: skip
    plan = Plan(image_sizes=train_split.image_sizes, epochs=epochs, seed=seed, config=config)
    name = f"{implementation}-{seed}"
    detector = IMPLEMENTATIONS[implementation](run, len(train_split.categories), device)
    seconds = train(detector, train_set, plan, device, name)
    results = coco_results(detector.detections(test_set), test_split)
    write_json(out / f"{name}.json", results, indent=None)
    metrics = coco_metrics(results, test_split)["metrics"]
    row = {"AP": metrics["AP"], "AP50": metrics["AP50"], "training_seconds": round(seconds, 1)}
    say(f"{name}: {row}")
    return {"implementation": implementation, "seed": seed, **row}


def compare(root: Path, out: Path, *, seeds: int, epochs: int, precision: Precision, jobs: int) -> None:
    """Train, detect and score with both implementations for seeds 0 .. seeds - 1, `jobs` trainings at a time."""
    started = time.time()
    data = VocData(source="voc", root=str(root), train_split="trainval", test_split="test", validation_fraction=0.0)
    write_data(data, out / "data")
    shutil.copy(out / "data" / "test.json", out / "gt.json")
    trainings = [(implementation, seed) for seed in range(seeds) for implementation in IMPLEMENTATIONS]
    # One thread for each training, since the two threads of a training wait for each other on a busy machine.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_one, out, name, seed, epochs, precision) for name, seed in trainings]
        rows = [future.result() for future in futures]
    device = find_device(TRAIN.device)
    dtype = str(find_dtype(precision, device)).removeprefix("torch.")
    settings = {
        "backbone": "resnet18",
        "num_convs": 3,
        "epochs": epochs,
        "model": MODEL.model_dump(mode="json"),
        "train": {**TRAIN.model_dump(mode="json"), "precision": precision},
        "test": TEST.settings(),
    }
    where = provenance(started, device=device.type, dtypes={"ours": dtype, "torchvision": "float32"}, jobs=jobs)
    write_json(out / "summary.json", {"settings": settings, "trainings": rows, "provenance": where})


def main() -> None:
    """Parse the command line; exit code 2 on a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder in VOC layout, splits trainval and test")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each implementation")
    parser.add_argument("--epochs", type=int, default=12, help="after one of warm-up")
    parser.add_argument("--precision", choices=["auto", "float32"], default="auto", help="ours; torchvision: float32")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, with one thread each")
    arguments = parser.parse_args()
    try:
        compare(**vars(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
