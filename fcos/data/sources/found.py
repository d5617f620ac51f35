"""What a look at a folder brings."""

from dataclasses import dataclass, field
from typing import Any

from fcos.errors import UserError


@dataclass(frozen=True)
class Discovered:
    layout: str  # VOC, COCO or YOLO, and where
    data: dict[str, Any]  # the section `data` but for what is the same for all: source, root and the splits
    assumed: list[str]  # sentences
    unused: list[str] = field(default_factory=list)  # what was seen and is not used, and why, in sentences


@dataclass(frozen=True)
class Look:
    """What one layout's look found: the folder in that layout or not, and annotation files that do not belong to it."""

    discovered: Discovered | None = None
    seen: list[str] = field(default_factory=list)
    broken: UserError | None = None  # why an annotation file cannot be read
