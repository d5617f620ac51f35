"""The largest training batch that fits into memory: tested on CUDA, estimated elsewhere.

Running out of memory raises an error on CUDA, but kills the process on a CPU. Between the forward and the backward pass
a step needs weights, gradients, optimizer state and the tensors that autograd saves. Only the saved tensors grow with
the pixels of the batch, so two steps on small images determine both parts.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fcos.config.train import TrainConfig
from fcos.model.device import find_memory_format
from fcos.structures import Batch
from fcos.training.optimizer import make_optimizer
from fcos.training.step import Assigner, train_step

# Measured on a CPU (ResNet-18 and 50, VOC sizes, glibc), the peak memory for autograd's saved tensors was 1.1 to 1.5
# times their size with batches of one size, and up to 1.7 times after 24 steps of random sizes, since freed memory is
# returned late.
MARGIN = 2.0
PAIR_BYTES = 18.0  # the most that the assignment holds for each location and box: four float32 and two bools
PROCESS_BYTES = 256 << 20  # oneDNN's code and buffers, and images being loaded
# What torch raises as a RuntimeError if a library finds no memory for its workspace, or a tensor has 2^31 elements.
TOO_LARGE = (
    "out of memory",
    "ALLOC_FAILED",  # CUDNN_STATUS_, CUBLAS_STATUS_
    "ALLOCATION_FAILED",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_
    "unable to find an engine",  # cuDNN: none of its kernels got its workspace
    "Unable to find a valid cuDNN algorithm",
    "32-bit index",
    "32 bit index",
    "canUse32BitIndexMath",
    "INT_MAX",
    "integer out of range",
)
SMALL_SIZES = (128, 256)  # sides of square images in pixels: multiples of 128, so that all five levels scale


@dataclass(frozen=True)
class Estimate:
    """The memory that a training step needs, in bytes."""

    fixed: float  # weights, gradients, optimizer state and copies in the training dtype
    per_pixel: float  # saved by autograd for each pixel of the batch
    per_box: float  # of the assignment for each box and pixel of the batch

    def bytes_for(self, batch_size: int, image_size: tuple[int, int], num_boxes: int) -> float:
        """Return the bytes for `batch_size` images of `image_size` (height, width), including a safety margin.

        Args:
            num_boxes: of the image that has most; all images of a batch are padded to it.
        """
        per_pixel = MARGIN * self.per_pixel + num_boxes * self.per_box
        return PROCESS_BYTES + self.fixed + per_pixel * batch_size * image_size[0] * image_size[1]


class Trial:
    """Training steps on synthetic images, on a network that is used for nothing else."""

    def __init__(
        self, model: nn.Module, assigner: Assigner, config: TrainConfig, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        model.to(device, memory_format=find_memory_format(device, dtype)).train()  # type: ignore[call-overload]
        self.model, self.assigner, self.config, self.device, self.dtype = model, assigner, config, device, dtype
        self.optimizer = make_optimizer(model, config)

    def step(self, batch_size: int, image_size: tuple[int, int], num_boxes: int = 1) -> None:
        """Run one training step on images of `image_size` (height, width) with `num_boxes` boxes each."""
        height, width = image_size
        images = torch.zeros((batch_size, 3, height, width), device=self.device)
        box = torch.tensor([0.0, 0.0, width, height], device=self.device)
        shape = (batch_size, num_boxes)
        batch = Batch(
            images=images.to(memory_format=find_memory_format(self.device, self.dtype)),
            image_ids=list(range(batch_size)),
            image_sizes=torch.tensor([image_size], dtype=torch.float32, device=self.device).expand(batch_size, 2),
            gt_boxes=box.expand(*shape, 4),
            gt_labels=torch.zeros(shape, dtype=torch.int64, device=self.device),
            gt_ignored=torch.zeros(shape, dtype=torch.bool, device=self.device),
        )
        clip = self.config.clip_grad_norm
        train_step(self.model, batch, self.assigner, self.optimizer, dtype=self.dtype, clip_grad_norm=clip)

    def fits(self, batch_size: int, image_size: tuple[int, int], num_boxes: int) -> bool:
        """Whether two steps fit into the memory of a CUDA device; the first one creates the optimizer's state."""
        fitted = True
        try:
            for _ in range(2):
                self.step(batch_size, image_size, num_boxes)
        except RuntimeError as error:
            if not _is_too_large(error):
                raise
            fitted = False
        torch.cuda.empty_cache()  # only now: the error, which referenced the step's tensors, is deleted
        return fitted

    def seconds(self, batch_size: int, image_size: tuple[int, int]) -> float:
        """Return the seconds of a step: the faster of two, after one that builds kernels and the optimizer's state."""
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            self.step(batch_size, image_size)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            taken.append(time.perf_counter() - started)
        return min(taken[1:])

    def estimate(self) -> Estimate:
        """Return the estimated memory of steps of any size."""
        pixels = [2 * size**2 for size in SMALL_SIZES]
        few, many = (saved_bytes(partial(self.step, 2, (size, size)), self.model.parameters()) for size in SMALL_SIZES)
        per_pixel = (many - few) / (pixels[1] - pixels[0])
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        gradients = [parameter.grad for parameter in self.model.parameters()]
        tensors = [*self.model.state_dict().values(), *gradients, *state]
        held = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
        per_box = PAIR_BYTES * sum(1 / stride**2 for stride in self.assigner.grid.strides)
        return Estimate(held + few - per_pixel * pixels[0], per_pixel, per_box)


def _is_too_large(error: RuntimeError) -> bool:
    """Whether CUDA, cuDNN, cuBLAS or an index of 32 bits was too small for a step."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in TOO_LARGE)


def saved_bytes(step: Callable[[], object], parameters: Iterable[nn.Parameter]) -> int:
    """Return the bytes that autograd saves between forward and backward pass of `step()`, without `parameters`."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, torch.UntypedStorage] = {}  # keeping the storages prevents reuse of their addresses

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in kept.values())


def largest(fits: Callable[[int], bool], at_most: int) -> int:
    """Return the largest number in 1..`at_most` that `fits`, or 0: double until one does not fit, then bisect."""
    low, high = 0, 1
    while high <= at_most and fits(high):
        low, high = high, 2 * high
    high = min(high, at_most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
