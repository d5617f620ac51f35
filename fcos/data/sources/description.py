"""The description of a source's images before any check."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fcos.data.sources.tree import Tree, walk
from fcos.errors import UserError


@dataclass
class SourceBox:
    """A box as annotated."""

    category: str
    bbox: list[float]  # xywh in pixels from 0, or in fractions if the image is `normalised`
    area: float | None = None  # in pixels squared; None = width * height
    ignored: bool = False  # neither object nor background: a crowd region, or `difficult: ignore`
    extra: dict[str, Any] = field(default_factory=dict)  # copied to the JSON


@dataclass
class SourceImage:
    """An image with its boxes as annotated."""

    path: Path
    file_name: str  # relative to the split's image_dir
    described_in: Path  # the file with its boxes, for messages
    image_id: int | None  # None = assigned later
    size: tuple[int, int] | None  # (height, width) as annotated
    boxes: list[SourceBox]
    odd: list[str] = field(default_factory=list)  # suspicious properties for the manifest
    normalised: bool = False  # whether its boxes are fractions of the displayed image's width and height
    original_id: Any = None  # id in the annotations, if `image_id` differs
    record: dict[str, Any] = field(default_factory=dict)  # its entry in COCO JSON
    group: str | None = None  # group of related images


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
