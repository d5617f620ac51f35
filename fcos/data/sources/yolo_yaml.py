"""Read data.yaml, obj.data and files of class names of a YOLO folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcos.data.sources.pairing import below, common, parent
from fcos.data.sources.roles import shortly
from fcos.data.sources.text import class_name, read_lines, read_yaml
from fcos.data.sources.tree import SUFFIXES, Tree
from fcos.data.sources.values import whole
from fcos.data.sources.yolo import CLASS_FILE
from fcos.errors import UserError

SPLIT_KEYS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_READ = {*SPLIT_KEYS, "names", "nc", "path", "kpt_shape"}
NAME_FILES = (CLASS_FILE, "_darknet.labels", "predefined_classes.txt")


@dataclass
class DataYaml:
    """What the `data.yaml` files of a folder say."""

    name: str = ""  # relative path of the file
    names: dict[str, list[str]] = field(default_factory=dict)  # class names by file
    splits: dict[str, str] = field(default_factory=dict)  # places as written in the file
    keypoints: list[int] | None = None
    unused: list[str] = field(default_factory=list)


def read_data_files(tree: Tree) -> DataYaml:
    """Read the YAML file with `names` or splits, and Darknet's .data file."""
    found = DataYaml()
    for file in tree.ending([".yaml", ".yml"]):
        content = read_yaml(tree.root / file)
        if not isinstance(content, dict) or not ("names" in content or isinstance(content.get("train"), str | list)):
            found.unused.append(f"{file}: no names of classes and no splits")
            continue
        _add_yaml(found, tree, file, content)
    for file in tree.ending([".data"]):
        try:
            pairs = [line.partition("=") for line in read_lines(tree.root / file) if "=" in line]
        except UserError:
            found.unused.append(f"{file}: not Darknet's")
            continue
        values = {key.strip(): value.strip() for key, _, value in pairs}
        found.name = found.name or file
        if not found.splits:
            found.splits = {SPLIT_KEYS[key]: values[key] for key in values.keys() & SPLIT_KEYS.keys() if values[key]}
    return found


def _add_yaml(found: DataYaml, tree: Tree, file: str, content: dict[str, Any]) -> None:
    path = tree.root / file
    names = names_in_yaml(path, content.get("names"))
    _check_count(path, content.get("nc"), names)
    if names:
        found.names[file] = names
    splits = {SPLIT_KEYS[key]: _one_place(tree, path, key, content[key]) for key in SPLIT_KEYS if content.get(key)}
    if found.splits and splits and splits != found.splits:
        raise UserError(path, f"has other splits than {tree.root / found.name}", found=splits, expected=found.splits)
    found.name, found.splits = (file, splits) if splits or not found.name else (found.name, found.splits)
    found.keypoints = _keypoints(path, content.get("kpt_shape")) or found.keypoints
    idle = sorted(content.keys() - _READ)
    if idle:
        found.unused.append(f"{file}: keys that are not used here: {shortly(idle)}")


