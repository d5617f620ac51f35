"""Read and check COCO ground truth from any source, and number its images and classes; ids are only keys."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcos.data.groups import Member
from fcos.errors import UserError
from fcos.scoring.columns import (
    Floats,
    Key,
    Keys,
    Records,
    boxes,
    check_objects,
    keys,
    numbers,
    refuse_at,
    some,
    values_of,
    what,
)
from fcos.scoring.json_files import no_collection, read_json_file
from fcos.scoring.lookup import Lookup, class_lookup, id_ways, image_lookup, name_ways, number_way
from fcos.scoring.matching import Bools, GroundTruth, Ints
from fcos.scoring.protocol import COCO, Protocol

_PARTS = ("images", "annotations", "categories")
_LVIS = ("neg_category_ids", "not_exhaustive_category_ids")
_ID = "a whole number or text"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Ground truth for scoring; images and classes are in the order of their ids.

    Shapes: I images, G annotations.
    """

    where: str
    image_ids: list[Key]
    file_names: list[str | None]  # of each image
    sizes: Floats  # (I, 2) width and height in pixels, NaN if unknown
    categories: list[dict[str, Any]]  # {"id", "name"}; the index is the label
    objects: GroundTruth
    areas: Floats  # (G,) areas that COCO scores, in pixels squared
    zero: int | None  # place of the annotation with id 0, which COCOeval never matches (cocoapi#507)
    has_root: bool  # whether the first class is Roboflow's root, with id 0 and no objects, above the other classes
    image_records: Records  # the records of the images in the file
    names_first: bool = False  # look up images of results by file name first, since the ids were only assigned here

    @property
    def names(self) -> list[str]:
        """The file name of each image, or its id if it has none."""
        return [name or str(key) for name, key in zip(self.file_names, self.image_ids, strict=True)]

    @property
    def members(self) -> list[Member]:
        """The images, for finding their groups."""
        columns = zip(self.image_ids, self.file_names, map(dict, self.image_records), strict=True)
        return [Member(*of) for of in columns]

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images, classes, objects and crowd regions, which are neither objects nor background."""
        crowd = int(self.objects.crowd.sum())
        objects = len(self.areas) - crowd
        return {"images": self.num_images, "classes": len(self.categories), "objects": objects, "crowd": crowd}

    @property
    def images(self) -> Lookup:
        """The lookup of images by the keys of a results file."""
        return image_lookup(self.image_ids, self.file_names, names_first=self.names_first)

    @property
    def classes(self) -> Lookup:
        """The lookup of classes by the keys of a results file; Roboflow's root class is found only by its id."""
        named = [{**category, "name": None} if self._is_root(label) else category for label, category in self._labelled]
        return class_lookup(named)

    @property
    def class_names(self) -> Lookup:
        """The lookup of classes by name."""
        return Lookup([lambda: self.classes.way(2)])

    @property
    def image_names(self) -> Lookup:
        """The lookup of images by file name."""
        return Lookup(name_ways(self.file_names))

    @property
    def image_numbers(self) -> Lookup:
        """The lookup of images by the number in their file name."""
        return Lookup([number_way(self.file_names)])

    @property
    def _labelled(self) -> list[tuple[int, dict[str, Any]]]:
        return list(enumerate(self.categories))

    def _is_root(self, label: int) -> bool:
        return self.has_root and label == 0

    @property
    def numbered_labels(self) -> list[int]:
        """The labels in the order of a network's class numbers, without Roboflow's unused root class with id 0."""
        labels = list(range(len(self.categories)))
        return labels[1:] if self.has_root else labels


def read_truth(path: Path, protocol: Protocol = COCO, *, area_from_box: bool = False) -> Truth:
    """Return the COCO ground truth in a file, .gz or not; see `truth_of`."""
    with no_collection():
        return truth_of(read_json_file(path), str(path), protocol, area_from_box=area_from_box)


