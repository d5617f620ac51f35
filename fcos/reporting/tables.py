"""Build the tables of the report, in percent and full precision, with one function for each kind of `tables`."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fcos.config.params import rows_of
from fcos.config.results import NOT_TRAINED_HERE
from fcos.config.runs import Run
from fcos.config.tables import NmsTable, ReferenceTable, ResultsTable, RunsTable, Table, TrainedTable, TtaTable
from fcos.reporting.report_table import ENDS, RELATIVE_CHANGE, SPREAD, ReportTable, Row
from fcos.reporting.results import Cell, Results, RunResults, StudyResults
from fcos.scoring.average_precision import AP_METRICS
from fcos.scoring.bootstrap import Drawn, Sample, Spread, estimate, pooled_spread
from fcos.scoring.comparison import compare_all
from fcos.scoring.power import needed

_IN_WORDS = {"backbone": "{}", "epochs": "{} epochs", "num_convs": "num_convs {}"}


def build_table(number: int, config: Table, study: StudyResults) -> ReportTable:
    """Return the table that `config` describes, after a check of every file that its rows come from.

    Raises:
        UserError: a file does not belong to its row; names table, row, cell, the value found and the one expected.
    """
    where = f"Table {number} ({config.title})"
    if isinstance(config, ReferenceTable):
        parts = _reference(where, study)
    elif isinstance(config, TrainedTable):
        parts = _trained(where, config, study)
    elif isinstance(config, TtaTable):
        parts = _tta(where, config, study)
    elif isinstance(config, NmsTable):
        parts = _nms(where, config, study)
    elif isinstance(config, ResultsTable):
        parts = _results(where, config, study)
    else:
        parts = _runs(where, config, study)
    confidence = study.params.statistics.confidence
    compared = {name: sample for name, sample in zip(parts.names, parts.samples, strict=True) if name and sample}
    spread = pooled_spread(compared.values())
    rows = [
        _with_interval(row, sample, confidence, spread) if sample else row
        for row, sample in zip(parts.rows, parts.samples, strict=True)
    ]
    # dtype=object, because a column with a missing value would turn counts into floats.
    frame = pd.DataFrame(_with_published(rows, config.published), dtype=object)
    return ReportTable(
        number=number,
        config=config,
        frame=_ends_last(frame),
        statement=parts.statement,
        results=parts.results,
        comparisons=compare_all(
            compared, confidence=confidence, one_network=config.kind in ("tta", "nms"), apart=parts.apart
        ),
        choice=parts.choice,
        power=_power(config, compared, study),
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of a table that depend on its kind."""

    rows: list[Row]
    samples: list[Sample | None]  # one per row
    names: list[str | None]  # name of each row in comparisons; None: not compared with the others
    results: Sequence[Results]
    statement: str
    choice: str | None = None
    apart: Collection[str] = ()  # rows that other tables compare with each other


def run_frame(study: StudyResults) -> pd.DataFrame:
    """Return all runs in one table, one row per run, in percent and full precision; also used by `dvc plots`."""
    rows = []
    for name, results in study.everyone.items():
        interval = results.evaluation["intervals"]["AP"]
        run = results.run if isinstance(results, RunResults) else None
        settings = {key: getattr(run, key, None) for key in ("backbone", "epochs", "num_convs", "seed")}
        rows.append(
            {
                "run": name,
                **(settings if run else {**settings, "backbone": NOT_TRAINED_HERE}),
                **_percent(results.metrics),
                "AP low": _hundredfold(interval["low"]),
                "AP high": _hundredfold(interval["high"]),
                "ms/image": results.ms_per_image,
                "training time (s)": results.training_s,
                "weights": results.digest,
            }
        )
    return pd.DataFrame(rows, dtype=object)


def _reference(where: str, study: StudyResults) -> _Parts:
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
    statement = f"The reference is {what}. {time}, over {timing['num_images']} images."
    return _Parts(rows=[row], samples=[results.evaluated()], names=[None], results=[results], statement=statement)


