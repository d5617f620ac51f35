"""The tables of the report: one function for each kind of `tables`, numbers in percent and in full precision."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fcos.config.params import rows_of
from fcos.config.runs import Run
from fcos.config.tables import NmsTable, ReferenceTable, RunsTable, Table, TrainedTable, TtaTable
from fcos.reporting.results import METRICS, Cell, RunResults, StudyResults

RELATIVE_CHANGE = "relative change (%)"
SPREAD = "s.d. of AP"
DASH = "—"
NO_INTERVAL = "No confidence interval is attached to these differences yet: any of them may be chance."
Row = dict[str, Any]
_DECIMALS = {**dict.fromkeys(METRICS, 1), SPREAD: 2, "test time (s)": 1, "ms/image": 1, "training time (s)": 1}


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """A table with what is said of it.

    `frame` has the row's label, `source` (ours, published, difference), the metrics, more columns of this kind, the
    runs that each row comes from and the first ten digits of their weights' sha256.
    """

    number: int
    config: Table
    frame: pd.DataFrame
    statement: str
    results: list[RunResults]

    @property
    def name(self) -> str:
        return f"Table {self.number}"

    @property
    def stem(self) -> str:
        """File name without its ending; titles are free text."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.config.title.lower()).strip("-")
        return f"{self.number}-{slug or self.config.kind}"

    @property
    def label(self) -> str:
        """Name of the first column."""
        return str(self.frame.columns[0])

    @property
    def sources(self) -> list[str]:
        return list(self.frame["source"])

    @property
    def run_names(self) -> str:
        return ", ".join(results.run.name for results in self.results)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the numbers."""
        notes = []
        if SPREAD in self.frame:
            notes.append(f"Rows with n > 1 are means over n seeds; {SPREAD} is their sample standard deviation.")
        if "difference" in self.sources or self.sources.count("ours") > 1:
            notes.append(NO_INTERVAL)
        return notes

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text: one decimal, a dash for what COCO does not define, signs on differences."""
        rows = [_display(row, self.label) for row in self.frame.to_dict("records")]
        header = [column for column in self.frame.columns if column != "source"]
        return header, [[row[column] for column in header] for row in rows]


def build_table(number: int, config: Table, study: StudyResults) -> ReportTable:
    """The table that `config` describes; every file that a row comes from is checked first.

    Raises:
        UserError: names table, row, cell, found and expected where a file is not what the row stands for.
    """
    where = f"Table {number} ({config.title})"
    if isinstance(config, ReferenceTable):
        rows, results, statement = _reference(where, study)
    elif isinstance(config, TrainedTable):
        rows, results, statement = _trained(where, config, study)
    elif isinstance(config, TtaTable):
        rows, results, statement = _tta(where, config, study)
    elif isinstance(config, NmsTable):
        rows, results, statement = _nms(where, config, study)
    else:
        rows, results, statement = _runs(where, config, study)
    # As objects: a column with a dash in it would turn counts into floats.
    frame = pd.DataFrame(_with_published(rows, config.published), dtype=object)
    return ReportTable(number=number, config=config, frame=frame, statement=statement, results=results)


Parts = tuple[list[Row], list[RunResults], str]


def _reference(where: str, study: StudyResults) -> Parts:
    results = next(results for results in study.runs.values() if results.run.role == "reference")
    run = results.run
    study.check(results, "evaluation.json", Cell(where, run.backbone, "AP to APl"))
    timing = results.timing["views"]["test"]
    more = {"test time (s)": timing["seconds"], "ms/image": timing["ms_per_image"]}
    row = _row("backbone", run.backbone, _percent(results.metrics), [results], more)
    imported = results.train["imported_from"]
    if imported is not None:
        what = f"an imported checkpoint ({imported})"
    else:
        what = f"an independent training of this study, with seed {run.seed}"
    time = "Times are wall times from files on disk to candidates before NMS"
    return [row], [results], f"The reference is {what}. {time}, over {timing['num_images']} pictures."


def _trained(where: str, config: TrainedTable, study: StudyResults) -> Parts:
    results = study.runs[config.run]
    run = results.run
    study.check(results, "evaluation.json", Cell(where, run.backbone, "AP to APl"))
    more = {"epochs": run.epochs, "training time (s)": results.training_s}
    row = _row("backbone", run.backbone, _percent(results.metrics), [results], more)
    warmup = run.train.warmup_epochs
    statement = (
        f"One training: {run.backbone}, num_convs {run.num_convs}, seed {run.seed}, "
        f"{run.epochs or 'no'} epochs after {warmup} of warm-up."
    )
    return [row], [results], statement


def _tta(where: str, config: TtaTable, study: StudyResults) -> Parts:
    results = study.runs[config.run]
    study.check(results, "evaluation.json", Cell(where, "1 view", "AP to APl"))
    sizes = study.params.tta.sizes
    study.check(results, "tta.json", Cell(where, _views(len(sizes)), "AP to APl"))
    last = results.tta["steps"][-1]
    one, all_views = _percent(results.metrics), _percent(last["metrics"])
    change = {metric: _relative(one[metric], all_views[metric]) for metric in METRICS}
    labels = {"1 view": one, _views(last["num_views"]): all_views, RELATIVE_CHANGE: change}
    rows = [_row("views", label, metrics, [results]) for label, metrics in labels.items()]
    statement = (
        f"What varies: the number of views. What is fixed: the weights of {results.run.name}. 1 view has a shorter "
        f"side of {study.params.test.size} pixels, {_views(len(sizes))} have {', '.join(map(str, sizes))}."
    )
    return rows, [results], statement


