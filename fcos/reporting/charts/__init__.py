"""The charts of the report: its tables, the trainings, and the errors of the models.

Each function takes contents of files and returns a `Chart`; the page can filter rows with a `run` by run.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fcos.reporting.charts.encodings import Runs
from fcos.reporting.charts.errors import (
    calibration_chart,
    confusion_chart,
    difficulty_chart,
    errors_chart,
    precision_recall_chart,
)
from fcos.reporting.charts.runs import curves_chart, pareto_chart, per_class_chart
from fcos.reporting.charts.tables import table_charts
from fcos.reporting.vega import Chart

if TYPE_CHECKING:
    from fcos.reporting.results import StudyResults

__all__ = ["run_charts", "study_charts", "table_charts"]


def study_charts(study: "StudyResults") -> list[Chart]:
    """Return the chart of accuracy against time, then the charts of all runs together."""
    in_time = pareto_chart(study.everyone, study.given)
    return [*([in_time] if in_time else []), *run_charts(study.everyone)]


def run_charts(runs: Runs) -> list[Chart]:
    """Return each chart that the run or runs have data for: curves, errors, precision-recall and the like."""
    analyses = {name: results.evaluation["analysis"] for name, results in runs.items()}
    charts = [
        curves_chart({name: of.history for name, of in runs.items() if of.history is not None and len(of.history)}),
        per_class_chart(runs),
        errors_chart(_with(analyses, lambda analysis: analysis["errors"]["AP50"] is not None)),
        precision_recall_chart(
            _with(analyses, lambda analysis: analysis["precision_recall"]["mean"]["0.50"] is not None)
        ),
        confusion_chart(_with(analyses, lambda analysis: bool(analysis["confusion"]["counts"]))),
        calibration_chart(_with(analyses, lambda a: a["calibration"]["expected_calibration_error"] is not None)),
        difficulty_chart(_with(analyses, lambda analysis: analysis["errors"]["AP50"] is not None)),
    ]
    return [chart for chart in charts if chart is not None]


def _with(analyses: Mapping[str, Any], has_data: Callable[[Any], bool]) -> dict[str, Any]:
    return {name: analysis for name, analysis in analyses.items() if has_data(analysis)}
