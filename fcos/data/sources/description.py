"""The description of a source's images before any check."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fcos.data.sources.tree import Tree, walk
from fcos.errors import UserError

_NO_RECORD: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SourceBox:
    """A box as annotated."""

    category: str
    bbox: list[float]  # xywh in pixels from 0, or in fractions if the image is `normalised`
    area: float | None = None  # in pixels squared; None = width * height
    ignored: bool = False  # neither object nor background: a crowd region, or `difficult: ignore`
    extra: dict[str, Any] = field(default_factory=dict)  # copied to the JSON


class Boxes:
    """The boxes of an image, in about 40 bytes each, where a `SourceBox` takes 400.

    Example:
        >>> boxes = Boxes([SourceBox("dog", [1, 2, 30, 40]), SourceBox("cat", [5, 6, 7, 8], ignored=True)])
        >>> boxes.xywh.tolist(), boxes.categories, [box.ignored for box in boxes]
        ([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 7.0, 8.0]], ['dog', 'cat'], [False, True])
    """

    __slots__ = ("_numbers", "_rare", "categories")

    def __init__(self, boxes: Iterable[SourceBox] = ()) -> None:
        self._numbers = array("d")
        self.categories: list[str] = []
        # (area, ignored, extra) by place, where a box has other values than the defaults
        self._rare: dict[int, tuple[float | None, bool, dict[str, Any]]] | None = None
        for box in boxes:
            self.append(box)

    def append(self, box: SourceBox) -> None:
        """Add a box at the end."""
        if box.area is not None or box.ignored or box.extra:
            self._rare = self._rare or {}
            self._rare[len(self.categories)] = box.area, box.ignored, box.extra
        self._numbers.extend(box.bbox)
        self.categories.append(box.category)

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, place: int) -> SourceBox:
        place = range(len(self))[place]
        bbox = self._numbers[4 * place : 4 * place + 4].tolist()
        rare = (self._rare or {}).get(place)
        category = self.categories[place]
        return SourceBox(category, bbox) if rare is None else SourceBox(category, bbox, *rare)

    def __iter__(self) -> Iterator[SourceBox]:
        return map(self.__getitem__, range(len(self)))

    @property
    def xywh(self) -> NDArray[np.float64]:
        """(M, 4): the numbers of all boxes."""
        return np.array(self._numbers).reshape(-1, 4)

    def moved(self, xywh: NDArray[np.float64]) -> "Boxes":
        """Return the same boxes with other numbers, (M, 4)."""
        moved = self._copy()
        moved._numbers = array("d", np.ascontiguousarray(xywh, dtype=np.float64).tobytes())
        return moved

    def renamed(self, names: Mapping[str, str]) -> "Boxes":
        """Return the boxes whose category is among `names`, with the category of that name."""
        if not all(category in names for category in self.categories):
            return Boxes(box for box in self if box.category in names).renamed(names)
        renamed = self._copy()
        renamed.categories = [names[category] for category in self.categories]
        return renamed

    def _copy(self) -> "Boxes":
        copied = Boxes()
        copied._numbers, copied.categories = self._numbers[:], list(self.categories)
        copied._rare = None if self._rare is None else dict(self._rare)
        return copied


@dataclass(slots=True)
class SourceImage:
    """An image with its boxes as annotated."""

    image_dir: Path  # of the split
    file_name: str  # relative to it
    described_in: Path | str  # the file with its boxes, for messages
    image_id: int | None  # None = assigned later
    size: tuple[int, int] | None  # (height, width) as annotated
    boxes: Boxes = field(default_factory=Boxes)
    odd: list[str] = field(default_factory=list)  # suspicious properties for the manifest
    normalised: bool = False  # whether its boxes are fractions of the displayed image's width and height
    original_id: Any = None  # id in the annotations, if `image_id` differs
    record: Mapping[str, Any] = field(default_factory=lambda: _NO_RECORD)  # its entry in COCO JSON
    group: str | None = None  # group of related images

    @property
    def path(self) -> Path:
        """The image's file."""
        return self.image_dir / self.file_name


@dataclass
class SourceSplit:
    """The images of a split."""

    image_dir: Path
    images: list[SourceImage]


class Damaged(UserError):
    """An unusable image, annotation or line, which `data.damaged: leave-out` leaves out."""

    @property
    def entry(self) -> dict[str, str]:
        """The entry for the manifest."""
        found = "" if self.found is None else str(self.found)[:200]
        return {"where": str(self.where), "problem": self.problem, "found": found}

    @classmethod
    def of(cls, error: UserError) -> "Damaged":
        """Convert `error` to an error about a single item."""
        damaged = cls(error.where, error.problem, found=error.found, expected=error.expected, hint=error.hint)
        damaged.args = error.args
        return damaged


@dataclass
class Seen:
    """Damaged items, and the counts of what readers have corrected or left out."""

    damaged: list[Damaged] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # description -> count
    notes: list[str] = field(default_factory=list)  # sentences

    def walk(self, folder: Path) -> Tree:
        """Return the files of `folder` and count what was left out or followed."""
        tree = walk(folder)
        self.counts["hidden files and folders, left out"] += tree.num_hidden
        self.counts["links that lead out of their folder, followed"] += tree.num_leaving
        self.counts["links to a folder above themselves, left out"] += tree.num_loops
        return tree

    def item(self) -> "Seen":
        """Return a context manager in which a damaged item ends the block, but not the reading."""
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Damaged):
            self.damaged.append(error)
            return True
        return False


# Format of boxes in the files; `corners` are 1-based and inclusive, `center` are fractions of the image.
BoxFormat = Literal["xywh", "corners", "center"]


@dataclass
class Source:
    """A data set as annotated, in any format, before it is checked."""

    categories: list[dict[str, Any]]
    splits: dict[str, SourceSplit]
    box_format: BoxFormat = "xywh"
    seen: Seen = field(default_factory=Seen)