def truth_of(
    content: Any,
    where: str,
    protocol: Protocol = COCO,
    *,
    area_from_box: bool = False,
    names_first: bool = False,
) -> Truth:
    """Return the checked content of a COCO file, with its images, classes and objects numbered.

    Missing values have defaults: `area` is width times height, `iscrowd` is 0, and a category's name is its id.

    Args:
        area_from_box: use width times height as areas and ignore those of the file.
        names_first: look up results by file names before ids.

    Raises:
        UserError: the content is wrong (it names file, place, found and expected value) or is LVIS.
    """
    images, annotations, categories = _parts(content, where)
    _refuse_lvis(images, categories, where)
    image_ids, image_place = _numbered(images, f"{where}: images")
    category_ids, label = _numbered(categories, f"{where}: categories")
    categories = _named(categories, category_ids, f"{where}: categories")
    at = f"{where}: annotations"
    zero = _zero(annotations, at)
    xywh = _boxes(annotations, at)
    area, crowd = _areas(annotations, xywh, at), _crowd(annotations, at)
    if area_from_box:
        area = xywh[:, 2] * xywh[:, 3]
    objects = GroundTruth(
        image_ids=np.arange(len(image_ids)),
        category_ids=np.arange(len(category_ids)),
        image=_places(annotations, at, "image_id", image_ids)[0],
        label=_places(annotations, at, "category_id", category_ids)[0],
        boxes_xywh=xywh,
        crowd=crowd,
        ignored=crowd[:, None] | protocol.outside(area),
    )
    # These map places in the file to places in the order of the ids.
    image_order, label_order = np.argsort(image_place), np.argsort(label)
    return Truth(
        where=where,
        image_ids=[image_ids[place] for place in image_order],
        file_names=[_text(images[place].get("file_name")) for place in image_order],
        sizes=_sizes(images)[image_order],
        categories=[categories[place] for place in label_order],
        objects=_renumbered(objects, image_place, label),
        areas=area,
        zero=zero,
        has_root=_has_root(content["categories"], category_ids, label[objects.label]),
        image_records=[images[place] for place in image_order],
        names_first=names_first,
    )


def _renumbered(objects: GroundTruth, image_place: Ints, label: Ints) -> GroundTruth:
    return GroundTruth(
        image_ids=objects.image_ids,
        category_ids=objects.category_ids,
        image=image_place[objects.image],
        label=label[objects.label],
        boxes_xywh=objects.boxes_xywh,
        crowd=objects.crowd,
        ignored=objects.ignored,
    )


def _parts(content: Any, where: str) -> tuple[Records, Records, Records]:
    if not isinstance(content, dict):
        raise UserError(
            where,
            "is not ground truth",
            found=what(content),
            expected="an object with `images`, `annotations` and `categories`",
            hint="give ground truth with --gt; a list looks like a detector's results",
        )
    for key in _PARTS:
        if key not in content:
            raise UserError(f"{where}: {key}", "is missing", found=what(content), expected="COCO ground truth")
        if not isinstance(content[key], list):
            raise UserError(f"{where}: {key}", "is not a list", found=what(content[key]), expected="a list of objects")
        check_objects(content[key], f"{where}: {key}")
        if key != "annotations" and not content[key]:
            raise UserError(f"{where}: {key}", "is empty", expected="at least one")
    images, annotations, categories = (content[key] for key in _PARTS)
    return images, annotations, categories


def _refuse_lvis(images: Records, categories: Records, where: str) -> None:
    found = [key for key in _LVIS if any(key in image for image in images)]
    found += ["frequency"] if any(category.get("frequency") in ("r", "c", "f") for category in categories) else []
    if found:
        raise UserError(
            where,
            "is ground truth of LVIS, which COCO's protocol does not score",
            found=", ".join(found),
            expected="every class annotated in every image: in LVIS a class is scored only in images checked for it",
            hint="score it with the package lvis, or remove these keys to score all classes on all images",
        )


def _numbered(records: Records, where: str) -> tuple[list[Key], Ints]:
    """Return the ids in the order of the file, and the place (N,) of each id in sorted order, numbers before text."""
    ids = _listed(keys(values_of(records, where, "id", expected=_ID), where, "id", expected=_ID))
    _refuse_repeated(ids, where)
    order = sorted(range(len(ids)), key=lambda place: (isinstance(ids[place], str), ids[place]))
    place = np.empty(len(ids), dtype=np.int64)
    place[order] = np.arange(len(ids))
    return ids, place