def names_in_yaml(path: Path, names: Any) -> list[str]:
    """Return the class names in `names` of data.yaml, a list or a mapping by number; empty if the key is missing."""
    if names is None or names == "":
        return []
    if isinstance(names, dict):
        numbers = {whole(key): value for key, value in names.items()}
        if sorted(map(str, numbers)) != sorted(map(str, range(len(names)))):
            found = shortly(names)
            raise UserError(f"{path}: names", "classes have gaps", found=found, expected="0, 1, 2, ...")
        names = [numbers[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise UserError(f"{path}: names", "are not names", found=repr(names)[:200], expected="a list of names")
    return [class_name(name, f"{path}: names[{index}]") for index, name in enumerate(names)]


def _check_count(path: Path, count: Any, names: list[str]) -> None:
    if count is not None and names and whole(count) != len(names):
        raise UserError(
            f"{path}: nc",
            "is not the number of names",
            found=f"nc: {count}, and {len(names)} names: {shortly(names)}",
            expected="a name for each class",
            hint="correct nc or names",
        )


def _one_place(tree: Tree, path: Path, key: str, value: Any) -> str:
    """Return the folder or list of a split; for several folders, their parent, which must not have other images."""
    values = value if isinstance(value, list) else [value]
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    places = [find_place(tree, text) for text in values if isinstance(text, str)]
    folders = [place for place in places if place is not None and not place.endswith(".txt")]
    if values and len(folders) == len(values):
        above = common(folders)
        inside = {parent(image) for image in tree.ending(SUFFIXES) if below(image, above)}
        others = sorted(folder for folder in inside if not any(below(folder, place) for place in folders))
        if not others:
            return above
        raise UserError(
            f"{path}: {key}",
            f"lists {len(folders)} folders, but {above}/ also contains other images",
            found=shortly(others),
            expected="all folders of images below one folder",
            hint="write a list of the images (train.txt) and give its name here, or move the others away",
        )
    raise UserError(
        f"{path}: {key}",
        "is not one folder or list",
        found=repr(value)[:200],
        expected="a folder of images, or several, or a file with one image per line",
        hint="write a list of the images (train.txt) and name that",
    )


def find_place(tree: Tree, text: str) -> str | None:
    """Return the folder or list below the root with the most last parts of `text`, a path of any machine, or None."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    folders = {parent(file) for file in tree.files}
    folders |= {above for folder in folders for above in _above(folder)}
    for first in range(len(parts)):
        place = "/".join(parts[first:])
        found = sorted(folder for folder in folders if folder == place or folder.endswith("/" + place))
        found += [
            file for file in tree.files if place.endswith(".txt") and (file == place or file.endswith("/" + place))
        ]
        if len(found) == 1:
            return found[0]
        if found and place in found:
            return place
    return "." if not parts else None


def _above(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _keypoints(path: Path, shape: Any) -> list[int] | None:
    if shape is None:
        return None
    numbers = [whole(number) for number in shape] if isinstance(shape, list) else []
    plain = [number for number in numbers if number is not None and number > 0]
    if len(plain) != 2 or len(numbers) != 2:
        raise UserError(f"{path}: kpt_shape", "is not two numbers", found=repr(shape), expected="[keypoints, 2 or 3]")
    return plain


def agreed_names(tree: Tree, data_yaml: DataYaml) -> tuple[list[str], Path]:
    """Return the names of classes 0, 1, ..., and the file that has them.

    Raises:
        UserError: no file has names, or two files have different names.
    """
    sources = {**data_yaml.names}
    for file in tree.files:
        last = file.rpartition("/")[2]
        if last.lower() in NAME_FILES or last.lower().endswith(".names"):
            sources[file] = names_in_lines(tree.root / file)
    if not sources:
        folder = tree.root
        raise UserError(
            folder,
            "the classes of the labels have no names",
            found=f"no data.yaml with `names:`, no {CLASS_FILE}, no obj.names",
            expected="a name for each number in the label files",
            hint=f"write {folder / CLASS_FILE}, the name of class 0 in its first line, and so on",
        )
    (first, names), *others = sources.items()
    for file, other in others:
        if other != names:
            raise UserError(
                tree.root / file,
                f"has other class names than {tree.root / first}",
                found=shortly(other),
                expected=shortly(names),
                hint="each class number must have one name: correct or remove one of the two files",
            )
    return names, tree.root / first


def names_in_lines(path: Path) -> list[str]:
    """Return the names in a file, one per line; a blank line is an error, since it would shift the numbers after it."""
    lines = [line.strip() for line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not all(lines):
        number = lines.index("") + 1
        problem = "a blank line among the class names"
        hint = "each line is one class number: name that class, or delete the line if there is none"
        raise UserError(f"{path}:{number}", problem, found="nothing", expected="one name per line", hint=hint)
    if not lines:
        raise UserError(
            path, "has no names of classes", found="nothing", expected="one name per line", hint="write them"
        )
    return [class_name(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
