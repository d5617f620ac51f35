"""What a folder of pictures and annotations is: its layout, and which part of it is for training, which for testing."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fcos.data.sources.yolo import CLASS_FILE, find_pictures
from fcos.errors import UserError

SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
TEST_FRACTION = 0.2  # of the only split
SAMPLED = 20  # file names by which the picture folder of a JSON file is found
LOOKED_FOR = """a folder in one of these layouts:
              VOC   Annotations/*.xml and JPEGImages/, with lists in ImageSets/Main/ or without; also in a VOCdevkit/
              COCO  *.json with images, annotations (with bbox) and categories, and the pictures anywhere below
              YOLO  images/train and labels/train, train/images and train/labels, images and labels, or pictures with
                    their .txt files beside them; class names in data.yaml, classes.txt or obj.names"""
T = TypeVar("T")


@dataclass(frozen=True)
class Discovered:
    layout: str  # VOC, COCO or YOLO, and where
    data: dict[str, Any]  # the section `data` but for what is the same for all: source, root and the splits
    assumed: list[str]  # sentences


def discover(folder: Path) -> Discovered:
    """Say what `folder` holds; only names are read, COCO's JSON files and a few label files.

    Raises:
        UserError: nothing that is known; several folders in VOC layout; parts whose role cannot be told.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(folder, "no such folder", found=found, expected=LOOKED_FOR)
    for look in (_voc, _coco, _yolo):
        discovered = look(folder)
        if discovered is not None:
            return discovered
    inside = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = ", ".join([*inside[:8], *(["..."] if len(inside) > 8 else [])]) or "an empty folder"
    raise UserError(folder, "no pictures with annotations were recognised", found=found, expected=LOOKED_FOR)


def _voc(folder: Path) -> Discovered | None:
    roots = [path.parent for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(f"{depth}Annotations"))]
    roots = [root for root in roots if any(root.glob("Annotations/*.xml"))]
    if not roots:
        return None
    if roots[0] != folder and len(roots) > 1:
        raise UserError(
            folder,
            "several folders in VOC layout",
            found=", ".join(map(str, roots)),
            expected="one",
            do=f"name one of them: --from {roots[0]}",
        )
    root = roots[0]
    lists = {path.stem: path.stem for path in sorted(root.glob("ImageSets/Main/*.txt")) if path.stat().st_size > 0}
    known = {stem: stem for stem in lists if stem in SPLIT_OF}
    if {"train", "trainval"} <= set(known):  # one holds the other
        del known["trainval" if {"val", "valid", "validation"} & set(known) else "train"]
    roles, assumed = _roles(known or lists, root) if lists else (dict[str, str](), [])
    if not lists:
        assumed = [f"there are no lists in ImageSets/Main/, so all of Annotations/ is one split: {_held_out()}"]
    data: dict[str, Any] = dict.fromkeys(("train_split", "validation_split", "test_split"))
    data |= {f"{split}_split": name for split, name in roles.items()}
    return Discovered(f"VOC ({root})", {"source": "voc", "root": root, **data, **_fraction(roles)}, assumed)


def _coco(folder: Path) -> Discovered | None:
    paths = sorted(folder.rglob("*.json"))
    paths = [path for path in paths if "instances" in path.name] or paths  # not the captions and key points of COCO
    names_in = {path: names for path in paths if (names := _coco_names(path))}
    if not names_in:
        return None
    roles, assumed = _roles({path.relative_to(folder).as_posix(): path for path in names_in}, folder)
    none = dict.fromkeys(("validation_annotations", "validation_images", "test_annotations", "test_images"))
    data: dict[str, Any] = {"source": "coco", "root": folder, **none, **_fraction(roles)}
    for split, path in roles.items():
        data[f"{split}_annotations"] = path.relative_to(folder).as_posix()
        data[f"{split}_images"] = _picture_folder(folder, path, names_in[path], split).relative_to(folder).as_posix()
    return Discovered(f"COCO ({folder})", data, assumed)


def _coco_names(path: Path) -> list[str]:
    """Some of the picture names in a COCO instances file; none where it is another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [str(image["file_name"]) for image in content["images"]]
        boxes = [annotation["bbox"] for annotation in content["annotations"][:1]]
    except (ValueError, LookupError, TypeError, OSError):
        return []
    return names[:: max(1, len(names) // SAMPLED)] if boxes and content.get("categories") else []


def _picture_folder(folder: Path, json_path: Path, names: list[str], split: str) -> Path:
    """The folder that has most of `names`; of equal ones that of the split's name, then the one nearest to the file."""

    def rank(candidate: Path) -> tuple[int, bool, bool, int]:
        there = sum((candidate / name).is_file() for name in names)
        alike = SPLIT_OF.get(_word(candidate.relative_to(folder).parts)) == split
        return there, candidate == json_path.parent, alike, -len(candidate.parts)

    best = max([folder, *sorted(path for path in folder.rglob("*") if path.is_dir())], key=rank)
    if rank(best)[0] == 0:
        raise UserError(
            json_path,
            "its pictures are nowhere below the folder",
            found=f"no {names[0]} in {folder} or a folder below it",
            expected="the pictures that it names",
            do="put them there",
        )
    return best


def _yolo(folder: Path) -> Discovered | None:
    of_splits = [path for path in (*folder.glob("images/*"), *folder.iterdir()) if path.is_dir() and _word([path.name])]
    pairs = [pair for path in sorted(of_splits) for pair in _pairs(folder, path) if _is_labelled(*pair)]
    whole = [(folder / "images", folder / "labels"), (folder, folder)]
    pairs = pairs or [pair for pair in whole if _is_labelled(*pair)][:1]
    if not pairs:
        return None
    roles, assumed = _roles(
        {images.relative_to(folder).as_posix(): (images, labels) for images, labels in pairs}, folder
    )
    used = [images for images, _ in pairs]
    idle = [path for path in of_splits if not any(image_dir.is_relative_to(path) for image_dir in used)]
    assumed += [f"{path} has pictures but no labels and is left out" for path in idle if find_pictures(path)]
    classes, named_in = _class_names(folder, [labels for _, labels in pairs])
    data: dict[str, Any] = dict.fromkeys(("validation_images", "validation_labels", "test_images", "test_labels"))
    for split, pair in roles.items():
        for part, path in zip(("images", "labels"), pair, strict=True):
            data[f"{split}_{part}"] = path.relative_to(folder).as_posix()
    data = {"source": "yolo", "root": folder, **data, **_fraction(roles), "classes": classes}
    return Discovered(f"YOLO ({folder}), class names in {named_in}", data, assumed)


def _pairs(folder: Path, path: Path) -> list[tuple[Path, Path]]:
    """(pictures, labels) of a split's folder: images/train with labels/train, or train/images with train/labels."""
    if path.parent != folder:
        return [(path, folder / "labels" / path.name)]
    return [(path / "images", path / "labels"), (path, path)]


def _is_labelled(images: Path, labels: Path) -> bool:
    """Whether a picture has a label file that reads like one."""
    files = (labels / path.relative_to(images).with_suffix(".txt") for path in find_pictures(images))
    return any(_is_label(path) for path in files if path.is_file())


def _is_label(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    numbers = r"\s*[-+.\deE]+(\s+[-+.\deE]+){4,}\s*"
    return any(re.fullmatch(numbers, line) for line in lines)


def _class_names(folder: Path, label_dirs: list[Path]) -> tuple[list[str], Path]:
    """The names of classes 0, 1, ..., and the file that has them."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        names = _names_in_yaml(path)
        if names:
            return names, path
    lists = [folder / CLASS_FILE, folder / "labels" / CLASS_FILE, *(path / CLASS_FILE for path in label_dirs)]
    for path in (*lists, *sorted(folder.glob("*.names"))):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip()], path
    raise UserError(
        folder,
        "the classes of the labels have no names",
        found=f"no data.yaml with `names:`, no {CLASS_FILE}, no obj.names",
        expected="a name for each number in the label files",
        do=f"write {folder / CLASS_FILE}, the name of class 0 in its first line, and so on",
    )


def _names_in_yaml(path: Path) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return []
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{path}: names", "classes have gaps", found=sorted(names), expected="0, 1, 2, ...")
        names = [names[index] for index in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []


def _word(names: Iterable[str]) -> str:
    """The first word in `names` that says what a split is for; an empty text where none does."""
    words = (word for name in names for word in re.findall("[a-z]+", name.lower()))
    return next((word for word in words if word in SPLIT_OF), "")


def _roles(parts: Mapping[str, T], where: Path) -> tuple[dict[str, T], list[str]]:
    """What is for training, validation and testing among `parts`, by the words in their names; and what is assumed."""
    if len(parts) == 1:
        ((name, part),) = parts.items()
        return {"train": part}, [f"{name} is the only split: {_held_out()}"]
    names: dict[str, str] = {}
    for name in parts:
        path = Path(name)
        split = SPLIT_OF.get(_word([path.stem, *reversed(path.parent.parts)]))
        if split is None or split in names:
            problem = "two parts for one split" if split else "a part that is neither for training nor for testing"
            expected = "names with train, val (or valid) and test, each once"
            raise UserError(where, problem, found=", ".join(parts), expected=expected, do="rename or remove the others")
        names[split] = name
    if "train" not in names:
        raise UserError(
            where, "no split is for training", found=", ".join(parts), expected="one with train in its name"
        )
    assumed = []
    if "test" not in names:
        names["test"] = names.pop("validation")
        assumed = [f"there is no test split, so {names['test']} is what the study tests on"]
    return {split: parts[name] for split, name in names.items()}, assumed


def _fraction(roles: Mapping[str, object]) -> dict[str, float]:
    return {} if "test" in roles else {"test_fraction": TEST_FRACTION}


def _held_out() -> str:
    return (
        f"{TEST_FRACTION:.0%} of its pictures (by their sha256, always the same) are taken out of training to test on"
    )
