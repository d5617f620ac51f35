"""Read YOLO folders: a text file for each image, with one line `class cx cy width height` per object."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcos.data.sources.classes import Classes, choose_classes
from fcos.data.sources.description import Boxes, Damaged, Seen, Source, SourceBox, SourceImage, SourceSplit
from fcos.data.sources.text import class_name, read_lines
from fcos.data.sources.tree import SUFFIXES, Names
from fcos.data.sources.values import number, whole
from fcos.errors import UserError

CLASS_FILE = "classes.txt"  # annotation tools write it into the folder of labels
TOLERANCE = 0.01  # fraction of the image; converters exceed the image slightly, larger values are another unit
LINE = "`class cx cy width height`, or `class x1 y1 x2 y2 x3 y3 ...` of a polygon"
_NUMBERS = re.compile(r"\s*[-+.\deE]+([\s,]+[-+.\deE]+){4,}[\s,]*")


@dataclass(frozen=True)
class YoloSplit:
    """The folders of a split, which may be equal, and the list of its images; without a list, all of `images`."""

    images: Path
    labels: Path
    list_path: Path | None = None


def read_yolo(
    splits: dict[str, YoloSplit],
    *,
    names: Sequence[str],
    classes: Classes | None = None,
    keypoints: Sequence[int] | None = None,
) -> Source:
    """Return the splits, sub-folders included. An image without a label file has no objects.

    Numbers are fractions of the displayed image (rotated according to EXIF). A polygon of at least three points is
    replaced by its bounding box.

    Args:
        names: names of the class numbers 0, 1, ... in the label files.
        keypoints: (number of keypoints, numbers per keypoint), if lines have keypoints after the box.
    """
    seen = Seen()
    for number_, name in enumerate(names):
        class_name(name, f"the name of class {number_}")
    reader = _LineReader(names, 4 + keypoints[0] * keypoints[1] if keypoints else None, seen)
    described = {name: _read_split(name, split, reader, seen) for name, split in splits.items()}
    for image_id, image in enumerate((i for split in described.values() for i in split.images), start=1):
        image.image_id = image_id
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    return choose_classes(Source(categories, described, "center", seen), classes, listed=True, keep_ids=False)


def is_label(path: Path) -> bool:
    """Whether a text file has a line in the format of a label file."""
    try:
        return any(_NUMBERS.fullmatch(line) for line in read_lines(path))
    except UserError:
        return False


def _read_split(name: str, split: YoloSplit, reader: "_LineReader", seen: Seen) -> SourceSplit:
    for folder in (split.images, split.labels):
        if not folder.is_dir():
            raise UserError(
                folder,
                f"no such folder (of the {name} split); nothing was changed",
                expected="a folder of images and one of labels",
                hint="correct data.root, or the split's folders in data",
            )
    everything = seen.walk(split.images)
    there = everything.ending(SUFFIXES)
    texts = everything if split.labels == split.images else seen.walk(split.labels)
    label_of = {file.rpartition(".")[0]: file for file in texts.ending([".txt"])}
    _check_labels(split, there, everything.files, label_of, seen)
    listed = there if split.list_path is None else _listed(split.list_path, there, seen)
    images = []
    for file in listed:
        label = label_of.get(file.rpartition(".")[0])
        path = split.labels / label if label else None
        boxes = reader.read(path) if path else Boxes()
        seen.counts["images without a label file, taken for images without objects"] += path is None
        described_in = str(path or split.images / file)  # a Path takes three times as much memory
        images.append(SourceImage(split.images, file, described_in, None, None, boxes, normalised=True))
    return SourceSplit(split.images, images)


def _listed(path: Path, there: list[str], seen: Seen) -> list[str]:
    """Return the images of a list with one image per line, in its order."""
    if not path.is_file():
        raise UserError(path, "no such list; nothing was changed", expected="a file with one image per line")
    names = Names(there)
    listed: dict[str, int] = {}
    for count, line in enumerate(map(str.strip, read_lines(path)), start=1):
        with seen.item():
            file, _ = names.find(line) if line else ("", True)
            if file is None or file in listed:
                problem = "names an image twice" if file else "names a missing image"
                raise Damaged(
                    f"{path}:{count}", problem, found=line, expected="each image once", hint="correct the line"
                )
            if file:
                listed[file] = count
    seen.counts[f"images that {path.name} does not name, left out"] += len(there) - len(listed)
    return list(listed)


def _check_labels(
    split: YoloSplit, there: list[str], everything: list[str], label_of: dict[str, str], seen: Seen
) -> None:
    """Check that there are label files and that each belongs to exactly one image."""
    stems: dict[str, list[str]] = {}
    for file in there:
        stems.setdefault(file.rpartition(".")[0], []).append(file)
    strays = {stem: file for stem, file in label_of.items() if stem not in stems}
    others = {file.rpartition(".")[0]: file for file in everything if not file.endswith(".txt")}
    for stem, file in strays.items():
        path = split.labels / file
        if path.name == CLASS_FILE or not (is_label(path) or path.stat().st_size == 0):
            seen.counts["text files that are not labels, left out"] += path.name != CLASS_FILE
            continue
        with seen.item():
            raise _stray(path, split.images, others.get(stem))
    if there and not any(stem in label_of for stem in stems):
        if seen.damaged:
            raise seen.damaged[0]
        raise UserError(
            split.labels,
            "no image has a label file; nothing was changed",
            found=f"{len(there)} images in {split.images}",
            expected="label files of the same names (.txt)",
            hint="correct the split's folders in data",
        )
    shared = next((stem for stem, files in stems.items() if len(files) > 1 and stem in label_of), None)
    if shared is not None:
        label, found = split.labels / label_of[shared], ", ".join(stems[shared])
        raise UserError(label, "belongs to several images", found=found, expected="one image of that name")


def _stray(path: Path, image_dir: Path, other: str | None) -> Damaged:
    kinds = ", ".join(SUFFIXES)
    found = f"{other}, an unsupported format" if other else f"no {path.stem} ({kinds}) below {image_dir}"
    return Damaged(
        path,
        "a label file without its image; nothing was changed",
        found=found,
        expected=f"an image for each label file, in one of these kinds: {kinds}",
        hint="convert the image" if other else "put the image there, or move the label file away",
    )


class _LineReader:
    """Reads label files and collects damaged lines."""

    def __init__(self, names: Sequence[str], columns: int | None, seen: Seen) -> None:
        self._names, self._columns, self._seen = names, columns, seen

    def read(self, path: Path) -> Boxes:
        boxes = Boxes()
        try:
            lines = read_lines(path)
        except UserError as error:
            with self._seen.item():
                raise Damaged.of(error) from None
            return boxes
        for count, line in enumerate(lines, start=1):
            if line.strip():
                with self._seen.item():
                    boxes.append(self._box(line, f"{path}:{count}"))
        return boxes

    def _box(self, line: str, where: str) -> SourceBox:
        texts = line.split()
        numbers = [value for text in texts if (value := number(text)) is not None]
        if len(numbers) != len(texts):
            raise Damaged(where, "is not numbers", found=line.strip()[:200], expected=LINE, hint="fix the line")
        self._check_columns(len(numbers) - 1, where, line)
        index = whole(texts[0])
        if index is None or index not in range(len(self._names)):
            raise Damaged(
                where,
                "no such class",
                found=texts[0],
                expected=f"0 to {len(self._names) - 1}: {', '.join(self._names)}"[:300],
                hint="fix the line, or add the class to data.classes",
            )
        polygon = len(numbers) > 5 and not self._columns
        numbers = numbers[1:] if polygon else numbers[1:5]
        if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in numbers):
            raise Damaged(
                where,
                "a number is not in 0..1",
                found=line.strip()[:200],
                expected="fractions of the image's width and height",
                hint="fix the line; divide pixel coordinates by the image's width and height",
            )
        self._seen.counts["polygons, each converted to its bounding box (a rotated box loses its angle)"] += polygon
        return SourceBox(self._names[index], _bbox(numbers))

    def _check_columns(self, count: int, where: str, line: str) -> None:
        allowed = count == self._columns if self._columns else count == 4 or (count >= 6 and count % 2 == 0)
        if not allowed:
            expected = f"a class and {self._columns} numbers (data.keypoints)" if self._columns else LINE
            hint = "remove the last number if it is a score" if count == 5 and not self._columns else "fix the line"
            raise Damaged(where, f"has {count + 1} numbers", found=line.strip()[:200], expected=expected, hint=hint)


def _bbox(numbers: list[float]) -> list[float]:
    """Return xywh in fractions."""
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        return [cx - w / 2, cy - h / 2, w, h]
    xs, ys = numbers[0::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
