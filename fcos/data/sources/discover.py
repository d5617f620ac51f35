"""Detect the layout and splits of a folder of images and annotations."""

from pathlib import Path

from fcos.data.sources.discover_coco import look_for_coco
from fcos.data.sources.discover_voc import look_for_voc
from fcos.data.sources.discover_yolo import look_for_yolo
from fcos.data.sources.found import Discovered
from fcos.data.sources.roles import shortly
from fcos.data.sources.tree import SUFFIXES, Tree, walk
from fcos.errors import UserError

LOOKED_FOR = """a folder in one of these layouts:
              VOC   an XML file for each image (Annotations/*.xml and JPEGImages/, annotations/ and images/, or beside
                    the images), with lists in ImageSets/Main/ or without
              COCO  *.json with images, annotations (with bbox) and categories, and the images anywhere below
              YOLO  a .txt file for each image (images/train and labels/train, train/images and train/labels, images
                    and labels, or beside the images); class names in data.yaml, classes.txt or obj.names"""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
OTHER_IMAGES = (".heic", ".gif", ".avif", ".jp2", ".raw", ".cr2", ".dng")


def discover(folder: Path) -> Discovered:
    """Detect the layout and splits of `folder` from file names, COCO JSON files, lists and a few label files.

    Raises:
        UserError: there is no known layout or more than one, or the parts are contradictory or their splits unclear.
    """
    if not folder.is_dir():
        raise _no_folder(folder)
    tree = walk(folder)
    looks = [look(tree) for look in (look_for_coco, look_for_voc, look_for_yolo)]
    found = [look.discovered for look in looks if look.discovered is not None]
    seen = [sentence for look in looks for sentence in look.seen]
    if len(found) > 1:
        raise UserError(
            folder,
            "annotations in several layouts",
            found="; ".join(f"{one.layout}, with {_annotations(one)}" for one in found),
            expected="one layout",
            hint="move the other annotations out of the folder",
        )
    broken = next((look.broken for look in looks if look.broken), None)
    if broken and not found and len(seen) == 1:
        raise broken
    if not found:
        raise _nothing_known(tree, seen)
    found[0].unused.extend([*seen, *_left(tree)])
    return found[0]


def _annotations(one: Discovered) -> str:
    """Return the place of its annotations."""
    keys = ("train_annotations", "annotations", "train_labels")
    return str(next((one.data[key] for key in keys if one.data.get(key)), "Annotations"))


def _no_folder(folder: Path) -> UserError:
    archive = folder.is_file() and folder.suffix.lower() in ARCHIVES
    found = "an archive" if archive else "a file" if folder.exists() else "nothing"
    hint = "unpack it first, and give the extracted folder" if archive or _is_zip(folder) else None
    return UserError(folder, "no such folder", found=found, expected=LOOKED_FOR, hint=hint)


def _is_zip(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\3\4", b"\x1f\x8b\x08\0", b"Rar!")


def _left(tree: Tree) -> list[str]:
    sentences = []
    if tree.num_hidden:
        sentences.append(f"{tree.num_hidden} hidden files or folders (names with a dot in front, or of a Mac archive)")
    if tree.num_loops:
        sentences.append(f"{tree.num_loops} links to a folder above themselves")
    return sentences


def _nothing_known(tree: Tree, seen: list[str]) -> UserError:
    images = tree.ending(SUFFIXES)
    others = sorted(set(tree.files) - set(images))
    kinds = {
        f"{len(images)} images": images,
        "archives": tree.ending(ARCHIVES),
        "images in unsupported formats": tree.ending(OTHER_IMAGES),
    }
    counted = [f"{what} ({shortly(files, 3)})" for what, files in kinds.items() if files]
    counted += [f"other files: {shortly(others)}"] if others else []
    return UserError(
        tree.root,
        "no images with annotations were recognised",
        found="\n            ".join([*seen[:10], *counted]) or "an empty folder",
        expected=LOOKED_FOR,
        hint="unpack the archives first" if tree.ending(ARCHIVES) and not images else None,
    )
