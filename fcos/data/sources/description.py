"""What a source says of its images, before anything is checked."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fcos.data.sources.tree import Tree, walk
from fcos.errors import UserError


@dataclass
class SourceBox:
    category: str
    bbox: list[float]  # xywh in pixels, 0-based; in fractions where the image's are `normalised`
    area: float | None = None  # None = width * height
    ignored: bool = False  # neither object nor background: a crowd region, or `difficult: ignore`
    extra: dict[str, Any] = field(default_factory=dict)  # kept in the JSON as it is


@dataclass
class SourceImage:
    path: Path
    file_name: str  # relative to the split's image_dir
    described_in: Path  # the file with its boxes, for messages
    image_id: int | None  # None = numbered here
    size: tuple[int, int] | None  # (height, width) as annotated
    boxes: list[SourceBox]
    odd: list[str] = field(default_factory=list)  # what the manifest should mention
    normalised: bool = False  # its boxes are fractions of the image's width and height, as displayed
    original_id: Any = None  # in the annotations, where `image_id` is another
    record: dict[str, Any] = field(default_factory=dict)  # its entry in COCO JSON
    group: str | None = None  # of images that belong together


@dataclass
class SourceSplit:
    image_dir: Path
    images: list[SourceImage]


class Damaged(UserError):
    """One bad image, annotation or line, which `data.damaged: leave-out` leaves out."""

    @property
    def entry(self) -> dict[str, str]:
        """Of the manifest."""
        found = "" if self.found is None else str(self.found)[:200]
        return {"where": str(self.where), "problem": self.problem, "found": found}

    @classmethod
    def of(cls, error: UserError) -> "Damaged":
        """`error` as one about an item."""
        damaged = cls(error.where, error.problem, found=error.found, expected=error.expected, hint=error.hint)
        damaged.args = error.args
        return damaged


@dataclass
class Seen:
    """What readers meet on their way: bad items, and what was put right or left out, counted."""

    damaged: list[Damaged] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # what, in words -> how often
    notes: list[str] = field(default_factory=list)  # sentences

    def walk(self, folder: Path) -> Tree:
        """The files of `folder`; what was left out or followed is counted."""
        tree = walk(folder)
        self.counts["hidden files and folders, left out"] += tree.num_hidden
        self.counts["links that lead out of their folder, followed"] += tree.num_leaving
        self.counts["links to a folder above themselves, left out"] += tree.num_loops
        return tree

    def item(self) -> "Seen":
        """`with seen.item():` a bad item ends the block, not the reading."""
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Damaged):
            self.damaged.append(error)
            return True
        return False


# How the numbers of a box stand in the files; `corners`: 1-based and inclusive, `center`: fractions of the image.
BoxFormat = Literal["xywh", "corners", "center"]


@dataclass
class Source:
    categories: list[dict[str, Any]]
    splits: dict[str, SourceSplit]
    box_format: BoxFormat = "xywh"
    seen: Seen = field(default_factory=Seen)
