"""Find the split of each part of a folder by the words in its name."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fcos.errors import UserError

SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
TEST_FRACTION = 0.2  # share of the images for testing, if there is only one split
T = TypeVar("T")


def split_in(name: str) -> str | None:
    """Return the split that a relative path names, with its last parts first, or None."""
    path = PurePosixPath(name)
    words = (
        word
        for part in (path.stem, *(p for p in reversed(path.parent.parts)))
        for word in re.findall("[a-z]+", part.lower())
    )
    return next((SPLIT_OF[word] for word in words if word in SPLIT_OF), None)


def roles(parts: Mapping[str, T], where: Path) -> tuple[dict[str, T], list[str]]:
    """Return the `parts` (by name) for training, validation and testing, and sentences about assumptions."""
    names: dict[str, str] = {}
    if len(parts) == 1:
        ((name, part),) = parts.items()
        return {"train": part}, [f"{name} is the only split: {held_out()}"]
    for name in parts:
        split = split_in(name)
        if split is None or split in names:
            problem = "two folders for one split" if split else "a folder name that contains no train, val or test"
            expected = "names with train, val (or valid) and test, each once"
            found = f"{name}, {names[split]}" if split else f"{name}, among {shortly(parts)}"
            raise UserError(where, problem, found=found, expected=expected, hint="rename one of them, or move it away")
        names[split] = name
    if "train" not in names:
        found = shortly(parts)
        raise UserError(where, "there is no training split", found=found, expected="one with train in its name")
    assumed = []
    if "test" not in names:
        names["test"] = names.pop("validation")
        assumed = [f"there is no test split, so the study tests on {names['test']}"]
    return {split: parts[name] for split, name in names.items()}, assumed


def fraction(given: Mapping[str, object]) -> dict[str, float]:
    """Return the setting that holds out test images, if no test split is given."""
    return {} if "test" in given else {"test_fraction": TEST_FRACTION}


def held_out() -> str:
    """Return a sentence part about the images that are held out for testing."""
    return f"{TEST_FRACTION:.0%} of its images (chosen by sha256, always the same) become the test split"


def shortly(names: Iterable[object], most: int = 8) -> str:
    """Join names as "a, b, c and 5 more"."""
    texts = list(map(str, names))
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