def _trained(where: str, config: TrainedTable, study: StudyResults) -> _Parts:
    results = study.runs[config.run]
    run = results.run
    study.check(results, "evaluation.json", Cell(where, run.backbone, "AP to APl"))
    more = {"epochs": run.epochs, "training time (s)": results.training_s}
    row = _row("backbone", run.backbone, _percent(results.metrics), [results], more)
    warmup = run.train.warmup_epochs
    statement = (
        f"One training: {run.backbone}, num_convs {run.num_convs}, seed {run.seed}, "
        f"{run.epochs or 'no'} epoch{'' if run.epochs == 1 else 's'} after {warmup} of warm-up."
    )
    return _Parts(rows=[row], samples=[results.evaluated()], names=[None], results=[results], statement=statement)


def _tta(where: str, config: TtaTable, study: StudyResults) -> _Parts:
    results = study.runs[config.run]
    study.check(results, "evaluation.json", Cell(where, "1 view", "AP to APl"))
    tta, sizes = results.tta, study.params.tta.sizes
    label = _views(tta["chosen"])
    study.check(results, "tta.json", Cell(where, label, "AP to APl"))
    one, merged = _percent(results.metrics), _percent(tta["metrics"])
    change = {metric: _relative(one[metric], merged[metric]) for metric in AP_METRICS}
    labels = {"1 view": one, label: merged, RELATIVE_CHANGE: change}
    names = ["1 view", label if label != "1 view" else "1 merged view", None]
    statement = (
        f"What varies: the number of views. What is fixed: the weights of {results.run.name}. 1 view has a shorter "
        f"side of {study.params.test.size} pixels, {label} {'has' if tta['chosen'] == 1 else 'have'} "
        f"{', '.join(map(str, sizes[: tta['chosen']]))}."
    )
    choice = None
    if tta["split"] == "validation":
        choice = (
            f"The number of views ({tta['chosen']} of {len(sizes)}) was chosen on the validation split and "
            "scored once on the test split."
        )
    return _Parts(
        rows=[_row("views", name, metrics, [results]) for name, metrics in labels.items()],
        samples=[results.evaluated(), results.sample("tta.json", "chosen", tta["metrics"]), None],
        names=names,
        results=[results],
        statement=statement,
        choice=choice,
    )


def _views(count: int) -> str:
    return f"{count} views"


def _nms(where: str, config: NmsTable, study: StudyResults) -> _Parts:
    results = study.runs[config.run]
    sweep = results.nms_sweep
    rows, samples = [], []
    names: list[str | None] = []
    for step in sweep["steps"]:
        label = f"{step['nms_iou_threshold']:g}"
        study.check(results, "nms_sweep.json", Cell(where, label, "AP to APl"))
        rows.append(_row("NMS IoU", label, _percent(step["metrics"]), [results], {"scored on": sweep["split"]}))
        samples.append(results.sample("nms_sweep.json", str(step["nms_iou_threshold"]), step["metrics"]))
        names.append(f"IoU {label}")
    chosen = f"{sweep['chosen']:g}"
    if sweep["split"] == "validation":
        rows.append(_row("NMS IoU", f"{chosen}, chosen", _percent(sweep["metrics"]), [results], {"scored on": "test"}))
        samples.append(results.sample("nms_sweep.json", "chosen", sweep["metrics"]))
        names.append(None)  # scored on other images, so it cannot be paired
        choice = f"The threshold {chosen} was chosen on the validation split and scored once on the test split."
    else:
        choice = (
            f"Choosing {chosen} because it scores best here would be tuning on the test set; its AP would be "
            "optimistic. nms_sweep.choose_on: validation chooses on the validation split instead."
        )
    return _Parts(
        rows=rows,
        samples=list(samples),
        names=names,
        results=[results],
        statement=f"What varies: the NMS threshold. What is fixed: the candidates of {results.run.name}.",
        choice=choice,
    )


