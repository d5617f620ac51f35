"""Find VOC XML files with their images and lists in a folder."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fcos.data.sources.found import Discovered, LayoutMatch
from fcos.data.sources.pairing import Pair, below, common, image_root, label_root, pair_folders, parent, stem
from fcos.data.sources.roles import SPLIT_OF, fraction, held_out, roles, shortly, split_in
from fcos.data.sources.text import read_lines, read_xml
from fcos.data.sources.tree import SUFFIXES, Names, Tree
from fcos.data.sources.voc import ANNOTATIONS, IMAGES, LISTS
from fcos.errors import UserError

SAMPLED = 5  # XML files that are read per folder
_VOC = re.compile(rb"<\s*([\w.-]+:)?annotation[\s>]", re.IGNORECASE)


def look_for_voc(tree: Tree) -> LayoutMatch:
    """Return what is in the folder if it is read as Pascal VOC: one XML file for each image."""
    of_folder = defaultdict(list)
    for file in tree.ending([".xml"]):
        of_folder[parent(file)].append(file)
    other = [folder for folder, files in of_folder.items() if not _is_voc(tree, files)]
    seen = [f"{folder}/*.xml: {len(of_folder[folder])} files, not VOC" for folder in other]
    xmls = [file for folder, files in of_folder.items() if folder not in other for file in files]
    if not xmls:
        return LayoutMatch(seen=seen)
    images = tree.ending(SUFFIXES)
    pairs, unused = pair_folders(images, _as_images_are_called(tree, xmls, images), tree.root)
    if not pairs:
        files = shortly(xmls, 3)
        return LayoutMatch(seen=[*seen, f"{len(xmls)} VOC XML files ({files}); no image has their name or <filename>"])
    lists = _lists(tree, xmls)
    found = _with_lists(tree, pairs, lists, xmls) if lists else _with_folders(tree, pairs)
    used = [pair.labels for pair in pairs]
    idle = [folder for folder in of_folder if folder not in (*other, *used)]
    unused += [f"{folder}: {len(of_folder[folder])} XML files without an image" for folder in idle]
    with_xml = {stem(file) for file in xmls}
    free = [file for file in images if stem(file) not in with_xml and not any(below(file, p.images) for p in pairs)]
    unused += [f"{len(free)} images in other folders without an XML file ({shortly(free, 3)})"] if free else []
    found.unused.extend(unused)
    return LayoutMatch(found, seen)


def _is_voc(tree: Tree, files: Sequence[str]) -> bool:
    for file in files[:: max(1, len(files) // SAMPLED)]:
        with (tree.root / file).open("rb") as stream:
            if _VOC.search(stream.read(4000).replace(b"\0", b"")):
                return True
    return False


def _as_images_are_called(tree: Tree, xmls: list[str], images: list[str]) -> list[str]:
    """Return the XML files, renamed to their <filename> if no image has their own name."""
    stems = {stem(image) for image in images}
    called, names = [], Names(images)
    for file in xmls:
        if stem(file) not in stems:
            try:
                image, _ = names.find(read_xml(tree.root / file).findtext("filename") or "")
            except UserError:
                image = None  # the reader reports it
            file = f"{parent(file)}/{stem(image)}.xml" if image else file
        called.append(file)
    return called


def _lists(tree: Tree, xmls: list[str]) -> dict[str, str]:
    """Return the lists by name: those of ImageSets/Main, or text files named after a split that list XML files."""
    texts = [file for file in tree.ending([".txt"]) if (tree.root / file).stat().st_size > 0]
    main = [file for file in texts if re.search("(^|/)imagesets/main/[^/]*$", file, re.IGNORECASE)]
    if main:
        return {stem(file): file for file in main}
    known = {stem(xml) for xml in xmls}
    others = [file for file in texts if stem(file) in SPLIT_OF]
    return {stem(file): file for file in others if _share_named(tree, file, known) > 0.5}


def _share_named(tree: Tree, file: str, known: set[str]) -> float:
    try:
        lines = [line.split()[0] for line in read_lines(tree.root / file) if line.strip()]
    except UserError:
        return 0.0
    return sum(line in known or stem(line) in known for line in lines) / max(1, len(lines))


def _with_lists(tree: Tree, pairs: list[Pair], lists: dict[str, str], xmls: list[str]) -> Discovered:
    data, where = _root(tree, pairs)
    folder = common(lists.values()) if len(lists) > 1 else parent(*lists.values())
    inside = PurePosixPath(folder).is_relative_to(where)
    if not inside or any(parent(file) != folder for file in lists.values()):
        found = shortly(sorted(lists.values()))
        raise UserError(
            tree.root, "several folders in VOC layout, or lists elsewhere", found=found, hint=_one_of(tree, pairs)
        )
    data["lists"] = PurePosixPath(folder).relative_to(where).as_posix()
    known = {name: name for name in lists if name in SPLIT_OF}
    if {"train", "trainval"} <= set(known):  # trainval contains train
        del known["trainval" if {"val", "valid", "validation"} & set(known) else "train"]
    given, assumed = roles(known or _of_classes(tree, lists), tree.root / where)
    idle = sorted(set(lists) - set(given.values()))
    unused = [f"{len(idle)} lists in {folder} ({shortly(idle, 3)}): not for a split that is used"] if idle else []
    named = {word for name in given.values() for word in _names_in(tree.root / lists[name])}
    free = sorted({stem(xml) for xml in xmls} - named)
    unused += [f"{len(free)} XML files that no list in use names ({shortly(free, 3)})"] if free else []
    splits: dict[str, Any] = dict.fromkeys(("train_split", "validation_split", "test_split"))
    splits |= {f"{split}_split": name for split, name in given.items()}
    return _described(tree, where, {**data, **splits, **fraction(given)}, assumed, unused)


def _names_in(path: Path) -> set[str]:
    """Return the names that lines may mean: the line or its first word, each with and without folder and suffix."""
    lines = [line.strip() for line in read_lines(path)]
    words = {word for line in lines if line for word in (line, line.split()[0])}
    return {plain for word in words for plain in (word.rpartition("/")[2], stem(word))}


def _of_classes(tree: Tree, lists: Mapping[str, str]) -> dict[str, str]:
    """Return the lists by name; a split's class lists (cat_train, dog_train) become one if all list the same images."""
    by_split = defaultdict(list)
    for name in lists:
        by_split[split_in(name)].append(name)
    kept: dict[str, str] = {}
    for split, names in by_split.items():
        contents = {
            tuple(sorted(line.split()[0] for line in read_lines(tree.root / lists[name]) if line.strip()))
            for name in names
        }
        kept |= {name: name for name in (names[:1] if split and len(contents) == 1 else names)}
    return kept


