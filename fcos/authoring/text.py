"""Text of the study file that `fcos study new` writes, with a unit or reason for every value."""

import os
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import yaml

from fcos.authoring.settings import BACKBONES, NUM_CONVS, Settings

_STUDY = Template("""\
# $headline
# Written by `fcos study new`; all of it may be changed. `fcos study use $name && fcos study run` runs it,
# `make repro STUDY=$name` too.
study: $study

data:
$data

model:
$backbone
  fpn_channels: 128    # of every level and of the heads, as in the published study; fewer are faster
  p6_from: p5          # or c5, the last map of the backbone
  group_norm_groups: 16   # of the channels, in the norms of the heads
  class_tower_init: default   # PyTorch's own; `normal`: N(0, 0.01) as in all other convolutions of the heads
  prior_probability: $prior   # initial class probability at each location$prior_why
  initial_ltrb: 1.0             # initial strides from a location to each side of its box; the published study: 0
  location_offset: 0.5          # of a step: in the middle of its cell
  location_step: stride         # pixels between two locations
  center_sampling_radius: 1.5   # in strides
  center_bounds: inclusive      # a location on the border is inside; or strict
  regression_ranges:   # pixels, for strides 8 to 128: $ranges_why
$ranges

train:
$optimizer
  batch_size: $batch_size        # images; `fcos doctor` says how many fit
  batches: by_shape    # images of similar shape share a batch: less padding to compute
  warmup_epochs: $warmup_epochs     # linear, besides the run's epochs
  sizes: $sizes   # shorter side in pixels, drawn per image; from 0.6 of test.size
  max_size: $max_size      # longer side in pixels, at most
  horizontal_flip: 0.5 # probability; 0.0 if mirrored objects are different objects, as in text
  clip_grad_norm: null # or a number, if the loss jumps
  precision: auto      # bfloat16 where the device computes in it
  device: auto         # cuda, then mps, then cpu
  workers: $workers           # threads that read images ahead
  checkpoint_every_s: 60.0   # an interrupted training resumes from there
$validation
test:
  size: $size            # shorter side in pixels; $size_why
  max_size: $max_size        # longer side in pixels, at most; 90 % of the images reach `size`
  score_threshold: 0.05  # detections with a lower score are dropped
  max_candidates: 1000   # (location, class) pairs per level
  nms_iou_threshold: 0.6 # of two boxes of one class that overlap more, the one with the lower score is removed
  max_detections: 100    # per image, as many as COCO's AP counts
  batch_size: 8          # images; changes no number
  precision: auto      # as in train
  device: auto         # as in train
  workers: $workers           # as in train

tta:                   # test-time augmentation: the test images at several sizes, merged
  sizes: $tta_sizes   # shorter sides in pixels, that of the test first
  choose_on: $tta_choose_on
  runs:
    - $first

nms_sweep:
  thresholds: [0.5, 0.6, 0.7]   # IoU
  choose_on: $nms_choose_on
  runs:
    - $first

statistics:            # of the intervals and tests in every table
  confidence: 0.95     # of 100 such intervals, 95 contain the true value
  replicates: 1000     # bootstrap samples of the test images
  seed: 0              # of the bootstrap; the same for all runs, so that differences are paired

tracking:
  checkpoints: all     # in MLflow: all, best or none; hard links, so they take no extra space

tables:
  - {kind: runs, title: Backbones, vary: backbone, where: {epochs: $epochs, num_convs: $num_convs}}
  - {kind: tta, title: Test-time augmentation, run: $first}
  - {kind: nms, title: NMS thresholds, run: $first}

# Each line is a training. To add: other backbones (resnet50, resnet101), other epochs; $seeds_why.
# Epochs: $epochs_why.
runs:
$runs
""")

_PRETRAINED = """\
  weights: imagenet    # torchvision's IMAGENET1K_V1, downloaded at the first training
  batch_norm: frozen   # statistics of ImageNet; batches are too small for statistics of their own"""
_FROM_SCRATCH = """\
  weights: none        # the ImageNet weights were not available; with them: imagenet, and batch_norm: frozen
  batch_norm: trained  # frozen statistics make sense with pretrained weights only
  zero_init_residual: true   # each residual block starts as the identity: deep backbones learn sooner from scratch"""
_SGD = """\
  optimizer: sgd       # as in the paper; or adamw
  learning_rate: $rate   # 0.005 per 4 images, as in the published study; at most 0.01
  momentum: 0.9        # of sgd
  weight_decay: 0.0001 # on the weights of convolutions only"""
_ADAMW = """\
  optimizer: adamw     # learns faster from scratch than sgd; with weights: imagenet, sgd at 0.005 for a batch of 4
  learning_rate: $rate   # 0.0005 at batch_size 8, scaled with its square root
  weight_decay: 0.0001 # on the weights of convolutions only"""

_VALIDATION = """\
  validate_every: 1    # epochs between evaluations on the validation images; their AP is in the training curves
  keep: last           # the weights; or best: those of the highest validation AP
  patience: null       # or a number: stop when validation AP has not improved for this many epochs
"""

_ONE_SEED = "further seeds (`seed: 1`),\n# needed before a difference says anything certain about the settings"
_SEEDS = "runs that differ\n# in the seed are one row of a table, with their standard deviation"

