"""Draw images of a data set with their boxes on one sheet, those with remarks first, for a check before training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fcos.data.coco import CocoSplit
from fcos.data.images import reduction
from fcos.errors import UserError
from fcos.inference.drawing import Tile, draw_boxes, fitted, sheet

COLUMNS, ROWS = 4, 6
TILE = 320  # side in pixels
FINDINGS = {"dropped": "box dropped", "clipped": "box clipped", "near_duplicates": "two nearly identical boxes"}


def write_contact_sheets(splits: Mapping[str, CocoSplit], manifest: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write FOLDER/SPLIT.png for each split and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, split in splits.items():
        remarks = _remarks(manifest, name)
        files.append(folder / f"{name}.png")
        _sheet(split, _chosen(split, remarks, COLUMNS * ROWS), remarks).save(files[-1])
    return files


def _remarks(manifest: Mapping[str, Any], split: str) -> dict[str, list[str]]:
    """Return the remarks on each image of the split, by file name."""
    remarks = defaultdict(list)
    for finding in ("odd", *FINDINGS):
        for entry in manifest[finding]:
            if entry["split"] == split:
                remarks[entry.get("image") or entry["picture"]].append(entry.get("what") or FINDINGS[finding])
    return remarks


def _chosen(split: CocoSplit, remarks: Mapping[str, list[str]], count: int) -> list[dict[str, Any]]:
    """Return `count` images: up to half have remarks, one of each kind before a second; the rest is evenly spread."""
    odd = [image for image in split.images if image["file_name"] in remarks]
    seen: dict[str, int] = defaultdict(int)
    ranks = {}
    for image in odd:
        kind = remarks[image["file_name"]][0].split(" (")[0]
        ranks[image["id"]] = seen[kind]
        seen[kind] += 1
    first = sorted(odd, key=lambda image: ranks[image["id"]])[: count // 2]
    rest = [image for image in split.images if image not in first]
    more = min(count - len(first), len(rest))
    return first + [rest[index * len(rest) // more] for index in range(more)]


def _sheet(split: CocoSplit, images: Sequence[dict[str, Any]], remarks: Mapping[str, list[str]]) -> Image.Image:
    tiles = []
    for image in images:
        odd = "; ".join(dict.fromkeys(remarks.get(image["file_name"], [])))
        caption = f"{odd}: {image['file_name']}" if odd else image["file_name"]
        tiles.append(Tile(_with_boxes(split, image), [caption], odd=bool(odd)))
    return sheet(tiles, columns=COLUMNS, side=TILE)


def _with_boxes(split: CocoSplit, image: Mapping[str, Any]) -> Image.Image:
    """Return the image, at most TILE - 8 pixels wide and high, with boxes and classes; ignored ones are in brackets."""
    side = TILE - 8
    size = image["height"], image["width"]
    try:
        pixels = split.pixels(image, reduction(size, side, side))
    except UserError:  # the file looks complete, so it has not been decoded before
        blank = Image.new("RGB", (side, side), "grey")
        ImageDraw.Draw(blank).text((8, 8), "cannot be decoded", fill="white", font=ImageFont.load_default(16))
        return blank
    shown, _ = fitted(pixels, side)  # `pixels` may be reduced already; boxes refer to the full image
    scale = side / max(size)
    records = []
    for annotation in split.annotations_of(image["id"]):
        label = split.label_of[annotation["category_id"]]
        name = split.categories[label]["name"]
        bbox = [scale * number for number in annotation["bbox"]]
        text = f"({name})" if annotation["iscrowd"] else name
        records.append({"bbox": bbox, "category_id": annotation["category_id"], "category": text})
    return draw_boxes(shown, records)
