"""What the page of `fcos compare --html` shows of each results file: its errors, and its boxes in some images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcos.data.coco import CocoSplit
from fcos.errors import UserError
from fcos.scoring.analysis import analyse
from fcos.scoring.bootstrap import Drawn
from fcos.scoring.matching import Ints, Matches, ResultTable
from fcos.scoring.numbers import class_intervals
from fcos.scoring.protocol import COCO, Protocol
from fcos.scoring.truth import Truth

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Details:
    """A results file as the charts and the gallery need it; ids are places in the ground truth."""

    name: str
    evaluation: Row  # "per_class" and "analysis", as in evaluation.json of a run
    table: ResultTable
    history: None = None  # of its training, which is not known

    def detections(self, image_ids: Sequence[int]) -> list[Row]:
        """Return the detections in some images as COCO results."""
        inside = self.table[np.isin(self.table.image, image_ids)]
        columns = (inside.image, inside.label, inside.boxes_xywh, inside.score)
        keys = ("image_id", "category_id", "bbox", "score")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]


def check_protocol(protocol: Protocol) -> None:
    """Raise UserError unless sizes and thresholds are COCO's, which the analysis is defined for."""
    own = protocol.area_ranges != COCO.area_ranges or not np.array_equal(protocol.iou_thresholds, COCO.iou_thresholds)
    if own:
        raise UserError(
            "fcos compare --html",
            "the error analysis of the page is defined for COCO's thresholds and sizes",
            found="--iou or --areas",
            expected="neither of them",
            hint="leave out --html, --iou and --areas, or write the page in a second call",
        )


class Inspector:
    """Keeps what the page shows of each file while they are scored.

    Args:
        confidence: confidence level of intervals.
    """

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence
        self.files: list[Details] = []
        self.split: CocoSplit | None = None
        self.images: Path | None = None  # their folder, if the ground truth is a folder

    def look(self, name: str, matches: Matches, numbers: Row, of_classes: Drawn, truth: Truth, weights: Ints) -> None:
        """Analyse the matches of one file.

        Args:
            numbers: its metrics, as `fcos.scoring.numbers.coco_metrics` returns them.
            of_classes: the replicates of the metrics of each class.
            weights: (B, I) bootstrap samples, for the intervals of object sizes and crowding.
        """
        if self.split is None:
            self.split = split_of(truth)
        per_class = class_intervals(numbers["per_class"], of_classes, confidence=self.confidence)
        analysis = analyse(matches, self.split, weights, confidence=self.confidence)
        table = ResultTable(
            image=matches.image, label=matches.label, boxes_xywh=matches.boxes_xywh, score=matches.score
        )
        self.files.append(Details(name=name, evaluation={"per_class": per_class, "analysis": analysis}, table=table))


def split_of(truth: Truth) -> CocoSplit:
    """Return the ground truth as a split whose ids are places of images and labels of classes."""
    sizes = [[None if side != side else int(side) for side in size] for size in truth.sizes.tolist()]
    objects = truth.objects
    boxes = zip(
        objects.image.tolist(),
        objects.label.tolist(),
        objects.boxes_xywh.tolist(),
        truth.areas.tolist(),
        objects.crowd.astype(int).tolist(),
        strict=True,
    )
    return CocoSplit(
        images=[
            {**truth.image_records[place], "id": place, "file_name": name, "width": width, "height": height}
            for place, (name, (width, height)) in enumerate(zip(truth.names, sizes, strict=True))
        ],
        categories=[{"id": label, "name": category["name"]} for label, category in enumerate(truth.categories)],
        annotations=[
            {"id": place, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
            for place, (image, label, box, area, crowd) in enumerate(boxes)
        ],
        image_dir=Path(),
    )


def check_images(folder: Path | None) -> None:
    """Raise UserError unless `--images` is a folder, before anything is scored."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"--images {folder}", "no such folder", expected="the folder of the images of --gt")