def _runs(where: str, config: RunsTable, study: StudyResults) -> _Parts:
    repeats: dict[str, list[RunResults]] = {}
    for run in rows_of(config, study.params.runs):
        study.check(study.runs[run.name], "evaluation.json", Cell(where, str(getattr(run, config.vary)), "AP to APl"))
        repeats.setdefault(_but_for_the_seed(run), []).append(study.runs[run.name])
    groups = list(repeats.values())
    labels = [str(getattr(group[0].run, config.vary)) for group in groups]
    repeated = any(len(group) > 1 for group in groups)
    rows, names = [], []
    for label, group in zip(labels, groups, strict=True):
        mean, spread = _of_repeats(group)
        more: Row = {"n": len(group), **({SPREAD: spread} if repeated else {})}
        rows.append(_row(config.vary, label, mean, group, more))
        in_words = _IN_WORDS[config.vary].format(label)
        names.append(in_words if labels.count(label) == 1 else f"{in_words} ({group[0].run.name})")
    results = [results for group in groups for results in group]
    return _Parts(
        rows=rows,
        samples=[_joined([of_seed.evaluated() for of_seed in group]) for group in groups],
        names=list(names),
        results=results,
        statement=_what_varies(config, [of_run.run for of_run in results]),
    )


def _results(where: str, config: ResultsTable, study: StudyResults) -> _Parts:
    """Return a row for each training of `config.runs` and each entry of `results`; repeats share a row."""
    groups: dict[str, list[Results]] = {}
    for name in config.runs:
        study.check(study.runs[name], "evaluation.json", Cell(where, name, "AP to APl"))
        groups.setdefault(_but_for_the_seed(study.runs[name].run), []).append(study.runs[name])
    groups = {group[0].name: group for group in groups.values()}
    for given in study.given.values():
        study.check_given(given, Cell(where, given.name, "AP to APl"))
        groups.setdefault(given.entry, []).append(given)
    repeated = any(len(group) > 1 for group in groups.values())
    rows = [_detector_row(label, group, repeated=repeated) for label, group in groups.items()]
    own = [label for label, group in groups.items() if isinstance(group[0], RunResults)]
    elsewhere, test = len(groups) - len(own), study.params.test
    who = f"{elsewhere} of {len(groups)} detectors" if own else "The detectors"
    ours = (
        f"; runs keep at most {test.max_detections} boxes in an image, with scores from {test.score_threshold:g} on"
        if own
        else ""
    )
    return _Parts(
        rows=rows,
        samples=[_joined([of_seed.evaluated() for of_seed in group]) for group in groups.values()],
        names=list(groups),
        results=[results for group in groups.values() for results in group],
        statement="What varies: the detector. What is fixed: the test images and the metrics. "
        f"{who} were not trained here: how, and on what, is not known here, a time is "
        "that which params.yaml says, and `weights` is the sha256 of their file. Their boxes are taken as they are, up "
        f"to 100 of a class in an image{ours}.",
        apart=own,
    )


def _detector_row(label: str, group: Sequence[Results], *, repeated: bool) -> Row:
    first = group[0]
    settings = _in_short(first.run) if isinstance(first, RunResults) else NOT_TRAINED_HERE
    times = [results.ms_per_image for results in group]
    mean, spread = _of_repeats(group)
    more: Row = {"settings": settings, "ms/image": _mean(times), "n": len(group)}
    return _row("detector", label, mean, group, {**more, **({SPREAD: spread} if repeated else {})})


def _in_short(run: Run) -> str:
    epochs = f"{run.epochs or 'no'} epoch{'' if run.epochs == 1 else 's'}"
    return f"{run.backbone}, {epochs}, num_convs {run.num_convs}"


