"""Create a study with untrained weights, for the tests of code that uses a network."""

import contextlib
import os
from pathlib import Path

import torch
import yaml
from conftest import ROOT, Watcher, write_params

from fcos.commands.predict import predict
from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.config.runs import parse_runs
from fcos.data.coco import read_split
from fcos.model.checkpoint import Identity, save_weights
from fcos.study.build import build_model
from fcos.study.layout import Layout

RUN = "one-epoch"


def make_study(folder: Path, **data) -> Path:
    """Create the smoke study in `folder`: prepared, with random weights that find many boxes of all classes."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        params = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
        params["data"].update(data)
        write_params(params)
        prepare()
        split = read_split(Path("data/smoke"), "test")
        for name, run in parse_runs(params).items():
            model = build_model(run, len(split.categories), pretrained=False)
            loud(model.head, run.seed + len(name))
            identity = Identity(run=run.identity(), categories=split.categories, data_digest=split.digest)
            save_weights(Layout("smoke").weights(name), model.state_dict(), identity)
    finally:
        os.chdir(before)
    return folder


def train_and_predict(folder: Path, params) -> None:
    """Create the study of these settings in `folder`: prepared, its run trained and predicted in all views."""
    with contextlib.chdir(folder):
        write_params(params)
        prepare()
        train(RUN, Watcher())
        predict(RUN, "test")
        predict(RUN, "tta")


def loud(head, seed: int) -> None:
    """Give the head scores from 0 to 1 and boxes of several strides; a new head predicts 0.07 and empty boxes."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head.class_logits.weight.normal_(std=0.25)
        head.class_logits.bias.fill_(-1.0)
        head.box_regression.weight.normal_(std=0.05)
        head.box_regression.bias.fill_(2.0)
