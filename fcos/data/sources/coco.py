"""Read COCO JSON files with their image folders."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fcos.data.sources.classes import Classes, choose_classes
from fcos.data.sources.description import Damaged, Seen, Source, SourceBox, SourceImage, SourceSplit
from fcos.data.sources.numbering import number_images
from fcos.data.sources.text import class_name, read_json
from fcos.data.sources.tree import Names
from fcos.data.sources.values import LARGEST, flag, identity, number, whole
from fcos.errors import UserError

# Required keys; `area`, `iscrowd`, `ignore`, `difficult`, `width` and `height` are optional.
_KEYS = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_BBOX = "[x, y, width, height] in pixels"


def read_coco(
    splits: dict[str, tuple[Path, Path]], *, classes: Classes | None, ignore_difficult: bool = False
) -> Source:
    """Read splits given as (annotation file, image folder).

    Category ids that are positive whole numbers are kept, including gaps; otherwise the categories are renumbered.
    Image ids are kept or renumbered in the same way for each split; they depend on another split only if both use one
    id for different images.
    """
    contents = {path: _read_content(path) for path, _ in splits.values()}
    seen = Seen()
    names = _agreed_names(contents, seen)
    described = {
        split: _read_split(contents[path], path, image_dir, names, ignore_difficult, seen)
        for split, (path, image_dir) in splits.items()
    }
    number_images(described)
    source = Source(_with_ids(_without_groups(names, contents, classes, seen)), described, "xywh", seen)
    return choose_classes(source, classes, listed=True, keep_ids=True)


def _read_content(path: Path) -> dict[str, Any]:
    content = read_json(path, hint="correct data.root, or put the file there; nothing was changed")
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UserError(path, "is not COCO JSON", found=f"a {found}", expected="a COCO instances file")
    missing = [key for key in _KEYS if not isinstance(content.get(key), list)]
    if missing:
        raise UserError(path, "is not COCO JSON", found=f"no {', '.join(missing)}", expected="a COCO instances file")
    return content


def _agreed_names(contents: dict[Path, dict[str, Any]], seen: Seen) -> dict[Any, str]:
    """Return the names by category id in the order of the first file; the other files must agree."""
    (first, content), *others = contents.items()
    names = _names(content, first)
    for path, other in others:
        used = _used(other)
        for key, name in _names(other, path).items():
            if names.get(key, name) != name or (key not in names and (key in used or name in names.values())):
                raise UserError(
                    path,
                    f"has other categories than {first}",
                    found=f"{key!r}: {name}",
                    expected=f"{key!r}: {names[key]}" if key in names else f"one of {_shortly(names)}",
                    hint="give both files the same ids and names of categories",
                )
            if key not in names:
                seen.notes.append(f"{path}: category {key!r} `{name}` is not in {first} and has no object: left out")
    return names


def _names(content: dict[str, Any], path: Path) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for number_, entry in enumerate(content["categories"]):
        where = f"{path}: categories[{number_}]"
        _check_keys(entry, "categories", where, UserError)
        key = _identity(entry["id"], where, UserError)
        if key in names:
            raise UserError(where, "duplicate class id", found=entry["id"], expected="each class once")
        names[key] = class_name(entry["name"], f"{path}: category {entry['id']!r}")
    return names


def _without_groups(
    names: dict[Any, str], contents: dict[Path, dict[str, Any]], classes: Classes | None, seen: Seen
) -> dict[Any, str]:
    """Leave out categories without objects that are only the supercategory of others, as in exports of Roboflow."""
    groups, used = set[Any](), set[Any]()
    for content in contents.values():
        above = Counter(str(entry.get("supercategory")) for entry in content["categories"])
        groups |= {
            identity(entry["id"])
            for entry in content["categories"]
            if above[entry["name"]] > (entry.get("supercategory") == entry["name"])
        }
        used |= _used(content)
    wanted = {name for old in (classes or {}).values() for name in old}
    idle = {key for key, name in names.items() if key in groups - used}
    kept = {key: name for key, name in names.items() if key not in idle}
    kept |= {key: names[key] for key in idle if names[key] in wanted - set(kept.values())}
    for key in names.keys() - kept.keys():
        seen.notes.append(f"category {key!r} `{names[key]}` is only a supercategory and has no objects: left out")
    repeated = [name for name, count in Counter(kept.values()).items() if count > 1]
    if repeated:
        raise UserError(next(iter(contents)), "duplicate class name", found=repeated, expected="each class once")
    return {key: name for key, name in names.items() if key in kept}


def _used(content: dict[str, Any]) -> set[Any]:
    """Return the ids of categories with an annotation."""
    return {identity(entry.get("category_id")) for entry in content["annotations"] if isinstance(entry, dict)}


def _with_ids(names: dict[Any, str]) -> list[dict[str, Any]]:
    if all(isinstance(key, int) and 0 < key < LARGEST for key in names):
        return [{"id": key, "name": name} for key, name in names.items()]
    return [{"id": id_, "name": name, "original_id": key} for id_, (key, name) in enumerate(names.items(), start=1)]


def _read_split(
    content: dict[str, Any], path: Path, image_dir: Path, names: dict[Any, str], ignore_difficult: bool, seen: Seen
) -> SourceSplit:
    images, merged = _read_images(content["images"], path, image_dir, seen)
    listed = {identity(entry.get("id")) for entry in content["images"] if isinstance(entry, dict)}
    for number_, entry in enumerate(content["annotations"]):
        with seen.item():
            _check_keys(entry, "annotations", f"{path}: annotations[{number_}]", Damaged)
            where = f"{path}: annotation {entry.get('id', f'[{number_}]')}"
            key = _known(entry["image_id"], listed, where, "image_id")
            box = _box(entry, where, names, ignore_difficult, seen)
            if key in merged:  # the image was not left out
                merged[key].boxes.append(box)
    return SourceSplit(image_dir, images)


def _read_images(
    entries: list[Any], path: Path, image_dir: Path, seen: Seen
) -> tuple[list[SourceImage], dict[Any, SourceImage]]:
    """Return the images, one for each file, and the image of each id."""
    finder = Names(seen.walk(image_dir).files if image_dir.is_dir() else [])
    of_file: dict[str, SourceImage] = {}
    of_id: dict[Any, SourceImage] = {}
    for number_, entry in enumerate(entries):
        where = f"{path}: images[{number_}]"
        with seen.item():
            _check_keys(entry, "images", where, Damaged)
            key = _identity(entry["id"], where, Damaged)
            file = _file(entry["file_name"], finder, path, image_dir, seen)
            if key in of_id and of_id[key].file_name != file:
                raise UserError(path, "duplicate image id", found=[entry["id"]], expected="each id once")
            size = _size(entry, f"{path}: image {entry['id']!r}")
            if file in of_file:
                seen.counts["entries of one image under several ids, merged"] += 1
            described = SourceImage(image_dir, file, path, None, size, original_id=key, record=entry)
            image = of_file.setdefault(file, described)
            of_id[key] = image
    return list(of_file.values()), of_id


def _file(name: Any, finder: Names, path: Path, image_dir: Path, seen: Seen) -> str:
    found, exact = finder.find(name) if isinstance(name, str) else (None, False)
    if found is None:
        raise Damaged(
            path,
            "names a missing image; nothing was changed",
            found=f"no {name!s} in {image_dir}",
            expected="an image below that folder for each entry",
            hint="put the image there, or remove its entry",
        )
    seen.counts["images found by the last part of their name"] += not exact
    return found


def _size(entry: dict[str, Any], where: str) -> tuple[int, int] | None:
    """Return the (height, width) in the entry, or None if a side is missing or 0."""
    stated = [entry.get(side) for side in ("height", "width")]
    height, width = (whole(side) if side not in (None, "") else 0 for side in stated)
    if height is None or width is None:
        raise Damaged(where, "its size is not two whole numbers", found=stated, hint="correct width and height")
    return (height, width) if height and width else None


def _box(entry: dict[str, Any], where: str, names: dict[Any, str], ignore_difficult: bool, seen: Seen) -> SourceBox:
    key = _known(entry["category_id"], names, where, "category_id")
    flags = {name: _flag(entry, name, where) for name in ("iscrowd", "ignore", "difficult")}
    extra = {"crowd": 1} if flags["iscrowd"] else {}
    extra |= {"ignore": 1} if flags["ignore"] else {}
    extra |= {"difficult": 1} if flags["difficult"] and ignore_difficult else {}
    kept = flags["difficult"] and not ignore_difficult
    seen.counts["difficult objects, kept as objects (or data.difficult: ignore)"] += kept
    ignored = flags["iscrowd"] or flags["ignore"] or (flags["difficult"] and ignore_difficult)
    bbox = _bbox(entry["bbox"], where)
    return SourceBox(names[key], bbox, _area(entry, where, seen), ignored, extra)


def _bbox(value: Any, where: str) -> list[float]:
    sides = [number(side) for side in value] if isinstance(value, list) else []
    plain = [side for side in sides if side is not None]
    if len(sides) != 4 or len(plain) != 4:
        raise Damaged(where, "bbox must be four numbers", found=value, expected=_BBOX, hint="fix the annotation")
    return plain


def _area(entry: dict[str, Any], where: str, seen: Seen) -> float | None:
    """Return the area in the entry if it is valid, else None, which means width x height."""
    value = entry.get("area")
    area = number(value)
    if area is None and value is not None and not (isinstance(value, float) and not math.isfinite(value)):
        raise Damaged(
            where, "its area is not a number", found=repr(value), expected="pixels", hint="fix the annotation"
        )
    if area is None or area <= 0:
        seen.counts["areas that were missing or not positive, now width x height"] += 1
        return None
    return value if isinstance(value, int | float) else area


def _flag(entry: dict[str, Any], name: str, where: str) -> bool:
    value = flag(entry.get(name))
    if value is None:
        raise Damaged(where, f"{name} is neither 0 nor 1", found=repr(entry[name]), expected="0 or 1")
    return value


def _known(value: Any, known: Any, where: str, name: str) -> Any:
    key = identity(value)
    if key is None or key not in known:
        raise Damaged(where, f"unknown {name}", found=repr(value), expected=f"one of {_shortly(known)}")
    return key


def _identity(value: Any, where: str, error: Callable[..., UserError]) -> Any:
    key = identity(value)
    if key is None:
        raise error(where, "its id is neither a number nor a text", found=repr(value), expected="a number")
    return key


def _check_keys(entry: Any, part: str, where: str, error: Callable[..., UserError]) -> None:
    if not isinstance(entry, dict):
        raise error(where, "is not a JSON object", found=repr(entry)[:200], expected=f"{', '.join(_KEYS[part])}")
    lacking = [key for key in _KEYS[part] if key not in entry]
    if lacking:
        expected = ", ".join(_KEYS[part])
        raise error(where, f"has no {', '.join(lacking)}", found=str(entry)[:200], expected=expected)


def _shortly(known: Iterable[Any]) -> str:
    """Return at most ten sorted values as text, such as [1, 2, 3]."""
    some = sorted(known, key=str) if not all(isinstance(key, int) for key in known) else sorted(known)
    return str(some[:10]) if len(some) <= 10 else f"{some[:10]} and {len(some) - 10} more"
