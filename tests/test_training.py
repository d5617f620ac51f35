"""Training: the plan, the inputs of augmentation, resuming, determinism."""

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Stopper, Watcher, forget_trainings, wait_until, write_params
from safetensors.torch import save_file
from stage_deps import closure

from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.config.runs import parse_runs
from fcos.config.section import read_params
from fcos.config.train import TrainConfig
from fcos.data.images import resized_size
from fcos.data.transforms import View, draw_view, padded_size, show_boxes
from fcos.errors import UserError
from fcos.files import sha256_file
from fcos.model.checkpoint import Identity, load_weights, read_state_dict, save_weights
from fcos.model.detector import FCOS
from fcos.study.layout import Layout
from fcos.training import loop
from fcos.training.key import TRAINING_CODE
from fcos.training.loop import Plan
from fcos.training.optimizer import learning_rate, make_optimizer
from fcos.training.resume import Scratch

IMAGES = dict.fromkeys(range(10), (60, 80))


def test_learning_rate_rises_in_a_line_then_falls_as_half_a_cosine():
    rates = [learning_rate(step, peak=0.4, warmup_steps=4, cosine_steps=8) for step in range(12)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[8] == pytest.approx(0.2)  # half way: cos(pi / 2) = 0
    assert 0 < rates[11] < 0.02  # 0.2 * (1 + cos(7/8 pi)) = 0.0152; the next step would have 0


def test_twelve_epochs_are_one_and_twelve():
    plan = Plan(image_sizes=IMAGES, epochs=12, seed=0, config=TrainConfig(batch_size=4, warmup_epochs=1))
    assert (plan.steps_per_epoch, plan.num_steps) == (3, 39)
    assert plan.lr(2) == pytest.approx(0.005)


def test_every_epoch_shows_every_image_once_and_can_be_entered_anywhere():
    plan = Plan(image_sizes=IMAGES, epochs=2, seed=3, config=TrainConfig(batch_size=4, warmup_epochs=1))
    batches = list(plan.batches(0))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    assert sorted(index for batch in batches[3:6] for index in batch) == list(range(10))
    assert batches[0] != batches[3]
    for step in range(plan.num_steps):
        assert list(plan.batches(step)) == batches[step:]


def test_by_shape_an_epoch_is_whole_and_little_of_it_is_padding():
    # Half of the images are landscape, half portrait, each at 32 or 64 pixels: 32 x 64, 64 x 32, 64 x 128, 128 x 64.
    sizes = {10 + number: (100, 200) if number % 2 else (200, 100) for number in range(400)}
    config = TrainConfig(batch_size=4, warmup_epochs=0, sizes=[32, 64], max_size=128, batches="by_shape")
    plan = Plan(image_sizes=sizes, epochs=3, seed=3, config=config)
    batches = list(plan.batches(0))
    ids = list(sizes)

    def pixels(epoch, indices):
        height, width = padded_size([plan.view(epoch, ids[index]).size for index in indices])
        return len(indices) * height * width

    for epoch in range(3):
        of_epoch = batches[100 * epoch : 100 * epoch + 100]
        assert sorted(index for batch in of_epoch for index in batch) == list(range(400))
        alone = sum(pixels(epoch, [index]) for index in range(400))
        # Of the 16 batches that are sorted together, at most 3 mix two shapes, padded to 128 x 128 at worst.
        assert sum(pixels(epoch, batch) for batch in of_epoch) < 1.3 * alone
        # They are not in the order of their shapes, since then the first half would be smaller.
        first, second = (sum(pixels(epoch, batch) for batch in half) for half in (of_epoch[:50], of_epoch[50:]))
        assert 0.6 < first / second < 1.6
    assert batches[:100] != batches[100:200]
    for step in (0, 5, 99, 100, 250):
        assert list(plan.batches(step)) == batches[step:]
    assert list(dataclasses.replace(plan, seed=4).batches(0)) != batches


def test_fewer_padded_sizes_have_more_padding():
    rng = np.random.default_rng(0)
    sizes = {number: tuple(rng.integers(40, 120, 2).tolist()) for number in range(200)}
    shapes, pixels = {}, {}
    for multiple in (32, 64):
        config = TrainConfig(batch_size=4, sizes=[48, 64, 80], max_size=128, pad_multiple=multiple)
        plan = Plan(image_sizes=sizes, epochs=1, seed=0, config=config)
        views = [[plan.view(1, plan.image_ids[index]).size for index in batch] for batch in plan._epoch(1)]
        shapes[multiple] = {padded_size(of_batch, multiple) for of_batch in views}
        pixels[multiple] = plan.mean_pixels()
    assert all(side % 64 == 0 for shape in shapes[64] for side in shape)
    assert len(shapes[64]) < len(shapes[32]) and pixels[64] > pixels[32]
    assert padded_size([(427, 33)], 128) == (512, 128)


def test_a_training_pads_as_it_is_told(workspace, smoke_params, monkeypatch):
    """Smoke's images are 64 x 64; trainings before there was the key keep their identity."""
    seen, step = set(), loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda model, batch, *rest, **more: (
        seen.add(tuple(batch.images.shape[2:])) or step(model, batch, *rest, **more)
    ))  # fmt: skip
    smoke_params["train"]["pad_multiple"] = 128
    write_params(smoke_params)
    prepare()
    train("one-epoch", None)
    assert seen == {(128, 128)}
    run = parse_runs(read_params())["one-epoch"]
    assert run.identity()["train"]["pad_multiple"] == 128
    assert "pad_multiple" not in TrainConfig().identity()


