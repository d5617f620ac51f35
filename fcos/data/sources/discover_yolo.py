"""Find YOLO label files with their images, lists and class names in a folder."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from fcos.data.sources.found import Discovered, LayoutMatch
from fcos.data.sources.pairing import Pair, below, common, image_root, label_root, pair_folders, parent, stem
from fcos.data.sources.roles import fraction, roles, shortly, split_in
from fcos.data.sources.text import read_lines
from fcos.data.sources.tree import SUFFIXES, Names, Tree
from fcos.data.sources.yolo import CLASS_FILE, is_label
from fcos.data.sources.yolo_yaml import DataYaml, agreed_names, find_place, read_data_files
from fcos.errors import UserError

SAMPLED = 20  # label files that are read per folder


@dataclass
class _Part:
    """A split: its relative folders and its list, if any."""

    images: str
    labels: str
    listed: str | None = None


@dataclass
class _Splits:
    parts: dict[str, _Part] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def look_for_yolo(tree: Tree) -> LayoutMatch:
    """Return what is in the folder if it is read as YOLO: one text file for each image."""
    images = tree.ending(SUFFIXES)
    texts = [file for file in tree.ending([".txt"]) if file.rpartition("/")[2] != CLASS_FILE]
    pairs, unused = pair_folders(images, texts, tree.root)
    labelled, empty = _labelled(tree, pairs, texts)
    if not labelled:
        return LayoutMatch(seen=[*_double_endings(images, texts), *_no_labels(tree, pairs, texts)])
    data_yaml = read_data_files(tree)
    splits = _by_yaml(tree, labelled, data_yaml) if data_yaml.splits else _Splits()
    if not splits.parts:
        splits.assumed, said = [], splits.unused
        splits = _by_lists(tree, labelled, images, texts) or _by_folders(tree, labelled)
        splits.unused += said
    for part in splits.parts.values():
        last, other = (PurePosixPath(place).name for place in (part.images, part.labels))
        if last != other and last.lower() != "images":
            splits.assumed.append(f"the labels of {part.images} are in {part.labels}")
    names, named_in = agreed_names(tree, data_yaml)
    data: dict[str, Any] = dict.fromkeys(("validation_images", "validation_labels", "test_images", "test_labels"))
    for split, part in splits.parts.items():
        data |= {f"{split}_images": part.images, f"{split}_labels": part.labels}
        data |= {f"{split}_list": part.listed} if part.listed else {}
    data = {"source": "yolo", "root": tree.root, **data, **fraction(splits.parts), "classes": names}
    data |= {"keypoints": data_yaml.keypoints} if data_yaml.keypoints else {}
    unused += [*splits.unused, *data_yaml.unused, *_idle(tree, splits, images, labelled, empty)]
    layout = f"YOLO ({tree.root}), class names in {named_in}"
    return LayoutMatch(Discovered(layout, data, splits.assumed, unused))


def _labelled(tree: Tree, pairs: list[Pair], texts: list[str]) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs with a valid label file, and those whose label files are all empty."""
    of_folder = defaultdict(list)
    for file in texts:
        of_folder[parent(file)].append(tree.root / file)
    labelled, empty = [], []
    for pair in pairs:
        files = of_folder[pair.labels]
        if any(is_label(path) for path in files[:: max(1, len(files) // SAMPLED)]) or any(map(is_label, files)):
            labelled.append(pair)
        elif all(path.stat().st_size < 3 for path in files):
            empty.append(pair)
    return labelled, empty


def _double_endings(images: list[str], texts: list[str]) -> list[str]:
    """Describe label files that are named a.jpg.txt."""
    names = {image.rpartition("/")[2] for image in images}
    alike = [file for file in texts if stem(file) in names]
    found = f"{len(alike)} text files named like an image with .txt appended ({shortly(alike, 3)})"
    return [f"{found}: YOLO's label of a.jpg is a.txt, so rename them"] if alike else []


def _no_labels(tree: Tree, pairs: list[Pair], texts: list[str]) -> list[str]:
    """Describe text files that are named like the images but are not label files."""
    folders = {pair.labels for pair in pairs}
    alike = [file for file in texts if parent(file) in folders]
    for file in alike[:1]:
        try:
            line = next((line for line in read_lines(tree.root / file) if line.strip()), "nothing")
        except UserError as error:
            return [str(error)]
        return [f"{len(alike)} text files called like images ({shortly(alike, 3)}), not YOLO's: {line[:80]!r}"]
    return []


def _by_folders(tree: Tree, pairs: list[Pair]) -> _Splits:
    """Return the splits according to the names of folders."""
    by_split = defaultdict(list)
    for pair in pairs:
        by_split[split_in(pair.images + "/x") or split_in(pair.labels + "/x")].append(pair)
    if set(by_split) == {None} and label_root(image_root(pairs, None), pairs) is None:
        roles({pair.images: pair for pair in pairs}, tree.root)  # raises for names without a split
    places = {image_root(alike, split): alike for split, alike in by_split.items()}
    for place in places:
        inside = [other for other in places if other != place and below(other, place)]
        if inside:
            first = ", ".join(pair.images for pair in places[place])
            raise UserError(
                tree.root,
                "two folders for one split",
                found=f"{first}, among which is {inside[0]}",
                expected="names with train, val (or valid) and test, each once",
                hint="rename or move away one of them",
            )
    given, assumed = roles(places, tree.root)
    place_of = {id(alike): place for place, alike in places.items()}
    parts = {split: _part(tree, place_of[id(alike)], alike) for split, alike in given.items()}
    return _Splits(parts, assumed)


def _part(tree: Tree, above: str, pairs: Sequence[Pair], listed: str | None = None) -> _Part:
    labels = label_root(above, [pair for pair in pairs if below(pair.images, above)])
    if labels is None:
        found = "; ".join(f"{pair.images} with {pair.labels}" for pair in pairs[:8])
        expected = "all labels of a split in one folder, with the same subfolders as the images"
        raise UserError(tree.root / above, "labels in several places", found=found, expected=expected)
    return _Part(above, labels, listed)


def _by_yaml(tree: Tree, pairs: list[Pair], data_yaml: DataYaml) -> _Splits:
    """Return the splits of data.yaml; splits that it lacks are found by the names of folders."""
    splits = _Splits()
    used: dict[str, str] = {}
    for split, text in data_yaml.splits.items():
        place = find_place(tree, text)
        if place is None:
            splits.unused.append(f"{data_yaml.name}: {text!r} for {split} does not exist")
        elif place in used:
            splits.unused.append(
                f"{data_yaml.name}: {text!r} for {split} is not used, since {used[place]} names the same folder"
            )
        elif place.endswith(".txt"):
            above = _above_listed(tree, place)
            splits.parts[split] = _part(tree, above, pairs, place)
        elif not any(below(pair.images, place) for pair in pairs):
            splits.unused.append(f"{data_yaml.name}: {place} for {split} has images, but no labels: it is left out")
        else:
            splits.parts[split] = _part(tree, place, pairs)
        if place is not None:
            used[place] = split
    _complete(tree, pairs, splits, set(data_yaml.splits), used)
    if splits.parts and "train" not in splits.parts:
        found = "; ".join(splits.unused) or shortly(data_yaml.splits)
        raise UserError(tree.root / data_yaml.name, "no images with labels to train on", found=found, expected="train:")
    if splits.parts and "test" not in splits.parts:
        if "validation" in splits.parts:
            splits.parts["test"] = splits.parts.pop("validation")
            place = splits.parts["test"].listed or splits.parts["test"].images
            splits.assumed.append(f"there is no test split, so the study tests on {place}")
        else:
            splits.assumed += roles({splits.parts["train"].images: None}, tree.root)[1]
    return splits


def _complete(tree: Tree, pairs: list[Pair], splits: _Splits, named: set[str], used: Mapping[str, str]) -> None:
    """Add splits that are missing or wrong in data.yaml, according to the names of folders."""
    rest = [pair for pair in pairs if not any(below(pair.images, part.images) for part in splits.parts.values())]
    by_split = defaultdict(list)
    for pair in rest:
        by_split[split_in(pair.images + "/x")].append(pair)
    for split, alike in by_split.items():
        place = image_root(alike, split)
        if (
            split is None
            or split in splits.parts
            or place in used
            or any(below(p.images, place) for p in splits.parts.values())
        ):
            splits.unused += [f"{pair.images}: data.yaml lists it for no split" for pair in alike]
            continue
        splits.parts[split] = _part(tree, place, alike)
        why = "the folder in data.yaml does not exist" if split in named else "data.yaml does not say so"
        splits.assumed.append(f"{place} is taken for {split} by its name ({why})")


def _above_listed(tree: Tree, listed: str) -> str:
    names = Names(tree.ending(SUFFIXES))
    files = [names.find(line.strip())[0] for line in read_lines(tree.root / listed) if line.strip()]
    found = [file for file in files if file]
    if not found:
        raise UserError(tree.root / listed, "lists no existing image", expected="one image per line")
    return common(map(parent, found))


def _by_lists(tree: Tree, pairs: list[Pair], images: list[str], texts: list[str]) -> _Splits | None:
    """Return the splits according to lists of images (train.txt), if the folder names do not tell."""
    if len({split_in(pair.images + "/x") for pair in pairs} - {None}) > 1:
        return None
    names = Names(images)
    lists = {}
    for file in texts:
        if split_in(stem(file)) and "/" not in file:
            lines = [line.strip() for line in read_lines(tree.root / file) if line.strip()]
            if lines and sum(names.find(line)[0] is not None for line in lines) > len(lines) / 2:
                lists[file] = file
    if not lists:
        return None
    given, assumed = roles(lists, tree.root)
    return _Splits({s: _part(tree, _above_listed(tree, f), pairs, f) for s, f in given.items()}, assumed)


def _idle(tree: Tree, splits: _Splits, images: list[str], labelled: list[Pair], empty: list[Pair]) -> list[str]:
    """Describe image folders that are in no split."""
    used = [part.images for part in splits.parts.values()]
    counts: dict[str, int] = defaultdict(int)
    for image in images:
        if not any(below(image, place) for place in used):
            counts[parent(image)] += 1
    known = {pair.images for pair in labelled}
    without = {pair.images for pair in empty}
    said = " ".join(splits.unused)
    why = dict.fromkeys(known, "is in no split") | dict.fromkeys(without, "only empty label files")
    return [
        f"{tree.root / place} has images but {why.get(place, 'no labels')} and is left out ({count})"
        for place, count in sorted(counts.items())
        if place not in said
    ]
