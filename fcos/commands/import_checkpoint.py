"""`fcos import-checkpoint FILE --run RUN`: import the weights of a run from a file instead of training it."""

from pathlib import Path

from fcos.config.runs import find_run, parse_runs
from fcos.config.section import read_params
from fcos.data.coco import read_split
from fcos.study.importing import import_run
from fcos.study.layout import Layout


def import_checkpoint(source: Path, name: str) -> Path:
    """Write the files of a training from `source`; return the path of the weights."""
    run = find_run(parse_runs(read_params()), name)
    layout = Layout(run.study)
    import_run(source, run, read_split(layout.data, "train"))
    return layout.weights(name)