def _of_repeats(group: Sequence[Results]) -> tuple[Row, float | None]:
    """Return the mean metrics of repeats, and the standard deviation of their AP."""
    metrics = [_percent(results.metrics) for results in group]
    mean = {metric: _mean([of_seed[metric] for of_seed in metrics]) for metric in AP_METRICS}
    return mean, _spread([of_seed["AP"] for of_seed in metrics])


def _joined(of_seeds: Sequence[Sample]) -> Sample:
    """Join the samples of several seeds into one row."""
    values = np.concatenate([sample.values for sample in of_seeds])
    return Sample.of(values, [Drawn(sample.replicates[0], sample.support) for sample in of_seeds])


def _power(config: Table, compared: Mapping[str, Sample], study: StudyResults) -> str | None:
    """Return what is needed to show 1 AP between trainings; None for tables that compare the same weights."""
    if not isinstance(config, RunsTable | ResultsTable) or len(compared) < 2:
        return None
    return needed(compared, len(study.split.images), confidence=study.params.statistics.confidence).sentence()


def _with_interval(row: Row, sample: Sample, confidence: float, spread: Spread | None) -> Row:
    found = estimate(sample, confidence=confidence, spread=spread)
    ends = {}
    for place, metric in enumerate(AP_METRICS):
        for end, values in (("low", found.low), ("high", found.high)):
            value = 100 * float(values[place])
            ends[f"{metric} {end}"] = None if value != value else value
    return row | ends


def _ends_last(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[sorted(frame.columns, key=lambda column: str(column).endswith(ENDS))]


def _but_for_the_seed(run: Run) -> str:
    """Return a key that all trainings of one row, which differ only in their seed, have in common."""
    return repr({key: value for key, value in run.identity().items() if key not in ("name", "seed")})


def _what_varies(config: RunsTable, runs: Sequence[Run]) -> str:
    fixed = ", ".join(f"{key} {value}" for key, value in config.where.items())
    settings = [flatten(run.identity()) for run in runs]
    ignored = ("name", "seed", config.vary)
    others = [key for key in differing(settings) if key not in ignored]
    rest = f"The rows also differ in {', '.join(others)}." if others else "All other settings are the same."
    return f"What varies: {config.vary}. What is fixed: {fixed or 'nothing by name'}. {rest}"


def flatten(value: Mapping[str, Any], prefix: str = "") -> Row:
    """Return nested settings by dotted key."""
    flat: Row = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def differing(settings: Sequence[Row]) -> list[str]:
    """Return the keys whose values differ between flat settings."""
    keys = dict.fromkeys(key for of_run in settings for key in of_run)
    return [key for key in keys if any(of_run.get(key) != settings[0].get(key) for of_run in settings)]


def _row(name: str, label: str, metrics: Row, results: Sequence[Results], more: Row | None = None) -> Row:
    runs = ", ".join(of_run.name for of_run in results)
    weights = ", ".join(of_run.digest[:10] for of_run in results)
    return {name: label, "source": "ours", **metrics, **(more or {}), "run": runs, "weights": weights}


def _with_published(rows: list[Row], published: Mapping[str, Sequence[float | None]]) -> Iterable[Row]:
    """Yield each row, its published numbers and their difference; published rows without ours come last."""
    name = next(iter(rows[0]))
    theirs = {label: dict(zip(AP_METRICS, values, strict=True)) for label, values in published.items()}
    for row in rows:
        yield row
        if row[name] in theirs:
            of_label = theirs[row[name]]
            yield {name: row[name], "source": "published", **of_label}
            difference = {metric: _minus(row[metric], of_label[metric]) for metric in AP_METRICS}
            yield {name: row[name], "source": "difference", **difference}
    ours = [row[name] for row in rows]
    yield from ({name: label, "source": "published", **of} for label, of in theirs.items() if label not in ours)


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _percent(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {metric: _hundredfold(metrics[metric]) for metric in AP_METRICS}


def _hundredfold(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _relative(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or before == 0 else 100 * (after - before) / before


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if any value is None, since the row states over how many seeds it averages."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) == len(values) > 1 else None
