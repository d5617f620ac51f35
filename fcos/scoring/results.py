"""Read a detector's results in the formats of common toolboxes, check them and look them up in the ground truth.

Supported are COCO results lists (pycocotools, detectron2, mmdetection), also under a key of an object or as JSON lines,
`predictions.json` of Ultralytics, and folders with one file per image (fcos.scoring.folders).

Shapes: D detections.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fcos.errors import UserError
from fcos.scoring.columns import Floats, Keys, Records, boxes, check_objects, keys, numbers, some, values_of, what
from fcos.scoring.findings import Finding, RawResults
from fcos.scoring.folders import read_folder
from fcos.scoring.json_files import no_collection, parse, text_of
from fcos.scoring.lookup import BY_ID, Lookup
from fcos.scoring.matching import Bools, Ints, ResultTable, overlaps
from fcos.scoring.plain_results import read_plain, read_plain_text
from fcos.scoring.truth import Truth

_LISTS = ("annotations", "predictions", "results", "detections")  # keys under which an object has a list of results
_FITS_IOU = 0.5
_JUDGED = 5_000  # number of highest-scoring detections that class numberings are compared on


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results on the images and classes of the ground truth, in the order of their file, which decides ties."""

    table: ResultTable
    findings: list[Finding]


def read_results(
    path: Path, truth: Truth, *, ignore_unknown_images: bool = False, ignore_unknown_classes: bool = False
) -> Results:
    """Return the results in a file, .gz or not, or in a folder with one file per image.

    Args:
        ignore_unknown_images: leave out, and count, detections in images that are not in the ground truth.
        ignore_unknown_classes: leave out, and count, detections of classes that are not in the ground truth.

    Raises:
        UserError: the results are wrong; it names file, place, found and expected value.
    """
    found = read_folder(path, truth) if path.is_dir() else _read_file(path, truth)
    table, findings = found.table, list(found.findings)
    for unknown, what_is, ignore, refuse in (
        (table.image < 0, "image", ignore_unknown_images, _refuse_images),
        (table.label < 0, "class", ignore_unknown_classes, _refuse_classes),
    ):
        if unknown.any():
            if not ignore:
                refuse(path, truth, found, unknown)
            findings.append(_left_out(what_is, found, unknown))
    known = (table.image >= 0) & (table.label >= 0)
    return Results(table=table if known.all() else table[known], findings=findings)


def _read_file(path: Path, truth: Truth) -> RawResults:
    if not path.exists():
        raise UserError(path, "no such file", expected="a JSON file", hint="give the path of COCO results")
    plain, text = read_plain(path), b""
    if plain is None:
        text = text_of(path)
        plain = read_plain_text(text) if len(text) != path.stat().st_size else None
    if plain is not None:
        return _looked_up(plain.image_id, plain.category_id, plain.boxes_xywh, plain.score, truth)
    with no_collection():
        records, around = _records(parse(text, path), path)
        return _found(records, around, f"{path}: ", truth)


def _records(content: Any, path: Path) -> tuple[Records, dict[str, Any]]:
    """Return the list of results and the object that contains it, if any."""
    if isinstance(content, dict):
        if {"image_id", "score"} <= content.keys():
            return [content], {}  # JSON lines with a single line
        lists = [key for key in _LISTS if _are_results(content.get(key))]
        if len(lists) == 1:
            return content[lists[0]], content
    if not isinstance(content, list):
        raise UserError(
            path,
            "is not a list of results",
            found=what(content),
            expected='a list of {"image_id", "category_id", "bbox", "score"}',
            hint=_instead_of_results(content),
        )
    return content, {}


