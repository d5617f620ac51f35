"""A table of the report with its notes, as text and as CSV; `tables` builds it."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fcos.config.tables import Table
from fcos.errors import names_of
from fcos.reporting.intervals import DASH, NOT_SIGNIFICANT, NOT_TESTED
from fcos.reporting.results import Results, RunResults, trained_on
from fcos.scoring.average_precision import AP_METRICS
from fcos.scoring.comparison import Comparison, p_text
from fcos.scoring.findings import same_content

RELATIVE_CHANGE = "relative change (%)"
SPREAD = "s.d. of AP"
ENDS = (" low", " high")  # suffixes of columns that only the CSV shows
Row = dict[str, Any]
_DECIMALS = {**dict.fromkeys(AP_METRICS, 1), SPREAD: 2, "test time (s)": 1, "ms/image": 1, "training time (s)": 1}


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """A table with its notes.

    `frame` has the label of the row, `source` (ours, published, difference), the metrics, more columns of the kind of
    table, the runs of the row, the first ten digits of the sha256 of their weights, and the ends of each interval.
    `comparisons` are the paired differences of the rows that share images.
    """

    number: int
    config: Table
    frame: pd.DataFrame
    statement: str
    results: Sequence[Results]
    comparisons: list[Comparison]
    choice: str | None = None  # the split on which a setting was chosen, and the effect on the metrics
    power: str | None = None  # what is needed to show a difference of 1 AP

    @property
    def name(self) -> str:
        """The title, such as `Table 4`."""
        return f"Table {self.number}"

    @property
    def stem(self) -> str:
        """Return the file name without suffix; titles are free text."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.config.title.lower()).strip("-")
        return f"{self.number}-{slug or self.config.kind}"

    @property
    def label(self) -> str:
        """Return the name of the first column."""
        return str(self.frame.columns[0])

    @property
    def sources(self) -> list[str]:
        """Where the numbers of each row are from."""
        return list(self.frame["source"])

    @property
    def runs_of_rows(self) -> list[list[str]]:
        """Return the runs of each row; empty for a published row."""
        return [[] if pd.isna(names) else str(names).split(", ") for names in self.frame["run"]]

    @property
    def run_names(self) -> str:
        """The names of the table's runs as a list in words."""
        return ", ".join(results.name for results in self.results)

    @property
    def conclusion(self) -> str | None:
        """Return the conclusion that the data support, in one sentence."""
        if not self.comparisons:
            return None
        scopes = {comparison.scope for comparison in self.comparisons if comparison.is_judged}
        about = f" ({scopes.pop()})" if len(scopes) == 1 else ""
        sentences = [pair.finding() if about else pair.sentence() for pair in self.comparisons]
        together = "" if len(sentences) == 1 else ", with intervals that hold for all pairs at once"
        return f"Conclusions{about}{together}: {'; '.join(sentences)}."

    @property
    def notes(self) -> list[str]:
        """Return the notes that a reader needs to interpret the numbers."""
        notes = []
        if SPREAD in self.frame:
            notes.append(
                f"Rows with n > 1 are means over n seeds; {SPREAD} is their sample standard deviation, and their "
                "intervals include it (Student's t)."
            )
        one = "training" if any(isinstance(of, RunResults) for of in self.results) else "results file"
        single = [n == 1 for n in self.frame.get("n", ())]
        if any(single) and SPREAD in self.frame:
            notes.append("Rows with n = 1 use the standard deviation between seeds of the rows with n > 1.")
        elif any(single):
            notes.append(
                f"Each row is one {one}: intervals and differences are about these networks, over images. They do "
                "not include the spread between seeds of the same settings."
            )
        weights = {results.name: results.digest for results in self.results if isinstance(results, RunResults)}
        notes += [f"{names} have the same weights (sha256)." for names in same_content(weights.items())]
        files = {results.name: results.digest for results in self.results if not isinstance(results, RunResults)}
        notes += [f"{names} are the same file (sha256)." for names in same_content(files.items())]
        return [*notes, *_conditions(self.results), *filter(None, (self.power, self.choice))]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows as text: one decimal, a dash for values undefined in COCO, signs on differences."""
        rows = [_display(row, self.label) for row in self.frame.to_dict("records")]
        header = [column for column in self.frame.columns if column != "source" and not column.endswith(ENDS)]
        return header, [[row[column] for column in header] for row in rows]

    def difference_cells(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the paired differences as text."""
        rows = []
        for comparison in self.comparisons:
            cells = []
            for place, value in enumerate((100 * comparison.found.value[: len(AP_METRICS)]).tolist()):
                text = _with_half_width(_text(value, AP_METRICS[place], True), 100 * comparison.found.half_width[place])
                cells.append(f"{text} {mark_of(comparison, place)}".rstrip())
            rows.append([f"{comparison.row} - {comparison.other}", *cells, p_text(comparison.corrected_p[0])])
        return ["difference", *AP_METRICS, "AP: p (Holm)"], rows

    def difference_frame(self) -> pd.DataFrame:
        """Return the paired differences in full precision, one row per pair and metric."""
        rows: list[Row] = []
        for comparison in self.comparisons:
            found = comparison.found
            columns = {"difference": found.value, "low": found.low, "high": found.high}
            percents = {name: 100 * values for name, values in columns.items()}
            p_values = {"p": found.p_value, "p (Holm)": comparison.corrected_p}
            for place, metric in enumerate(AP_METRICS):
                pair = {"row": comparison.row, "other": comparison.other, "metric": metric}
                numbers = {name: float(values[place]) for name, values in (percents | p_values).items()}
                rows.append(pair | numbers)
        return pd.DataFrame(rows)


