"""Candidates to detections, detections to the COCO numbers."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcos.boxes import xyxy_to_xywh
from fcos.data.coco import CocoSplit
from fcos.postprocess import detect
from fcos.structures import Candidates, Detections

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
Record = dict[str, Any]


def detect_all(
    of_image: Mapping[int, Candidates], *, nms_iou_threshold: float, max_detections: int
) -> dict[int, Detections]:
    """NMS on every picture."""
    return {
        image_id: detect(candidates, nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)
        for image_id, candidates in of_image.items()
    }


def coco_results(of_image: Mapping[int, Detections], split: CocoSplit) -> list[Record]:
    """The COCO results list in its one canonical order: AP moves with the order of tied scores (cocoapi#650)."""
    results = []
    for image in split.images:
        detections = of_image[image["id"]]
        boxes_xywh = xyxy_to_xywh(detections.boxes.double()).tolist()
        of_this = [
            {"image_id": image["id"], "category_id": split.category_ids[label], "bbox": bbox, "score": score}
            for bbox, score, label in zip(
                boxes_xywh, detections.scores.double().tolist(), detections.labels.tolist(), strict=True
            )
        ]
        results += sorted(of_this, key=lambda r: (-r["score"], r["category_id"], r["bbox"]))
    return results


def coco_metrics(results: list[Record], split: CocoSplit) -> dict[str, Any]:
    """The twelve COCO numbers as fractions, None where COCO says -1, and the same per class.

    Returns:
        {"metrics": {name: value}, "per_class": [{"category_id", "name", "num_objects", "AP", "AP50", "AP75", "AR100"}]}
    """
    evaluation = _evaluate(results, split)
    metrics = dict(zip(METRICS, map(_fraction, evaluation.stats.tolist()), strict=True))
    precision = evaluation.eval["precision"][
        ..., 0, -1
    ]  # (IoU thresholds, recall steps, K) at all areas, 100 detections
    recall = evaluation.eval["recall"][..., 0, -1]  # (IoU thresholds, K)
    counts = _objects_per_category(split)
    per_class = []
    for label, category in enumerate(split.categories):
        of_class = precision[:, :, label]
        row = {"AP": of_class, "AP50": of_class[0], "AP75": of_class[5], "AR100": recall[:, label]}
        per_class.append(
            {
                "category_id": category["id"],
                "name": category["name"],
                "num_objects": counts.get(category["id"], 0),
                **{name: _mean(values) for name, values in row.items()},
            }
        )
    return {"metrics": metrics, "per_class": per_class}


def _evaluate(results: list[Record], split: CocoSplit) -> COCOeval:
    # pycocotools talks on standard output and writes into what it is given.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": split.images,
            "categories": split.categories,
            "annotations": [dict(annotation) for annotation in split.annotations],
        }
        truth.createIndex()
        found = COCO()
        found.dataset = {
            "images": split.images,
            "categories": split.categories,
            "annotations": [
                {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
                for number, result in enumerate(results, start=1)
            ],
        }
        found.createIndex()
        evaluation = COCOeval(truth, found, iouType="bbox")
        evaluation.params.catIds = split.category_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _objects_per_category(split: CocoSplit) -> dict[int, int]:
    counts: dict[int, int] = {}
    for annotation in split.annotations:
        if not annotation["iscrowd"]:
            counts[annotation["category_id"]] = counts.get(annotation["category_id"], 0) + 1
    return counts


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _fraction(value: float) -> float | None:
    return None if value == -1 else value