def _are_results(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "score" in value[0]


def _instead_of_results(content: Any) -> str:
    if isinstance(content, dict) and "annotations" in content:
        return "this is ground truth: give it with --gt, and a detector's results here"
    return "write the results as one list, as pycocotools' loadRes reads them"


def _found(records: Records, around: dict[str, Any], where: str, truth: Truth) -> RawResults:
    check_objects(records, where)
    id_of_image, id_of_class = (f"a whole number or text: the `id` of {of}" for of in ("an image", "a category"))
    image_keys = keys(
        values_of(records, where, "image_id", expected=id_of_image), where, "image_id", expected=id_of_image
    )
    class_keys = keys(
        values_of(records, where, "category_id", expected=id_of_class), where, "category_id", expected=id_of_class
    )
    xywh = boxes(values_of(records, where, "bbox", expected="four finite numbers: x, y, width, height"), where)
    score = numbers(values_of(records, where, "score", expected="a finite number"), where, "score")
    file_names = _names(records, image_keys, around.get("images"), "file_name")
    class_names = _names(records, class_keys, around.get("categories"), "name")
    return _looked_up(image_keys, class_keys, xywh, score, truth, file_names, class_names)


def _looked_up(
    image_keys: Keys,
    class_keys: Keys,
    xywh: Floats,
    score: Floats,
    truth: Truth,
    file_names: list[Any] | None = None,
    class_names: list[Any] | None = None,
) -> RawResults:
    image, image_way = _place(truth.images, image_keys, truth.image_names, file_names)
    label, class_way = _place(truth.classes, class_keys, truth.class_names, class_names)
    table = ResultTable(image=image, label=label, boxes_xywh=xywh, score=score)
    if image_way == BY_ID and isinstance(image_keys, np.ndarray) and file_names is None:
        numbered, number_way = truth.image_numbers.find(image_keys)
        if _fits_better(replace(table, image=numbered), table, truth):
            table, image_way = replace(table, image=numbered), number_way
    ways = [("image", image_way), ("class", class_way)]
    return RawResults(
        table=table,
        image_keys=image_keys,
        class_keys=class_keys,
        places=None,
        findings=[_other_ids(of, way, len(score)) for of, way in ways if way != BY_ID and len(score)],
    )


def _names(records: Records, ids: Keys, described: Any, key: str) -> list[Any] | None:
    """Return the name of each result's image or class, from the records or a list with the file's own ids, or None."""
    if key == "file_name" and records and all(isinstance(record.get(key), str) for record in records):
        return [record[key] for record in records]
    if not isinstance(described, list) or not all(isinstance(entry, dict) for entry in described):
        return None
    name_of = {entry.get("id"): entry.get(key) for entry in described}
    names = [name_of.get(i) for i in (ids.tolist() if isinstance(ids, np.ndarray) else ids)]
    return names if all(isinstance(name, str) for name in names) else None


def _place(by_id: Lookup, ids: Keys, by_name: Lookup, names: list[Any] | None) -> tuple[Ints, str]:
    """Return the places (D,) by ids, or by names if these find as many; the ids are then the file's own."""
    places, way = by_id.find(ids)
    if not names:
        return places, way
    named, name_way = by_name.find(names)
    own = (named >= 0).sum() >= (places >= 0).sum() and not np.array_equal(named, places)
    return (named, name_way) if own else (places, way)


def _fits_better(other: ResultTable, table: ResultTable, truth: Truth) -> bool:
    """Whether image numbers that are both ids and in file names of the ground truth are meant as file names."""
    if np.array_equal(other.image, table.image) or (other.image >= 0).sum() < (table.image >= 0).sum():
        return False
    ((fits,), _), ((as_is,), _) = boxes_that_fit(other, truth), boxes_that_fit(table, truth)
    return fits > 2 * as_is


def _other_ids(of: str, way: str, count: int) -> Finding:
    ids = "image ids" if of == "image" else "category ids"
    return Finding(f"{of}_by_name", count, None, f"{ids} are not those of the ground truth: found by {way}")


def _left_out(of: str, found: RawResults, unknown: Bools) -> Finding:
    count, total = int(unknown.sum()), len(unknown)
    distinct = len(set(_at(found.image_keys if of == "image" else found.class_keys, unknown)))
    text = f"{count} of {total} detections are left out: {distinct} {of} id(s) are not in the ground truth"
    return Finding(f"unknown_{'images' if of == 'image' else 'classes'}", count, total, text)


def _at(ids: Keys, which: Bools) -> list[Any]:
    return [ids[place] for place in np.flatnonzero(which).tolist()]


def _refuse_images(path: Path, truth: Truth, found: RawResults, unknown: Bools) -> None:
    place = int(np.argmax(unknown))
    used = set(_at(found.image_keys, np.ones_like(unknown)))
    missing = set(_at(found.image_keys, unknown))
    raise UserError(
        f"{_where(path, found, place)}.image_id",
        f"{len(missing)} of {len(used)} image ids are not in the ground truth",
        found=f"{found.image_keys[place]} (the first)",
        expected=some(truth.image_ids, "image ids"),
        hint="the results are probably of another split: give its ground truth, or --ignore-unknown-images",
    )


def _refuse_classes(path: Path, truth: Truth, found: RawResults, unknown: Bools) -> None:
    place = int(np.argmax(unknown))
    used = set(_at(found.class_keys, np.ones_like(unknown)))
    missing = set(_at(found.class_keys, unknown))
    raise UserError(
        f"{_where(path, found, place)}.category_id",
        f"{len(missing)} of {len(used)} category ids are not in the ground truth",
        found=some(used, "category ids"),
        expected=some([category["id"] for category in truth.categories], "category ids"),
        hint=_other_numbering(truth, found)
        or "write the category ids of the ground truth, not labels 0..K-1 of the network (rf-detr#85), "
        "or leave other classes out: --ignore-unknown-classes",
    )


def _where(path: Path, found: RawResults, place: int) -> str:
    return f"{path}: [{place}]" if found.places is None else found.places[place]


def _other_numbering(truth: Truth, found: RawResults) -> str | None:
    """Return a hint if another numbering of the class ids puts most boxes on objects of their class."""
    if not isinstance(found.class_keys, np.ndarray):
        return None
    ids = [category["id"] for category in truth.categories]
    place_of = {key: place for place, key in enumerate(ids)}
    largest = len(ids) - 1
    numberings: dict[str, Callable[[int], int]] = {
        "category_id + 1": lambda key: place_of.get(key + 1, -1),
        "category_id - 1": lambda key: place_of.get(key - 1, -1),
        "the id of the class at that place (counted from 0)": lambda key: key if 0 <= key <= largest else -1,
    }
    for name, place in numberings.items():
        of_key = {key: place(key) for key in set(found.class_keys.tolist())}
        if min(of_key.values()) < 0:
            continue
        label = np.array([of_key[key] for key in found.class_keys.tolist()])
        (fits,), judged = boxes_that_fit(replace(found.table, label=label), truth)
        if 2 * fits > judged:
            return (
                f"the ids are probably labels 0..K-1 of the network (rf-detr#85): write {name}; "
                f"then {fits} of {judged} boxes lie on an object of their class"
            )
    return None


def boxes_that_fit(table: ResultTable, truth: Truth, shifts: tuple[int, ...] = (0,)) -> tuple[list[int], int]:
    """Return how many of the 5,000 highest-scoring boxes lie on an object of their class, and how many were checked.

    Args:
        shifts: offsets that are added to the labels; there is a count for each offset.
    """
    known = np.flatnonzero(table.image >= 0) if (table.image < 0).any() else np.arange(len(table))
    if len(known) > _JUDGED:
        known = known[np.argpartition(-table.score[known], _JUDGED)[:_JUDGED]]
    best, objects = table[known], truth.objects
    detection, gt, iou = overlaps(best.boxes_xywh, best.image, objects, objects.image)  # of any class
    near = iou >= _FITS_IOU
    detection, wanted = detection[near], objects.label[gt[near]]
    return [len(np.unique(detection[best.label[detection] + shift == wanted])) for shift in shifts], len(best)
