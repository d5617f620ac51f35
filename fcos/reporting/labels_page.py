"""The page of `fcos labels`: a crop of each suspect, with its label and with what the detectors found."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcos.data.coco import CocoSplit
from fcos.data.images import read_annotated
from fcos.data.images_beside import with_sizes
from fcos.errors import UserError
from fcos.inference.drawing import draw_boxes, fitted
from fcos.reporting.html import render
from fcos.scoring.label_errors import KINDS, Suspect

SIDE = 260  # longer side of a crop in the page, in pixels
QUALITY = 80  # JPEG quality
AROUND = 0.6  # of the boxes' longer side that a crop shows on each side of them
_LEAST = 48  # pixels of an image that a crop shows at least


def labels_page(
    content: Mapping[str, Any],
    shown: Sequence[tuple[Suspect, Mapping[str, Any]]],
    split: CocoSplit,
    folder: Path | None,
) -> str:
    """Return the page; without the images it is a list.

    Args:
        content: what labels.json holds.
        shown: the suspects to show, each with its row of `content`.
        folder: the folder of the images, None if they are not at hand.
    """
    cards = [{**row, "said": _said(row), "crop": _crop(suspect, split, folder)} for suspect, row in shown]
    context = {
        "kinds": {kind: [card for card in cards if card["kind"] == kind] for kind in KINDS},
        "counts": content["counts"]["suspects"],
        "num_shown": len(cards),
        "total": len(content["suspects"]),
        "facts": [("Ground truth", content["gt"]["file"]), *(("Results", of["file"]) for of in content["results"])],
        "findings": [finding["text"] for finding in content["diagnosis"]],
        "has_images": folder is not None,
        "num_without": 0 if folder is None else sum(card["crop"] is None for card in cards),
    }
    return render("labels.html.j2", context, run_names=[], charts=[], gallery=None)


def _said(row: Mapping[str, Any]) -> str:
    """Return what the detectors say of the label."""
    return {
        "unlabelled": f"{row['suggested_class']} without a label?",
        "nothing there": f"labelled {row['class']}, nothing found",
        "class": f"labelled {row['class']}, found as {row['suggested_class']}",
        "box": f"{row['class']}: box found elsewhere",
    }[str(row["kind"])]


def _crop(suspect: Suspect, split: CocoSplit, folder: Path | None) -> str | None:
    """Return the surroundings as base64 JPEG: dashed what is labelled, solid what was found."""
    if folder is None:
        return None
    try:
        image = with_sizes(split.images[suspect.image], folder)
        pixels = read_annotated(folder / image["file_name"], image)
    except UserError:  # one damaged image is no reason to lose the page, which says how many are missing
        return None
    boxes = np.array([box for box in (suspect.box, suspect.suggested_box) if box is not None])
    low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    margin = np.maximum(AROUND * (high - low).max(), (_LEAST - (high - low)) / 2)
    size = pixels.shape[1::-1]
    left, top = np.floor(low - margin).clip(0, size).astype(int).tolist()
    right, bottom = np.ceil(high + margin).clip(0, size).astype(int).tolist()
    if left >= right or top >= bottom:  # a box outside of its image
        return None
    shown, scale = fitted(np.ascontiguousarray(pixels[top:bottom, left:right]), SIDE)

    def placed(box: Sequence[float], label: int) -> dict[str, Any]:
        x, y, width, height = box
        moved = [scale * (x - left), scale * (y - top), scale * width, scale * height]
        return {"bbox": moved, "category_id": label, "category": split.categories[label]["name"], "iscrowd": 0}

    found = [placed(suspect.suggested_box, suspect.suggested_label or 0)] if suspect.suggested_box else []
    labelled = [placed(suspect.box, suspect.label or 0)] if suspect.box else []
    buffer = io.BytesIO()
    drawn: Image.Image = draw_boxes(shown, found, labelled)
    drawn.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
