"""The fast path (bfloat16, channels_last, threads, kept pictures) against a plain one written out here in float32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_params
from PIL import Image
from torch.nn.functional import interpolate

from fcos.commands.assigner import build_assigner
from fcos.commands.build import build_model
from fcos.commands.layout import Layout
from fcos.commands.prepare import prepare
from fcos.config import params
from fcos.data.cache import keep_pictures
from fcos.data.coco import read_split
from fcos.data.dataset import DetectionDataset
from fcos.data.transforms import draw_view
from fcos.losses import detection_losses
from fcos.structures import Batch
from fcos.training.loop import Plan, fit
from fcos.training.optimizer import make_optimizer
from fcos.training.resume import Scratch

CPU = torch.device("cpu")
LOSSES = ("loss_classification", "loss_regression", "loss_centerness")


@pytest.fixture
def study(workspace, smoke_params):
    """64 drawn pictures of 64 pixels."""
    smoke_params["data"]["num_train"] = 64
    smoke_params["model"]["prior_probability"] = 0.1
    smoke_params["train"] |= {"batch_size": 8, "workers": 2}
    write_params(smoke_params)
    prepare()
    return params.read()


@pytest.fixture
def assigner(study):
    return build_assigner(study.runs["one-epoch"].model)


def make_plan(study, *, epochs):
    sizes = read_split(Layout("smoke").data, "train").image_sizes
    return Plan(image_sizes=sizes, epochs=epochs, seed=0, config=study.runs["one-epoch"].train)


def fast(study, assigner, plan, dtype):
    """As `fcos train` does it."""
    split = read_split(Layout("smoke").data, "train")
    model = build_model(study.runs["one-epoch"], len(split.categories), pretrained=False)
    pictures = keep_pictures(split, "ram", device=CPU, folder=Path("none"))
    history = fit(
        model, DetectionDataset(split, pictures), assigner, plan,
        device=CPU, dtype=dtype, scratch=Scratch(Path("none")), on_rows=list,
    )  # fmt: skip
    return np.array([[row[name] for name in LOSSES] for row in history.rows])


def plain(study, assigner, plan):
    """Float32 in NCHW, each picture decoded, resized, mirrored and normalised alone, whenever it is shown."""
    split = read_split(Layout("smoke").data, "train")
    model = build_model(study.runs["one-epoch"], len(split.categories), pretrained=False).train()
    optimizer = make_optimizer(model, plan.config)
    losses = []
    for step, indices in enumerate(plan.batches(0)):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr(step)
        batch = plain_batch(split, plan, step // plan.steps_per_epoch, indices)
        outputs = model(batch.images)
        parts, _ = detection_losses(outputs, assigner(outputs, batch))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        losses.append([part.item() for part in parts.values()])
    return np.array(losses)


def plain_batch(split, plan, epoch, indices):
    config = plan.config
    images, truths, sizes = [], [], []
    for index in indices:
        image = split.images[index]
        view = draw_view(
            (image["height"], image["width"]), seed=plan.seed, epoch=epoch, image_id=image["id"],
            sizes=config.sizes, longest=config.max_size, horizontal_flip=config.horizontal_flip,
        )  # fmt: skip
        height, width = view.size
        with Image.open(split.path_of(image)) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous() / 255
        shown = interpolate(pixels[None], size=view.size, mode="bilinear", align_corners=False)[0]
        shown = (shown - torch.tensor([[[0.485]], [[0.456]], [[0.406]]])) / torch.tensor(
            [[[0.229]], [[0.224]], [[0.225]]]
        )
        boxes = []
        for annotation in split.annotations_of[image["id"]]:
            x, y, w, h = annotation["bbox"]
            x, w = x * width / image["width"], w * width / image["width"]
            y, h = y * height / image["height"], h * height / image["height"]
            boxes.append([width - x - w if view.flipped else x, y, width - x if view.flipped else x + w, y + h])
        images.append(shown.flip(-1) if view.flipped else shown)
        truths.append((boxes, [split.label_of[a["category_id"]] for a in split.annotations_of[image["id"]]]))
        sizes.append(view.size)
    padded = torch.zeros(len(indices), 3, 64, 64)
    most = max(len(labels) for _, labels in truths)
    gt_boxes, gt_labels = torch.zeros(len(indices), most, 4), torch.full((len(indices), most), -1)
    for row, (image, (boxes, labels)) in enumerate(zip(images, truths, strict=True)):
        padded[row, :, : image.shape[1], : image.shape[2]] = image
        gt_boxes[row, : len(labels)] = torch.tensor(boxes)
        gt_labels[row, : len(labels)] = torch.tensor(labels)
    return Batch(padded, indices, torch.tensor(sizes).float(), gt_boxes, gt_labels, torch.zeros_like(gt_labels).bool())


def relative(losses, expected):
    """|difference| of each step, as a share of the sum of that step's losses."""
    return np.abs(losses - expected).max(axis=1) / expected.sum(axis=1)


def test_first_50_losses(study, assigner):
    plan = make_plan(study, epochs=6)  # 7 epochs of 8 steps: 56
    expected = plain(study, assigner, plan)
    in_float32 = fast(study, assigner, plan, torch.float32)
    in_bfloat16 = fast(study, assigner, plan, torch.bfloat16)
    # Measured, largest of the first 3 and of all 50 on two such data sets: 0.0002 and 0.02 in float32, where only the
    # order of sums differs and AdamW makes much of it; 0.0003 and 0.02 in bfloat16. A loss that is 5 % off is about
    # 0.02 off from the first step.
    for losses, first_3 in ((in_float32, 0.002), (in_bfloat16, 0.005)):
        assert relative(losses, expected)[:3].max() < first_3
        assert relative(losses, expected)[:50].max() < 0.1
