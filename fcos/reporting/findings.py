"""What the study asked, and what its statistics answer, in sentences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fcos.config.tables import RunsTable
from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import StudyResults
from fcos.scoring.average_precision import METRICS
from fcos.scoring.comparison import Comparison

_AP = METRICS.index("AP")
_NAMES = ("resnet", "num_convs")  # written as in the settings, also where a sentence begins
_QUESTIONS = {
    "reference": "What does the reference checkpoint reach?",
    "trained": "What does a training of one's own reach?",
    "tta": "Does test-time augmentation pay?",
    "nms": "Which NMS threshold is best?",
    "backbone": "Does the backbone matter?",
    "epochs": "Does a longer training help?",
    "num_convs": "Do more convolutions in the heads help?",
}


def question(table: ReportTable) -> str:
    """What the table is there to answer."""
    return _QUESTIONS[table.config.vary if isinstance(table.config, RunsTable) else table.config.kind]


def answer(table: ReportTable) -> str:
    """One sentence, from the paired tests where there are rows to compare."""
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
    if not sure:
        if num > 1:  # the intervals of several pairs do not hold together
            return f"none of {num} pairs shows a difference."
        found = table.comparisons[0].found
        most = 100 * max(abs(found.low[_AP]), abs(found.high[_AP]))
        return f"no difference is shown{f'; at most {most:.1f} AP either way' if most == most else ''}."
    largest = max(sure, key=lambda comparison: abs(comparison.found.value[_AP]))
    if num == 1:
        return f"{_in_words(largest)}."
    which = "all" if len(sure) == num else f"{len(sure)} of"
    return f"{which} {num} pairs differ significantly; the largest difference: {_in_words(largest)}."


def summary(study: StudyResults, tables: Sequence[ReportTable]) -> list[str]:
    """What the study found, in at most three sentences."""
    sentences = [_best(study)]
    of_runs = [table for table in tables if isinstance(table.config, RunsTable) and table.comparisons]
    at_test = [table for table in tables if table.config.kind in ("tta", "nms") and table.comparisons]
    sentences += [_of_tables(part) for part in (of_runs, at_test) if part]
    return sentences


def _best(study: StudyResults) -> str:
    known = {name: results for name, results in study.runs.items() if results.metrics["AP"] is not None}
    own = {name: results for name, results in known.items() if results.run.role != "reference"}
    known = own or known
    if not known:
        return "COCO defines no AP for this test split: it has no object to find."
    name, results = max(known.items(), key=lambda item: item[1].metrics["AP"] or 0.0)
    interval = results.evaluation["intervals"]["AP"]
    ends = f" [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]" if interval["low"] is not None else ""
    reached = f"{100 * (results.metrics['AP'] or 0.0):.1f}{ends}, AP50 {100 * (results.metrics['AP50'] or 0.0):.1f}"
    return (
        f"Of {len(known)} runs {name} has the highest AP: {reached}." if len(known) > 1 else f"{name} has AP {reached}."
    )


def _of_tables(tables: Iterable[ReportTable]) -> str:
    parts = [f"{table.config.title}: {_answer(table).rstrip('.')}" for table in tables]
    return f"{'; '.join(parts)}."


def _half_width(row: Mapping[Any, Any]) -> str:
    low, high = row["AP low"], row["AP high"]
    return "" if low is None or low != low else f" ± {(high - low) / 2:.1f}"


def _in_words(comparison: Comparison) -> str:
    """The winner first: ResNet-34 is better than ResNet-18 by 2.1 AP [1.2, 3.0]."""
    found = comparison.found
    value, low, high = (100 * float(values[_AP]) for values in (found.value, found.low, found.high))
    first, second = comparison.row, comparison.other
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    verb = "are" if first.endswith("s") else "is"
    return f"{first} {verb} better than {second} by {value:.1f} AP [{low:.1f}, {high:.1f}]"
