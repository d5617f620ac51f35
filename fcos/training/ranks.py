"""What the ranks of one training have to agree about: the statistics of BatchNorm and the gradients.

Each rank has a part of every batch. Losses are divided by the number of positives of the whole batch, so that the sum
of the gradients over the ranks is the gradient of the whole batch: torch's DistributedDataParallel would average
gradients of losses that are each divided by the positives of one rank, which is another training.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fcos import distributed
from fcos.errors import UserError


def synchronise_norms(model: nn.Module, device: torch.device, *, smallest_batch: int) -> nn.Module:
    """Return the model with BatchNorms that normalise by the whole batch, if it trains any on several ranks.

    Args:
        smallest_batch: the number of images of the smallest batch.

    Raises:
        UserError: torch synchronises BatchNorms only on CUDA, and only if each rank has images.
    """
    trained = any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
    if distributed.size() == 1 or not trained:
        return model
    if device.type != "cuda" or smallest_batch < distributed.size():
        raise UserError(
            "params.yaml: model.batch_norm",
            "cannot be trained on these devices, since statistics of the whole batch are needed",
            found=f"trained, on {distributed.size()} x {device.type}, with a batch of {smallest_batch} images",
            expected="CUDA devices, and at least one image of each batch for each of them",
            hint="set `devices: 1`, `batch_norm: frozen` or another train.batch_size",
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def sum_gradients(model: nn.Module) -> None:
    """Replace the gradients by their sums over the ranks; a rank that had no images adds nothing."""
    if distributed.size() == 1:
        return
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients: list[Tensor] = [parameter.grad for parameter in trained if parameter.grad is not None]
    # One message for all of them: most are small.
    summed = distributed.total(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(summed, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