def _with_folders(tree: Tree, pairs: list[Pair]) -> Discovered:
    by_split = defaultdict(list)
    for pair in pairs:
        by_split[split_in(pair.images + "/x") or split_in(pair.labels + "/x")].append(pair)
    none: dict[str, Any] = dict.fromkeys(("train_split", "validation_split", "test_split"))
    if len(by_split) == 1:
        data, where = _root(tree, pairs)
        labels = data.get("annotations", ANNOTATIONS)
        assumed = [f"there are no lists in {LISTS}/, so all of {labels}/ is one split: {held_out()}"]
        return _described(tree, where, {**data, **none, **fraction({})}, assumed, [])
    places = {image_root(alike, split): (split, alike) for split, alike in by_split.items()}
    given, assumed = roles(places, tree.root)
    data = none
    for split, (_, alike) in given.items():
        above = next(place for place, (_, others) in places.items() if others is alike)
        data |= {f"{split}_images": above, f"{split}_annotations": _labels_of(tree, above, alike)}
    return _described(tree, ".", {**data, **fraction(given)}, assumed, [])


def _root(tree: Tree, pairs: list[Pair]) -> tuple[dict[str, Any], str]:
    """Return the image and XML folders relative to the folder that contains both, and that folder."""
    above = image_root(pairs, split_in(common(pair.images for pair in pairs) + "/x"))
    labels = _labels_of(tree, above, pairs)
    where = common([above, labels]) if above != labels else above
    inner = {
        "images": PurePosixPath(above).relative_to(where).as_posix(),
        "annotations": PurePosixPath(labels).relative_to(where).as_posix(),
    }
    return inner, where


def _labels_of(tree: Tree, above: str, pairs: list[Pair]) -> str:
    labels = label_root(above, pairs)
    if labels is None:
        found = "; ".join(f"{pair.images} with {pair.labels}" for pair in pairs[:8])
        raise UserError(
            tree.root, "several folders in VOC layout", found=found, expected="one", hint=_one_of(tree, pairs)
        )
    return labels


def _one_of(tree: Tree, pairs: list[Pair]) -> str:
    return f"name one of them: --from {tree.root / common([pairs[0].images, pairs[0].labels])}"


def _described(tree: Tree, where: str, data: dict[str, Any], assumed: list[str], unused: list[str]) -> Discovered:
    usual = {"images": IMAGES, "annotations": ANNOTATIONS, "lists": LISTS}
    kept = {key: value for key, value in data.items() if key not in usual or usual[key] != value}
    root = tree.root / where
    return Discovered(f"VOC ({root})", {"source": "voc", "root": root, **kept}, assumed, unused)
