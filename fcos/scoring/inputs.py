"""COCO JSON of anybody's: ground truth and results, checked in full before anything is scored."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from fcos.data.coco import CocoSplit
from fcos.errors import UserError
from fcos.files import read_json

Records = list[dict[str, Any]]
_LARGEST = sys.float_info.max
_SHOWN = 10  # of a list of ids


def read_truth(path: Path) -> CocoSplit:
    """Read COCO ground truth; `area` is width times height and `iscrowd` is 0 where they are missing.

    Raises:
        UserError: names file, place, found and expected; annotation id 0 is refused.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise UserError(
            path,
            "is not ground truth",
            found=_what(content),
            expected="an object with `images`, `annotations` and `categories`",
            do="give ground truth with --gt; a list is what a detector's results are",
        )
    images, categories, annotations = (_records(content, path, key) for key in ("images", "categories", "annotations"))
    for records, key in ((images, "images"), (categories, "categories")):
        if not records:
            raise UserError(f"{path}: {key}", "is empty", expected="at least one")
    image_ids = _unique_ids(images, f"{path}: images")
    category_ids = _unique_ids(categories, f"{path}: categories")
    _column(categories, f"{path}: categories", "name", lambda name: isinstance(name, str), expected="text")
    where = f"{path}: annotations"
    if 0 in _unique_ids(annotations, where):
        raise UserError(
            where,
            "an annotation has id 0",
            found="id 0; COCOeval uses the id as a truth value, so this object is never matched (cocoapi#507)",
            expected="ids other than 0",
            do="number the annotations from 1",
        )
    for key, known in (("image_id", image_ids), ("category_id", category_ids)):
        values = _column(annotations, where, key, _is_whole, expected="a whole number")
        place = _first(values, known.__contains__)
        if place is not None:
            of = key.removesuffix("_id")
            raise UserError(
                f"{where}[{place}].{key}", f"an unknown {of}", found=values[place], expected=_some(known, f"{of} ids")
            )
    boxes = _column(annotations, where, "bbox", _is_box, expected="four finite numbers: x, y, width, height")
    place = _first(boxes, lambda box: box[2] >= 0 and box[3] >= 0)
    if place is not None:
        raise UserError(
            f"{where}[{place}].bbox",
            "a negative width or height",
            found=boxes[place],
            expected="x, y, width, height in pixels",
        )
    annotations = [
        a if "area" in a and "iscrowd" in a else {"area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0, **a}
        for a in annotations
    ]
    _column(annotations, where, "area", lambda v: _is_number(v) and v >= 0, expected="a finite number, 0 or more")
    _column(annotations, where, "iscrowd", lambda v: isinstance(v, int) and v in (0, 1), expected="0 or 1")
    return CocoSplit(images, categories, annotations, path.parent)


def read_results(path: Path, split: CocoSplit) -> Records:
    """Read a COCO results list of boxes on the images of `split`, in the order of the file, which decides ties.

    Raises:
        UserError: names file, place, found and expected.
    """
    results = _read(path)
    if not isinstance(results, list):
        raise UserError(
            path,
            "is not a list of results",
            found=_what(results),
            expected='a list of {"image_id", "category_id", "bbox", "score"}',
            do=_instead_of_results(results),
        )
    where = f"{path}: "
    _check_objects(results, where)
    image_ids = _column(results, where, "image_id", _is_whole, expected="a whole number: the `id` of an image")
    category_ids = _column(results, where, "category_id", _is_whole, expected="a whole number: a category's `id`")
    _column(results, where, "bbox", _is_box, expected="four finite numbers: x, y, width, height")
    _column(results, where, "score", _is_number, expected="a finite number")

    known = {image["id"] for image in split.images}
    place = _first(image_ids, known.__contains__)
    if place is not None:
        used = set(image_ids)
        raise UserError(
            f"{where}[{place}].image_id",
            f"{len(used - known)} of {len(used)} image ids are not in the ground truth",
            found=f"{image_ids[place]} (the first)",
            expected=_some(known, "image ids"),
            do="the results are probably of another split: give its ground truth",
        )
    known = set(split.category_ids)
    place = _first(category_ids, known.__contains__)
    if place is not None:
        used = set(category_ids)
        raise UserError(
            f"{where}[{place}].category_id",
            f"{len(used - known)} of {len(used)} category ids are not in the ground truth",
            found=_some(used, "category ids"),
            expected=_some(known, "category ids"),
            do="write the category ids of the ground truth, not labels 0..K-1 of the network (rf-detr#85)",
        )
    return results


def check_file(path: Path) -> None:
    """Refuse what is no file; worth asking before hours of work on other files."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise UserError(path, problem, expected="a JSON file", do="give the path of COCO JSON")


def _read(path: Path) -> Any:
    check_file(path)
    return read_json(path, do="write it anew as COCO JSON")


def _records(content: dict[str, Any], path: Path, key: str) -> Records:
    where = f"{path}: {key}"
    if key not in content:
        raise UserError(where, "is missing", found=_what(content), expected="COCO ground truth")
    if not isinstance(content[key], list):
        raise UserError(where, "is not a list", found=_what(content[key]), expected="a list of objects")
    _check_objects(content[key], where)
    records: Records = content[key]
    return records


def _check_objects(records: list[Any], where: str) -> None:
    place = _first(records, lambda record: isinstance(record, dict))
    if place is not None:
        raise UserError(f"{where}[{place}]", "is not an object", found=_what(records[place]), expected='{"key": value}')


def _unique_ids(records: Records, where: str) -> set[int]:
    ids = _column(records, where, "id", _is_whole, expected="a whole number")
    unique = set(ids)
    if len(unique) < len(ids):
        repeated, count = Counter(ids).most_common(1)[0]
        raise UserError(where, "an id stands more than once", found=f"id {repeated}, {count} times", expected="once")
    return unique


def _column(records: Records, where: str, key: str, is_right: Callable[[Any], bool], *, expected: str) -> list[Any]:
    """The values of `key`; an error names the first record that lacks it or has a wrong one."""
    try:
        values = [record[key] for record in records]
    except KeyError:
        place = _first(records, lambda record: key in record)
        assert place is not None
        raise UserError(
            f"{where}[{place}].{key}", "is missing", found=f"keys {', '.join(records[place])}", expected=expected
        ) from None
    place = _first(values, is_right)
    if place is not None:
        raise UserError(f"{where}[{place}].{key}", "a wrong value", found=_what(values[place]), expected=expected)
    return values


def _first(values: Iterable[Any], is_right: Callable[[Any], bool]) -> int | None:
    """Place of the first value that is not right."""
    return next((place for place, value in enumerate(values) if not is_right(value)), None)


# JSON has no types but these, so `type` says it all; a bool would pass for a number with isinstance.
def _is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # false for NaN and infinity


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


def _what(value: Any) -> str:
    """What a JSON value is, in a line."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:_SHOWN])) or 'no keys'}"
    text = repr(value)
    if isinstance(value, list) and len(text) > 60:
        return f"a list of {len(value)}"
    kind = {str: "text ", bool: "a truth value, "}.get(type(value), "")
    return kind + (text if len(text) <= 60 else f"{text[:57]}...")


def _some(ids: Collection[int], what: str) -> str:
    """The ids in order, the middle of a long list left out."""
    ordered = [str(i) for i in sorted(ids)]
    if len(ordered) > _SHOWN:
        ordered = [*ordered[: _SHOWN - 1], "...", ordered[-1]]
    return f"{what} {', '.join(ordered)}" + (f" ({len(ids)} of them)" if len(ids) > _SHOWN else "")


def _instead_of_results(content: Any) -> str:
    inner = content.get("annotations") if isinstance(content, dict) else None
    if isinstance(inner, list) and inner and isinstance(inner[0], dict) and "score" in inner[0]:
        return "write the list under `annotations` alone to the file"
    if inner is not None:
        return "this is ground truth: give it with --gt, and a detector's results here"
    return "write the results as one list, as pycocotools' loadRes reads them"
