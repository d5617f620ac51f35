"""Write ground truth as the test split of a study of results, changed in nothing that is scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fcos.config.data import GroundTruthData
from fcos.data.groups import Member, group_names, names_table
from fcos.data.images_beside import find_images, with_sizes
from fcos.data.sources.assemble import SPLITS, absolute, refuse_bad_categories, split_counts
from fcos.errors import UserError
from fcos.files import in_project, write_json
from fcos.formats import FORMAT
from fcos.records import Manifest
from fcos.scoring import diagnosis
from fcos.scoring.truth import Truth, read_truth, truth_of
from fcos.study.truth_folder import find_truth

Row = dict[str, Any]


def write_truth(config: GroundTruthData, out_dir: Path, *, name_of: Callable[[Path], str] = absolute) -> Manifest:
    """Write test.json, two splits without images and manifest.json to `out_dir`; return the manifest.

    Args:
        name_of: returns the manifest's name for the folder of the images.

    Raises:
        UserError: the ground truth is not valid, or an image is not in `data.images`.
    """
    root = in_project(config.root)
    path, folder = root / config.annotations, None if config.images is None else root / config.images
    truth, said = _read(path, config.split)
    images = _images(truth, config, root)
    if folder is not None:
        find_images(path, folder, [image["file_name"] for image in images])
        images = [with_sizes(image, folder) for image in images]
    categories = _categories(truth)
    refuse_bad_categories(categories, path)
    content = {"images": images, "annotations": _annotations(truth, images, categories), "categories": categories}
    for split in SPLITS:
        empty = {"images": [], "annotations": [], "categories": categories}
        write_json(out_dir / f"{split}.json", content if split == "test" else empty, indent=None)
    manifest: Manifest = {
        "format": FORMAT,
        "categories": categories,
        "splits": {"test": split_counts(content, None if folder is None else name_of(folder))},
        "dropped": [],
        "clipped": [],
        "near_duplicates": [],
        "near_duplicates_cut": 0,
        "odd": [],
        "damaged": [],
        "counts": {},
        "assumed": [],
        "near_copies": None,
        "notes": [*said, *(finding.text for finding in diagnosis.of_truth(truth))],
    }
    write_json(out_dir / "manifest.json", manifest)
    return manifest


def _read(path: Path, split: str | None) -> tuple[Truth, list[str]]:
    """Return the ground truth, and what was read if it is one split of a folder."""
    if split is None:
        if path.is_dir():
            hint = "set data.split: test (or train, validation)"
            raise UserError(path, "is a folder, so one of its splits must be named", expected="data.split", hint=hint)
        return read_truth(path), []
    found = find_truth(path, split)
    if isinstance(found.content, Path):
        hint, expected = "set data.annotations to it, and remove data.split", "data.annotations: this file"
        raise UserError(path, "has COCO JSON", found=found.content, expected=expected, hint=hint)
    return truth_of(found.content, str(path), names_first=True), [found.sentence]


def _images(truth: Truth, config: GroundTruthData, root: Path) -> list[Row]:
    """Return the images in the order of the truth; ids that are no whole numbers above 0 become 1, 2, ..."""
    kept = all(isinstance(key, int) and key > 0 for key in truth.image_ids)
    names = [name or str(key) for name, key in zip(truth.file_names, truth.image_ids, strict=True)]
    images: list[Row] = []
    for place, (key, name, size) in enumerate(zip(truth.image_ids, names, truth.sizes.tolist(), strict=True)):
        width, height = (None if side != side else int(side) for side in size)  # NaN: not known
        original = {} if kept else {"original_id": key}
        image_id = key if kept else place + 1
        images.append({"id": image_id, "file_name": name, "width": width, "height": height, **original})
    if config.groups is not None:
        members = [
            Member(*of) for of in zip(truth.image_ids, truth.file_names, map(dict, truth.image_records), strict=True)
        ]
        table = root / config.groups if names_table(config.groups) else None
        named = group_names(config.groups, members, "params.yaml: data.groups", table)
        for image, group in zip(images, named, strict=True):
            image["group"] = group
    return images


def _categories(truth: Truth) -> list[Row]:
    """Return the categories; a root class above the others, as Roboflow writes it, stays one."""
    root = {"supercategory": truth.categories[0]["name"]} if truth.has_root else {}
    kept = all(isinstance(of["id"], int) and of["id"] > 0 for of in truth.categories)
    return [
        {"id": of["id"] if kept else label, "name": of["name"], **({} if kept else {"original_id": of["id"]}), **root}
        for label, of in enumerate(truth.categories, start=1)
    ]


def _annotations(truth: Truth, images: list[Row], categories: list[Row]) -> list[Row]:
    objects = truth.objects
    columns = (objects.image, objects.label, objects.boxes_xywh, truth.areas, objects.crowd.astype(int))
    return [
        {
            "id": number,  # from 1, since pycocotools never matches id 0 (cocoapi#507)
            "image_id": images[image]["id"],
            "category_id": categories[label]["id"],
            "bbox": box,
            "area": area,
            "iscrowd": crowd,
        }
        for number, (image, label, box, area, crowd) in enumerate(zip(*(of.tolist() for of in columns), strict=True), 1)
    ]
