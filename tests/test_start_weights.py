"""Start weights of a backbone: torchvision's ImageNet weights, a file, or none."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import Watcher, write_params
from project_helpers import address, changed_stages, copy_project, repro, small_study
from torchvision.models import get_model

import fcos.training.key
from fcos.commands.prepare import prepare
from fcos.commands.source import source
from fcos.commands.train import train
from fcos.config import params
from fcos.config.runs import parse_runs
from fcos.errors import UserError
from fcos.files import read_json, sha256_file, sha256_json
from fcos.model.backbone import Backbone
from fcos.model.checkpoint import read_identity
from fcos.study.build import build_model

RUN = "one-epoch"
TRAINED = Path("runs/smoke") / RUN
FILE = Path("weights/start.pth")


def made(name="resnet18", *, seed=1):
    """Return a state dict as torchvision publishes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_model(name, weights=None).state_dict()


def saved(state, path=FILE):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def backbone(pretrained, name="resnet18"):
    return Backbone(name, pretrained=pretrained, frozen_statistics=True).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def without(state, *endings):
    return {key: tensor for key, tensor in state.items() if not key.endswith(endings)}


# The network ----------------------------------------------------------------------------------------------------------


def test_a_file_gives_the_network_that_imagenet_gives(smoke_params, monkeypatch):
    run = parse_runs(smoke_params)[RUN]
    monkeypatch.setenv("TORCH_HOME", "home")
    file = saved(made())
    shutil.copy(file, saved(made(), Path("home/hub/checkpoints/resnet18-f37072fd.pth")))
    fresh, hub, own = (build_model(run, 3, pretrained=start).state_dict() for start in (False, True, file))
    assert same(hub, own) and not same(hub, fresh)
    assert torch.equal(own["backbone.layer1.0.conv1.weight"], made()["layer1.0.conv1.weight"])
    heads = [{key: tensor for key, tensor in s.items() if "backbone" not in key} for s in (fresh, own)]
    assert same(*heads)  # their random numbers come from the run's seed either way


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: without(state, "fc.weight", "fc.bias"),
        lambda state: state | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
        lambda state: without(state, "num_batches_tracked"),
    ],
    ids=["model", "state_dict", "no classifier", "7 classes", "no counts"],
)
def test_forms_of_the_file(change):
    assert same(backbone(saved(change(made()))), backbone(saved(made())))


def test_a_safetensors_file():
    safetensors.torch.save_file(made(), "start.safetensors")
    assert same(backbone(Path("start.safetensors")), backbone(saved(made())))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda _: made("resnet34"), ["does not fit resnet18: layer1.2.bn1.bias", "(64,)", "no such weight"]),
        (lambda state: without(state, "bn1.bias"), ["does not fit resnet18: bn1.bias", "no such weight"]),
        (
            lambda state: state | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            ["does not fit resnet18: conv1.weight", "(64, 1, 7, 7)", "(64, 3, 7, 7)"],
        ),
        (lambda _: {}, ["does not fit resnet18: bn1.bias", "resnet18-f37072fd.pth"]),
        (lambda _: {"conv1.weight": "text"}, ["is not a state dict", "conv1.weight"]),
        (lambda _: [torch.zeros(1)], ["is not a state dict", "list"]),
    ],
    ids=["resnet34", "missing", "shape", "empty", "text", "list"],
)
def test_a_file_of_something_else_is_refused(change, parts):
    with pytest.raises(UserError) as refused:
        backbone(saved(change(made())))
    assert all(part in str(refused.value) for part in [str(FILE), *parts]), refused.value


@pytest.mark.parametrize("name", ["start.pth", "start.safetensors"])
def test_a_file_that_is_none_is_refused(name):
    Path(name).write_text("<html>")
    with pytest.raises(UserError, match=rf"{name}: cannot be read as a state dict"):
        backbone(Path(name))


@pytest.mark.parametrize("broken", [False, True])
def test_imagenet_weights_that_cannot_be_had_are_named(monkeypatch, broken):
    monkeypatch.setenv("TORCH_HOME", "home")
    place = "home/hub/checkpoints/resnet18-f37072fd.pth"
    if broken:  # as after an interrupted download
        saved(made(), Path(place)).write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"weights of resnet18 are not available") as refused:
        backbone(True)
    for part in (f"resnet18-f37072fd.pth at {place}", "`weights: FILE`"):
        assert part in str(refused.value)


# The training ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(workspace, smoke_params):
    """Return a function that trains from scratch or a file and returns the key of the training."""
    prepare()

    def start(weights):
        smoke_params["model"]["weights"] = weights
        write_params(smoke_params)
        watcher = Watcher()
        train(RUN, watcher)
        return watcher.key

    return start


@pytest.mark.slow
def test_the_content_of_the_file_decides_the_training(start):
    saved(made())
    first = start(str(FILE))
    summary, weights = read_json(TRAINED / "train.json", hint=""), sha256_file(TRAINED / "model.safetensors")
    assert summary["training_key"] == first and summary["start_sha256"] == sha256_file(FILE)
    assert read_identity(TRAINED / "model.safetensors", hint="").run["model"]["weights"] == str(FILE)
    assert start(str(FILE)) is None  # already trained, so its files are restored
    saved(made(seed=2))
    assert start(str(FILE)) not in (None, first)
    assert sha256_file(TRAINED / "model.safetensors") != weights


def test_without_a_file_key_and_files_are_as_they_were(start, monkeypatch):
    monkeypatch.setattr(fcos.training.key, "TRAINING_CODE", ())
    key = start("none")
    summary = read_json(TRAINED / "train.json", hint="")
    where = summary["provenance"]
    identity = read_identity(TRAINED / "model.safetensors", hint="")
    parts = [identity.run, identity.data_digest, {}, torch.__version__, where["device"], where["dtype"]]
    assert key == sha256_json(parts)
    assert identity.run["model"]["weights"] == "none"
    known = {"format", "training_key", "weights_sha256", "params", "role", "imported_from", "provenance"}
    assert summary.keys() == known


def test_the_file_is_linked_so_that_dvc_sees_it(workspace, smoke_params):
    smoke_params["runs"][RUN]["model"] = {"weights": str(FILE)}
    write_params(smoke_params)
    with pytest.raises(UserError, match=r"model.weights: no such file"):
        source()
    saved(made())
    source()
    links = Path("data/.source/smoke/checkpoints")
    assert sha256_file(links / RUN) == sha256_file(FILE) and (links / RUN).is_symlink()
    others = {link.name for link in links.iterdir() if not link.is_symlink()}
    assert others == params.read().runs.keys() - {RUN} != set()
    FILE.unlink()
    prepare()
    with pytest.raises(UserError, match=r"model.weights: no such file"):
        train(RUN, Watcher())


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_dvc_trains_again_from_another_file_of_the_same_name(tmp_path):
    study = small_study()
    study["model"]["weights"] = str(FILE)
    project = copy_project(tmp_path / "project", study)
    saved(made(), project / FILE)
    stage = address("train", RUN)
    assert f"train@{RUN}" in repro(project, stage)
    assert repro(project, stage) == []
    saved(made(seed=2), project / FILE)
    assert {"source", f"train@{RUN}"} <= changed_stages(project)
    assert repro(project, stage) == ["source", f"train@{RUN}"]


@pytest.mark.parametrize("value", ["imagnet", "", None, 3])
def test_a_value_that_is_no_file_is_refused(smoke_params, value):
    smoke_params["model"]["weights"] = value
    with pytest.raises(UserError, match=r"model.weights: wrong value"):
        params.parse(smoke_params)