# Meanings of the keys of `data`, in the order in which the keys are written.
_DATA = {
    "source": "voc, coco, yolo or shapes",
    "root": "the folder of the data, or a link to it; on another machine: fcos source --at FOLDER",
    "annotations": "the folder of the XML files, below root",
    "images": "the folder of their images",
    "lists": "the folder of the lists of images",
    "train_split": "a list in ImageSets/Main",
    "validation_split": "to choose settings on",
    "test_split": "the report's numbers are computed on it",
    "train_annotations": "COCO JSON, or a folder of VOC XML; relative to root, as all files and folders here",
    "train_images": "a folder of images",
    "train_labels": "a text file for each image, by the same name",
    "train_list": "a file with one image per line; other images in the folder are ignored",
    "validation_annotations": "to choose settings on",
    "validation_images": "a folder of images; validation is what settings are chosen on",
    "validation_labels": "their labels",
    "validation_list": "a file with one image per line",
    "test_annotations": "the report's numbers are computed on it",
    "test_images": "a folder of images; the report's numbers are computed on the test split",
    "test_labels": "their labels",
    "test_list": "a file with one image per line",
    "test_fraction": "of the images, by their sha256, so always the same: taken out of training to test on",
    "validation_fraction": "share of the training images for the validation split; 0: none",
    "classes": "",
    "keypoints": "number of keypoints, and numbers for each: they follow the box in each line, and are ignored",
    "difficult": "or ignore: neither object nor background",
    "outside_boxes": "",
    "damaged": "an image, annotation or line that cannot be used stops `fcos prepare`; or leave-out",
    "cache": "of decoded images: gpu, ram, disk, none; auto: the first with room. Changes no number",
}
_NULL = {"train_split": "all of the folder of XML files"}
_DAMAGED = "an image, annotation or line that cannot be used is left out, and listed in manifest.json; or error"
_OUTSIDE = {
    "error": "a box that extends beyond the border by more than a pixel stops `fcos prepare`; or clip",
    "clip": "boxes extend beyond the border by more than a pixel: clipped, and listed in manifest.json",
}


def study_text(name: str, headline: str, data: Mapping[str, Any], settings: Settings, *, seeds: int) -> str:
    """Return the text of studies/NAME.yaml; keys that are missing in the section `data` are left out."""
    parts = ("split", "annotations", "images")
    validates = bool(data.get("validation_fraction")) or any(data.get(f"validation_{part}") for part in parts)
    optimizer = Template(_SGD if settings.pretrained else _ADAMW)
    names = [f"{backbone}-e{settings.epochs}-c{NUM_CONVS}" for backbone in BACKBONES]
    trained = f"epochs: {settings.epochs}, num_convs: {NUM_CONVS}"
    return _STUDY.substitute(
        name=name,
        study=flow(name),
        headline=" ".join(headline.split()),
        data="\n".join(_entry(key, data[key]) for key in _DATA if key in data),
        backbone=_PRETRAINED if settings.pretrained else _FROM_SCRATCH,
        prior=0.01 if settings.pretrained else 0.1,
        prior_why="" if settings.pretrained else "; with pretrained weights 0.01",
        ranges_why=settings.ranges_why,
        ranges="\n".join(f"    - {flow(pair)}" for pair in settings.regression_ranges),
        optimizer=optimizer.substitute(rate=settings.learning_rate),
        batch_size=settings.batch_size,
        warmup_epochs=settings.warmup_epochs,
        sizes=settings.sizes,
        size=settings.size,
        max_size=settings.max_size,
        size_why=settings.size_why,
        workers=min(4, os.cpu_count() or 1),
        validation=_VALIDATION if validates else "",
        tta_sizes=settings.sizes[:: -max(1, len(settings.sizes) // 2)],
        tta_choose_on="validation   # as many of the first sizes as are best there"
        if validates
        else "null      # all sizes; `validation`: the first N, with N chosen on the validation split",
        nms_choose_on="validation   # the split that the threshold is chosen on, so that the test score is unbiased"
        if validates
        else "test      # the best score on test is optimistic; `validation` needs data.validation_fraction: 0.1",
        first=names[0],
        epochs=settings.epochs,
        num_convs=NUM_CONVS,
        epochs_why=settings.epochs_why,
        seeds_why=_SEEDS if seeds > 1 else _ONE_SEED,
        runs="\n".join(
            f"  {run}-s{seed}: {{backbone: {backbone}, {trained}, seed: {seed}}}"
            if seed
            else f"  {run}: {{backbone: {backbone}, {trained}}}"
            for run, backbone in zip(names, BACKBONES, strict=True)
            for seed in range(seeds)
        ),
    )


def _entry(key: str, value: Any) -> str:
    if key == "classes":
        names = [flow([name])[1:-1] for name in value]
        return f"  classes:   # all classes, in the order of their numbers in the network\n{_filled(names)}"
    comment = _OUTSIDE[value] if key == "outside_boxes" else _DAMAGED if value == "leave-out" else _DATA[key]
    if value is None:
        comment = _NULL.get(key, "there is none, see test_fraction")
    return f"  {key}: {flow(value)}" + f"   # {comment}"


def _filled(items: Sequence[str]) -> str:
    """Return a YAML list with as many items per line as fit."""
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) > 108:
            lines.append("")
        lines[-1] += f"{item}, "
    return "    [" + "\n     ".join(line.rstrip() for line in lines).removesuffix(",") + "]"


def flow(value: Any) -> str:
    """Return the value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
