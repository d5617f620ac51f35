"""`fcos source`: what a study is made from, found on this machine and linked, so that DVC sees when it changes."""

from pathlib import Path

from fcos.config.data import DataConfig
from fcos.config.runs import Run, parse_runs
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.config.test import TestConfig
from fcos.errors import UserError
from fcos.files import in_project, write_text
from fcos.study.layout import Layout
from fcos.study.places import fetch, link_places, make_link, place_root
from fcos.study.selection import selection_key
from fcos.study.source_index import Changes, held_out_digest, write_index

TRAINED = "no checkpoint: this run is trained\n"
LAST = "nothing picks the weights: those of the last step are kept\n"


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
    runs = parse_runs(params)
    _link_checkpoints(layout, runs)
    changes = write_index(layout)
    _note_selections(layout, runs, parse_section(params, "test", TestConfig))
    return changes


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
    _drop_others(folder, runs)


def _note_selections(layout: Layout, runs: dict[str, Run], test: TestConfig) -> None:
    """A file for each run that changes with whatever picks its weights, for DVC."""
    folder = layout.source / "selection"
    key = selection_key(held_out_digest(layout), test)
    for name, run in runs.items():
        write_text(folder / name, f"{key}\n" if run.train.selects and run.checkpoint is None else LAST)
    _drop_others(folder, runs)


def _drop_others(folder: Path, runs: dict[str, Run]) -> None:
    for left in folder.iterdir():
        if left.name not in runs:
            left.unlink()


def _file_of(run: Run) -> tuple[str, str | None]:
    """The key that names the run's checkpoint, or else the file that its backbone starts from, and that file."""
    if run.checkpoint is not None:
        return f"runs.{run.name}.checkpoint", run.checkpoint
    return "model.weights", run.model.weights_file
