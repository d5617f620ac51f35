"""Results with one file per image: YOLO label files with confidences, and predictions of mmdetection.

The class numbers in these files start at 0. They refer to the names in classes.txt or data.yaml if the folder has one,
else to the classes of the ground truth in the order of their ids.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcos.errors import UserError, names_of
from fcos.scoring.columns import Key, boxes, numbers, values_of
from fcos.scoring.findings import Finding, RawResults
from fcos.scoring.json_files import read_json_file
from fcos.scoring.lookup import Lookup
from fcos.scoring.matching import ResultTable
from fcos.scoring.truth import Truth

CLASS_FILE = "classes.txt"
_LINE = "`class cx cy width height confidence`, in fractions of the image (Ultralytics: save_txt=True save_conf=True)"
_MMDET = ("labels", "scores", "bboxes")
_LARGEST_FRACTION = 2.0  # boxes may extend beyond the image; larger numbers are pixels


@dataclass
class _Rows:
    """The detections of all files, concatenated."""

    image: list[int] = field(default_factory=list)
    name: list[Key] = field(default_factory=list)
    number: list[int] = field(default_factory=list)  # class number
    box: list[list[float]] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    place: list[str] = field(default_factory=list)


def read_folder(path: Path, truth: Truth) -> RawResults:
    """Return the results in all files in and below a folder, in the order of their names.

    Raises:
        UserError: there are no such files, a line has no confidence, or the size of an image is unknown.
    """
    labels = sorted(file for file in path.rglob("*.txt") if file.name != CLASS_FILE)
    predictions = [] if labels else sorted(path.rglob("*.json"))
    if not labels and not predictions:
        inside = names_of(sorted(file.name for file in path.iterdir()))
        raise UserError(path, "a folder without results", found=inside or "nothing", expected=f".txt files of {_LINE}")
    rows = _Rows()
    lookup = truth.image_names
    for file in labels:
        _read_labels(file, path, lookup, truth, rows)
    for file in predictions:
        _read_predictions(file, path, lookup, rows)
    names = _class_names(path)
    label_of = _labels(set(rows.number), names, truth)
    table = ResultTable(
        image=np.array(rows.image, dtype=np.int64),
        label=np.array([label_of[number] for number in rows.number], dtype=np.int64),
        boxes_xywh=np.array(rows.box, dtype=float).reshape(-1, 4),
        score=np.array(rows.score, dtype=float),
    )
    return RawResults(
        table=table,
        image_keys=rows.name,
        class_keys=np.array(rows.number, dtype=np.int64),
        places=rows.place,
        findings=[_how_classes_are_read(len(table), names, truth)],
    )


def _image_of(file: Path, path: Path, lookup: Lookup) -> tuple[int, str]:
    """Return place (-1: unknown) and name of the image of a file, found by its path without suffix or its stem."""
    name = file.relative_to(path).with_suffix("").as_posix()
    places, _ = lookup.find([name])
    return int(places[0]), name


def _read_labels(file: Path, path: Path, lookup: Lookup, truth: Truth, rows: _Rows) -> None:
    image, name = _image_of(file, path, lookup)
    width, height = truth.sizes[image].tolist() if image >= 0 else (1.0, 1.0)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(file, "is not text", found=error, expected=f"lines {_LINE}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if width != width or height != height:
            raise UserError(
                f"{truth.where}: images",
                "an image without width and height",
                found=name,
                expected="both, since label files hold fractions of the image",
            )
        class_number, (cx, cy, w, h), score = _line(line, f"{file}:{number}")
        rows.image.append(image)
        rows.name.append(name)
        rows.number.append(class_number)
        rows.box.append([(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height])
        rows.score.append(score)
        rows.place.append(f"{file}:{number}")


def _line(line: str, where: str) -> tuple[int, tuple[float, float, float, float], float]:
    try:
        values = list(map(float, line.split()))
    except ValueError:
        values = []
    if not values or not np.isfinite(values).all():
        raise UserError(where, "is not numbers", found=line.strip(), expected=_LINE)
    polygon = len(values) >= 8 and len(values) % 2 == 0
    if len(values) != 6 and not polygon:
        problem = "has no confidence" if len(values) == 5 else f"has {len(values)} numbers"
        raise UserError(where, problem, found=line.strip(), expected=_LINE)
    if values[0] < 0 or not values[0].is_integer():
        raise UserError(where, "its class is not a whole number", found=line.strip(), expected=_LINE)
    if max(map(abs, values[1:-1])) > _LARGEST_FRACTION:
        raise UserError(where, "is in pixels", found=line.strip(), expected=_LINE)
    if not polygon:
        return int(values[0]), (values[1], values[2], values[3], values[4]), values[5]
    xs, ys = values[1:-1:2], values[2:-1:2]  # a polygon becomes its bounding box
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    return int(values[0]), (min(xs) + width / 2, min(ys) + height / 2, width, height), values[-1]


def _read_predictions(file: Path, path: Path, lookup: Lookup, rows: _Rows) -> None:
    """Read a file of mmdetection's `DetInferencer`: corners in pixels, labels from 0."""
    content = read_json_file(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _MMDET):
        raise UserError(file, "is not a file of predictions", expected=f"an object with {', '.join(_MMDET)}")
    labels, scores, corners = (content[key] for key in _MMDET)
    if not len(labels) == len(scores) == len(corners):
        found = f"{len(labels)}, {len(scores)} and {len(corners)}"
        raise UserError(file, f"{', '.join(_MMDET)} differ in length", found=found, expected="one each per detection")
    image, name = _image_of(file, path, lookup)
    records = [{"label": label} for label in labels]
    number = numbers(values_of(records, str(file), "label", expected="a number"), f"{file}: labels", "label")
    xyxy = boxes(corners, f"{file}: bboxes", "corners")
    rows.image += [image] * len(labels)
    rows.name += [name] * len(labels)
    rows.number += number.astype(int).tolist()
    rows.box += np.concatenate((xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]), axis=1).tolist()
    rows.score += numbers(scores, f"{file}: scores", "score").tolist()
    rows.place += [f"{file}: [{place}]" for place in range(len(labels))]


def _class_names(path: Path) -> list[str] | None:
    """Return the names of classes 0, 1, ... if the folder or its parent has a file with them."""
    from fcos.data.sources.text import read_yaml  # only folders need it
    from fcos.data.sources.yolo_yaml import names_in_lines, names_in_yaml

    for folder in (path, path.parent):
        if (folder / CLASS_FILE).is_file():
            return names_in_lines(folder / CLASS_FILE)
        for file in sorted(folder.glob("data.y*ml")):
            content = read_yaml(file)
            if isinstance(content, dict) and (names := names_in_yaml(file, content.get("names"))):
                return names
    return None


def _labels(class_numbers: Iterable[int], names: list[str] | None, truth: Truth) -> dict[int, int]:
    """Return the label of each class number, -1 for a class that is not in the ground truth."""
    if names is None:
        labels = truth.numbered_labels
        return {number: labels[number] if number < len(labels) else -1 for number in class_numbers}
    by_name = truth.classes.way(2)
    return {number: by_name.find(names[number]) if number < len(names) else -1 for number in class_numbers}


def _how_classes_are_read(count: int, names: list[str] | None, truth: Truth) -> Finding:
    read_as = names or [truth.categories[label]["name"] for label in truth.numbered_labels]
    whose = "their list" if names else "the ground truth's, in the order of the ids"
    return Finding("classes_by_number", count, None, f"class numbers 0, 1, ... are {names_of(read_as)}: {whose}")
