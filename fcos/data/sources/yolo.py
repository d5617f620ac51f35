"""YOLO txt folders: for each picture a text file of the same name, with a line `class cx cy width height` an object."""

from collections import Counter
from pathlib import Path

from fcos.data.sources.description import Source, SourceBox, SourceImage, SourceSplit
from fcos.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
CLASS_FILE = "classes.txt"  # annotation tools put it among the labels
TOLERANCE = 0.01  # of the picture: conversions overshoot a little; more is another unit
LINE = "`class cx cy width height`, or `class x1 y1 x2 y2 x3 y3 ...` of a polygon"


def read_yolo(splits: dict[str, tuple[Path, Path]], *, classes: list[str]) -> Source:
    """Read splits given as (picture folder, label folder), which may be one folder; sub-folders are read too.

    Numbers are fractions of the picture as it is displayed (turned as EXIF says). A picture without a label file has
    no objects. A polygon, of at least three points, becomes the box around it.
    """
    described = {split: _read_split(split, *folders, classes) for split, folders in splits.items()}
    for number, image in enumerate((i for split in described.values() for i in split.images), start=1):
        image.image_id = number
    return Source([{"id": index + 1, "name": name} for index, name in enumerate(classes)], described)


def find_pictures(folder: Path) -> list[Path]:
    """All pictures in `folder` and below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _read_split(split: str, image_dir: Path, label_dir: Path, classes: list[str]) -> SourceSplit:
    for folder in (image_dir, label_dir):
        if not folder.is_dir():
            raise UserError(
                folder,
                f"no such folder (of the {split} split); nothing was changed",
                expected="a folder of pictures and one of labels",
                do="correct data.root, or the split's folders in data",
            )
    pictures = find_pictures(image_dir)
    label_of = {path: label_dir / path.relative_to(image_dir).with_suffix(".txt") for path in pictures}
    _refuse_strays(image_dir, label_dir, label_of)
    return SourceSplit(image_dir, [_read_image(image_dir, path, label, classes) for path, label in label_of.items()])


def _refuse_strays(image_dir: Path, label_dir: Path, label_of: dict[Path, Path]) -> None:
    """Each label file belongs to one picture, and there is a label file at all."""
    labels = {path for path in label_dir.rglob("*.txt") if path.name != CLASS_FILE}
    stray = sorted(labels - set(label_of.values()))
    if stray:
        raise UserError(
            stray[0],
            "a label file without its picture; nothing was changed",
            found=f"no {stray[0].stem} ({', '.join(SUFFIXES[:3])}, ...) below {image_dir}; {len(stray)} such files",
            expected="a picture for each label file",
            do="put the picture there, or move the label file away",
        )
    if label_of and not labels:
        raise UserError(
            label_dir,
            "no picture has a label file; nothing was changed",
            found=f"{len(label_of)} pictures in {image_dir}",
            expected="label files of the same names (.txt)",
            do="correct the split's folders in data",
        )
    shared = [label for label, count in Counter(label_of.values()).items() if count > 1 and label in labels]
    if shared:
        names = ", ".join(path.name for path, label in label_of.items() if label == shared[0])
        raise UserError(shared[0], "belongs to several pictures", found=names, expected="one picture of that name")


def _read_image(image_dir: Path, path: Path, label: Path, classes: list[str]) -> SourceImage:
    boxes = _read_label(label, classes) if label.is_file() else []
    name = path.relative_to(image_dir).as_posix()
    return SourceImage(path, name, label if label.is_file() else path, None, None, boxes, normalised=True)


def _read_label(path: Path, classes: list[str]) -> list[SourceBox]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(path, "is not text", found=error, expected=f"lines {LINE}") from None
    return [_read_line(line, f"{path}:{number}", classes) for number, line in enumerate(lines, 1) if line.strip()]


def _read_line(line: str, where: str, classes: list[str]) -> SourceBox:
    try:
        index, *numbers = map(float, line.split())
    except ValueError:
        raise UserError(where, "is not numbers", found=line.strip(), expected=LINE, do="mend the line") from None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise UserError(where, f"has {len(numbers) + 1} numbers", found=line.strip(), expected=LINE, do="mend the line")
    if index not in range(len(classes)):
        raise UserError(
            where,
            "no such class",
            found=line.split()[0],
            expected=f"0 to {len(classes) - 1}: {', '.join(classes)}",
            do="mend the line, or add the class to data.classes",
        )
    if not all(-TOLERANCE <= number <= 1 + TOLERANCE for number in numbers):
        raise UserError(
            where,
            "a number is not in 0..1",
            found=line.strip(),
            expected="fractions of the picture's width and height",
            do="mend the line; pixels are divided by the picture's size",
        )
    return SourceBox(classes[int(index)], _bbox(numbers))


def _bbox(numbers: list[float]) -> list[float]:
    """xywh in fractions."""
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        return [cx - w / 2, cy - h / 2, w, h]
    xs, ys = numbers[0::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
