"""What was found in results: the records as columns, and what a reader of the numbers should know, with its count."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fcos.scoring.columns import Keys
from fcos.scoring.matching import ResultTable


@dataclass(frozen=True)
class Finding:
    """One line: `count` of `total` things of a kind, in words."""

    kind: str
    count: int
    total: int | None
    text: str

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Results before what is unknown is refused or left out."""

    table: ResultTable  # image and label are -1 where they are unknown
    image_keys: Keys  # (D,) as they stand in the file
    class_keys: Keys
    places: list[str] | None  # (D,) where each record stands; None: `[number]` in the file
    findings: list[Finding]


def same_content(digests: Iterable[tuple[str, str]]) -> list[str]:
    """The names that share a digest, "a and b", from pairs of name and digest."""
    names_by: dict[str, list[str]] = {}
    for name, digest in digests:
        names_by.setdefault(digest, []).append(name)
    return [" and ".join(names) for names in names_by.values() if len(names) > 1]
