"""The gallery of the page: some test images with the detections of each run and their errors."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcos.data.coco import CocoSplit
from fcos.scoring.errors import ERROR_KINDS, SHOWN_SCORE, Outcome, classify_errors
from fcos.scoring.matching import match

NUM_IMAGES = 24
SIDE = 320  # longer side in pixels; small, because the images are embedded in the page
QUALITY = 82  # JPEG quality
MAX_WRONG = 30  # wrong boxes shown per image and run, highest scores first
RIGHT = "right"

Row = dict[str, Any]


class Gallery:
    """Gallery content: the images once, and the detections of each run in them.

    Args:
        split: the scored split.
        worst: for each run, its worst images first, as `fcos.scoring.analysis.analyse` returns them.
    """

    def __init__(self, split: CocoSplit, worst: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        self.split = split
        self.image_ids = choose_images(split, worst)
        self.runs: dict[str, dict[int, list[list[Any]]]] = {}

    def add(self, run_name: str, detections: Sequence[Mapping[str, Any]]) -> None:
        """Add the COCO results of a run on the whole split."""
        self.runs[run_name] = found_by(self.split, detections, self.image_ids)

    def content(self) -> Row:
        """Return {"classes", "kinds", "min_score", "images"}: `image_rows`, each with `found_by` by run as "found"."""
        images = image_rows(self.split, self.image_ids)
        for image in images:
            image["found"] = {run_name: found[image["id"]] for run_name, found in self.runs.items()}
        names = [category["name"] for category in self.split.categories]
        return {"classes": names, "kinds": [RIGHT, *ERROR_KINDS], "min_score": SHOWN_SCORE, "images": images}


def choose_images(split: CocoSplit, worst: Iterable[Sequence[Mapping[str, Any]]], count: int = NUM_IMAGES) -> list[int]:
    """Return at most `count` image ids: half are the worst of the runs in turn, the rest spread over the split."""
    of_runs = [[row["image_id"] for row in rows] for rows in worst]
    longest = max(map(len, of_runs), default=0)
    in_turn = dict.fromkeys(rows[place] for place in range(longest) for rows in of_runs if place < len(rows))
    chosen = list(in_turn)[: count // 2]
    others = [image["id"] for image in split.images if image["id"] not in chosen]
    wanted = min(count - len(chosen), len(others))
    return chosen + [others[place * len(others) // wanted] for place in range(wanted)]


def image_rows(split: CocoSplit, image_ids: Sequence[int]) -> list[Row]:
    """Return the content that all runs share: each image as base64 JPEG, and its objects.

    Returns:
        [{"id", "file", "width", "height", "jpeg", "objects": [[label, x, y, w, h, ignored], ...]}], in pixels of the
        original.

    Raises:
        UserError: an image is missing or cannot be decoded.
    """
    image_of = {image["id"]: image for image in split.images}
    rows = []
    for image_id in image_ids:
        image = image_of[image_id]
        objects = [
            [split.label_of[a["category_id"]], *_rounded(a["bbox"]), int(a.get("iscrowd", 0))]
            for a in split.annotations_of(image_id)
        ]
        rows.append(
            {
                "id": image_id,
                "file": Path(image["file_name"]).name,
                "width": image["width"],
                "height": image["height"],
                "jpeg": _jpeg(split, image),
                "objects": objects,
            }
        )
    return rows


def found_by(
    split: CocoSplit, detections: Sequence[Mapping[str, Any]], image_ids: Sequence[int]
) -> dict[int, list[list[Any]]]:
    """Return the detections of one run in these images.

    Args:
        detections: COCO results of the whole split.

    Returns:
        By image id [[label, x, y, w, h, score, kind, object], ...] for scores of at least 0.3, highest score first;
        kind is "right" or a kind of error (fcos.scoring.errors), object the index of the detected object in the image.
    """
    wanted = set(image_ids)
    part = _part(split, wanted)
    matches = match([result for result in detections if result["image_id"] in wanted], part)
    outcome = Outcome.of(matches)
    kinds, _ = classify_errors(matches, outcome)
    kind_of = np.full(len(matches.label), "", dtype=object)  # "" is neither right nor wrong: on a crowd region
    kind_of[outcome.true_positive] = RIGHT
    for kind, mask in kinds.items():
        kind_of[mask] = kind
    label_of = [split.label_of[category_id] for category_id in matches.truth.category_ids.tolist()]
    of_images = (part.objects.rows(image).tolist() for image in range(len(part.images)))
    place_of = {row: place for rows in of_images for place, row in enumerate(rows)}
    found: dict[int, list[list[Any]]] = {image_id: [] for image_id in image_ids}
    sure = np.flatnonzero((matches.score >= SHOWN_SCORE) & (kind_of != ""))
    for place in sure[np.argsort(-matches.score[sure], kind="stable")].tolist():
        boxes = found[int(matches.truth.image_ids[matches.image[place]])]
        if kind_of[place] == RIGHT or sum(box[6] != RIGHT for box in boxes) < MAX_WRONG:
            bbox = _rounded(matches.boxes_xywh[place].tolist())
            finds = place_of[int(outcome.gt[place])] if outcome.true_positive[place] else None
            score = round(float(matches.score[place]), 3)
            boxes.append([label_of[matches.label[place]], *bbox, score, kind_of[place], finds])
    return found


def _part(split: CocoSplit, wanted: set[int]) -> CocoSplit:
    """Return the images with these ids as a split of its own."""
    images = [image for image in split.images if image["id"] in wanted]
    annotations = [annotation for image in images for annotation in split.annotations_of(image["id"])]
    return CocoSplit(images, split.categories, annotations, split.image_dir)


def _jpeg(split: CocoSplit, image: Mapping[str, Any]) -> str:
    thumbnail = Image.fromarray(split.pixels(image))
    thumbnail.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    thumbnail.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _rounded(bbox: Sequence[float]) -> list[float]:
    return [round(value, 1) for value in bbox]