def test_by_shape_views_are_drawn_when_they_are_needed(monkeypatch):
    """All those of an epoch of a million images would take 17 s before its first step."""
    config = TrainConfig(batch_size=4, warmup_epochs=0, batches="by_shape")
    plan = Plan(image_sizes=dict.fromkeys(range(1000), (100, 200)), epochs=1, seed=0, config=config)
    drawn = []
    draw = Plan.view
    monkeypatch.setattr(Plan, "view", lambda plan, epoch, image: drawn.append(image) or draw(plan, epoch, image))
    batches = plan.batches(0)
    next(batches)
    assert len(drawn) == 64  # the images of 16 batches, which are sorted together
    list(batches)
    assert sorted(drawn) == list(range(1000))  # each once


def test_a_view_depends_on_seed_epoch_and_image_alone():
    kwargs = {"sizes": [32, 48, 64], "longest": 100, "horizontal_flip": 0.5}
    views = [draw_view((60, 80), seed=1, epoch=e, image_id=i, **kwargs) for e in range(20) for i in range(20)]
    again = [draw_view((60, 80), seed=1, epoch=e, image_id=i, **kwargs) for e in range(20) for i in range(20)]
    assert views == again
    # 400 samples: each size about 133 times, flips about 200; five standard deviations are 47 and 50.
    for size in (32, 48, 64):
        assert abs(sum(min(view.size) == size for view in views) - 133) < 47
    assert abs(sum(view.flipped for view in views) - 200) < 50


@pytest.mark.parametrize(
    ("size", "shorter", "longest", "expected"),
    [
        ((375, 500), 480, 640, (480, 640)),  # in float32, 375 * (480 / 375) is 479.99998
        ((333, 500), 480, 640, (426, 640)),  # the longer side decides: 333 * 640 / 500 = 426.24
        ((500, 333), 480, 640, (640, 426)),
        ((480, 640), 240, 320, (240, 320)),
        ((100, 100), 480, 640, (480, 480)),
    ],
)
def test_resized_sizes(size, shorter, longest, expected):
    assert resized_size(size, shorter, longest) == expected


def test_padding_to_multiples_of_32():
    assert padded_size([(426, 640), (480, 333)]) == (480, 640)
    assert padded_size([(427, 33)]) == (448, 64)


