"""Pair folders of label files with folders of images, by file names and then by place."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fcos.data.sources.roles import split_in
from fcos.data.sources.tree import num_common
from fcos.errors import UserError


@dataclass(frozen=True)
class Pair:
    """A pair of folders, relative to the folder that is searched."""

    images: str
    labels: str


def pair_folders(images: Iterable[str], labels: Iterable[str], where: Path) -> tuple[list[Pair], list[str]]:
    """Return the label folder of each image folder that has one, and sentences about unused folders."""
    folders = defaultdict(set)
    for image in images:
        folders[stem(image)].add(parent(image))
    counts = Counter[Pair]()
    for label in labels:
        place = parent(label)
        candidates = folders.get(stem(label))
        if candidates:
            counts[Pair(max(sorted(candidates), key=lambda folder: _closeness(folder, place)), place)] += 1
    labelled = defaultdict(list)
    for pair in sorted(counts, key=lambda pair: (pair.images, pair.labels)):
        labelled[pair.images].append(pair)
    chosen, unused = [], []
    for pairs in labelled.values():
        best = _nearest(pairs, where)
        chosen.append(best)
        unused += [
            f"{pair.labels}: not used: the labels of {pair.images} are taken from {best.labels}"
            for pair in pairs
            if pair != best
        ]
    return chosen, unused


def _nearest(pairs: list[Pair], where: Path) -> Pair:
    """Choose a pair: a separate label folder is preferred to labels beside the images, then the closest folder."""
    apart = [pair for pair in pairs if pair.labels != pair.images]
    near = [pair for pair in apart if sum(_closeness(pair.images, pair.labels)) > 0]
    ranked = sorted(near or pairs, key=lambda pair: _closeness(pair.images, pair.labels), reverse=True)
    if len(ranked) > 1 and _closeness(ranked[0].images, ranked[0].labels) == _closeness(
        ranked[1].images, ranked[1].labels
    ):
        raise UserError(
            where / ranked[0].images,
            "two folders hold labels of these images",
            found=f"{ranked[0].labels} and {ranked[1].labels}",
            expected="one",
            hint="move the wrong one away",
        )
    return ranked[0]


def _closeness(first: str, second: str) -> tuple[int, int]:
    """Return what two folders have in common: number of first and last parts, and whether they name the same split."""
    a, b = PurePosixPath(first).parts, PurePosixPath(second).parts
    ends = num_common(a, b) + num_common(a[::-1], b[::-1])
    return ends, int(split_in(first + "/x") == split_in(second + "/x") is not None)


def label_root(image_root: str, pairs: Iterable[Pair]) -> str | None:
    """Return the folder with the labels of `image_root` in the same sub-folders, or None."""
    roots = set()
    for pair in pairs:
        inner = PurePosixPath(pair.images).relative_to(image_root).parts
        outer = PurePosixPath(pair.labels).parts
        if inner and outer[-len(inner) :] != inner:
            return None
        roots.add(PurePosixPath(*outer[: len(outer) - len(inner)]).as_posix())
    return roots.pop() if len(roots) == 1 else None


def image_root(pairs: list[Pair], split: str | None) -> str:
    """Return the folder above the image folders of a split, without sub-folders that the labels have too."""
    above = common(pair.images for pair in pairs)
    labels = common(pair.labels for pair in pairs)
    while (
        above != labels
        and PurePosixPath(above).name == PurePosixPath(labels).name != ""
        and split_in(parent(above) + "/x") == split
    ):
        above, labels = parent(above), parent(labels)
    return above


def common(places: Iterable[str]) -> str:
    """Return the innermost folder that contains all `places`."""
    parts = [PurePosixPath(place).parts for place in places]
    first = parts[0]
    return PurePosixPath(*first[: min(num_common(first, other) for other in parts)]).as_posix()


def parent(name: str) -> str:
    """Return the folder of a relative path with `/`; `.` if it has none."""
    return PurePosixPath(name).parent.as_posix()


def stem(name: str) -> str:
    """Return the file name without folder and ending."""
    return name.rpartition("/")[2].rpartition(".")[0]


def below(place: str, folder: str) -> bool:
    """Return whether `place` is `folder` or in it."""
    return PurePosixPath(place).is_relative_to(folder)
