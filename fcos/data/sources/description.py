"""What a source says of its pictures, before anything is checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class SourceBox:
    category: str
    bbox: list[float]  # xywh in pixels, 0-based; in fractions where the picture's are `normalised`
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
    normalised: bool = False  # its boxes are fractions of the picture's width and height, as displayed


@dataclass
class SourceSplit:
    image_dir: Path
    images: list[SourceImage]


@dataclass
class Source:
    categories: list[dict[str, Any]]
    splits: dict[str, SourceSplit]
