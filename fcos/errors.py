"""The one exception a user's mistake raises, and where two records disagree."""

from collections.abc import Iterable, Mapping
from typing import Any

MISSING = "nothing"


class UserError(Exception):
    """A mistake that the user can fix; the command line prints it and exits with 2.

    Args:
        where: the file, key or argument that is wrong (`params.yaml: train.epochs`).
        problem: what is wrong, in a few words.
        found: what stands there.
        expected: what would have been right.
        hint: what to do about it, a command where one helps.
    """

    def __init__(
        self,
        where: object,
        problem: str,
        *,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        lines = [f"{where}: {problem}"]
        for name, value in (("found", found), ("expected", expected), ("hint", hint)):
            if value is not None:
                lines.append(f"  {name + ':':<10}{value}")
        super().__init__("\n".join(lines))
        self.where, self.problem, self.found, self.expected, self.hint = where, problem, found, expected, hint


def first_difference(
    found: Mapping[str, object], expected: Mapping[str, object], prefix: str = ""
) -> tuple[str, Any, Any] | None:
    """The first expected key (dotted) that is missing or other in `found`, with both values; None where all agree."""
    for key, should in expected.items():
        is_ = found.get(key, MISSING)
        if isinstance(is_, Mapping) and isinstance(should, Mapping):
            inner = first_difference(is_, should, f"{prefix}{key}.")
            if inner is not None:
                return inner
        elif is_ != should:
            return f"{prefix}{key}", is_, should
    return None


def names_of(items: Iterable[object], *, shown: int = 5) -> str:
    """The first few, and that there are more."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:shown]) + (", ..." if len(listed) > shown else "")