def _display(row: Mapping[Any, Any], label: str) -> dict[str, str]:
    suffix = {"ours": "", "published": " (published)", "difference": " (ours - published)"}[row["source"]]
    signed = row["source"] == "difference" or row[label] == RELATIVE_CHANGE
    shown = {str(column): _text(value, column, signed) for column, value in row.items()}
    for metric in AP_METRICS:
        low, high = row.get(f"{metric} low"), row.get(f"{metric} high")
        if low is not None and high is not None and not pd.isna(low):
            shown[metric] = _with_half_width(shown[metric], (high - low) / 2)
    if suffix:
        shown |= {column: "" for column in shown if column not in AP_METRICS}
    return {**shown, label: f"{row[label]}{suffix}"}


def _with_half_width(text: str, half_width: float) -> str:
    return text if text == DASH or half_width != half_width else f"{text} ± {half_width:.1f}"


def _text(value: Any, column: str, signed: bool) -> str:
    if value is None or pd.isna(value):
        return DASH
    if column not in _DECIMALS:
        return str(value)
    # Adding zero turns -0.0, which would print its sign, into 0.0.
    rounded = round(value, _DECIMALS[column]) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{_DECIMALS[column]}f}"


def mark_of(comparison: Comparison, metric: int) -> str:
    """Return what stands behind a difference that is not significant, or that has no interval to judge it by."""
    if comparison.identical or np.isnan(comparison.found.value[metric]):
        return ""
    if np.isnan(comparison.corrected_p[metric]):
        return NOT_TESTED
    return "" if comparison.is_significant(metric) else NOT_SIGNIFICANT


def _conditions(rows: Sequence[Results]) -> list[str]:
    """Return a note if the trainings differ in their device, number format or version of torch."""
    trained: dict[str, list[str]] = defaultdict(list)
    for results in rows:
        if isinstance(results, RunResults) and results.training_s is not None:
            where = results.train["provenance"]
            torch_version = where["versions"].get("torch", DASH)
            trained[f"{trained_on(where)}, torch {torch_version}"].append(results.run.name)
    if len(trained) < 2:
        return []
    listed = "; ".join(f"{where} ({names_of(names)})" for where, names in trained.items())
    return [f"Not all trainings ran under the same conditions, which can change the weights: {listed}."]
