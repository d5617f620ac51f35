"""`fcos source`: link the data and checkpoints of a study on this machine, so that DVC notices when they change."""

from pathlib import Path

from fcos.config.data import DataConfig
from fcos.config.results import ResultsConfig, files_of, parse_results
from fcos.config.runs import Run, parse_runs
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.config.test import TestConfig
from fcos.errors import UserError
from fcos.files import in_project, write_text
from fcos.progress import say
from fcos.study.layout import Layout
from fcos.study.places import fetch, link_places, make_link, place_root
from fcos.study.selection import selection_key
from fcos.study.source_index import Changes, held_out_digest, write_index

TRAINED = "no checkpoint: this run is trained\n"
MISSING = "no such file on this machine\n"
NONE = "README"  # DVC warns about an empty folder
LAST = "nothing picks the weights: those of the last step are kept\n"


def source(at: Path | None = None) -> Changes | None:
    """Link the source of the study; return the changes since the previous call, or None if there was none.

    Args:
        at: the folder of the data on this machine, to which `data.root` becomes a link; None: keep `data.root`.

    Raises:
        UserError: a file is missing or is not a regular file (a pipe, a dangling link).
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
    _link_results(layout, parse_results(params))
    changes = write_index(layout)
    _note_selections(layout, runs, parse_section(params, "test", TestConfig))
    return changes


def _link_checkpoints(layout: Layout, runs: dict[str, Run]) -> None:
    """Write for each run a link to its checkpoint or start weights, or a file that states that there are none."""
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


def _link_results(layout: Layout, results: dict[str, ResultsConfig]) -> None:
    """Write for each entry of `results` a folder with a link to each of its files, named 1, 2, ...

    A file that is missing stops `fcos results` and the report, but no training.
    """
    folder = layout.source / "results"
    places = {folder / file.place: file for file in files_of(results)}
    for link, file in places.items():
        if (path := in_project(file.path)).is_file():
            make_link(link, path)
        else:
            say(f"params.yaml: results.{file.entry}.files: no such file: {file.path}")
            link.unlink(missing_ok=True)
            write_text(link, MISSING)
    for left in [*folder.glob("*/*")]:
        if left not in places:
            left.unlink()
    for left in [path for path in folder.glob("*") if path.name not in {*results, NONE}]:
        left.rmdir()
    write_text(folder / NONE, "links to the files of `results`, if params.yaml has any\n")


def _note_selections(layout: Layout, runs: dict[str, Run], test: TestConfig) -> None:
    """Write for each run a file that changes with the data and settings that select its weights, for DVC."""
    folder = layout.source / "selection"
    selecting = {name for name, run in runs.items() if run.train.selects and run.checkpoint is None}
    key = selection_key(held_out_digest(layout), test) if selecting else ""  # it reads the index of all files
    for name in runs:
        write_text(folder / name, f"{key}\n" if name in selecting else LAST)
    _drop_others(folder, runs)


def _drop_others(folder: Path, runs: dict[str, Run]) -> None:
    if not runs:
        write_text(folder / NONE, "nothing is trained in this study\n")
    for left in folder.iterdir():
        if left.name not in (runs or {NONE}):
            left.unlink()


def _file_of(run: Run) -> tuple[str, str | None]:
    """Return the key and value of the run's checkpoint, or otherwise of the file that its backbone starts from."""
    if run.checkpoint is not None:
        return f"runs.{run.name}.checkpoint", run.checkpoint
    return "model.weights", run.model.weights_file
