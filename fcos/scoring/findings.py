"""The content of results: the records as columns, and findings, with counts, that a reader should know."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fcos.scoring.columns import Keys
from fcos.scoring.matching import ResultTable


@dataclass(frozen=True)
class Finding:
    """A finding: `count` of `total` items of a kind, with a sentence about them."""

    kind: str
    count: int
    total: int | None
    text: str

    def json(self) -> dict[str, Any]:
        """Return the entry of the JSON output."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class RawResults:
    """Results before unknown images and classes are refused or left out."""

    table: ResultTable  # image and label are -1 if unknown
    image_keys: Keys  # (D,) as in the file
    class_keys: Keys
    places: list[str] | None  # (D,) place of each record; None: `[number]` in the file
    findings: list[Finding]


def same_content(digests: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names that share a digest, as "a and b", given pairs of name and digest."""
    names_by: dict[str, list[str]] = {}
    for name, digest in digests:
        names_by.setdefault(digest, []).append(name)
    return [" and ".join(names) for names in names_by.values() if len(names) > 1]
