"""The classes of a study: those of the data, or a selection of them, some of which may be merged."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence

from fcos.data.sources.description import Source
from fcos.errors import UserError

Classes = Mapping[str, Sequence[str]]  # class of the study -> its names in the annotations


def chosen(value: Sequence[str | Mapping[str, Sequence[str]]] | Mapping[str, Sequence[str]]) -> Classes:
    """Return `data.classes` as Classes; an entry is a name, or a class with the names that are merged into it."""
    entries = [value] if isinstance(value, Mapping) else value
    pairs = [
        (new, tuple(old))
        for entry in entries
        for new, old in (entry.items() if isinstance(entry, Mapping) else [(entry, [entry])])
    ]
    for names in ([new for new, _ in pairs], [name for _, old in pairs for name in old]):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise UserError("params.yaml: data.classes", "duplicate class name", found=repeated, expected="once")
    return dict(pairs)


def choose_classes(source: Source, classes: Classes | None, *, listed: bool, keep_ids: bool) -> Source:
    """Return `source` with the classes of the study; boxes of other classes are left out and counted.

    Args:
        listed: whether the categories of `source` are complete, so that an unknown class is an error.
        keep_ids: whether a class keeps the id of its (first merged) category; otherwise ids are 1, 2, ...
    """
    if classes is None:
        return source
    by_name = {category["name"]: category for category in source.categories}
    renamed = {name: new for new, old in classes.items() for name in old}
    images = [image for split in source.splits.values() for image in split.images]
    left_out = Counter(name for image in images for name in image.boxes.categories if name not in renamed)
    _refuse_unknown([name for name in renamed if name not in by_name], list(by_name if listed else left_out), listed)
    for image in images:
        image.boxes = image.boxes.renamed(renamed)
    for new, old in classes.items():
        if list(old) != [new]:
            source.seen.notes.append(f"data.classes: {new} is {', '.join(old)}")
    if left_out:
        counted = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        source.seen.notes.append(f"objects left out, since data.classes does not name their class: {counted}")
    source.categories = [
        {**(by_name[old[0]] if keep_ids else {"id": number}), "name": new}
        for number, (new, old) in enumerate(classes.items(), start=1)
    ]
    return source


def _refuse_unknown(missing: list[str], there: list[str], listed: bool) -> None:
    """Raise a UserError for classes that the data lack, if the categories are complete or a name seems misspelt."""
    close = [names[0] for name in missing if (names := difflib.get_close_matches(name, there, n=1))]
    if missing and (listed or close):
        raise UserError(
            "params.yaml: data.classes",
            "no such category",
            found=missing,
            expected=f"some of {there}",
            hint=f"did you mean `{close[0]}`?" if close else "correct data.classes",
        )
