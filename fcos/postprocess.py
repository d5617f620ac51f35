"""From the network's outputs to candidates, from candidates to detections."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from fcos.boxes import boxes_from, clip
from fcos.structures import Candidates, Detections, HeadOutputs


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
    """The best (location, class) pairs of every picture, before NMS, in pixels of the original pictures.

    score = sqrt(sigmoid(class) * sigmoid(centerness)); per level the pairs above `score_threshold`, at most
    `max_candidates` of them; boxes clipped to the picture.

    Args:
        locations: (R, 2); strides: (R,); image_sizes: (B, 2) height, width of the resized pictures without
            padding; original_sizes: (B, 2) of the files.
    """
    scores = joint_scores(outputs)  # (B, R, K)
    boxes = boxes_from(locations, outputs.pred_ltrb.float() * strides[:, None])  # (B, R, 4)
    boxes = clip(boxes, image_sizes[:, :1], image_sizes[:, 1:])
    scale = (original_sizes / image_sizes).flip(1).repeat(1, 2)  # (B, 4) x, y, x, y
    boxes = (boxes * scale[:, None]).cpu()
    pairs = _best_pairs(scores, outputs.feature_sizes, score_threshold, max_candidates)
    num_classes = scores.shape[-1]
    return [
        Candidates(image_boxes[pair // num_classes], pair_scores, pair % num_classes)
        for image_boxes, (pair_scores, pair) in zip(boxes, pairs, strict=True)
    ]


def joint_scores(outputs: HeadOutputs) -> Tensor:
    """Geometric mean of class probability and centerness, (B, R, K)."""
    centerness = outputs.centerness_logits.float().sigmoid()[..., None]
    return (outputs.class_logits.float().sigmoid() * centerness).sqrt()


def _best_pairs(
    scores: Tensor, feature_sizes: tuple[tuple[int, int], ...], threshold: float, most: int
) -> list[tuple[Tensor, Tensor]]:
    """For each picture the scores and flat (location, class) indices that pass, level by level."""
    num_classes = scores.shape[-1]
    per_level: list[tuple[Tensor, Tensor]] = []
    first = 0
    for height, width in feature_sizes:
        level = scores[:, first : first + height * width].flatten(1)  # (B, H*W*K)
        best, index = level.topk(min(most, level.shape[1]), dim=1)
        per_level.append((best.cpu(), (index + first * num_classes).cpu()))
        first += height * width
    best = torch.cat([level[0] for level in per_level], dim=1)
    index = torch.cat([level[1] for level in per_level], dim=1)
    keep = best > threshold
    return [(best[i][keep[i]], index[i][keep[i]]) for i in range(len(best))]


def detect(candidates: Candidates, *, nms_iou_threshold: float, max_detections: int) -> Detections:
    """Per-class NMS, best first, at most `max_detections`."""
    keep = batched_nms(candidates.boxes, candidates.scores, candidates.labels, nms_iou_threshold)
    return candidates[keep[:max_detections]]


def merge_views(views: list[Detections], *, nms_iou_threshold: float, max_detections: int) -> Detections:
    """Detections of several views of one picture as one: per-class NMS over their union."""
    return detect(Candidates.concatenate(views), nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)
