"""`reports/STUDY/`: the two pages, the tables as CSV, the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcos.config.params import Params
from fcos.data.coco import CocoSplit
from fcos.files import write_text
from fcos.reporting.analysis_figures import draw_analysis
from fcos.reporting.figures import FigureFile, draw_figures, draw_run_figures
from fcos.reporting.page import write_pages
from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import Cell, StudyResults, read_study
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
        frames = {table.stem: table.frame, f"differences/{table.stem}": table.difference_frame()}
        for stem, frame in frames.items():
            if len(frame):
                write_text(out_dir / "tables" / f"{stem}.csv", frame.to_csv(index=False, lineterminator="\n"))
    figures = draw_figures(study, tables, out_dir)
    write_pages(study, tables, figures, _draw_runs(study, tables, out_dir), out_dir)


def _draw_runs(study: StudyResults, tables: Sequence[ReportTable], out_dir: Path) -> list[FigureFile]:
    """Draw each run into figures/runs/; return the analysis of the `trained` table's run, or of the first."""
    drawn = {}
    for name, results in study.runs.items():
        folder = out_dir / "figures" / "runs" / name
        detections = results.detections()  # large, so read once, and one run's at a time
        draw_run_figures(results, study.split, detections, folder)
        drawn[name] = draw_analysis(results.evaluation["analysis"], study.split, detections, folder, name)
    shown = next((table.config.run for table in tables if table.config.kind == "trained"), next(iter(drawn)))
    return [FigureFile(path=path.relative_to(out_dir), caption=caption) for path, caption in drawn[shown]]