def _views(count: int) -> str:
    return f"{count} views"


def _nms(where: str, config: NmsTable, study: StudyResults) -> Parts:
    results = study.runs[config.run]
    rows = []
    for step in results.nms_sweep["steps"]:
        label = f"{step['nms_iou_threshold']:g}"
        study.check(results, "nms_sweep.json", Cell(where, label, "AP to APl"))
        rows.append(_row("NMS IoU", label, _percent(step["metrics"]), [results]))
    return rows, [results], f"What varies: the NMS threshold. What is fixed: the candidates of {results.run.name}."


def _runs(where: str, config: RunsTable, study: StudyResults) -> Parts:
    repeats: dict[str, list[RunResults]] = {}
    for run in rows_of(config, study.params.runs):
        study.check(study.runs[run.name], "evaluation.json", Cell(where, str(getattr(run, config.vary)), "AP to APl"))
        repeats.setdefault(_but_for_the_seed(run), []).append(study.runs[run.name])
    repeated = any(len(group) > 1 for group in repeats.values())
    rows = []
    for group in repeats.values():
        metrics = [_percent(results.metrics) for results in group]
        mean = {metric: _mean([of_seed[metric] for of_seed in metrics]) for metric in METRICS}
        more: Row = {"n": len(group)}
        if repeated:
            more[SPREAD] = _spread([of_seed["AP"] for of_seed in metrics])
        label = str(getattr(group[0].run, config.vary))
        rows.append(_row(config.vary, label, mean, group, more))
    results = [results for group in repeats.values() for results in group]
    return rows, results, _what_varies(config, [of_run.run for of_run in results])


def _but_for_the_seed(run: Run) -> str:
    """What repeats of one row have in common."""
    return repr({key: value for key, value in run.identity().items() if key not in ("name", "seed")})


def _what_varies(config: RunsTable, runs: Sequence[Run]) -> str:
    fixed = ", ".join(f"{key} {value}" for key, value in config.where.items())
    settings = [flatten(run.identity()) for run in runs]
    ignored = ("name", "seed", config.vary)
    others = [key for key in differing(settings) if key not in ignored]
    rest = f"The rows also differ in {', '.join(others)}." if others else "All other settings are the same."
    return f"What varies: {config.vary}. What is fixed: {fixed or 'nothing by name'}. {rest}"


def flatten(value: Mapping[str, Any], prefix: str = "") -> Row:
    """Nested settings by dotted key."""
    flat: Row = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def differing(settings: Sequence[Row]) -> list[str]:
    """Keys on which flat settings disagree."""
    keys = dict.fromkeys(key for of_run in settings for key in of_run)
    return [key for key in keys if any(of_run.get(key) != settings[0].get(key) for of_run in settings)]


def _row(name: str, label: str, metrics: Row, results: Sequence[RunResults], more: Row | None = None) -> Row:
    runs = ", ".join(of_run.run.name for of_run in results)
    weights = ", ".join(of_run.weights[:10] for of_run in results)
    return {name: label, "source": "ours", **metrics, **(more or {}), "run": runs, "weights": weights}


def _with_published(rows: list[Row], published: Mapping[str, Sequence[float | None]]) -> Iterable[Row]:
    """Each row with its published numbers and the difference below; a published row without ours comes last."""
    name = next(iter(rows[0]))
    theirs = {label: dict(zip(METRICS, values, strict=True)) for label, values in published.items()}
    for row in rows:
        yield row
        if row[name] in theirs:
            of_label = theirs[row[name]]
            yield {name: row[name], "source": "published", **of_label}
            difference = {metric: _minus(row[metric], of_label[metric]) for metric in METRICS}
            yield {name: row[name], "source": "difference", **difference}
    ours = [row[name] for row in rows]
    yield from ({name: label, "source": "published", **of} for label, of in theirs.items() if label not in ours)


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _percent(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    fractions = {metric: metrics[metric] for metric in METRICS}
    return {metric: None if value is None else 100 * value for metric, value in fractions.items()}


def _relative(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or before == 0 else 100 * (after - before) / before


def _mean(values: Sequence[float | None]) -> float | None:
    """None where any is: a mean over fewer seeds than the row says would be another number."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) == len(values) > 1 else None


def _display(row: Mapping[Any, Any], label: str) -> dict[str, str]:
    suffix = {"ours": "", "published": " (published)", "difference": " (ours - published)"}[row["source"]]
    signed = row["source"] == "difference" or row[label] == RELATIVE_CHANGE
    shown = {str(column): _text(value, column, signed) for column, value in row.items()}
    if suffix:
        shown |= {column: "" for column in shown if column not in METRICS}
    return {**shown, label: f"{row[label]}{suffix}"}


def _text(value: Any, column: str, signed: bool) -> str:
    if value is None or pd.isna(value):
        return DASH
    if column not in _DECIMALS:
        return str(value)
    # Adding zero turns -0.0, which would print its sign, into 0.0.
    rounded = round(value, _DECIMALS[column]) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{_DECIMALS[column]}f}"
