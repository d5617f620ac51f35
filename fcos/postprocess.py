"""Decode the network's outputs into candidates."""

import numpy as np
import torch
from torch import Tensor

from fcos.boxes import boxes_from, clip
from fcos.detections import Bools, Candidates, Float32s
from fcos.structures import HeadOutputs


def decode_candidates(
    outputs: HeadOutputs,
    locations: Tensor,
    strides: Tensor,
    image_sizes: Tensor,
    original_sizes: Tensor,
    *,
    score_threshold: float,
    max_candidates: int,
) -> list[Candidates]:
    """Return the candidates of every image: the highest-scoring (location, class) pairs before NMS.

    The score is sqrt(sigmoid(class) * sigmoid(centerness)). Each level contributes at most `max_candidates` pairs with
    a score above `score_threshold`. Boxes are in pixels of the original image and clipped to it; boxes entirely outside
    of it (from locations in the padding) are dropped. All of this runs on the device for the whole batch, and the
    selected candidates are copied to the host once.

    Args:
        locations: (R, 2) x, y in pixels of the padded image.
        strides: (R,) stride of each location's level.
        image_sizes: (B, 2) height and width of the resized images without padding.
        original_sizes: (B, 2) height and width of the images before resizing.
        max_candidates: largest number of candidates for each level.
    """
    num_classes = outputs.class_logits.shape[-1]
    scale = (original_sizes / image_sizes).flip(1).repeat(1, 2)  # (B, 4) x, y, x, y
    boxes = boxes_from(locations, outputs.pred_ltrb.float() * strides[:, None]) * scale[:, None]  # (B, R, 4)
    boxes = clip(boxes, original_sizes[:, :1], original_sizes[:, 1:])
    inside = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1, keepdim=True)
    scores, pair = _best_pairs(joint_scores(outputs) * inside, outputs.feature_sizes, max_candidates)  # (B, N) each
    boxes = boxes.gather(1, (pair // num_classes)[..., None].expand(-1, -1, 4))
    labels = (pair % num_classes).to(boxes)  # float32 holds every label; one tensor is one wait for the device
    fetched = torch.cat((boxes, scores[..., None], labels[..., None]), dim=-1).cpu().numpy()  # (B, N, 6)
    return [_candidates(rows, rows[:, 4] > score_threshold) for rows in fetched]


def _candidates(rows: Float32s, kept: Bools) -> Candidates:
    """Return the `kept` ones of rows (N, 6), which are a box, its score and its label."""
    return Candidates(rows[:, :4][kept], rows[:, 4][kept], rows[:, 5][kept].astype(np.int64))


def joint_scores(outputs: HeadOutputs) -> Tensor:
    """Return the geometric mean of class probability and centerness, (B, R, K)."""
    centerness = outputs.centerness_logits.float().sigmoid()[..., None]
    return (outputs.class_logits.float().sigmoid() * centerness).sqrt()


def _best_pairs(scores: Tensor, feature_sizes: tuple[tuple[int, int], ...], most: int) -> tuple[Tensor, Tensor]:
    """Return the highest scores of each level of each image and their flat (location, class) indices: (B, N) each."""
    num_classes = scores.shape[-1]
    best, pair = [], []
    first = 0
    for height, width in feature_sizes:
        level = scores[:, first : first + height * width].flatten(1)  # (B, H*W*K)
        values, index = level.topk(min(most, level.shape[1]), dim=1)
        best.append(values)
        pair.append(index + first * num_classes)
        first += height * width
    return torch.cat(best, dim=1), torch.cat(pair, dim=1)
