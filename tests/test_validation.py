"""Validation during training: it does not change the training, it selects the weights, and it is reported."""

import json

import pandas as pd
import pytest
import torch
from conftest import Stopper, Watcher, assert_mistake, forget_trainings, write_params
from safetensors.torch import load_file

from fcos.commands.prepare import prepare
from fcos.commands.source import source
from fcos.commands.train import train
from fcos.config import params
from fcos.config.train import TrainConfig
from fcos.data.coco import read_split
from fcos.files import sha256_file
from fcos.study.layout import Layout
from fcos.study.validator import SplitValidator
from fcos.training.validation import Validation

RUN = Layout("smoke").run("one-epoch")


@pytest.fixture
def study(workspace, smoke_params):
    """Return the smoke study with 4 of 16 images for validation, two epochs and batches of 4: three steps each."""
    smoke_params["data"]["validation_fraction"] = 0.25
    smoke_params["train"]["validate_every"] = 1
    write_params(smoke_params)
    prepare()
    return smoke_params


class Planted:
    """A validator that returns given APs."""

    key = "planted"
    num_images = {"validation": 4, "training": 4}

    def __init__(self, *found):
        self.found, self.scored, self.weights = list(found), [], []

    def __call__(self, model, _, split):
        model.eval()
        self.scored.append(split)
        self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        ap = self.found.pop(0) if split == "validation" else 0.9
        return {"AP": ap, "AP50": ap}


def trained(settings, validator, *, epochs=3, observer=None):
    """Return train.json and the kept tensors of a training with these settings of `train`."""
    settings["runs"]["one-epoch"]["epochs"] = epochs
    write_params(settings)
    train("one-epoch", observer or Watcher(), lambda *_: validator)
    return json.loads((RUN / "train.json").read_text()), load_file(RUN / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# What it decides ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_the_last_weights_kept_it_changes_nothing(study):
    """Validation changes neither tensors, losses, key nor header; smoke's networks have BatchNorm to change."""
    _, tensors = trained(study, Planted(0.1, 0.3, 0.2, 0.1))
    key, losses = json.loads((RUN / "train.json").read_text())["training_key"], pd.read_csv(RUN / "history.csv")
    digest = sha256_file(RUN / "model.safetensors")
    del study["train"]["validate_every"]
    summary, _ = trained(study, None)  # the key is equal, so the finished training is restored
    assert summary["training_key"] == key and "validation" in summary
    forget_trainings()
    summary, plain = trained(study, None)
    assert "validation" not in summary and summary["training_key"] == key
    assert equal(plain, tensors) and sha256_file(RUN / "model.safetensors") == digest
    columns = ["step", "loss", "lr", "num_positives"]
    without = pd.read_csv(RUN / "history.csv")
    assert without[columns].equals(losses[columns]) and "validation_AP" not in without


def test_the_best_weights_are_kept(study):
    study["train"]["keep"] = "best"
    planted = Planted(0.1, 0.3, None, 0.3)  # the first of equal ones is kept; an undefined AP is the lowest
    summary, tensors = trained(study, planted)
    assert equal(tensors, planted.weights[1]) and not equal(tensors, planted.weights[3])
    assert equal(tensors, planted.weights[4])  # the best weights are scored on training images
    assert planted.scored == ["validation"] * 4 + ["training"]
    found = summary["validation"]
    assert (found["epoch"], found["epochs"], found["AP"], found["training_AP"]) == (2, 4, 0.3, 0.9)
    history = pd.read_csv(RUN / "history.csv")
    assert history["validation_AP"].dropna().to_dict() == {2: 0.1, 5: 0.3, 11: 0.3}  # three steps per epoch


@pytest.mark.slow
def test_patience_ends_a_training(study, capsys):
    """The best AP is of epoch 2, two epochs before epoch 4; the last weights are kept."""
    study["train"]["patience"] = 2
    planted = Planted(0.1, 0.3, 0.2, 0.3)
    summary, tensors = trained(study, planted, epochs=20)
    assert summary["validation"]["epochs"] == summary["validation"]["epoch"] == 4
    assert summary["validation"]["best_epoch"] == 2 and equal(tensors, planted.weights[3])
    assert len(pd.read_csv(RUN / "history.csv")) == 12
    assert "ended after epoch 4 of 21, validation AP 30.0 (best 30.0 after epoch 2)" in capsys.readouterr().err


def test_every_third_epoch_and_at_the_end():
    validation = Validation(Planted(), TrainConfig(validate_every=3), num_epochs=8)
    assert [epoch for epoch in range(1, 9) if validation.is_due(epoch)] == [3, 6, 8]
    assert not Validation(None, TrainConfig(), num_epochs=8).is_due(8)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"keep": "best"}, {"keep": "best", "patience": 2}, {"patience": 2}])
