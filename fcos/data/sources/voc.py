"""Read PASCAL VOC: one XML file per image, with or without lists of the images of a split."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from fcos.data.sources.classes import Classes, choose_classes
from fcos.data.sources.description import Boxes, Damaged, Seen, Source, SourceBox, SourceImage, SourceSplit
from fcos.data.sources.numbering import number_by_name
from fcos.data.sources.text import class_name, read_lines, read_xml
from fcos.data.sources.tree import SUFFIXES, Names
from fcos.data.sources.values import flag, number
from fcos.errors import UserError

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocSplit:
    """The folders of a split and its list of names in `annotations`; without a list, the split is all of them."""

    annotations: Path
    images: Path
    list_path: Path | None


def read_voc(splits: dict[str, VocSplit], *, classes: Classes | None, ignore_difficult: bool) -> Source:
    """Return the content of VOC XML files, sub-folders included; images are found by `<filename>` or the XML's name.

    Boxes are 1-based and inclusive: x = xmin - 1, w = xmax - xmin + 1. If `classes` is None, the classes are the sorted
    names in the files.
    """
    seen = Seen()
    described = {name: _read_split(split, ignore_difficult, seen) for name, split in splits.items()}
    number_by_name(described)
    found = sorted({name for split in described.values() for image in split.images for name in image.boxes.categories})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(found)]
    _note_zero_based(described, seen)
    source = Source(categories, described, "corners", seen)
    return choose_classes(source, classes, listed=False, keep_ids=False)


def find_voc_folder(root: Path, annotations: str = ANNOTATIONS) -> Path:
    """Return the folder with Annotations/: `root`, or the only such folder in root/ or root/VOCdevkit/."""
    inside = [*sorted(root.glob("VOC*")), *sorted(root.glob("VOCdevkit/VOC*"))]
    folders = [folder for folder in [root, *inside] if (folder / annotations).is_dir()]
    if not folders:
        raise UserError(
            f"params.yaml: data.root: {root}",
            "no folder in VOC layout; nothing was changed",
            found="no such folder" if not root.is_dir() else f"a folder without {annotations}/",
            expected="a folder with Annotations/, JPEGImages/ and ImageSets/Main/, or a VOCdevkit that holds one",
            hint="correct data.root",
        )
    if folders[0] != root and len(folders) > 1:
        raise UserError(
            f"params.yaml: data.root: {root}",
            "several folders in VOC layout",
            found=", ".join(str(folder) for folder in folders),
            hint="name one of them in data.root",
        )
    return folders[0]


def _read_split(split: VocSplit, ignore_difficult: bool, seen: Seen) -> SourceSplit:
    for folder in (split.annotations, split.images):
        if not folder.is_dir():
            hint = "correct data.root, or the folders in data"
            raise UserError(folder, "no such folder; nothing was changed", expected="a folder of the split", hint=hint)
    files = {file[: -len(".xml")]: file for file in seen.walk(split.annotations).ending([".xml"])}
    images = _Images(split.images, seen)
    wanted = list(files) if split.list_path is None else _listed(split.list_path, Names(files), split.annotations, seen)
    read = []
    for stem in wanted:
        with seen.item():
            read.append(_read_image(split, files[stem], stem, images, ignore_difficult, seen))
    _refuse_shared(read)
    if split.list_path is None:
        seen.counts["images without an XML file, left out"] += images.count - len(read)
    return SourceSplit(split.images, read)


def _listed(path: Path, names: Names, annotations: Path, seen: Seen) -> list[str]:
    """Return the XML files (without suffix) of the images in a list, one per line; numbers may follow the name."""
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "no split lists"
        raise UserError(path, "no such split", found=there, expected="a list of image names")
    line_of: dict[str, int] = {}
    for count, line in enumerate(map(str.strip, read_lines(path)), start=1):
        if not line:
            continue
        with seen.item():
            stem = _stem(line, names, f"{path}:{count}", annotations)
            if stem in line_of:
                found = f"{line}, first in line {line_of[stem]}"
                raise Damaged(f"{path}:{count}", "duplicate name", found=found, hint="remove one of the lines")
            line_of[stem] = count
    return list(line_of)


def _stem(line: str, names: Names, where: str, annotations: Path) -> str:
    bare = re.sub(r"(\s+-?\d+)+$", "", line)
    for name in (line, bare, *(name.rpartition(".")[0] for name in (line, bare))):
        stem, _ = names.find(name)
        if stem is not None:
            return stem
    raise Damaged(
        where,
        "no such annotation",
        found=f"no {annotations / bare}.xml",
        expected="an XML file for each line",
        hint="put the file there, or remove the line",
    )


class _Images:
    """The images of a folder, by name and by name without suffix."""

    def __init__(self, folder: Path, seen: Seen) -> None:
        files = seen.walk(folder).ending(SUFFIXES)
        files.sort(key=lambda file: SUFFIXES.index(Path(file).suffix.lower()))
        self.count = len(files)
        self.folder = folder
        self._files = set(files)
        self._by_name = Names(files)
        self._of_stem: dict[str, list[str]] = {}
        for file in files:
            self._of_stem.setdefault(file.rpartition(".")[0], []).append(file)
        self._by_stem = Names(self._of_stem)

    def find(self, stem: str, stated: str, annotation: Path) -> str:
        """Return the image of the XML file `stem`, whose `<filename>` is `stated`."""
        alike, by_stem = self._of_stem.get(stem, []), self._by_stem.find(stem)[0]
        by_name = self._by_name.find(stated)[0] if stated else None
        if by_name in alike:
            return by_name or ""
        if alike and stated in self._files:
            raise Damaged(
                annotation,
                "its <filename> and its own name refer to different images",
                found=f"<filename>{stated}</filename>, and there are {self.folder / stated} and {alike[0]}",
                expected="one image for each XML file",
                hint="correct <filename>, or rename the file",
            )
        found = alike[0] if alike else by_name or (self._of_stem[by_stem][0] if by_stem else None)
        if found is None:
            raise Damaged(
                annotation,
                "its image is missing; nothing was changed",
                found=f"no {self.folder / stem}.jpg" + (f" and no {stated}" if stated else ""),
                expected=f"an image {stem} ({', '.join(SUFFIXES)}) in {self.folder}",
                hint="put the image there, or remove the XML file (and its line in the list)",
            )
        return found


def _read_image(
    split: VocSplit, file: str, stem: str, images: _Images, ignore_difficult: bool, seen: Seen
) -> SourceImage:
    annotation = split.annotations / file
    try:
        tree = read_xml(annotation)
    except UserError as error:
        raise Damaged.of(error) from None
    if tree.tag != "annotation":
        raise Damaged(annotation, "is not VOC XML", found=f"<{tree.tag}>", expected="<annotation>", hint="move it away")
    name = images.find(stem, (tree.findtext("filename") or "").strip(), annotation)
    boxes: list[SourceBox] = []
    for node in tree.iter("object"):
        with seen.item():
            boxes += _read_object(node, annotation, ignore_difficult, seen)
    tag = tree.findtext("folder") or images.folder.name
    usual = (split.annotations.parent.name, images.folder.name)
    odd = [] if tag in usual else [f"folder tag `{tag}`"]
    return SourceImage(images.folder, name, annotation, None, _declared_size(tree, annotation), Boxes(boxes), odd)


def _declared_size(tree: Element, annotation: Path) -> tuple[int, int] | None:
    texts = [(tree.findtext(f"size/{side}") or "").strip() or "0" for side in ("height", "width")]
    height, width = map(number, texts)
    if height is None or width is None:
        raise Damaged(annotation, "its size is not two numbers", found=texts, hint="correct the annotation")
    return (int(height), int(width)) if height and width else None


def _read_object(node: Element, annotation: Path, ignore_difficult: bool, seen: Seen) -> list[SourceBox]:
    """Return the boxes of the object, usually one."""
    text = (node.findtext("name") or "").strip()
    if not text:
        raise Damaged(
            annotation, "an object has no name", expected="the name of its class", hint="write its name there"
        )
    name = class_name(text, annotation)
    difficult = flag(node.findtext("difficult"))
    if difficult is None:
        found = node.findtext("difficult")
        raise Damaged(annotation, "difficult is neither 0 nor 1", found=found, expected="0 or 1", hint="correct it")
    corners = node.findall("bndbox")
    if not corners:
        tags = ", ".join(f"<{child.tag}>" for child in node)
        raise Damaged(
            annotation,
            "bndbox must hold four numbers: there is no <bndbox>",
            found=f"{name} with {tags}",
            expected="<bndbox> with xmin, ymin, xmax, ymax",
            hint="convert the annotation: rotated boxes and polygons are not supported",
        )
    seen.counts["objects with several boxes, each of which became an object"] += len(corners) > 1
    return [
        SourceBox(name, _bbox(box, annotation), None, ignore_difficult and difficult, {"difficult": int(difficult)})
        for box in corners
    ]


def _bbox(node: Element, annotation: Path) -> list[float]:
    sides = [number(node.findtext(side)) for side in _SIDES]
    plain = [side for side in sides if side is not None]
    if len(plain) != 4:
        found = {side: node.findtext(side) for side in _SIDES}
        raise Damaged(annotation, "bndbox must hold four numbers", found=found, hint="fix the annotation")
    x1, y1, x2, y2 = plain
    # A box without extent keeps none, since the + 1 of inclusive corners would make it one pixel wide.
    return [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1] if x2 > x1 and y2 > y1 else [x1 - 1, y1 - 1, 0.0, 0.0]


def _refuse_shared(images: list[SourceImage]) -> None:
    counts = Counter(image.file_name for image in images)
    shared = [image for image in images if counts[image.file_name] > 1]
    if shared:
        files = ", ".join(str(image.described_in) for image in shared if image.file_name == shared[0].file_name)
        raise UserError(shared[0].path, "several XML files describe this image", found=files, expected="one")


def _note_zero_based(described: dict[str, SourceSplit], seen: Seen) -> None:
    images = [image for split in described.values() for image in split.images]
    count = sum(len(image.boxes) for image in images)
    zero = sum(int((image.boxes.xywh[:, :2].min(axis=1) == -1).sum()) for image in images)
    if zero:
        seen.notes.append(
            f"{zero} of {count} boxes begin at pixel 0, but VOC counts from 1: "
            "they look counted from 0, and all boxes are then one pixel too far to the left and to the top"
        )
