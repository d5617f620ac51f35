"""Draw test images with the detections of a run as files for report.md and MLflow; the page has a gallery instead."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcos.data.coco import CocoSplit
from fcos.inference.drawing import Tile, draw_boxes, fitted, sheet
from fcos.reporting.png import save_png
from fcos.reporting.results import Results
from fcos.scoring.errors import SHOWN_SCORE

SAMPLES, SAMPLE_COLUMNS = 6, 3  # of detections.png
COLUMNS = 5  # columns of worst.png
SIDE = 256  # longer side of an image on a sheet, in pixels
MAX_SHOWN = 6  # detections per image of worst.png; all of them (dozens) would be unreadable


def draw_run_images(results: Results, split: CocoSplit, detections: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Draw some of the `detections` of a run (detections.png), and the images with most errors (worst.png)."""
    images = sample_images(split, SAMPLES)
    shown = _shown(detections, images)
    legend = f"dashed: ground truth; with class and score: {results.name}"
    tiles = [_tile(split, image, shown[image["id"]], [Path(image["file_name"]).name]) for image in images]
    drawn = sheet(tiles, columns=SAMPLE_COLUMNS, side=SIDE, legend=f"{legend}, from {SHOWN_SCORE} on")
    save_png(drawn, folder / "detections.png")
    worst = results.evaluation["analysis"]["worst_images"]
    if worst:
        image_of = {image["id"]: image for image in split.images}
        shown = _shown(detections, [image_of[row["image_id"]] for row in worst])
        tiles = [
            _tile(split, image_of[row["image_id"]], shown[row["image_id"]][:MAX_SHOWN], _errors(row)) for row in worst
        ]
        drawn = sheet(
            tiles, columns=max(2, min(COLUMNS, len(tiles))), side=SIDE, legend=f"{legend}, highest score first"
        )
        save_png(drawn, folder / "worst.png")


def sample_images(split: CocoSplit, count: int) -> list[dict[str, Any]]:
    """Return at most `count` images with objects, evenly spread over the split and equal for every run."""
    num_objects = np.diff(split.objects.first)
    images = [image for image, some in zip(split.images, num_objects, strict=True) if some] or split.images
    count = min(count, len(images))
    return [images[index * len(images) // count] for index in range(count)]


def _shown(
    detections: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]
) -> dict[int, list[Mapping[str, Any]]]:
    """Return the shown detections of each of `images` by image id, highest score first."""
    shown: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in images}
    for detection in sorted(detections, key=lambda d: -d["score"]):
        if detection["score"] >= SHOWN_SCORE and detection["image_id"] in shown:
            shown[detection["image_id"]].append(detection)
    return shown


def _errors(row: Mapping[str, Any]) -> list[str]:
    return [Path(row["file_name"]).name[-28:], f"{row['missed']} missed, {row['false_positives']} false"]


def _tile(
    split: CocoSplit, image: dict[str, Any], detections: Sequence[Mapping[str, Any]], caption: Sequence[str]
) -> Tile:
    pixels, scale = fitted(split.pixels(image), SIDE - 8)

    def placed(record: Mapping[str, Any]) -> dict[str, Any]:
        name = split.categories[split.label_of[record["category_id"]]]["name"]
        return {**record, "bbox": [scale * number for number in record["bbox"]], "category": name}

    objects = [placed(annotation) for annotation in split.annotations_of(image["id"])]
    return Tile(draw_boxes(pixels, [placed(detection) for detection in detections], objects), caption)
