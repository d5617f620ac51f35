"""The three losses of the paper (equation 2 and its centerness term): each is a sum over the number of positives."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from fcos import distributed
from fcos.structures import HeadOutputs, LocationTargets

EPSILON = 1e-7  # avoids 0 / 0 for boxes without area; torchvision's value


def detection_losses(outputs: HeadOutputs, targets: LocationTargets) -> tuple[dict[str, Tensor], Tensor]:
    """Return the classification, regression and centerness losses and the number of positives, all scalars.

    The number of positives, by which the losses are divided, is that of all ranks: the losses of the batch are the sums
    over the ranks.

    The losses are computed in float32 whatever dtype the network ran in. They mask instead of indexing the positive
    locations, so that the host does not wait for the device.
    """
    positive = targets.positive_mask  # (B, R)
    num_positives = distributed.total(positive.sum())
    divisor = num_positives.clamp(min=1)
    class_logits = outputs.class_logits.float()
    classes = torch.arange(class_logits.shape[-1], device=class_logits.device)
    target_classes = (targets.labels[..., None] == classes).to(class_logits)  # (B, R, K)
    focal = sigmoid_focal_loss(class_logits, target_classes, alpha=0.25, gamma=2.0)  # (B, R, K)
    giou = ltrb_giou_loss(
        torch.where(positive[..., None], outputs.pred_ltrb.float(), 1.0), targets.target_ltrb
    )  # (B, R)
    centerness = binary_cross_entropy_with_logits(
        outputs.centerness_logits.float(), centerness_targets(targets.target_ltrb), reduction="none"
    )  # (B, R)
    losses = {
        "classification": torch.where(targets.counted_mask[..., None], focal, 0.0).sum() / divisor,
        "regression": torch.where(positive, giou, 0.0).sum() / divisor,
        "centerness": torch.where(positive, centerness, 0.0).sum() / divisor,
    }
    return losses, num_positives


def ltrb_giou_loss(pred_ltrb: Tensor, target_ltrb: Tensor) -> Tensor:
    """Return 1 - GIoU (arXiv 1902.09630) of two boxes around one location, given as distances >= 0: (..., 4) -> (...).

    Two boxes around one location always overlap, so that no case needs to be tested and the host does not wait for the
    device.
    """
    intersection = _area(torch.minimum(pred_ltrb, target_ltrb))
    enclosing = _area(torch.maximum(pred_ltrb, target_ltrb))
    union = _area(pred_ltrb) + _area(target_ltrb) - intersection
    giou: Tensor = intersection / (union + EPSILON) - (enclosing - union) / (enclosing + EPSILON)
    return 1 - giou


def _area(ltrb: Tensor) -> Tensor:
    left, top, right, bottom = ltrb.unbind(-1)
    return (left + right) * (top + bottom)


def centerness_targets(target_ltrb: Tensor) -> Tensor:
    """Return the centerness of equation (3): 1 at the center of the box, 0 on its border; (..., 4) -> (...)."""
    left, top, right, bottom = target_ltrb.unbind(-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()
