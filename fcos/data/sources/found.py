"""The results of layout detection."""

from dataclasses import dataclass, field
from typing import Any

from fcos.errors import UserError


@dataclass(frozen=True)
class Discovered:
    """A data set found in a folder, and the settings that read it."""

    layout: str  # VOC, COCO or YOLO, and its place
    data: dict[str, Any]  # the section `data` with source, root and splits, but no settings that all layouts share
    assumed: list[str]  # sentences
    unused: list[str] = field(default_factory=list)  # sentences about unused files, with the reason


@dataclass(frozen=True)
class LayoutMatch:
    """The result for one layout: the folder in that layout, if it fits, and annotation files outside of the layout."""

    discovered: Discovered | None = None
    seen: list[str] = field(default_factory=list)
    broken: UserError | None = None  # why an annotation file cannot be read