def _refuse_repeated(ids: Sequence[Key], where: str) -> None:
    if len(set(ids)) < len(ids):
        repeated, count = Counter(ids).most_common(1)[0]
        raise UserError(where, "duplicate id", found=f"id {repeated}, {count} times", expected="once")


def _named(categories: Records, ids: list[Key], where: str) -> list[dict[str, Any]]:
    names = [category.get("name") for category in categories]
    for place, name in enumerate(names):
        if name is not None and not isinstance(name, str):
            refuse_at(place, names, where, "name", "a wrong value", "text")
    return [{"id": key, "name": str(key) if name is None else name} for key, name in zip(ids, names, strict=True)]


def _has_root(categories: Records, ids: list[Key], used: Ints) -> bool:
    if 0 not in ids or len(ids) < 2 or (used == 0).any():
        return False
    root = categories[ids.index(0)]
    others = [category for category in categories if category is not root]
    return any(root.get("name") in (of.get("name"), of.get("supercategory")) for of in others)


def _zero(annotations: Records, where: str) -> int | None:
    """Return the place of the annotation with id 0, which COCOeval takes for "no match", or None."""
    if not any("id" in annotation for annotation in annotations):
        return None  # annotations do not need ids
    ids = _listed(keys(values_of(annotations, where, "id", expected=_ID), where, "id", expected=_ID))
    _refuse_repeated(ids, where)
    return ids.index(0) if 0 in ids else None


def _places(annotations: Records, where: str, key: str, known: list[Key]) -> tuple[Ints, str]:
    expected = f"{_ID}: the `id` of {'an image' if key == 'image_id' else 'a category'}"
    values = values_of(annotations, where, key, expected=expected)
    places, way = Lookup(id_ways(known)).find(keys(values, where, key, expected=expected))
    if (places < 0).any():
        of = key.removesuffix("_id")
        refuse_at(int(np.argmax(places < 0)), values, where, key, f"an unknown {of}", some(known, f"{of} ids"))
    return places, way


def _boxes(annotations: Records, where: str) -> Floats:
    values = values_of(annotations, where, "bbox", expected="four finite numbers: x, y, width, height")
    xywh = boxes(values, where)
    wrong = (xywh[:, 2:] < 0).any(axis=1)
    if wrong.any():
        place = int(np.argmax(wrong))
        refuse_at(place, values, where, "bbox", "a negative width or height", "x, y, width, height in pixels")
    return xywh


def _areas(annotations: Records, xywh: Floats, where: str) -> Floats:
    try:
        values = [annotation["area"] for annotation in annotations]
    except KeyError:
        products = (xywh[:, 2] * xywh[:, 3]).tolist()
        values = [a.get("area", product) for a, product in zip(annotations, products, strict=True)]
    expected = "a finite number, 0 or more"
    area = numbers(values, where, "area", expected=expected)
    if (area < 0).any():
        refuse_at(int(np.argmax(area < 0)), values, where, "area", "a wrong value", expected)
    return area


def _crowd(annotations: Records, where: str) -> Bools:
    values = [annotation.get("iscrowd", 0) for annotation in annotations]
    if not set(map(type, values)) <= {int, bool, float} or not set(values) <= {0, 1}:
        for place, value in enumerate(values):
            if type(value) not in (int, bool, float) or value not in (0, 1):
                refuse_at(place, values, where, "iscrowd", "a wrong value", "0 or 1")
    return np.array(values, dtype=bool)


def _sizes(images: Sequence[Mapping[str, Any]]) -> Floats:
    """Return width and height (I, 2) in pixels; NaN if they are missing or not positive numbers."""

    def side(value: Any) -> float:
        return float(value) if type(value) in (int, float) and 0 < value < 2**31 else float("nan")

    return np.array([[side(image.get("width")), side(image.get("height"))] for image in images])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _listed(ids: Keys) -> list[Key]:
    return ids.tolist() if isinstance(ids, np.ndarray) else ids
