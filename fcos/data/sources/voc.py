"""Folders in PASCAL VOC layout: Annotations/, JPEGImages/, ImageSets/Main/."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from fcos.data.sources.description import Source, SourceBox, SourceImage, SourceSplit
from fcos.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def read_voc(root: Path, *, splits: dict[str, str | None], classes: list[str] | None, ignore_difficult: bool) -> Source:
    """Read the splits (ours -> name in ImageSets/Main, or None: all of Annotations/) of the VOC folder at or in `root`.

    Boxes are 1-based and inclusive: x = xmin - 1, w = xmax - xmin + 1. Classes without a list: the names found, sorted.
    """
    folder = find_voc_folder(root)
    described = {split: _read_split(folder, name, ignore_difficult) for split, name in splits.items()}
    _number([image for split in described.values() for image in split.images])
    found = sorted({box.category for split in described.values() for image in split.images for box in image.boxes})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes or found)]
    return Source(categories, described)


def find_voc_folder(root: Path) -> Path:
    """The folder with Annotations/: `root` itself, or the only one in root/ or root/VOCdevkit/."""
    inside = [*sorted(root.glob("VOC*")), *sorted(root.glob("VOCdevkit/VOC*"))]
    folders = [folder for folder in [root, *inside] if (folder / "Annotations").is_dir()]
    if not folders:
        raise UserError(
            f"params.yaml: data.root: {root}",
            "no folder in VOC layout; nothing was changed",
            found="no such folder" if not root.is_dir() else "a folder without Annotations/",
            expected="a folder with Annotations/, JPEGImages/ and ImageSets/Main/, or a VOCdevkit that holds one",
            do="correct data.root",
        )
    if folders[0] != root and len(folders) > 1:
        raise UserError(
            f"params.yaml: data.root: {root}",
            "several folders in VOC layout",
            found=", ".join(str(folder) for folder in folders),
            do="name one of them in data.root",
        )
    return folders[0]


def _read_split(folder: Path, name: str | None, ignore_difficult: bool) -> SourceSplit:
    list_path, stems = _listed(folder, name)
    image_dir = folder / "JPEGImages"
    images = [_read_image(folder, image_dir, stem, list_path, ignore_difficult) for stem in stems]
    return SourceSplit(image_dir, images)


def _listed(folder: Path, name: str | None) -> tuple[Path, list[str]]:
    """The names of a split's pictures, and what lists them."""
    if name is None:
        return folder / "Annotations", sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    list_path = folder / "ImageSets" / "Main" / f"{name}.txt"
    if not list_path.is_file():
        there = ", ".join(sorted(path.stem for path in list_path.parent.glob("*.txt"))) or "no split lists"
        raise UserError(list_path, "no such split", found=there, expected="a list of picture names")
    return list_path, [line.split()[0] for line in list_path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_image(folder: Path, image_dir: Path, stem: str, list_path: Path, ignore_difficult: bool) -> SourceImage:
    annotation = folder / "Annotations" / f"{stem}.xml"
    try:
        tree = ElementTree.parse(annotation).getroot()
    except FileNotFoundError:
        raise UserError(annotation, "no such annotation", expected=f"one for each line of {list_path}") from None
    except ElementTree.ParseError as error:
        raise UserError(annotation, "is not XML", found=error, do="mend or restore the file") from None
    path = next((p for suffix in SUFFIXES if (p := image_dir / (stem + suffix)).is_file()), None)
    if path is None:
        raise UserError(
            annotation,
            "its picture is missing; nothing was changed",
            found=f"no {image_dir / stem}.jpg",
            expected=f"a picture {stem} ({', '.join(SUFFIXES[:3])}) in {image_dir}",
            do=f"put the picture there, or take {stem} out of {list_path}",
        )
    boxes = [_read_object(node, annotation, ignore_difficult) for node in tree.iter("object")]
    tag = tree.findtext("folder") or folder.name
    odd = [] if tag in (folder.name, image_dir.name) else [f"folder tag `{tag}`"]
    return SourceImage(path, path.name, annotation, None, _declared_size(tree, annotation), boxes, odd)


def _declared_size(tree: ElementTree.Element, annotation: Path) -> tuple[int, int] | None:
    texts = [tree.findtext(f"size/{side}") or "0" for side in ("height", "width")]
    try:
        height, width = (int(float(text)) for text in texts)
    except (ValueError, OverflowError):
        raise UserError(annotation, "its size is not two numbers", found=texts, do="mend the annotation") from None
    return (height, width) if height and width else None


def _read_object(node: ElementTree.Element, annotation: Path, ignore_difficult: bool) -> SourceBox:
    try:
        x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        found = [node.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        raise UserError(annotation, "a box is not four numbers", found=found) from None
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(annotation, "an object has no name", expected="the name of its class", do="mend the annotation")
    difficult = (node.findtext("difficult") or "0").strip() == "1"
    # A box without extent stays without: the + 1 of inclusive corners would make it one pixel wide.
    bbox = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1] if x2 > x1 and y2 > y1 else [x1 - 1, y1 - 1, 0.0, 0.0]
    return SourceBox(name, bbox, None, ignore_difficult and difficult, {"difficult": int(difficult)})


def _number(images: list[SourceImage]) -> None:
    """Image ids: the digits of the file names (VOC2007's 000005 is 5), or 1, 2, ... where these do not tell apart."""
    digits = [re.sub(r"\D", "", image.path.stem) for image in images]
    telling = all(digits) and len({int(d) for d in digits}) == len({image.path.name for image in images})
    telling = telling and all(int(d) < 2**53 for d in digits)  # what JSON readers hold exactly
    stems = {image.path.name: number for number, image in enumerate(sorted(images, key=lambda i: i.path.name), 1)}
    for image, text in zip(images, digits, strict=True):
        image.image_id = int(text) if telling else stems[image.path.name]
