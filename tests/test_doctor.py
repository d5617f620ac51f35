"""`fcos doctor` and the largest batch: numbers from real steps, and messages for a study that does not fit."""

import dataclasses
import platform
import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import write_params

import fcos.cli
import fcos.study.batch_size
from fcos.commands.doctor import batch_finding, doctor
from fcos.commands.prepare import prepare
from fcos.config import params
from fcos.data.coco import read_split
from fcos.memory import left_in_control_groups
from fcos.study.assigner import build_assigner
from fcos.study.build import build_model
from fcos.study.layout import Layout
from fcos.training.largest_batch import PROCESS_BYTES, Trial, largest, saved_bytes

FAULTS = """
import ctypes, resource, sys
from fcos.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        blocks = [ctypes.c_void_p(libc.malloc(24 << 20)) for _ in range(6)]  # more than glibc keeps by itself
        for block in blocks:
            libc.memset(block, 1, 24 << 20)
        for block in blocks:
            libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
faults(5)
print(faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept():
    given, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True).stdout)
        for what in ("give", "keep")
    )
    assert 10 * kept < given  # 0 of 6 x 6,144 pages of 4 KiB in each round


@pytest.fixture
def run(workspace, smoke_params):
    smoke_params["train"]["precision"] = "float32"  # whatever the machine computes in
    smoke_params["train"]["device"] = "cpu"
    write_params(smoke_params)
    return params.read().runs["one-epoch"]


@pytest.fixture
def trial(run):
    assigner = build_assigner(run.model)
    model = build_model(run, 3, pretrained=False)
    return Trial(model, assigner, run.train, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("limit", range(0, 12))
@pytest.mark.parametrize("at_most", [1, 2, 7, 8])
def test_the_largest_that_fits(limit, at_most):
    asked = []
    assert largest(lambda size: asked.append(size) or size <= limit, at_most) == min(limit, at_most)
    assert max(asked) <= max(1, 2 * limit)  # nothing much too large is ever tried


def test_the_estimate_is_what_autograd_keeps(trial):
    estimate = trial.estimate()
    for batch_size, size in ((3, (128, 128)), (1, (256, 384))):
        pixels = batch_size * size[0] * size[1]
        kept = saved_bytes(partial(trial.step, batch_size, size), trial.model.parameters())
        assert kept == pytest.approx(estimate.per_pixel * pixels, rel=0.01)
    # Float32 weights, their gradients, AdamW's two moments: four times 4 bytes a parameter, and little else.
    parameters = sum(parameter.numel() for parameter in trial.model.parameters())
    assert estimate.fixed == pytest.approx(16 * parameters, rel=0.01)


def test_what_is_needed_grows_linearly_with_pixels(trial):
    estimate = trial.estimate()
    grown = [estimate.bytes_for(n, (64, 64)) - estimate.fixed - PROCESS_BYTES for n in (1, 2, 8)]
    assert [value / grown[0] for value in grown] == pytest.approx([1, 2, 8])
    assert estimate.bytes_for(4, (64, 64)) == estimate.bytes_for(1, (128, 128))


def test_a_cuda_device_without_memory_is_no_error(trial, monkeypatch):
    def step(batch_size, image_size, num_boxes):
        if batch_size > 5:
            raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(trial, "step", step)
    assert largest(lambda size: trial.fits(size, (64, 64), 1), at_most=64) == 5


@pytest.fixture
def split(run):
    prepare()
    return read_split(Layout("smoke").data, "train")


def test_a_batch_that_is_said_to_fit_runs(run, split, trial):
    needed = trial.estimate().bytes_for(2, (64, 64)) + sum(3 * i["width"] * i["height"] for i in split.images)
    found = batch_finding(run, split, memory=int(needed) + 1)
    assert "2 images of 64 x 64 (estimated from two small steps)" in found.value
    assert found.problem == "train.batch_size does not fit: set it to 2 or less"
    trial.step(2, (64, 64), num_boxes=4)
    assert all(parameter.isfinite().all() for parameter in trial.model.parameters())


def test_too_little_memory_for_one_image(run, split):
    found = batch_finding(run, split, memory=1 << 20)
    assert "(one-epoch): 0 images of 64 x 64" in found.value
    assert found.problem is not None and "not even one image fits" in found.problem


def test_a_small_data_set_bounds_the_batch(run, split):
    smaller = dataclasses.replace(split, images=split.images[:2])  # a batch of 4 has two images then
    found = batch_finding(run, smaller, memory=1 << 40)
    assert "at least 2 images" in found.value and found.problem is None


def test_a_line_for_each_network(workspace, smoke_params, split):
    smoke_params["runs"]["longer"] = {**smoke_params["runs"]["one-epoch"], "epochs": 9, "seed": 3}
    smoke_params["runs"]["deeper"] = {**smoke_params["runs"]["one-epoch"], "num_convs": 2}
    write_params(smoke_params)
    lines = [finding.value.split(":")[0] for finding in doctor() if finding.what == "batch"]
    assert lines == ["resnet18, num_convs 1 (reference)", "resnet18, num_convs 2 (deeper)"]


def test_the_command_ends_with_1_where_a_batch_does_not_fit(workspace, split, monkeypatch, capsys):
    monkeypatch.setattr(fcos.study.batch_size, "available_memory", lambda: 1 << 20)
    monkeypatch.setattr(sys, "argv", ["fcos", "doctor"])
    with pytest.raises(SystemExit) as ended:
        fcos.cli.main()
    assert ended.value.code == 1
    assert "wrong  batch        resnet18, num_convs 1 (reference): 0 images" in capsys.readouterr().out


def test_images_that_are_gone(workspace, split):
    for image in split.image_dir.iterdir():
        image.unlink()
    split.image_dir.rmdir()
    found = next(finding for finding in doctor() if finding.what == "batch")
    assert found.value == "not known" and "the folder of the images is gone" in found.problem


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used"),
    [
        ("0::/a/b", "a", "memory.max", "memory.current"),
        ("4:memory:/a/b", "memory/a", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_the_limit_of_a_control_group_counts(tmp_path, line, folder, limit, used):
    (tmp_path / "self").write_text(f"2:cpu:/\n{line}\n")
    group = tmp_path / folder
    (group / "b").mkdir(parents=True)
    for place, allowed in ((group, "1000"), (group / "b", "max")):
        (place / limit).write_text(f"{allowed}\n")
        (place / used).write_text("700\n")
        (place / "memory.stat").write_text("anon 600\ninactive_file 100\n")
    assert list(left_in_control_groups(tmp_path / "self", tmp_path)) == [400]
