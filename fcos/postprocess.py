"""Decode the network's outputs into candidates."""

import numpy as np
import torch
from torch import Tensor

from fcos.boxes import boxes_from, clip
from fcos.detections import Bools, Candidates, Detections, Float32s
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
    """Return the candidates of every image, copied to the host once; see `decode_rows`.

    Args:
        score_threshold: only higher scores are kept.
    """
    rows = decode_rows(outputs, locations, strides, image_sizes, original_sizes, max_candidates=max_candidates)
    return candidates_of(rows, score_threshold=score_threshold)


def candidates_of(rows: Tensor, *, score_threshold: float) -> list[Candidates]:
    """Return the rows (B, N, 6) of each image with a higher score, copied to the host once."""
    return [_candidates(of_image, of_image[:, 4] > score_threshold) for of_image in rows.cpu().numpy()]


def decode_rows(
    outputs: HeadOutputs,
    locations: Tensor,
    strides: Tensor,
    image_sizes: Tensor,
    original_sizes: Tensor,
    *,
    max_candidates: int,
) -> Tensor:
    """Return (B, N, 6) box, score, label: the highest-scoring (location, class) pairs before NMS, on the device.

    The score is sqrt(sigmoid(class) * sigmoid(centerness)). Each level contributes at most `max_candidates` pairs.
    Boxes are in pixels of the original image and clipped to it; boxes entirely outside of it (from locations in the
    padding) have score 0. All of this runs on the device for the whole batch.

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
    return torch.cat((boxes, scores[..., None], labels[..., None]), dim=-1)


def detect_rows(
    rows: Tensor, *, score_threshold: float, nms_iou_threshold: float, max_detections: int
) -> list[Detections]:
    """Return what `fcos.detections.detect` keeps of the candidates in rows (B, N, 6), computed on their device.

    Greedy NMS keeps a box if no kept box before it overlaps it. This starts with all boxes kept and decides each one
    again from the last decisions on the others, until nothing changes. After t rounds, the decisions on the first t
    boxes are final; only boxes that overlap in a long chain need many rounds. Memory grows with N squared: 5,000 rows
    take about 600 MB.
    """
    return [_detected(of_image, score_threshold, nms_iou_threshold, max_detections) for of_image in rows]


def _detected(rows: Tensor, score_threshold: float, nms_iou_threshold: float, max_detections: int) -> Detections:
    rows = rows[rows[:, 4].argsort(descending=True, stable=True)]
    rows = rows[rows[:, 4] > score_threshold]
    suppresses = _overlap(rows, nms_iou_threshold).triu(diagonal=1).float()  # (N, N): a box, and those after it
    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    while True:
        decided = keep.float() @ suppresses == 0
        if torch.equal(decided, keep):
            break
        keep = decided
    kept = rows[keep][:max_detections].cpu().numpy()
    return _candidates(kept, np.ones(len(kept), dtype=bool))


def _overlap(rows: Tensor, threshold: float) -> Tensor:
    """Return (N, N) bool: whether two boxes have the same class and an IoU above the threshold, as `detect` has it."""
    low, high, labels = rows[:, :2], rows[:, 2:4], rows[:, 5]
    width, height = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).unbind(-1)
    intersection = width * height
    sides = high - low
    area = sides[:, 0] * sides[:, 1]
    iou = intersection / (area[:, None] + area - intersection)
    return (iou.double() > threshold) & (labels[:, None] == labels)


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
