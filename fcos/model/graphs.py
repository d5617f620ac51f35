"""CUDA graphs of a network: its kernels for one shape of a batch, launched together.

A training step of FCOS is about 2,000 small kernels. On an H200, launching them one by one takes 2.5 times as long as
computing them (ResNet-18, 16 images of 480 x 640).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fcos.model.device import autocast
from fcos.structures import HeadOutputs

MOST = 24  # graphs; each of a training keeps a copy of all gradients
Pool = Any  # torch's handle, whose type is private
WARM_UP = 3  # passes before a capture, as torch.cuda.make_graphed_callables has it


class Graphs:
    """The network in the mode it is in, training or evaluation, by a CUDA graph where there is one for the shape.

    A graph launches the kernels that the network would launch, so that the numbers are the same. It is captured the
    second time that a shape is seen, if as much memory is free as the most that was used. All graphs share their
    memory, so that outputs are valid until the next call.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self._seen: Counter[torch.Size] = Counter()
        self._captured: dict[torch.Size, Callable[[Tensor], HeadOutputs]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __len__(self) -> int:
        return len(self._captured)

    def __call__(self, images: Tensor) -> HeadOutputs:
        """Return the outputs for images (B, 3, H, W)."""
        self._seen[images.shape] += 1
        if images.shape not in self._captured and self._seen[images.shape] == 2 and self._has_room(images.device):
            capture = _with_backward if self.model.training else _forward_alone
            self._captured[images.shape] = capture(self.model, images, self.dtype, self._pool)
        if forward := self._captured.get(images.shape):
            return forward(images)
        return run(self.model, images, self.dtype)

    def _has_room(self, device: torch.device) -> bool:
        free, _ = torch.cuda.mem_get_info(device)
        return len(self) < MOST and free > torch.cuda.max_memory_allocated(device)


def make_graphs(model: nn.Module, device: torch.device, dtype: torch.dtype, *, wanted: bool) -> Graphs | None:
    """Return the graphs of `model`, or None if they are not wanted or the device is not CUDA."""
    return Graphs(model, dtype) if wanted and device.type == "cuda" else None


def run(model: nn.Module, images: Tensor, dtype: torch.dtype, graphs: Graphs | None = None) -> HeadOutputs:
    """Return the outputs for images (B, 3, H, W) with convolutions in `dtype`, from the model's `graphs` if any."""
    if graphs is not None:
        return graphs(images)
    with autocast(images.device, dtype):
        outputs: HeadOutputs = model(images)
    return outputs


class _Forward(nn.Module):
    """The tensors of HeadOutputs. Autocast begins and ends in it, since its cache must not outlive a capture."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.feature_sizes: tuple[tuple[int, int], ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        class_logits, pred_ltrb, centerness_logits, self.feature_sizes = run(self.model, images, self.dtype)
        return class_logits, pred_ltrb, centerness_logits


def _with_backward(model: nn.Module, images: Tensor, dtype: torch.dtype, pool: Pool) -> Callable[[Tensor], HeadOutputs]:
    before = [buffer.clone() for buffer in model.buffers()]  # BatchNorms count the passes before a capture
    forward = _Forward(model, dtype)
    # Gradients are accumulated in the stream of the capture; torch warns once of the wait between the two streams.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    torch.cuda.make_graphed_callables(forward, (images.clone(),), num_warmup_iters=WARM_UP, pool=pool)
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)

    def graphed(images: Tensor) -> HeadOutputs:
        class_logits, pred_ltrb, centerness_logits = forward(images)
        return HeadOutputs(class_logits, pred_ltrb, centerness_logits, forward.feature_sizes)

    return graphed


def _forward_alone(model: nn.Module, images: Tensor, dtype: torch.dtype, pool: Pool) -> Callable[[Tensor], HeadOutputs]:
    kept = images.clone()
    here, aside = torch.cuda.current_stream(images.device), torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            run(model, kept, dtype)
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        outputs = run(model, kept, dtype)

    def forward(images: Tensor) -> HeadOutputs:
        kept.copy_(images)
        graph.replay()
        return outputs

    return forward
