"""Name the groups of related images, such as the frames of a video."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.errors import UserError, names_of

EXPECTED = (
    "a key of the image entries, a CSV FILE of image,group, a number N (the first N characters of file names), "
    "or a separator such as _ (the file name up to the last one)"
)


@dataclass(frozen=True)
class Member:
    """An image whose group is to be found."""

    image_id: Any
    file_name: str | None
    record: Mapping[str, Any]  # its entry in the annotation file

    @property
    def names(self) -> list[str]:
        """The names under which a table may list the image."""
        name = self.file_name
        return [str(self.image_id), *([] if name is None else [name, Path(name).name, Path(name).stem])]


def names_table(by: str) -> bool:
    """Whether `by` is a file name and not a rule or a key."""
    return bool(Path(by).suffix)


def group_names(by: str, members: Sequence[Member], where: str, table: Path | None = None) -> list[str]:
    """Return the name of the group of each image.

    Args:
        by: a number, a mark or a key, see `data.groups`; ignored if there is a `table`.
        where: the setting's place, for errors.
        table: a CSV file with images and groups.

    Raises:
        UserError: an image has no group, or all are in one.
    """
    if table is not None:
        named = _of_table(members, table)
    elif by.isdigit() and int(by):
        named = [stem[: int(by)] for stem in _stems(members, where)]
    elif len(by) == 1 and not by.isalnum():
        named = [stem.rpartition(by)[0] or stem for stem in _stems(members, where)]
    else:
        named = _of_key(members, by, where)
    if len(set(named)) < 2:
        raise UserError(where, "all images are in one group", found=named[0], expected="two groups or more")
    return named


def _stems(members: Sequence[Member], where: str) -> list[str]:
    """Return the file names without folder and suffix."""
    nameless = next((member.image_id for member in members if member.file_name is None), None)
    if nameless is not None:
        raise UserError(where, "an image has no file name", found=f"image {nameless}", expected=EXPECTED)
    return [Path(str(member.file_name).replace("\\", "/")).stem for member in members]


def _of_key(members: Sequence[Member], key: str, where: str) -> list[str]:
    without = sum(member.record.get(key) is None for member in members)
    if without:
        known = names_of(sorted({name for member in members for name in member.record})) or "none"
        found = f"{without} of {len(members)} images without `{key}`; keys of images are {known}"
        raise UserError(where, "some images lack it", found=found, expected=EXPECTED)
    return [str(member.record[key]) for member in members]


def _of_table(members: Sequence[Member], path: Path) -> list[str]:
    """Read the groups from a table's first two columns: image (id, file name, its last part or its stem) and group."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except FileNotFoundError:
        raise UserError(path, "no such file; nothing was changed", expected="CSV: image,group") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(path, "is not a table", found=error, expected="CSV: image,group") from None
    short = next((number for number, row in enumerate(rows, start=1) if len(row) < 2), None)
    if short is not None:
        raise UserError(f"{path}:{short}", "has one column", found=rows[short - 1][0], expected="image,group")
    group_of = {row[0].strip(): row[1].strip() for row in rows}
    named = [next((group_of[name] for name in member.names if name in group_of), None) for member in members]
    without = [member.names[-1] for member, name in zip(members, named, strict=True) if name is None]
    if without:
        found = f"{len(without)} of {len(members)} images are not in it: {names_of(without)}"
        raise UserError(path, "does not have every image", found=found, expected="a row image,group for each image")
    return [str(name) for name in named]