def test_a_resumed_training_keeps_the_same_weights(study, settings):
    """The best weights were found before an interruption within an epoch; the state is saved at every step."""
    study["train"] |= {**settings, "checkpoint_every_s": 0.0}
    found = [0.1, 0.3, 0.2, 0.25, 0.2]
    summary, tensors = trained(study, Planted(*found), epochs=4)
    forget_trainings()
    for after, there in ((5, found), (3, found[1:])):  # killed after step 5, then, resumed at step 4, after step 7
        with pytest.raises(KeyboardInterrupt):
            trained(study, Planted(*there), epochs=4, observer=Stopper(after))
    (RUN / "model.safetensors").unlink()
    again = Planted(*found[2:])
    resumed, the_same = trained(study, again, epochs=4)
    assert equal(tensors, the_same) and 0 < again.scored.count("validation") < 4
    kept = ("epoch", "epochs", "best_epoch", "AP", "best_AP")
    assert [resumed["validation"][key] for key in kept] == [summary["validation"][key] for key in kept]


# The real validator ---------------------------------------------------------------------------------------------------


def real(kind):
    """Return a validator for the run that is trained here."""
    return kind(params.read().runs["one-epoch"], read_split(Layout("smoke").data, "train"))


@pytest.mark.slow
def test_it_finds_what_predict_and_evaluate_find(study, run):
    """The validator gives the AP that the commands give for the kept weights, on the same images as test split."""
    summary, _ = trained(study, real(SplitValidator), epochs=8)
    found = summary["validation"]
    assert found["num_images"] == found["num_training_images"] == 4 and found["seconds"] > 0
    data = Layout("smoke").data
    for end in ("json", "images.npy", "objects.npy"):
        (data / f"test.{end}").write_bytes((data / f"validation.{end}").read_bytes())
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["splits"]["test"] = manifest["splits"]["validation"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    for command in ("predict", "evaluate"):
        assert run(command, "one-epoch").returncode == 0
    assert json.loads((RUN / "metrics.json").read_text())["AP"] == pytest.approx(found["AP"], abs=1e-12)


@pytest.mark.slow
def test_the_network_trains_on_afterwards(study):
    """Scoring sets evaluation mode, in which BatchNorm would no longer learn."""
    study["model"]["batch_norm"] = "trained"
    modes = []

    class Looker(SplitValidator):
        def __call__(self, model, device, split):
            modes.append(model.training)
            return super().__call__(model, device, split)

    write_params(study)
    trained(study, real(Looker))
    assert modes == [True] * 5


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"keep": "best"}, ["train.keep", "needs validation", "validate_every: 1"]),
        ({"patience": 3}, ["train.patience", "needs validation", "validate_every: 1"]),
        ({"validate_every": 1}, ["train.validate_every", "there is no validation split", "validation_fraction: 0.1"]),
        ({"validate_every": 0}, ["train.validate_every", "greater than 0"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(workspace, smoke_params, run, settings, parts):
    smoke_params["train"] |= settings
    write_params(smoke_params)
    assert_mistake(run("train", "one-epoch"), *parts)


def test_a_split_without_images_is_refused(study, run):
    path = Layout("smoke").data / "validation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "images": [], "annotations": []}))
    assert_mistake(run("train", "one-epoch"), "validation.json: there are no validation images", "fcos prepare")


# What DVC sees --------------------------------------------------------------------------------------------------------


def selections():
    source()
    return {path.name: path.read_text() for path in (Layout("smoke").source / "selection").iterdir()}


def test_only_runs_that_select_depend_on_what_they_select_by(study, monkeypatch):
    """Changed test settings or scoring code change this run's selection file; the other run's stays equal."""
    write_params(study)
    plain = selections()
    assert len(set(plain.values())) == 1
    study["runs"]["one-epoch"]["train"] = {"keep": "best"}
    write_params(study)
    picked = selections()
    assert picked["reference"] == plain["reference"] and picked["one-epoch"] != plain["one-epoch"]
    study["test"]["nms_iou_threshold"] = 0.35
    write_params(study)
    other = selections()
    assert other["reference"] == plain["reference"] and other["one-epoch"] != picked["one-epoch"]
    monkeypatch.setattr("fcos.study.selection.SELECTION_CODE", ("study/validator.py",))
    assert selections()["one-epoch"] != other["one-epoch"]
    del study["runs"]["one-epoch"]
    study["tables"], study["tta"]["runs"], study["nms_sweep"]["runs"] = [], [], []
    write_params(study)
    assert selections().keys() == {"reference"}
