"""Sentences for the questions of a study and the answers of its statistics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fcos.config.tables import ResultsTable, RunsTable
from fcos.reporting.intervals import in_brackets
from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import RunResults, StudyResults
from fcos.scoring.average_precision import METRICS
from fcos.scoring.comparison import NETWORKS, Comparison, interval_text

_AP = METRICS.index("AP")
_NAMES = ("resnet", "num_convs")  # not capitalised at the start of a sentence
PICKED = "chosen by its AP on these test images, so this AP is optimistic"
_QUESTIONS = {
    "reference": "Which AP does the reference checkpoint have?",
    "trained": "Which AP does our own training reach?",
    "tta": "Does test-time augmentation improve AP?",
    "nms": "Which NMS threshold is best?",
    "backbone": "Does the backbone matter?",
    "epochs": "Does a longer training help?",
    "num_convs": "Do more convolutions in the heads help?",
    "results": "How do the detectors compare?",
}


def question(table: ReportTable) -> str:
    """Return the question that the table answers."""
    return _QUESTIONS[table.config.vary if isinstance(table.config, RunsTable) else table.config.kind]


def answer(table: ReportTable) -> str:
    """Return the answer in one sentence, from the paired tests if there are rows to compare."""
    said = _answer(table)
    return said if said.startswith(_NAMES) else said[0].upper() + said[1:]


def _answer(table: ReportTable) -> str:
    if not table.comparisons:
        row = table.frame.to_dict("records")[0]
        if row["AP"] is None:
            return "COCO defines no AP here: there is no object to find."
        return f"AP {row['AP']:.1f}{_half_width(row)}, AP50 {row['AP50']:.1f}."
    sure = [comparison for comparison in table.comparisons if comparison.is_significant(_AP)]
    num = len(table.comparisons)
    if num == 1:
        return f"{_in_words(sure[0], table) if sure else _not_shown(table.comparisons[0])}."
    pairs = "pairs of networks" if all(pair.scope == NETWORKS for pair in table.comparisons) else "pairs"
    if not sure:
        return f"none of {num} {pairs} shows a difference."
    largest = max(sure, key=lambda comparison: abs(comparison.found.value[_AP]))
    which = f"all {num} {pairs}" if len(sure) == num else f"{len(sure)} of {num} {pairs}"
    differ = "differs" if len(sure) == 1 else "differ"
    said = _in_words(largest, table)
    return f"{which} {differ} significantly; the largest difference, chosen on these images: {said}."


def summary(study: StudyResults, tables: Sequence[ReportTable]) -> list[str]:
    """Return the findings of the study in at most three sentences."""
    sentences = [_best(study)]
    kinds = (RunsTable,) if study.runs else (ResultsTable,)
    of_runs = [table for table in tables if isinstance(table.config, kinds) and table.comparisons]
    at_test = [table for table in tables if table.config.kind in ("tta", "nms") and table.comparisons]
    sentences += [_of_tables(part) for part in (of_runs, at_test) if part]
    return sentences


def _best(study: StudyResults) -> str:
    of_runs = study.runs or study.given
    known = {name: results for name, results in of_runs.items() if results.metrics["AP"] is not None}
    own = {name: of for name, of in known.items() if not (isinstance(of, RunResults) and of.run.role == "reference")}
    known = own or known
    if not known:
        return "COCO defines no AP for this test split: it has no object to find."
    name, results = max(known.items(), key=lambda item: item[1].metrics["AP"] or 0.0)
    interval = results.evaluation["intervals"]["AP"]
    ends = f" {in_brackets(interval)}" if interval["low"] is not None else ""
    reached = f"{100 * (results.metrics['AP'] or 0.0):.1f}{ends}, AP50 {100 * (results.metrics['AP50'] or 0.0):.1f}"
    if len(known) == 1:
        return f"{name} has AP {reached}."
    of_what = "runs" if study.runs else "results"
    return f"{name} has the highest AP of {len(known)} {of_what}, {reached}: {PICKED}."


def _of_tables(tables: Iterable[ReportTable]) -> str:
    return " ".join(f"{table.config.title}: {_answer(table)}" for table in tables)


def _half_width(row: Mapping[Any, Any]) -> str:
    low, high = row["AP low"], row["AP high"]
    return "" if low is None or low != low else f" ± {(high - low) / 2:.1f}"


def _not_shown(comparison: Comparison) -> str:
    if comparison.identical:
        return "the two results are the same"
    value, low, high = _percents(comparison)
    numbers = f": {comparison.row} against {comparison.other}, {value:+.1f} AP {interval_text(low, high)}"
    between = " between the two networks" if comparison.scope == NETWORKS else ""
    return f"no difference is shown{between}{numbers if low == low else ''}"


def _in_words(comparison: Comparison, table: ReportTable) -> str:
    """State which row is better, and no more than the number of trainings supports."""
    value, low, high = _percents(comparison)
    first, second, (of_first, of_second) = comparison.row, comparison.other, comparison.trainings
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
        of_first, of_second = of_second, of_first
    by = f"{value:.1f} AP {interval_text(low, high)}"
    verb = "are" if first.endswith("s") else "is"
    if table.config.kind == "results" and comparison.scope == NETWORKS:
        one_each = "one training each, so this says nothing certain about the methods"
        return f"{first} scores {by} higher on these images than {second}; {one_each}"
    if comparison.one_network:
        return f"{first} {verb} better than {second} by {by} for this network"
    if comparison.scope == NETWORKS:
        setting = table.config.vary if isinstance(table.config, RunsTable) else "settings"
        return (
            f"the network trained with {first} scores {by} higher on these images than the one trained with "
            f"{second}; one training each, so this says nothing certain about {setting}"
        )
    few = min(of_first, of_second) < 3
    return f"{first} {verb} better than {second} by {by}" + (f"; {comparison.scope}" if few else "")


def _percents(comparison: Comparison) -> tuple[float, float, float]:
    """Return the AP difference and its simultaneous interval over all pairs of the table, in percent."""
    joint = comparison.joint
    return 100 * float(joint.value[_AP]), 100 * float(joint.low[_AP]), 100 * float(joint.high[_AP])
