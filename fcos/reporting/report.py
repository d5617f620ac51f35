"""Write `reports/STUDY/`: the two pages, the tables as CSV, and the figures."""

from dataclasses import replace
from pathlib import Path

from fcos.config.params import Params
from fcos.data.coco import CocoSplit
from fcos.data.images_beside import with_sizes
from fcos.files import write_text
from fcos.progress import track
from fcos.records import Manifest
from fcos.reporting.charts import run_charts, study_charts, table_charts
from fcos.reporting.figures import draw_run_images
from fcos.reporting.gallery import Gallery
from fcos.reporting.page import write_pages
from fcos.reporting.results import Cell, StudyResults, read_study
from fcos.reporting.tables import build_table, run_frame


def build_report(params: Params, *, runs_dir: Path, split: CocoSplit, manifest: Manifest, out_dir: Path) -> None:
    """Write index.html, report.md, tables/ and figures/ into `out_dir`.

    Args:
        runs_dir: the folder with a folder for each run; only runs of `params` are read.
        split: the test split that the runs were scored on.
        manifest: the manifest of the prepared data.
        out_dir: links to the files of the runs are relative to it.

    Raises:
        UserError: a file is missing, or belongs to another run, data, weights or setting than its cell.
    """
    study = read_study(params, runs_dir, split, manifest)
    tables = [build_table(number, config, study) for number, config in enumerate(params.tables, start=1)]
    for name, results in study.runs.items():
        study.check(results, "evaluation.json", Cell("Appendix", name, "weights"))
    for name, given in study.given.items():
        study.check_given(given, Cell("Appendix", name, "results"))
    for table in tables:
        frames = {table.stem: table.frame, f"differences/{table.stem}": table.difference_frame()}
        for stem, frame in frames.items():
            if len(frame):
                write_text(out_dir / "tables" / f"{stem}.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(out_dir / "tables" / "runs.csv", run_frame(study).to_csv(index=False, lineterminator="\n"))
    charts = [*table_charts(tables), *study_charts(study)]
    for chart in track(charts, "charts", total=len(charts), unit="charts"):
        chart.write(out_dir / "figures")
    write_pages(study, tables, charts, _draw_runs(study, out_dir), out_dir)


def _draw_runs(study: StudyResults, out_dir: Path) -> Gallery | None:
    """Draw each run into figures/runs/, for MLflow and report.md; return the gallery, None without images."""
    split, images = _with_sizes(study.split), study.split.image_dir is not None
    gallery = Gallery(split, [of.evaluation["analysis"]["worst_images"] for of in study.everyone.values()])
    for name, results in track(study.everyone.items(), "figures of runs", total=len(study.everyone), unit="runs"):
        folder = out_dir / "figures" / "runs" / name
        for chart in run_charts({name: results}):
            chart.write_png(folder)
        if images:
            detections = results.detections()  # large, so read once and for one run at a time
            draw_run_images(results, split, detections, folder)
            gallery.add(name, detections)
    return gallery if images else None


def _with_sizes(split: CocoSplit) -> CocoSplit:
    """Return the split with sizes from the images where ground truth does not say them."""
    folder = split.image_dir
    return split if folder is None else replace(split, images=[with_sizes(image, folder) for image in split.images])
