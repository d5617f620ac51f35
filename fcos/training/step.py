"""One training step, from a batch to updated weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fcos import distributed
from fcos.assignment import assign_targets
from fcos.losses import detection_losses
from fcos.model.graphs import Graphs, run
from fcos.model.locations import LocationGrid
from fcos.structures import Batch, HeadOutputs, LocationTargets
from fcos.training.ranks import sum_gradients

LOSSES = ("classification", "regression", "centerness")


@dataclass(frozen=True, kw_only=True)
class Assigner:
    """`assign_targets` with its settings, for a whole batch."""

    grid: LocationGrid
    regression_ranges: Sequence[Sequence[float | None]]
    center_sampling_radius: float
    inclusive: bool

    def __call__(self, outputs: HeadOutputs, batch: Batch) -> LocationTargets:
        height, width = batch.images.shape[2:]
        locations = self.grid(outputs.feature_sizes, (height, width), batch.images.device)
        return assign_targets(
            locations.xy,
            locations.strides,
            locations.level_of,
            batch.gt_boxes,
            batch.gt_labels,
            batch.gt_ignored,
            regression_ranges=self.regression_ranges,
            center_sampling_radius=self.center_sampling_radius,
            inclusive=self.inclusive,
        )


def compute_losses(
    model: nn.Module, batch: Batch, assigner: Assigner, dtype: torch.dtype, graphs: Graphs | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses by name and the number of positive locations, all as scalars on the device."""
    outputs = run(model, batch.images, dtype, graphs)
    return detection_losses(outputs, assigner(outputs, batch))


def train_step(
    model: nn.Module,
    batch: Batch | None,
    assigner: Assigner,
    optimizer: torch.optim.Optimizer,
    *,
    dtype: torch.dtype,
    clip_grad_norm: float | None,
    graphs: Graphs | None = None,
) -> dict[str, Tensor]:
    """Update the weights with one batch and return the total loss, its parts and the number of positives.

    The returned scalars stay on the device (no synchronisation).

    Args:
        batch: this rank's part of the batch; None if other ranks have all its images.
        graphs: of `model` in `dtype`, on CUDA; None launches each kernel by itself.
    """
    losses, num_positives = (
        _no_losses(model) if batch is None else compute_losses(model, batch, assigner, dtype, graphs)
    )
    parts = torch.stack(list(losses.values()))
    total = parts.sum()
    optimizer.zero_grad(set_to_none=True)
    if batch is not None:
        total.backward()  # type: ignore[no-untyped-call]
    sum_gradients(model)
    if clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
    optimizer.step()
    summed = distributed.total(torch.stack([total.detach(), *parts.detach()])).unbind()
    return dict(zip(("loss", *(f"loss_{name}" for name in losses)), summed, strict=True), num_positives=num_positives)


def _no_losses(model: nn.Module) -> tuple[dict[str, Tensor], Tensor]:
    """Return what `compute_losses` returns, for a rank without images."""
    zero = next(model.parameters()).detach().new_zeros(())
    return dict.fromkeys(LOSSES, zero), distributed.total(zero.long())
