"""The fast path (bfloat16, channels_last, threads, cached images) against a plain float32 implementation."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import REAL_DATA, ROOT, write_params
from PIL import Image
from torch.nn.functional import interpolate

from fcos.commands.prepare import prepare
from fcos.commands.score import score
from fcos.config import params
from fcos.config.runs import Run
from fcos.data.cache import keep_images
from fcos.data.coco import CocoSplit, read_split
from fcos.data.dataset import DetectionDataset
from fcos.evaluation.predictor import Predictor, predict_split
from fcos.evaluation.scoring import coco_results, detect_all
from fcos.files import write_json
from fcos.losses import detection_losses
from fcos.model.device import find_dtype
from fcos.structures import Batch
from fcos.study.assigner import build_assigner
from fcos.study.build import build_grid, build_model
from fcos.study.layout import Layout
from fcos.training.loop import Plan, fit
from fcos.training.optimizer import make_optimizer
from fcos.training.resume import Scratch
from fcos.training.validation import Validation

CPU = torch.device("cpu")
LOSSES = ("loss_classification", "loss_regression", "loss_centerness")


@dataclass
class Case:
    """A run on prepared data, which is trained in both ways."""

    run: Run
    epochs: int
    split: CocoSplit = field(init=False)

    def __post_init__(self):
        self.split = read_split(Layout(self.run.study).data, "train")

    @property
    def plan(self):
        return Plan(image_sizes=self.split.image_sizes, epochs=self.epochs, seed=0, config=self.run.train)

    def build(self):
        return build_model(self.run, len(self.split.categories), pretrained=False)


# The number format of `precision: auto` on this processor; emulating bfloat16 would take half an hour.
AS_SHIPPED = find_dtype("auto", CPU)


def fast(case, dtype):
    """Train as `fcos train` does; return the network and the losses of each step."""
    model = case.build()
    images = keep_images(case.split, "ram", device=CPU, folder=Path("none"))
    history = fit(
        model, DetectionDataset(case.split, images), build_assigner(case.run.model), case.plan,
        device=CPU, dtype=dtype, scratch=Scratch(Path("none")), on_rows=list,
        validation=Validation(None, case.run.train, num_epochs=case.plan.num_epochs),
    )  # fmt: skip
    return model, np.array([[row[name] for name in LOSSES] for row in history.rows])


def plain(case):
    """Train in float32 and NCHW, with each image decoded, resized, flipped and normalised separately for each view."""
    model, assigner, plan = case.build().train(), build_assigner(case.run.model), case.plan
    optimizer = make_optimizer(model, plan.config)
    losses = []
    for step, indices in enumerate(plan.batches(0)):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr(step)
        batch = plain_batch(case.split, plan, step // plan.steps_per_epoch, indices)
        outputs = model(batch.images)
        parts, _ = detection_losses(outputs, assigner(outputs, batch))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        losses.append([part.item() for part in parts.values()])
    return model, np.array(losses)


def plain_batch(split, plan, epoch, indices):
    images, truths, sizes = [], [], []
    for index in indices:
        image = split.images[index]
        view = plan.view(epoch, image["id"])
        height, width = view.size
        with Image.open(split.path_of(image)) as pixels:
            pixels = torch.from_numpy(np.array(pixels.convert("RGB"))).permute(2, 0, 1).contiguous() / 255
        shown = interpolate(pixels[None], size=view.size, mode="bilinear", align_corners=False)[0]
        shown = (shown - torch.tensor([[[0.485]], [[0.456]], [[0.406]]])) / torch.tensor(
            [[[0.229]], [[0.224]], [[0.225]]]
        )
        boxes = []
        for annotation in split.annotations_of(image["id"]):
            x, y, w, h = annotation["bbox"]
            x, w = x * width / image["width"], w * width / image["width"]
            y, h = y * height / image["height"], h * height / image["height"]
            boxes.append([width - x - w if view.flipped else x, y, width - x if view.flipped else x + w, y + h])
        images.append(shown.flip(-1) if view.flipped else shown)
        truths.append((boxes, [split.label_of[a["category_id"]] for a in split.annotations_of(image["id"])]))
        sizes.append(view.size)
    padded = torch.zeros(len(indices), 3, *(-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True)))
    most = max(len(labels) for _, labels in truths)
    gt_boxes, gt_labels = torch.zeros(len(indices), most, 4), torch.full((len(indices), most), -1)
    for row, (image, (boxes, labels)) in enumerate(zip(images, truths, strict=True)):
        padded[row, :, : image.shape[1], : image.shape[2]] = image
        gt_boxes[row, : len(labels)] = torch.tensor(boxes)
        gt_labels[row, : len(labels)] = torch.tensor(labels)
    return Batch(padded, indices, torch.tensor(sizes).float(), gt_boxes, gt_labels, torch.zeros_like(gt_labels).bool())


def relative(losses, expected):
    """Return |difference| of each step relative to the sum of that step's losses."""
    return np.abs(losses - expected).max(axis=1) / expected.sum(axis=1)


