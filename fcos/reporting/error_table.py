"""The table of errors, which the report and the page of a comparison share."""

from collections.abc import Mapping
from typing import Any

from fcos.reporting.intervals import percent
from fcos.scoring.errors import ERROR_KINDS


def error_table(name: str, analyses: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the gain in AP50 if one kind of errors were fixed, for each analysis; `name` is the first column's."""
    rows = []
    for of, analysis in analyses.items():
        errors = analysis["errors"]
        gains = [percent(errors[kind]["delta_ap50"], sign=True) for kind in ERROR_KINDS]
        calibration = percent(analysis["calibration"]["expected_calibration_error"])
        rows.append([of, percent(errors["AP50"]), *gains, calibration])
    return [name, "AP50", *ERROR_KINDS, "calibration error"], rows
