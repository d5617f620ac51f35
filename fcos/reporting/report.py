"""`reports/STUDY/`: the two pages, the tables as CSV, the figures."""

from pathlib import Path
from typing import Any

from fcos.config.params import Params
from fcos.data.coco import CocoSplit
from fcos.files import write_text
from fcos.reporting.figures import draw_figures
from fcos.reporting.page import write_pages
from fcos.reporting.results import Cell, read_study
from fcos.reporting.tables import build_table


def build_report(params: Params, *, runs_dir: Path, split: CocoSplit, manifest: dict[str, Any], out_dir: Path) -> None:
    """Write index.html, report.md, tables/ and figures/ into `out_dir`.

    Args:
        runs_dir: the folder with a folder for each run; only runs of `params` are read.
        split: the test split that the runs were scored on.
        manifest: of the prepared data.
        out_dir: links to the files of the runs are relative to it.

    Raises:
        UserError: a file is missing, or is of another run, data, weights or setting than a cell stands for.
    """
    study = read_study(params, runs_dir, split, manifest)
    tables = [build_table(number, config, study) for number, config in enumerate(params.tables, start=1)]
    for name, results in study.runs.items():
        study.check(results, "evaluation.json", Cell("Appendix", name, "weights"))
    for table in tables:
        write_text(out_dir / "tables" / f"{table.stem}.csv", table.frame.to_csv(index=False, lineterminator="\n"))
    figures = draw_figures(study, tables, out_dir)
    write_pages(study, tables, figures, out_dir)
