"""COCO JSON files with their picture folders."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from fcos.data.sources.description import Source, SourceBox, SourceImage, SourceSplit
from fcos.errors import UserError
from fcos.files import read_json

# What is read; `area`, `iscrowd`, `width` and `height` may be missing.
_KEYS = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def read_coco(splits: dict[str, tuple[Path, Path]], *, classes: list[str] | None) -> Source:
    """Read splits given as (annotation file, picture folder).

    Category ids are kept as they are, with their gaps; `classes`, where given, is the list that they must be in. Image
    ids are kept too, but where the files of two splits number other pictures alike: then those of test stay.
    """
    contents = {split: _read_content(path) for split, (path, _) in splits.items()}
    lists = [[{"id": c["id"], "name": c["name"]} for c in content["categories"]] for content in contents.values()]
    for path, categories in zip((path for path, _ in splits.values()), lists, strict=True):
        if categories != lists[0]:
            raise UserError(path, "has other categories than the training split", found=categories, expected=lists[0])
    categories = lists[0]
    if classes is not None:
        by_name = {category["name"]: category for category in categories}
        missing = [name for name in classes if name not in by_name]
        if missing:
            raise UserError(
                "params.yaml: data.classes", "no such category", found=missing, expected=f"some of {list(by_name)}"
            )
        categories = [by_name[name] for name in classes]
    name_of = {category["id"]: category["name"] for category in lists[0]}
    described = {split: _read_split(contents[split], *splits[split], name_of) for split in splits}
    _tell_apart(described)
    return Source(categories, described)


def _tell_apart(described: dict[str, SourceSplit]) -> None:
    """Move the image ids of a split that has ids of a later one on other file names: tools count each file from 0.

    An id on the same name stays, to be refused as one picture in two splits.
    """
    taken: dict[Any, str] = {}
    for split in reversed(described.values()):
        names = {image.image_id: image.file_name for image in split.images}
        shared = names.keys() & taken.keys()
        numbers = all(isinstance(image_id, int) for image_id in (*names, *taken))
        if shared and numbers and all(names[image_id] != taken[image_id] for image_id in shared):
            first = max(taken) + 1
            for image in split.images:
                image.image_id = (image.image_id or 0) + first
        taken |= {image.image_id: image.file_name for image in split.images}


def _read_content(path: Path) -> dict[str, Any]:
    content = read_json(path, do="correct data.root, or put the file there; nothing was changed")
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UserError(path, "is not COCO JSON", found=f"a {found}", expected="a COCO instances file")
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise UserError(path, "is not COCO JSON", found=f"no {', '.join(missing)}", expected="a COCO instances file")
    for part, keys in _KEYS.items():
        for number, entry in enumerate(content[part]):
            lacking = [key for key in keys if key not in entry]
            if lacking:
                where = f"{path}: {part}[{number}]"
                raise UserError(where, f"has no {', '.join(lacking)}", found=entry, expected=f"{', '.join(keys)}")
    return content


def _read_split(content: dict[str, Any], path: Path, image_dir: Path, name_of: dict[int, str]) -> SourceSplit:
    boxes: dict[int, list[SourceBox]] = defaultdict(list)
    image_ids = {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        where = f"{path}: annotation {annotation.get('id')}"
        if annotation["category_id"] not in name_of:
            raise UserError(
                where, "unknown category_id", found=annotation["category_id"], expected=f"one of {sorted(name_of)}"
            )
        if annotation["image_id"] not in image_ids:
            raise UserError(where, "unknown image_id", found=annotation["image_id"], expected="the id of an image")
        crowd = bool(annotation.get("iscrowd", 0))
        box = SourceBox(
            name_of[annotation["category_id"]],
            _bbox(annotation["bbox"], where),
            annotation.get("area"),
            crowd,
            {"crowd": 1} if crowd else {},
        )
        boxes[annotation["image_id"]].append(box)
    return SourceSplit(image_dir, [_image(image, path, image_dir, boxes) for image in content["images"]])


def _bbox(value: Any, where: str) -> list[float]:
    try:
        x, y, w, h = map(float, value)
    except (TypeError, ValueError):
        expected = "[x, y, width, height] in pixels"
        raise UserError(where, "its bbox is not four numbers", found=value, expected=expected) from None
    return [x, y, w, h]


def _image(
    image: dict[str, Any], described_in: Path, image_dir: Path, boxes: dict[int, list[SourceBox]]
) -> SourceImage:
    size = (image["height"], image["width"]) if image.get("height") and image.get("width") else None
    name = image["file_name"]
    return SourceImage(image_dir / name, name, described_in, image["id"], size, boxes.get(image["id"], []))
