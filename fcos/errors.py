"""The exception for a user's mistake, and helpers for its message."""

from collections.abc import Iterable, Mapping
from typing import Any

from fcos.visible import visible_line

MISSING = "nothing"


class UserError(Exception):
    """A mistake that the user can fix; the command line prints it and exits with code 2.

    Further lines of a problem and of a value are indented further than the fields, so that no file name can forge one.

    Args:
        where: the file, key or argument that is wrong (`params.yaml: train.epochs`).
        problem: what is wrong, in a few words.
        found: the value that was found.
        expected: what a correct value looks like.
        hint: what to do about it, if possible a command.
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
        lines = [f"{visible_line(str(where))}: {_indented(problem, 4)}"]
        for name, value in (("found", found), ("expected", expected), ("hint", hint)):
            if value is not None:
                lines.append(f"  {name + ':':<10}{_indented(str(value), 12)}")
        super().__init__("\n".join(lines))
        self.where, self.problem, self.found, self.expected, self.hint = where, problem, found, expected, hint


def _indented(text: str, width: int) -> str:
    first, *others = text.split("\n")
    return "\n".join([first, *(line if line.startswith(" " * width) else " " * width + line for line in others)])


def first_difference(
    found: Mapping[str, object], expected: Mapping[str, object], prefix: str = ""
) -> tuple[str, Any, Any] | None:
    """Return the first expected key (dotted) that is missing or different in `found`, with both values, or None."""
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
    """Join the first `shown` items with commas; a trailing "..." stands for the rest."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:shown]) + (", ..." if len(listed) > shown else "")