def test_boxes_are_scaled_per_axis_and_mirrored():
    boxes = np.array([[10, 20, 30, 60]], dtype=np.float32)
    shown = show_boxes(boxes, (100, 50), View((50, 100), flipped=True))
    # x doubles to 20..60, mirrored in 100: 40..80; y halves to 10..30
    assert shown.tolist() == [[40.0, 10.0, 80.0, 30.0]]


def test_weight_decay_reaches_weights_of_convolutions_only():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2), torch.nn.BatchNorm2d(2))
    decayed, free = make_optimizer(model, TrainConfig(weight_decay=0.1)).param_groups
    assert [p.shape for p in decayed["params"]] == [(2, 1, 3, 3)] and decayed["weight_decay"] == 0.1
    assert len(free["params"]) == 5 and free["weight_decay"] == 0


def test_the_training_key_covers_the_import_closure_of_train():
    """A change of a file that determines the weights changes the key; a change of a figure's code does not."""
    import grimp

    graph = grimp.build_graph("fcos", cache_dir=None)
    assert sorted(path.removeprefix("fcos/") for path in closure(graph, "train")) == sorted(TRAINING_CODE)


def weights_of(run="one-epoch"):
    return sha256_file(Layout("smoke").weights(run))


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["trained", "frozen"])
def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(workspace, smoke_params, batch_norm):
    smoke_params["model"]["batch_norm"] = batch_norm
    write_params(smoke_params)
    prepare()
    digests = set()
    for workers in (0, 1, 2):
        smoke_params["train"]["workers"] = workers
        write_params(smoke_params)
        forget_trainings()
        train("one-epoch", Watcher())
        digests.add(weights_of())
    assert len(digests) == 1
    smoke_params["runs"]["one-epoch"]["seed"] = 5
    write_params(smoke_params)
    train("one-epoch", Watcher())
    assert weights_of() not in digests


@pytest.mark.slow
def test_a_resumed_training_ends_bit_identical(workspace, smoke_params, monkeypatch):
    # 3 epochs of 4 steps; the losses are read and the state is saved at every step.
    smoke_params["runs"]["one-epoch"]["epochs"] = 2
    smoke_params["train"]["checkpoint_every_s"] = 0.0
    write_params(smoke_params)
    prepare()
    whole = Watcher()
    train("one-epoch", whole)
    expected = weights_of()
    history = [row["loss"] for row in whole.seen]
    assert len(history) == 12
    forget_trainings()

    resumed = Watcher()
    for after in (3, 2):  # killed after step 3, then two steps later, each time in the middle of an epoch
        with pytest.raises(KeyboardInterrupt):
            train("one-epoch", Stopper(after))
    Layout("smoke").weights("one-epoch").unlink()
    train("one-epoch", resumed)
    assert 0 < len(resumed.seen) < 12  # it resumed instead of starting again
    assert weights_of() == expected
    assert [row["loss"] for row in resumed.seen] == history[-len(resumed.seen) :]
    rows = (Layout("smoke").run("one-epoch") / "history.csv").read_text().splitlines()
    assert len(rows) == 13
    assert not list(Path("runs/smoke/.scratch").rglob("state.pt"))


def test_a_finished_training_is_put_back_and_not_made_again(workspace, smoke_params):
    """DVC deletes the outputs of a stage before running it again, even if it could not record them."""
    write_params(smoke_params)
    prepare()
    train("one-epoch", Watcher())
    folder = Layout("smoke").run("one-epoch")
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    again = Watcher()
    smoke_params["runs"]["one-epoch"]["role"] = "reference"  # not part of any key
    del smoke_params["runs"]["reference"]["role"]
    write_params(smoke_params)
    train("one-epoch", again)
    assert again.seen == [] and again.run is None
    assert json.loads((folder / "train.json").read_text()) == {
        **json.loads(made.pop("train.json")),
        "role": "reference",
    }
    assert {name: (folder / name).read_bytes() for name in made} == made


