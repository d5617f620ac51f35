"""Find COCO JSON files and their image folders in a folder."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcos.data.sources.found import Discovered, LayoutMatch
from fcos.data.sources.pairing import below, common, parent
from fcos.data.sources.roles import fraction, roles, shortly, split_in
from fcos.data.sources.text import read_json
from fcos.data.sources.tree import SUFFIXES, Tree, name_parts
from fcos.errors import UserError

SAMPLED = 20  # file names that are used to find the image folder of a JSON file
MOST_FILES = 100  # largest JSON files, which are read
_NONE = dict.fromkeys(("validation_annotations", "validation_images", "test_annotations", "test_images"))


@dataclass(frozen=True)
class _Json:
    """A JSON file with the names of its images, or the reason why it is not used."""

    name: str
    names: list[str] = field(default_factory=list)
    why_not: str = ""
    broken: UserError | None = None


def look_for_coco(tree: Tree) -> LayoutMatch:
    """Return what is in the folder if it is read as COCO: JSON files with images, annotations and categories."""
    files = sorted(tree.ending([".json"]), key=lambda file: -(tree.root / file).stat().st_size)
    read = sorted((_look_into(tree.root, file) for file in files[:MOST_FILES]), key=lambda one: one.name)
    good = [one for one in read if one.names]
    seen = [f"{one.name}: {one.why_not}" for one in read if one.why_not]
    if len(seen) > 10:  # probably one file per image
        seen = [*seen[:3], f"... and {len(seen) - 3} more JSON files"]
    if len(files) > MOST_FILES:
        seen.append(f"{len(files) - MOST_FILES} smaller JSON files, which were not read")
    if not good:
        return LayoutMatch(seen=seen, broken=next((one.broken for one in read if one.broken), None))
    for one in read:
        if one.broken and split_in(one.name):
            raise one.broken  # a split with an unreadable file must not be left out silently
    used, unused = _one_a_split(good)
    given, assumed = roles({one.name: one for one in used}, tree.root)
    data: dict[str, Any] = {"source": "coco", "root": tree.root, **_NONE, **fraction(given)}
    for split, one in given.items():
        data[f"{split}_annotations"] = one.name
        data[f"{split}_images"] = _image_folder(tree, one)
    for split, one in given.items():
        place = data[f"{split}_images"]
        if place != parent(one.name) and split_in(place + "/x") != split_in(one.name):
            assumed.append(f"the images of {one.name} are in {place}")
    unused += _unnamed(tree, data, given)
    return LayoutMatch(Discovered(f"COCO ({tree.root})", data, assumed, unused), seen)


def _look_into(root: Path, file: str) -> _Json:
    try:
        content = read_json(root / file, hint="")
    except UserError as error:
        return _Json(file, why_not=" ".join(str(error).split("\n")[0:2]).split(": ", 1)[-1], broken=error)
    if isinstance(content, list):
        scored = bool(content) and isinstance(content[0], dict) and "score" in content[0]
        return _Json(file, why_not="the results of a detector" if scored else "a list, not COCO")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        labelme = isinstance(content, dict) and "shapes" in content
        return _Json(file, why_not="Labelme's format, not supported: export as COCO" if labelme else "not COCO")
    names = [image["file_name"] for image in content["images"] if isinstance(image, dict) and "file_name" in image]
    names = [name for name in names if isinstance(name, str)]
    if not content.get("categories") or not names:
        return _Json(file, why_not="COCO without categories or images")
    if not content["annotations"]:
        return _Json(file, why_not=f"names {len(names)} images, but has no annotations: it is left out")
    if not any(isinstance(one, dict) and "bbox" in one for one in content["annotations"]):
        return _Json(file, why_not="COCO whose annotations have no bbox")
    return _Json(file, names)


def _one_a_split(good: list[_Json]) -> tuple[list[_Json], list[str]]:
    """Choose the files to use; if the name of one says training, files without a split in their name are unused."""
    by_split = defaultdict(list)
    for one in good:
        by_split[split_in(one.name)].append(one)
    if "train" not in by_split:
        return good, []
    unused = [f"{one.name}: its name contains no split" for one in by_split.pop(None, [])]
    used = []
    for alike in by_split.values():
        instances = [one for one in alike if "instances" in one.name.rpartition("/")[2]]
        used += instances if len(instances) == 1 else alike
        unused += [
            f"{one.name}: {instances[0].name} is for that split"
            for one in alike
            if len(instances) == 1 and one not in instances
        ]
    return used, unused


def _where_images_are(root: Path, name: str) -> str:
    """Return a hint: the folder above, if the image is there or in a folder beside `root`."""
    above = root.resolve().parent
    try:
        there = [folder for folder in (above, *above.iterdir()) if (folder / name).is_file()]
    except OSError:  # it may not be read
        there = []
    return f"give the folder above, {above}: {there[0]} has them" if there else "put them there"


def _image_folder(tree: Tree, one: _Json) -> str:
    """Return the folder below which most of the names are files.

    A folder named after the split is preferred if it has half of the files; then the JSON file's folder, then the upper
    folder.
    """
    sample = one.names[:: max(1, len(one.names) // SAMPLED)]
    wanted = {tuple(name_parts(name)[-1:]) for name in sample}
    files = defaultdict(list)
    for file in tree.ending(SUFFIXES):
        last = tuple(name_parts(file.rpartition("/")[2]))
        if last in wanted:
            files[last].append(file)
    leading = defaultdict(set)
    for number, name in enumerate(sample):
        for file in files[tuple(name_parts(name)[-1:])]:
            leading[_folder_before(name, file)].add(number)
    if not leading:
        raise UserError(
            tree.root / one.name,
            "its images are not in this folder",
            found=f"no {one.names[0]} in {tree.root} or a folder below it",
            expected="the images that it names",
            hint=_where_images_are(tree.root, one.names[0]),
        )

    def rank(folder: str) -> tuple[bool, int, bool, bool, int]:
        alike = split_in(one.name) is not None and split_in(folder + "/x") == split_in(one.name)
        count = len(leading[folder])
        return alike and 2 * count >= len(sample), count, folder == parent(one.name), alike, -len(folder.split("/"))

    best = max(sorted(leading), key=rank)
    scattered = common(leading) if len(leading[best]) < len(set().union(*leading.values())) else best
    return best if rank(best)[0] or scattered == best else scattered


def _folder_before(name: str, file: str) -> str:
    """Return `a/b` for the name `c/d.jpg` and the file `a/b/c/d.jpg` or, without the folder `c`, `a/b/d.jpg`."""
    parts = file.split("/")
    inner = name.split("/")
    if parts[-len(inner) :] == inner:
        return "/".join(parts[: -len(inner)]) or "."
    return parent(file)


def _unnamed(tree: Tree, data: Mapping[str, Any], given: Mapping[str, _Json]) -> list[str]:
    """Describe the images of the used folders that no JSON file lists."""
    folders = {data[f"{split}_images"] for split in given}
    there = [file for file in tree.ending(SUFFIXES) if any(below(file, folder) for folder in folders)]
    named = {tuple(name_parts(name)[-1:]) for one in given.values() for name in one.names}
    free = [file for file in there if tuple(name_parts(file)[-1:]) not in named]
    rest = [file for file in tree.ending(SUFFIXES) if not any(below(file, folder) for folder in folders)]
    sentences = [f"{len(free)} images that no JSON file names ({shortly(free, 3)})"] if free else []
    return [*sentences, *_elsewhere(rest)]


def _elsewhere(files: Iterable[str]) -> list[str]:
    folders: dict[str, int] = defaultdict(int)
    for file in files:
        folders[parent(file)] += 1
    return [
        f"{folder}: {count} images that no annotation in use belongs to" for folder, count in sorted(folders.items())
    ]
