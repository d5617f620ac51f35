"""`fcos doctor` and the largest batch: numbers from real steps, and messages for a study that does not fit."""

import dataclasses
import platform
import subprocess
import sys
from functools import partial
from itertools import accumulate

import pytest
import torch
from conftest import write_params
from torch.profiler import ProfilerActivity, profile

import fcos.cli
import fcos.study.batch_size
from fcos.commands.doctor import batch_finding, doctor
from fcos.commands.prepare import prepare
from fcos.config import params
from fcos.data.coco import read_split
from fcos.memory import left_in_control_groups
from fcos.structures import Batch, HeadOutputs
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
    smoke_params["train"]["precision"] = "float32"  # independent of this machine's default
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
    assert max(asked) <= max(1, 2 * limit)  # far larger batches are never tried


def test_the_estimate_is_what_autograd_keeps(trial):
    estimate = trial.estimate()
    for batch_size, size in ((3, (128, 128)), (1, (256, 384))):
        pixels = batch_size * size[0] * size[1]
        kept = saved_bytes(partial(trial.step, batch_size, size), trial.model.parameters())
        assert kept == pytest.approx(estimate.per_pixel * pixels, rel=0.01)
    # Float32 weights, their gradients and AdamW's two moments: 4 x 4 bytes per parameter, and little else.
    parameters = sum(parameter.numel() for parameter in trial.model.parameters())
    assert estimate.fixed == pytest.approx(16 * parameters, rel=0.01)


def test_what_is_needed_grows_linearly_with_pixels(trial):
    estimate = trial.estimate()
    grown = [estimate.bytes_for(n, (64, 64), 1) - estimate.fixed - PROCESS_BYTES for n in (1, 2, 8)]
    assert [value / grown[0] for value in grown] == pytest.approx([1, 2, 8])
    assert estimate.bytes_for(4, (64, 64), 3) == estimate.bytes_for(1, (128, 128), 3)


def test_what_is_needed_grows_with_the_boxes(trial):
    """An image of 512 x 512 has 64^2 + 32^2 + 16^2 + 8^2 + 4^2 = 5,456 locations."""
    boxes, locations = 200, 5456
    gt = torch.rand((2, boxes, 4)) * 100
    gt[..., 2:] += gt[..., :2]
    sizes = tuple((512 // stride, 512 // stride) for stride in trial.assigner.grid.strides)
    outputs = HeadOutputs(torch.empty(0), torch.empty(0), torch.empty(0), sizes)
    labels = torch.zeros((2, boxes), dtype=torch.int64)
    batch = Batch(torch.empty((2, 3, 512, 512)), [1, 2], torch.full((2, 2), 512.0), gt, labels, labels > 0)
    trial.assigner(outputs, batch)  # the grid's locations are cached
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trial.assigner(outputs, batch)
    changes = (of.nbytes() for of in profiled.profiler.kineto_results.events() if of.name() == "[memory]")
    held = max(accumulate(changes)) / (2 * boxes * locations)
    estimate = trial.estimate()
    counted = estimate.bytes_for(2, (512, 512), boxes) - estimate.bytes_for(2, (512, 512), 0)
    assert counted / (2 * boxes * locations) == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false."),
        RuntimeError("upsample_bilinear2d only supports output tensors with less than INT_MAX elements"),
        RuntimeError("integer out of range"),
    ],
)
def test_a_cuda_device_without_memory_is_no_error(trial, monkeypatch, error):
    def step(batch_size, image_size, num_boxes):
        if batch_size > 5:
            raise error

    monkeypatch.setattr(trial, "step", step)
    assert largest(lambda size: trial.fits(size, (64, 64), 1), at_most=64) == 5


def test_another_error_on_a_cuda_device_is_one(trial, monkeypatch):
    def step(*_):
        raise RuntimeError("expected all tensors to be on the same device")

    monkeypatch.setattr(trial, "step", step)
    with pytest.raises(RuntimeError, match="same device"):
        trial.fits(1, (64, 64), 1)


@pytest.fixture
def split(run):
    prepare()
    return read_split(Layout("smoke").data, "train")


def test_a_batch_that_is_said_to_fit_runs(run, split, trial, monkeypatch):
    most_boxes = max(len(split.annotations_of(image["id"])) for image in split.images)
    needed = trial.estimate().bytes_for(2, (64, 64), most_boxes) + sum(
        3 * i["width"] * i["height"] for i in split.images
    )
    found = batch_finding(run, split, memory=int(needed) + 1)
    assert "2 images of 64 x 64 (estimated from two small steps)" in found.value
    assert found.problem == "train.batch_size does not fit: set it to 2 or less"
    monkeypatch.setattr("fcos.commands.doctor._devices", lambda *_: 2)
    found = batch_finding(run, split, memory=int(needed) + 1)
    assert found.value.endswith("train.batch_size is 4, shared by 2 devices") and found.problem is None
    trial.step(2, (64, 64), num_boxes=4)
    assert all(parameter.isfinite().all() for parameter in trial.model.parameters())


def test_too_little_memory_for_one_image(run, split):
    found = batch_finding(run, split, memory=1 << 20)
    assert "(one-epoch): 0 images of 64 x 64" in found.value
    assert found.problem is not None and "not even one image fits" in found.problem


def test_a_small_data_set_bounds_the_batch(run, split):
    smaller = dataclasses.replace(split, images=split.images[:2])  # then a batch of 4 has two images
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
    assert found.value == "not known" and "the image folder no longer exists" in found.problem


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