def test_the_scratch_does_not_grow(workspace, smoke_params):
    """A run keeps finished files of one key, and the newest unfinished states of others."""
    scratch = Path("runs/smoke/.scratch")
    for number in range(5):
        (scratch / f"one-epoch-{number}").mkdir(parents=True)
        (scratch / f"one-epoch-{number}" / "state.pt").touch()
        os.utime(scratch / f"one-epoch-{number}", (number, number))
    (scratch / "one-epoch-old" / "finished").mkdir(parents=True)
    (scratch / "one-epoch-c4-0" / "finished").mkdir(parents=True)  # of another run
    write_params(smoke_params)
    prepare()
    train("one-epoch", Watcher())
    [own] = [path.parent.name for path in scratch.glob("one-epoch-*/finished") if path.parent.name != "one-epoch-c4-0"]
    kept = {path.name for path in scratch.iterdir() if path.is_dir()} - {"at-work"}
    assert kept == {own, "one-epoch-c4-0", "one-epoch-2", "one-epoch-3", "one-epoch-4"}


# A training that stops at its fifth step, however fast the machine is.
STUCK = """
import signal
from conftest import Watcher
from fcos.commands.train import train

class Stuck(Watcher):
    def rows(self, rows):
        super().rows(rows)
        if len(self.seen) >= 5:
            signal.pause()

train("one-epoch", Stuck())
"""


@pytest.mark.slow
def test_a_training_killed_outright_resumes(workspace, smoke_params):
    """After SIGKILL at any moment no file is incomplete, and the next start resumes."""
    smoke_params["runs"]["one-epoch"]["epochs"] = 8
    smoke_params["train"]["checkpoint_every_s"] = 0.0
    write_params(smoke_params)
    prepare()
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", STUCK], env=env, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: list(Path("runs").rglob("state.pt")), process)
        finally:
            process.kill()
    assert not Layout("smoke").weights("one-epoch").exists()

    smoke_params["train"]["checkpoint_every_s"] = 60.0  # the steps at which it is saved do not change the weights
    write_params(smoke_params)
    resumed = Watcher()
    train("one-epoch", resumed)
    assert 0 < len(resumed.seen) < 36  # 9 epochs of 4 steps
    digest = weights_of()
    forget_trainings()
    whole = Watcher()
    train("one-epoch", whole)
    assert len(whole.seen) == 36 and weights_of() == digest


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(workspace, smoke_params):
    smoke_params["train"] |= {"learning_rate": 1e30, "optimizer": "sgd"}
    write_params(smoke_params)
    prepare()
    with pytest.raises(UserError, match=r"a loss is not finite(.|\n)*images with ids \[\d+"):
        train("one-epoch", Watcher())
    assert not Layout("smoke").weights("one-epoch").exists()


def test_images_without_objects_train(workspace):
    prepare()
    import json

    path = Path("data/smoke/train.json")
    content = json.loads(path.read_text())
    content["annotations"] = []
    path.write_text(json.dumps(content))
    watcher = Watcher()
    train("one-epoch", watcher)
    assert [row["num_positives"] for row in watcher.seen] == [0.0] * 8
    assert all(row["loss_classification"] > 0 and row["loss_regression"] == 0 for row in watcher.seen)


def small_fcos():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FCOS(
            backbone="resnet18", num_classes=3, num_convs=1, pretrained=False, frozen_statistics=False, fpn_channels=32,
            p6_from_p5=True, group_norm_groups=8, prior_probability=0.01, initial_ltrb=0.0, normal_class_tower=False,
        )  # fmt: skip


