"""Write ground truth as the test split of a study of results, which scores it as `fcos compare` does."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fcos.config.data import GroundTruthData
from fcos.data.coco import CocoSplit
from fcos.data.groups import group_names, names_table
from fcos.data.images import displayed_size, opened
from fcos.data.images_beside import is_inside
from fcos.data.sources.assemble import SPLITS, absolute, refuse_bad_categories, split_counts
from fcos.errors import UserError
from fcos.files import in_project, sha256_file, sha256_json, write_json
from fcos.formats import FORMAT
from fcos.progress import track
from fcos.records import Manifest, SplitCounts
from fcos.scoring import diagnosis
from fcos.scoring.truth import Truth, read_truth, truth_of
from fcos.study.truth_folder import find_truth

Row = dict[str, Any]
_SPLIT, _IMAGES = "params.yaml: data.split", "params.yaml: data.images"


def write_truth(
    config: GroundTruthData,
    truth: Truth,
    notes: list[str],
    out_dir: Path,
    *,
    name_of: Callable[[Path], str] = absolute,
) -> Manifest:
    """Write test.json, two splits without images and manifest.json to `out_dir`; return the manifest.

    Args:
        truth, notes: what `read_ground_truth` returns.
        name_of: returns the manifest's name for the folder of the images.

    Raises:
        UserError: two classes have one name, or an image is not in `data.images` or has another size.
    """
    root = in_project(config.root)
    images, categories = _images(truth, config, root), _categories(truth)
    refuse_bad_categories(categories, root / config.annotations)
    content = {"images": images, "annotations": _annotations(truth, images, categories), "categories": categories}
    for split in SPLITS:
        empty = {"images": [], "annotations": [], "categories": categories}
        write_json(out_dir / f"{split}.json", content if split == "test" else empty, indent=None)
    manifest: Manifest = {
        "format": FORMAT,
        "categories": categories,
        "splits": {"test": _counts(content, None if config.images is None else root / config.images, name_of)},
        "dropped": [],
        "clipped": [],
        "near_duplicates": [],
        "near_duplicates_cut": 0,
        "odd": [],
        "damaged": [],
        "counts": {},
        "assumed": [],
        "near_copies": None,
        "notes": notes,
    }
    write_json(out_dir / "manifest.json", manifest)
    return manifest


def read_ground_truth(config: GroundTruthData) -> tuple[Truth, list[str]]:
    """Return the ground truth, and sentences on what was read and found.

    Raises:
        UserError: it is not valid, or `data.split` is missing or has no effect.
    """
    path, split = in_project(config.root) / config.annotations, config.split
    if path.is_dir() and split is None:
        expected = "train, validation or test"
        raise UserError(_SPLIT, f"is missing, since {config.annotations} is a folder", expected=expected)
    if path.is_file() and split is not None:
        raise UserError(_SPLIT, f"has no effect, since {config.annotations} is a file", found=split, hint="remove it")
    if split is None:
        truth, said = read_truth(path), []
    else:
        _refuse_links(path)
        found = find_truth(path, split, "data.split")
        if isinstance(found.content, Path):
            hint = "set data.annotations to that file, and remove data.split"
            raise UserError("params.yaml: data.annotations", "has COCO JSON", found=found.content, hint=hint)
        truth, said = truth_of(found.content, str(path), names_first=True), [found.sentence, *found.corrected]
    if truth.zero is not None:
        said.append("an annotation has id 0: pycocotools never matches it (cocoapi#507), but it is scored here")
    return truth, [*said, *(finding.text.partition(". --")[0] for finding in diagnosis.of_truth(truth))]


def _refuse_links(folder: Path) -> None:
    """Refuse links to folders, into which DVC does not look: a label that is corrected there would not be seen."""
    for place, folders, _ in os.walk(folder):
        link = next((Path(place) / name for name in folders if (Path(place) / name).is_symlink()), None)
        if link is not None:
            problem = "is a link to a folder, in which DVC would see no change"
            raise UserError(link, problem, found=link.readlink(), hint="replace it by the folder, or give COCO JSON")


def _images(truth: Truth, config: GroundTruthData, root: Path) -> list[Row]:
    """Return the images in the order of the truth; ids that are no whole numbers above 0 become 1, 2, ..."""
    kept = all(isinstance(key, int) and key > 0 for key in truth.image_ids)
    images: list[Row] = []
    for number, (key, name, size) in enumerate(
        zip(truth.image_ids, truth.names, truth.sizes.tolist(), strict=True), start=1
    ):
        width, height = (int(side) if side >= 1 else None for side in size)  # NaN: not known
        original = {} if kept else {"original_id": key}
        images.append({"id": key if kept else number, "file_name": name, "width": width, "height": height, **original})
    if config.groups is not None:
        table = root / config.groups if names_table(config.groups) else None
        named = group_names(config.groups, truth.members, "params.yaml: data.groups", table)
        for image, group in zip(images, named, strict=True):
            image["group"] = group
    return images


def _categories(truth: Truth) -> list[Row]:
    """Return the categories; a root class above the others, as Roboflow writes it, stays one."""
    kept = all(isinstance(of["id"], int) and of["id"] > 0 for of in truth.categories)
    categories = [
        {"id": of["id"] if kept else label, "name": of["name"], **({} if kept else {"original_id": of["id"]})}
        for label, of in enumerate(truth.categories, start=1)
    ]
    if truth.has_root:
        root, *others = categories
        if any(of["name"] == root["name"] for of in others):
            root["name"] += " (all)"
        for of in others:
            of["supercategory"] = root["name"]
    return categories


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


def _counts(content: Row, folder: Path | None, name_of: Callable[[Path], str]) -> SplitCounts:
    split = CocoSplit(content["images"], content["categories"], content["annotations"], folder)
    place = None if folder is None else name_of(folder)
    counts = split_counts(split.objects, split.categories, place, split.digest)
    if folder is not None:
        # In the manifest and not in test.json: other pixels change the gallery and no number.
        counts["images_digest"] = _digest(content["images"], folder)
    return counts


def _digest(images: Sequence[Row], folder: Path) -> str:
    """Return the sha256 of all images, after a check that they are there and have the sizes of the ground truth."""
    missing = [image["file_name"] for image in images if not is_inside(folder, image["file_name"])]
    if missing:
        raise UserError(
            _IMAGES,
            f"{len(missing)} of {len(images)} images are not in this folder",
            found=f"no {missing[0]} in {folder}",
            expected="the folder that the file names of the ground truth are relative to",
            hint="correct it, or set it to null for a report without a gallery",
        )
    digests = []
    for image in track(images, "check images", total=len(images), unit="images"):
        path, said = folder / image["file_name"], (image["height"], image["width"])
        with opened(path) as pixels:
            size, stored = displayed_size(pixels), (pixels.height, pixels.width)
        if None not in said and said not in (size, stored):
            raise UserError(
                path,
                "has another size than the ground truth says",
                found=f"{size[1]} x {size[0]} pixels",
                expected=f"{said[1]} x {said[0]} pixels",
                hint="set data.images to the images that were annotated, or to null for a report without a gallery",
            )
        digests.append([image["file_name"], sha256_file(path)])
    return sha256_json(digests)
