"""`fcos source`: what a study is made from, found on this machine and linked, so that DVC sees when it changes."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.commands.layout import Layout
from fcos.commands.places import SLOTS, fetch, link_places, make_link, place_root
from fcos.config.data import DataConfig
from fcos.config.runs import Run, parse_runs
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.errors import UserError
from fcos.files import in_project, read_json, sha256_file, write_json, write_text

TRAINED = "no checkpoint: this run is trained\n"
NAMED = 3  # changed files that are named
# Files of images are told apart by size and time alone: to read them all takes as long as preparing them.
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".npy"})
Index = dict[str, list[Any]]  # by slot/path: size, time of change in ns, and of annotations the sha256


@dataclass(frozen=True)
class Changes:
    """Files of the source that differ from those that were linked last."""

    changed: list[str]
    new: list[str]
    gone: list[str]

    def __bool__(self) -> bool:
        return bool(self.changed or self.new or self.gone)

    def __str__(self) -> str:
        named = [*self.changed, *self.new, *self.gone]
        names = ", ".join([*named[:NAMED], *([f"and {len(named) - NAMED} more"] if len(named) > NAMED else [])])
        counts = f"{_files(len(self.changed))} changed, {len(self.new)} new, {len(self.gone)} gone"
        return f"{counts} ({names})" if named else counts


def changed_text(changes: Changes) -> str:
    """What changed, and what runs because of it."""
    return f"the source changed: {changes}; prepare runs, and what reads a split that it changes"


def source(at: Path | None = None) -> Changes | None:
    """Link the source of the study; return what changed since it was linked last, or None where it was not.

    Args:
        at: the folder of the data on this machine, of which `data.root` becomes a link; None: `data.root` as it is.

    Raises:
        UserError: something is missing, or there is something that is no file (a pipe, a dangling link).
    """
    params = read_params()
    config: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
    layout = Layout(parse_section(params, "study", Name))
    if at is not None:
        place_root(config, at)
    fetch(config)
    link_places(config, layout)
    _link_checkpoints(layout, parse_runs(params))
    before, now = _read_index(layout), _index(layout)
    write_json(_index_path(layout), now, indent=None)
    return None if before is None else _differences(before, now)


def source_changes(layout: Layout) -> Changes | None:
    """What of the source differs from what was linked last; None where nobody knows."""
    before = _read_index(layout)
    try:
        return None if before is None else _differences(before, _index(layout, before))
    except (OSError, UserError):  # it is away
        return None


def _link_checkpoints(layout: Layout, runs: dict[str, Run]) -> None:
    """A link to the file that each run comes or starts from, or a file that says that there is none."""
    folder = layout.source / "checkpoints"
    for name, run in runs.items():
        link = folder / name
        key, path = _file_of(run)
        if path is None:
            if link.is_symlink() or not link.exists():
                link.unlink(missing_ok=True)
                write_text(link, TRAINED)
        elif not (file := in_project(path)).is_file():
            raise UserError(f"params.yaml: {key}", "no such file", found=path, expected="a file of weights")
        else:
            make_link(link, file)
    for left in folder.iterdir():
        if left.name not in runs:
            left.unlink()


def _file_of(run: Run) -> tuple[str, str | None]:
    """The key that names the run's checkpoint, or else the file that its backbone starts from, and that file."""
    if run.checkpoint is not None:
        return f"runs.{run.name}.checkpoint", run.checkpoint
    return "model.weights", run.model.weights_file


def _index(layout: Layout, known: Index | None = None) -> Index:
    """Size, time and, of annotations, digest of each file of the source; digests of files as in `known` are taken."""
    index: Index = {}
    for slot in SLOTS:
        for path, status in _walk(layout.source / slot):
            name = str(path.relative_to(layout.source))
            entry = [status.st_size, status.st_mtime_ns]
            earlier = (known or {}).get(name)
            if earlier and earlier[:2] == entry:
                index[name] = earlier
            elif path.suffix.lower() in _IMAGES:
                index[name] = entry
            else:
                index[name] = [*entry, sha256_file(path)]
    return index


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files at and below `top`, as DVC sees them: through a link at `top`, not through links to folders below."""
    paths = [top] if top.is_file() else (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise UserError(path, "is a link to nothing", found=path.readlink(), do="take it away") from None
        if not stat.S_ISREG(status.st_mode):
            raise UserError(path, "is not a file", expected="images and annotations only", do="take it away")
        yield path, status


def _differences(before: Index, now: Index) -> Changes:
    both = [name for name in now if name in before]
    return Changes(
        changed=[name for name in both if _differs(before[name], now[name])],
        new=[name for name in now if name not in before],
        gone=[name for name in before if name not in now],
    )


def _differs(one: list[Any], other: list[Any]) -> bool:
    digests = one[2:], other[2:]
    return digests[0] != digests[1] if all(digests) else one != other


def _read_index(layout: Layout) -> Index | None:
    try:
        index = read_json(_index_path(layout), do="fcos source")
    except UserError:
        return None
    return index if isinstance(index, dict) else None


def _index_path(layout: Layout) -> Path:
    return layout.source / "index.json"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