def test_the_gradient_of_p7_is_no_leftover_memory():
    """oneDNN leaves the weight gradient of a strided bfloat16 convolution on a 1x1 map partly unwritten."""
    model, images = small_fcos(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        leftovers = [torch.full((32 * 32 * 9,), 1e30) for _ in range(8)]
        del leftovers  # the allocator may reuse this memory for the next tensors of this size
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(images)
        assert outputs.feature_sizes[-2:] == ((1, 1), (1, 1))
        outputs.class_logits.float().sum().backward()
        gradient = model.fpn.extra_blocks.p7.weight.grad
        # On a 1x1 map only the center of a 3x3 kernel matters.
        assert gradient[:, :, 1, 1].abs().max() > 0
        gradient[:, :, 1, 1] = 0
        assert gradient.abs().max() == 0


def test_feature_maps_round_up():
    """The published study rounded them down: 480 rows are 60, 30, 15, 8, 4 and not 60, 30, 15, 7, 3."""
    with torch.no_grad():
        outputs = small_fcos()(torch.zeros(1, 3, 480, 640))
    assert outputs.feature_sizes == ((60, 80), (30, 40), (15, 20), (8, 10), (4, 5))
    assert outputs.class_logits.shape == (1, 60 * 80 + 30 * 40 + 15 * 20 + 8 * 10 + 4 * 5, 3)


def state_at(step, value=1.0):
    return {
        "model": {"w": torch.full((3,), value)},
        "optimizer": {},
        "history": [],
        "seconds": 1.0,
        "validation": {},
        "step": step,
    }


@contextlib.contextmanager
def full_disk(at_most):
    """Limit the size of files in the block, which torch's writer sees as a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_last_whole_state_and_the_training_goes_on(tmp_path, capsys):
    scratch = Scratch(tmp_path / "run-key")
    scratch.save(state_at(1))
    large = state_at(2) | {"model": {"w": torch.zeros(1_000_000)}}
    with full_disk(100_000):
        scratch.save(large)
    said = capsys.readouterr().err
    assert "warning: the state of step 2 could not be saved" in said and f"MB are free at {scratch.folder}" in said
    state = scratch.load(torch.device("cpu"))
    assert state is not None and state["step"] == 1
    assert [path.name for path in scratch.folder.iterdir()] == ["state.pt"]
    scratch.save(large)  # the disk has room again
    state = scratch.load(torch.device("cpu"))
    assert state is not None and state["step"] == 2


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda data: data[: len(data) // 2], lambda data: b"x" + data[1:]])
def test_a_damaged_state_is_said_and_training_begins_anew(tmp_path, capsys, spoil):
    scratch = Scratch(tmp_path / "run-key")
    scratch.save(state_at(1))
    scratch.path.write_bytes(spoil(scratch.path.read_bytes()))
    assert scratch.load(torch.device("cpu")) is None
    said = capsys.readouterr().err
    assert f"warning: {scratch.path} is damaged (" in said and "starting from the beginning" in said
    assert scratch.load(torch.device("cpu")) is None and capsys.readouterr().err == ""  # the saved state is deleted


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_read(tmp_path, value):
    identity = Identity(run={}, categories=[], data_digest="", bits=16)
    weights = {"a": torch.zeros(2), "head.bias": torch.tensor([1.0, value, value, 0.0])}
    named = "2 of 4 numbers of head.bias"
    with pytest.raises(UserError, match=f"weights that are not finite(.|\n)*{named}"):
        save_weights(tmp_path / "model.safetensors", weights, identity)
    assert list(tmp_path.iterdir()) == []
    scratch = Scratch(tmp_path / "run-key")
    with pytest.raises(UserError, match=f"training step 7: has weights that are not finite(.|\n)*{named}"):
        scratch.save(state_at(7) | {"model": weights})
    assert not scratch.path.exists()
    torch.save(weights, tmp_path / "x.pt")
    save_file(weights, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.pt", tmp_path / "x.safetensors"):
        with pytest.raises(UserError, match=named):
            read_state_dict(path)
    with pytest.raises(UserError, match=named):
        load_weights(tmp_path / "x.safetensors")


def test_a_last_step_that_diverges_leaves_no_finished_training(workspace, smoke_params):
    smoke_params["train"] |= {"learning_rate": 1.0e38, "optimizer": "sgd", "weight_decay": 1000.0, "warmup_epochs": 0}
    smoke_params["data"] |= {"num_train": 2}
    smoke_params["train"] |= {"batch_size": 2}
    write_params(smoke_params)
    prepare()
    with pytest.raises(UserError, match=r"model.safetensors: has weights that are not finite(.|\n)*learning_rate"):
        train("one-epoch", Watcher())
    assert not (Path("runs/smoke/one-epoch") / "train.json").exists()
