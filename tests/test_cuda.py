"""Tests of CUDA without a device: a training step keeps to its device and never waits for it."""

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fcos import assignment
from fcos.config.model import ModelConfig
from fcos.config.runs import Run
from fcos.config.train import TrainConfig
from fcos.data import transforms
from fcos.data.transforms import View, make_batch
from fcos.evaluation.predictor import Predictor
from fcos.model import graphs as cuda_graphs
from fcos.model.device import find_device
from fcos.model.graphs import Graphs
from fcos.model.group_norm import GroupNorm
from fcos.structures import GroundTruth, HeadOutputs, Sample
from fcos.study.assigner import build_assigner
from fcos.study.build import build_grid, build_model
from fcos.training.step import compute_losses

CUDA = torch.device("cuda")
MODEL = ModelConfig(weights="none", fpn_channels=32, group_norm_groups=8)
RUN = Run(
    study="cuda", name="small", backbone="resnet18", num_convs=1, epochs=1, seed=0, checkpoint=None, role=None,
    model=MODEL, train=TrainConfig(),
)  # fmt: skip
VIEWS = [View((64, 96)), View((64, 96), flipped=True)]


class Copies(TorchDispatchMode):
    """Counts the copies between CPU and CUDA: those for which the host waits, and the others."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {of.name: value for of, value in zip(func._schema.arguments, args, strict=False)} | (kwargs or {})
        source = given.get("src", given.get("self"))
        if "non_blocking" in {of.name for of in func._schema.arguments} and source.device != result.device:
            how = "runs on" if given.get("non_blocking") else "waits"
            self.found[source.device.type, result.device.type, how] += 1
        return result


@pytest.fixture
def samples() -> list[Sample]:
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    boxes = torch.tensor([[4.0, 4, 60, 60], [10, 10, 90, 50]])
    truths = [GroundTruth(boxes[:n], torch.zeros(n, dtype=torch.int64), torch.zeros(n) > 0) for n in (2, 0)]
    return [Sample(number, image, truth, (64, 96)) for number, truth in enumerate(truths)]


@pytest.fixture
def fake(monkeypatch):
    """Tensors without contents, which may be on a CUDA device; an operation that mixes devices or needs a value raises.

    Such tensors cannot be pinned; those that would be are yielded.
    """
    pinned = []
    kept = (transforms._mean_and_std, assignment._bounds)  # tensors of a real device before, and of none afterwards
    for of in kept:
        of.cache_clear()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True):
        warnings.simplefilter("ignore")
        yield pinned
    for of in kept:
        of.cache_clear()


def cuda_model() -> nn.Module:
    with CUDA:
        model = build_model(RUN, 1, pretrained=False).train()
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def test_a_step_keeps_to_its_device_and_the_host_runs_on(samples, fake):
    model, assigner = cuda_model(), build_assigner(MODEL)
    for _ in range(2):  # the first step creates cached tensors: locations, bounds, mean and std
        fake.clear()
        with Copies() as copies:
            batch = make_batch(samples, VIEWS, CUDA)
            losses, positives = compute_losses(model, batch, assigner, torch.float32)
        assert {of.device.type for of in (*losses.values(), positives)} == {"cuda"}
    # Images, their sizes, boxes, labels and the ignored ones: five copies, each from pinned memory.
    assert copies.found == {("cpu", "cuda", "runs on"): len(fake)} == {("cpu", "cuda", "runs on"): 5}


def test_clipping_keeps_to_its_device(fake):
    model = cuda_model()
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    with Copies() as copies:
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert norm.device.type == "cuda" and not copies.found


def test_a_prediction_waits_once(samples, fake, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: np.zeros(tensor.shape, np.float32))
    monkeypatch.setattr(nn.Module, "to", lambda module, *_, **__: module)  # not possible with these tensors
    predictor = Predictor(
        model=cuda_model(), grid=build_grid(MODEL), device=CUDA, dtype=torch.float32, score_threshold=0.5,
        max_candidates=10,
    )  # fmt: skip
    for _ in range(2):
        with Copies() as copies:
            found = predictor(samples, VIEWS)
    assert copies.found == {("cpu", "cuda", "runs on"): 6, ("cuda", "cpu", "waits"): 1}
    assert [len(candidates) for candidates in found] == [0, 0]


def test_group_norm_stays_in_its_dtype_and_layout(fake):
    with CUDA:
        norm = GroupNorm(8, 32)
        x = torch.empty((2, 32, 12, 8), dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = norm(x)
    assert y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)


def test_float32_on_cuda_is_not_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert find_device("auto") == CUDA
    assert not torch.backends.cudnn.allow_tf32


class Counting(nn.Module):
    """A network with a BatchNorm, whose statistics change in each pass."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        x = self.norm(images).flatten(2).transpose(1, 2)
        return HeadOutputs(x, x, x[..., 0], ((int(images.shape[2]), int(images.shape[3])),))


class Cuda:
    """A substitute for the parts of torch.cuda that `Graphs` uses; a capture runs the network four times."""

    def __init__(self, monkeypatch, free=10):
        self.free, self.captured = free, []
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (self.free, 100))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 5)
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", self.capture)

    def capture(self, forward, examples, *, num_warmup_iters, pool):
        assert pool == (0, 1) and not torch.is_autocast_enabled("cpu")
        self.captured.append(tuple(examples[0].shape))
        for _ in range(num_warmup_iters + 1):
            forward(*examples)


def images(height: int) -> torch.Tensor:
    return torch.arange(6.0 * height).reshape(1, 3, height, 2)


def test_a_shape_is_captured_the_second_time_and_statistics_do_not_notice(monkeypatch):
    cuda = Cuda(monkeypatch)
    graphed, plain = Counting().train(), Counting().train()
    graphs = Graphs(graphed, torch.float32)
    for height in (4, 8, 4, 4, 8, 4):
        want, got = plain(images(height)), graphs(images(height))
        assert torch.equal(got.class_logits, want.class_logits) and got.feature_sizes == want.feature_sizes
    assert cuda.captured == [(1, 3, 4, 2), (1, 3, 8, 2)]
    assert torch.equal(graphed.norm.running_mean, plain.norm.running_mean)
    assert graphed.norm.num_batches_tracked == plain.norm.num_batches_tracked == 6


def test_without_room_for_a_step_nothing_is_captured(monkeypatch):
    cuda = Cuda(monkeypatch, free=5)
    graphs = Graphs(Counting().train(), torch.float32)
    for _ in range(3):
        graphs(images(4))
    assert cuda.captured == [] and len(graphs) == 0


def test_no_more_graphs_than_are_kept(monkeypatch):
    cuda = Cuda(monkeypatch)
    monkeypatch.setattr(cuda_graphs, "MOST", 2)
    graphs = Graphs(Counting().train(), torch.float32)
    for height in (1, 2, 3, 1, 2, 3, 3):
        graphs(images(height))
    assert cuda.captured == [(1, 3, 1, 2), (1, 3, 2, 2)]
