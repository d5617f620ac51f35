"""The training loop: it records a history row for each step and saves a checkpoint at intervals."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, tee
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcos import distributed
from fcos.config.train import TrainConfig
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.transforms import View, draw_view, make_batch, padded_size
from fcos.errors import UserError
from fcos.interruption import postponed
from fcos.memory import keep_freed_memory
from fcos.model.device import find_memory_format
from fcos.model.graphs import make_graphs
from fcos.progress import Progress, say
from fcos.training.optimizer import learning_rate, make_optimizer
from fcos.training.ranks import synchronise_norms
from fcos.training.resume import Scratch
from fcos.training.step import Assigner, train_step
from fcos.training.validation import Validation

# Number of batches whose images are sorted by shape together. Sorting a whole epoch would leave the least padding, but
# its batches of large images would always contain the same images.
SORTED_TOGETHER = 16
READ_EVERY = 20  # steps between two readings of the losses; each reading waits for the device
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a training with their images, views and learning rates; a step does not depend on earlier ones."""

    image_sizes: Mapping[int, tuple[int, int]]  # (height, width) by image id, in the order of the data
    epochs: int
    seed: int
    config: TrainConfig

    @cached_property
    def image_ids(self) -> list[int]:
        """The image ids in the order of the data."""
        return list(self.image_sizes)

    @property
    def smallest_batch(self) -> int:
        """The number of images of the last batch of an epoch."""
        return len(self.image_sizes) % self.config.batch_size or self.config.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.image_sizes) // self.config.batch_size)

    @property
    def num_epochs(self) -> int:
        return self.config.warmup_epochs + self.epochs

    @property
    def num_steps(self) -> int:
        return self.num_epochs * self.steps_per_epoch

    def lr(self, step: int) -> float:
        """Return the learning rate of a step."""
        return learning_rate(
            step,
            peak=self.config.learning_rate,
            warmup_steps=self.config.warmup_epochs * self.steps_per_epoch,
            cosine_steps=self.epochs * self.steps_per_epoch,
        )

    def view(self, epoch: int, image_id: int) -> View:
        """Return the size and flip of an image in an epoch."""
        return draw_view(
            self.image_sizes[image_id],
            seed=self.seed,
            epoch=epoch,
            image_id=image_id,
            sizes=self.config.sizes,
            longest=self.config.max_size,
            horizontal_flip=self.config.horizontal_flip,
        )

    def batches(self, first_step: int) -> Iterator[list[int]]:
        """Yield the dataset indices of each step, starting at `first_step`."""
        for epoch in range(first_step // self.steps_per_epoch, self.num_epochs):
            first = first_step % self.steps_per_epoch if epoch == first_step // self.steps_per_epoch else 0
            yield from self._epoch(epoch, first)

    def mean_pixels(self, most: int = 200) -> float:
        """Return the pixels of an image in its batch, padding included: the mean over `most` batches of an epoch."""
        pixels = images = 0
        for batch in islice(self._epoch(0), most):
            height, width = padded_size(
                [self.view(0, self.image_ids[index]).size for index in batch], self.config.pad_multiple
            )
            pixels, images = pixels + height * width * len(batch), images + len(batch)
        return pixels / images

    def _epoch(self, epoch: int, first: int = 0) -> Iterator[list[int]]:
        """Yield the batches of an epoch from the batch `first` on.

        Views are drawn when they are needed: those of a million images would take 17 seconds at the start of an epoch.
        """
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.image_sizes)).tolist()
        size = self.config.batch_size
        if self.config.batches == "random":
            yield from _parts(order, size)[first:]
            return
        together = _parts(order, SORTED_TOGETHER * size)

        def shape(index: int) -> tuple[int, int]:
            return padded_size([self.view(epoch, self.image_ids[index]).size], self.config.pad_multiple)

        @cache
        def batches_of(part: int) -> list[list[int]]:
            return _parts(sorted(together[part], key=shape), size)

        for number in rng.permutation(self.steps_per_epoch)[first:].tolist():
            yield batches_of(number // SORTED_TOGETHER)[number % SORTED_TOGETHER]


def _parts(items: list[int], size: int) -> list[list[int]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


class History:
    """The rows of finished steps; losses stay on the device until `read`."""

    def __init__(self, rows: list[Row], earlier_s: float = 0.0) -> None:
        self.rows = rows
        self.earlier_s = earlier_s  # wall time of the training before it was interrupted
        self._started = time.perf_counter()
        self._pending: list[tuple[Row, dict[str, Tensor], list[int]]] = []
        self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, without interruptions."""
        return self.earlier_s + time.perf_counter() - self._started

    def add(self, row: Row, on_device: dict[str, Tensor], image_ids: list[int]) -> None:
        """Add the row of a step, whose losses are still on the device."""
        self._pending.append((row, on_device, image_ids))

    def read(self) -> list[Row]:
        """Fetch the pending rows and return them; raise a UserError with the batch's images if a loss is not finite."""
        if not self._pending:
            return []
        names = list(self._pending[0][1])
        values = torch.stack([torch.stack([t[name].float() for name in names]) for _, t, _ in self._pending]).tolist()
        now = time.perf_counter()
        images_per_s = sum(len(ids) for _, _, ids in self._pending) / (now - self._since)
        new = []
        for (row, _, image_ids), numbers in zip(self._pending, values, strict=True):
            if not np.isfinite(numbers).all():
                raise UserError(
                    f"training step {row['step']:.0f}",
                    "a loss is not finite; the run was stopped",
                    found=dict(zip(names, numbers, strict=True)),
                    expected=f"finite losses on the images with ids {image_ids}",
                    hint="lower train.learning_rate, set train.clip_grad_norm, or look at these images",
                )
            new.append({**row, **dict(zip(names, numbers, strict=True)), "images_per_s": round(images_per_s, 3)})
        self.rows += new
        self._pending, self._since = [], now
        return new

    def validated(self, numbers: Row) -> None:
        """Add the metrics of a validation to the last row, and keep its time out of the following steps."""
        self.rows[-1].update(numbers)
        self._since = time.perf_counter()


def fit(
    model: nn.Module,
    dataset: DetectionDataset,
    assigner: Assigner,
    plan: Plan,
    *,
    device: torch.device,
    dtype: torch.dtype,
    scratch: Scratch,
    validation: Validation,
    on_rows: Callable[[Sequence[Row]], None],
) -> History:
    """Train `model` in place, leave it with the weights that `validation` keeps, and return the history.

    If `scratch` holds a state, training resumes from it and ends with the same weights as without interruption, bit for
    bit on a CPU. A signal waits for the current step and is handled after its state is saved.

    Each of several ranks computes its part of every batch; the first one saves.
    """
    config = plan.config
    keep_freed_memory()
    memory_format = find_memory_format(device, dtype)
    model.to(device, memory_format=memory_format).train()  # type: ignore[call-overload]
    model = synchronise_norms(model, device, smallest_batch=plan.smallest_batch)
    optimizer = make_optimizer(model, config)
    graphs = make_graphs(model, device, dtype, wanted=config.cuda_graphs)
    first_step, history = _resume(scratch, model, optimizer, validation, device)
    progress = Progress("train", plan.num_steps, unit="steps", done=first_step)
    saved_at = time.monotonic()
    batches, ours = tee(plan.batches(first_step))
    samples_of = load_ahead(dataset, map(distributed.share, ours), workers=config.workers)
    with postponed() as is_requested:
        for step, (indices, samples) in enumerate(zip(batches, samples_of, strict=True), start=first_step):
            epoch = step // plan.steps_per_epoch
            lr = plan.lr(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            image_ids = [plan.image_ids[index] for index in indices]
            views = [plan.view(epoch, image_id) for image_id in image_ids]
            padded = padded_size([view.size for view in views], config.pad_multiple)
            batch = make_batch(samples, distributed.share(views), device, memory_format, padded) if samples else None
            clip = config.clip_grad_norm
            on_device = train_step(model, batch, assigner, optimizer, dtype=dtype, clip_grad_norm=clip, graphs=graphs)
            history.add({"step": step, "epoch": epoch, "lr": lr}, on_device, image_ids)
            epochs, rest = divmod(step + 1, plan.steps_per_epoch)
            validate = rest == 0 and validation.is_due(epochs)
            last = step + 1 == plan.num_steps
            is_time = distributed.rank() == 0 and time.monotonic() - saved_at >= config.checkpoint_every_s
            save, stop = distributed.any_of(not last and is_time, not last and is_requested())
            if save or stop or last or validate or (step + 1) % READ_EVERY == 0:
                rows = history.read()
                if validate:
                    history.validated(validation(model, device, epochs))
                on_rows(rows)
            progress.update(1, _note(history.rows, device) + validation.note)
            if validate and validation.is_enough(epochs):
                break
            if save or stop:
                if distributed.rank() == 0:
                    scratch.save(_state(model, optimizer, history, validation, step + 1))
                saved_at = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    progress.close()
    if epochs < plan.num_epochs:
        say(f"ended after epoch {epochs} of {plan.num_epochs}{validation.note}")
    validation.keep(model)
    return history


def _resume(
    scratch: Scratch,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    validation: Validation,
    device: torch.device,
) -> tuple[int, History]:
    if distributed.size() == 1:
        state = scratch.load(device)
    else:
        state = distributed.from_first(scratch.load(torch.device("cpu")) if distributed.rank() == 0 else None)
    if state is None:
        return 0, History([])
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    validation.resume(state["validation"])
    say(f"resumed at step {state['step']} from {scratch.path}")
    return state["step"], History(state["history"], state["seconds"])


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, history: History, validation: Validation, step: int
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history.rows,
        "seconds": history.seconds,
        "validation": validation.state(),
        "step": step,
    }


def _note(rows: list[Row], device: torch.device) -> str:
    if not rows:
        return ""
    row = rows[-1]
    parts = ", ".join(f"{part} {row[f'loss_{part}']:.3f}" for part in ("classification", "regression", "centerness"))
    speed = f"lr {row['lr']:.2e}, {row['images_per_s']:.1f} images/s"
    return f"loss {row['loss']:.3f} ({parts}), {speed}, {peak_memory_mb(device):.0f} MB"


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory so far in MiB: of the device on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