@pytest.mark.slow
def test_first_50_losses(workspace, smoke_params):
    smoke_params["data"]["num_train"] = 64  # drawn images of 64 pixels
    smoke_params["model"]["prior_probability"] = 0.1
    smoke_params["train"] |= {"batch_size": 8, "workers": 2}
    write_params(smoke_params)
    prepare()
    case = Case(params.read().runs["one-epoch"], epochs=6)  # 7 epochs of 8 steps: 56
    _, expected = plain(case)
    # Measured, largest of the first 3 and of all 50 on two such data sets: 0.0002 and 0.02 in float32, where only the
    # order of sums differs and AdamW makes much of it; 0.0003 and 0.02 in bfloat16. A loss that is 5 % off is about
    # 0.02 off from the first step.
    for dtype in {torch.float32, AS_SHIPPED}:
        _, losses = fast(case, dtype)
        assert relative(losses, expected)[:3].max() < (0.002 if dtype == torch.float32 else 0.005)
        assert relative(losses, expected)[:50].max() < 0.1


BCCD = {"source": "voc", "root": str(REAL_DATA / "bccd"), "train_split": "train", "test_split": "test"}
# Data, epochs after the warm-up, and the AP in percent that a comparison needs.
ON_DRAWN, ON_REAL = (None, 4, 5), (BCCD, 1, 10)


@pytest.mark.slow
def test_average_precision_is_that_of_the_plain_path(workspace):
    """Train on real images, if they are available."""
    data, epochs, at_least = ON_REAL if Path(BCCD["root"]).is_dir() else ON_DRAWN
    settings = yaml.safe_load((ROOT / "studies" / "shapes.yaml").read_text())
    settings["model"]["initial_ltrb"] = 1.0  # learns faster
    if data is not None:
        settings |= {"study": "bccd", "data": data}
        settings["train"] |= {"batch_size": 4, "sizes": [64, 96], "max_size": 128}
        settings["test"] |= {"size": 96, "max_size": 128}
    write_params(settings)
    prepare()
    case = Case(params.read().runs["resnet18-e12-c3"], epochs=epochs)
    exact = average_precision(case, plain(case)[0], torch.float32)
    found = average_precision(case, fast(case, AS_SHIPPED)[0], AS_SHIPPED)
    print(f"plain {exact['AP']}, {exact['intervals']['AP']}; fast {found['AP']}")
    assert exact["AP"] > at_least / 100
    assert exact["intervals"]["AP"]["low"] < found["AP"] < exact["intervals"]["AP"]["high"]


def average_precision(case, model, dtype):
    """Return the output of `fcos score` for the network on the test images."""
    test, layout = params.read().test, Layout(case.run.study)
    split = read_split(layout.data, "test")
    predictor = Predictor(
        model=model, grid=build_grid(case.run.model), device=CPU, dtype=dtype,
        score_threshold=test.score_threshold, max_candidates=test.max_candidates,
    )  # fmt: skip
    candidates, _ = predict_split(
        predictor, DetectionDataset(split), shorter=test.size, longest=test.max_size, batch_size=16, workers=0,
        description="predict",
    )  # fmt: skip
    detections = detect_all(candidates, nms_iou_threshold=test.nms_iou_threshold, max_detections=100)
    write_json(Path("detections.json"), coco_results(detections, split))
    return score(layout.data / "test.json", Path("detections.json"), out=None, replicates=1000, confidence=0.95, seed=0)
