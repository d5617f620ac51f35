"""`fcos report`: write all tables and figures of the study from the files of its runs."""

from pathlib import Path

from fcos.config import params
from fcos.data.coco import read_manifest, read_split
from fcos.files import whole_dir
from fcos.reporting.report import build_report
from fcos.study.layout import Layout


def report() -> Path:
    """Write reports/STUDY/ completely or not at all; return its page."""
    study = params.read()
    layout = Layout(study.study)
    split = read_split(layout.data, "test")
    manifest = read_manifest(layout.data)
    with whole_dir(layout.report) as scratch:
        build_report(study, runs_dir=layout.runs, split=split, manifest=manifest, out_dir=scratch)
    return layout.report / "index.html"
