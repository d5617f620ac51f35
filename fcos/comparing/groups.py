"""Images that belong together, such as frames of a film: the bootstrap draws groups of them.

Images of one scene are no independent witnesses. Drawn one by one, ten near copies of each of 20 scenes give intervals
that hold the truth in a third of the cases where 95 % are promised; drawn by scene, in nine of ten.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcos.errors import UserError
from fcos.scoring.findings import Finding, names_of
from fcos.scoring.matching import Ints
from fcos.scoring.truth import Truth

FEW = 10  # groups, below which a bootstrap over them says little
_EXPECTED = (
    "a key of the images, a table FILE of image and group, a number (of characters that file names of a group share), "
    "or a mark such as _ (file names of a group agree before the last one)"
)


@dataclass(frozen=True)
class Groups:
    """The group of each image, as numbers from 0."""

    by: str
    of_image: Ints  # (I,)

    @property
    def count(self) -> int:
        return int(self.of_image.max()) + 1

    def json(self) -> dict[str, Any]:
        return {"by": self.by, "count": self.count}

    def findings(self) -> list[Finding]:
        """A note where there are few groups."""
        if self.count >= FEW:
            return []
        text = f"only {self.count} groups of images: intervals from so few are too narrow"
        return [Finding("few_groups", self.count, len(self.of_image), text)]


def find_groups(truth: Truth, by: str) -> Groups:
    """The groups that `--groups BY` names.

    Raises:
        UserError: an image has no group, nothing is called so, or all images are in one group.
    """
    if Path(by).is_file():
        named = _of_table(truth, Path(by))
    elif by.isdigit() and int(by):
        named = [name[: int(by)] for name in _stems(truth, by)]
    elif len(by) == 1 and not by.isalnum():
        named = [name.rpartition(by)[0] or name for name in _stems(truth, by)]
    else:
        named = _of_key(truth, by)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(named))}
    if len(numbers) < 2:
        raise UserError(f"--groups {by}", "all images are in one group", found=named[0], expected="two groups or more")
    return Groups(by, np.array([numbers[name] for name in named]))


def _stems(truth: Truth, by: str) -> list[str]:
    """The file names without folders and ending."""
    if None in truth.file_names:
        nameless = truth.image_ids[truth.file_names.index(None)]
        raise UserError(f"--groups {by}", "an image has no file name", found=f"image {nameless}", expected=_EXPECTED)
    return [Path(str(name).replace("\\", "/")).stem for name in truth.file_names]


def _of_key(truth: Truth, key: str) -> list[str]:
    without = [number for number, record in enumerate(truth.image_records) if record.get(key) is None]
    if without:
        known = names_of(sorted({name for record in truth.image_records for name in record}))
        found = f"{len(without)} of {truth.num_images} images without `{key}`; keys of images are {known}"
        raise UserError(f"--groups {key}", "is no key of all images", found=found, expected=_EXPECTED)
    return [str(record[key]) for record in truth.image_records]


def _of_table(truth: Truth, path: Path) -> list[str]:
    """Groups by the table's first two columns: an image (id, file name, its last part or stem), and its group."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(path, "is no table", found=error, expected="CSV: image,group") from None
    short = next((number for number, row in enumerate(rows, start=1) if len(row) < 2), None)
    if short is not None:
        raise UserError(f"{path}:{short}", "has one column", found=rows[short - 1][0], expected="image,group")
    group_of = {row[0].strip(): row[1].strip() for row in rows}
    named = [next((group_of[way] for way in ways if way in group_of), None) for ways in _ways(truth)]
    without = [truth.file_names[number] or truth.image_ids[number] for number, name in enumerate(named) if name is None]
    if without:
        found = f"{len(without)} of {truth.num_images} images are not in it: {names_of(without)}"
        raise UserError(path, "does not have every image", found=found, expected="a row image,group for each image")
    return [str(name) for name in named]


def _ways(truth: Truth) -> list[Sequence[str]]:
    """What a table may call each image."""
    return [
        [str(number)] if name is None else [str(number), name, Path(name).name, Path(name).stem]
        for number, name in zip(truth.image_ids, truth.file_names, strict=True)
    ]
