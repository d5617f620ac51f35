"""The whole of params.yaml, with the checks that involve several sections."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.config.data import DataConfig
from fcos.config.nms_sweep import NmsSweepConfig
from fcos.config.results import ResultsConfig, parse_results
from fcos.config.runs import Run, parse_runs
from fcos.config.section import DEFAULT_PATH, parse_section, read_params
from fcos.config.statistics import StatisticsConfig
from fcos.config.tables import ResultsTable, RunsTable, Table
from fcos.config.test import TestConfig
from fcos.config.tracking import TrackingConfig
from fcos.config.tta import TtaConfig
from fcos.errors import UserError

SECTIONS = (
    "study",
    "data",
    "model",
    "train",
    "test",
    "tta",
    "nms_sweep",
    "statistics",
    "tables",
    "tracking",
    "runs",
    "results",
)


@dataclass(frozen=True, kw_only=True)
class Params:
    """A valid params.yaml."""

    study: str
    data: DataConfig
    test: TestConfig
    tta: TtaConfig
    nms_sweep: NmsSweepConfig
    statistics: StatisticsConfig
    tables: list[Table]
    tracking: TrackingConfig
    runs: dict[str, Run]
    results: dict[str, ResultsConfig]


def read(path: Path = DEFAULT_PATH) -> Params:
    """Return the checked content of params.yaml.

    Raises:
        UserError: the file is missing or a value is wrong.
    """
    return parse(read_params(path), path)


def parse(params: Mapping[str, Any], path: Path = DEFAULT_PATH) -> Params:
    """Check a whole params.yaml given as plain data."""
    _know_every_section(params, path)
    runs = parse_runs(params, path)
    results = parse_results(params, path)
    tables = parse_section(params, "tables", list[Table], path)
    parsed = Params(
        study=params["study"],
        data=parse_section(params, "data", DataConfig, path),  # type: ignore[arg-type]
        test=parse_section(params, "test", TestConfig, path),
        tta=parse_section(params, "tta", TtaConfig, path),
        nms_sweep=parse_section(params, "nms_sweep", NmsSweepConfig, path),
        statistics=parse_section(params, "statistics", StatisticsConfig, path),
        tables=[*tables, *_table_of(results, tables, runs)],
        tracking=parse_section(params, "tracking", TrackingConfig, path),
        runs=runs,
        results=results,
    )
    _names_are_runs(parsed, path)
    _choices_have_images(parsed, path)
    return parsed


def _table_of(
    results: Mapping[str, ResultsConfig], tables: Sequence[Table], runs: Mapping[str, Run]
) -> list[ResultsTable]:
    """Return a table of all results beside all trainings, unless `tables` has one or there are no results."""
    if not results or any(isinstance(table, ResultsTable) for table in tables):
        return []
    trained = [run.name for run in runs.values() if run.role is None]
    return [ResultsTable(title="Other detectors" if runs else "Detectors", kind="results", runs=trained)]


def _know_every_section(params: Mapping[str, Any], path: Path) -> None:
    for key in params:
        if key not in SECTIONS:
            close = difflib.get_close_matches(str(key), SECTIONS, n=1, cutoff=0.5)
            raise UserError(
                f"{path}: {key}",
                "unknown section",
                found=key,
                expected=f"one of {', '.join(SECTIONS)}",
                hint=f"did you mean `{close[0]}`?" if close else None,
            )


def _names_are_runs(params: Params, path: Path) -> None:
    named = {"tta.runs": params.tta.runs, "nms_sweep.runs": params.nms_sweep.runs}
    allowed = {"trained": list(params.runs), "tta": params.tta.runs, "nms": params.nms_sweep.runs}
    for key, names in named.items():
        for name in names:
            _require(name in params.runs, f"{path}: {key}", "no such run", name, list(params.runs))
    references = [run.name for run in params.runs.values() if run.role == "reference"]
    for index, table in enumerate(params.tables):
        where = f"{path}: tables.{index}"
        if isinstance(table, RunsTable):
            _require(
                bool(rows_of(table, params.runs)), f"{where}.where", "matches no run", table.where, list(params.runs)
            )
            _require(table.vary not in table.where, f"{where}.where", "contains the varied key", table.where, [])
        elif isinstance(table, ResultsTable):
            _require(bool(params.results), where, "there are no results", "no section `results:`", [])
            for name in table.runs:
                _require(name in params.runs, f"{where}.runs", "no such run", name, list(params.runs))
        elif table.kind == "reference":
            _require(len(references) == 1, where, "needs one run with `role: reference`", references, [])
        else:
            _require(
                table.run in allowed[table.kind], f"{where}.run", "no such run here", table.run, allowed[table.kind]
            )


def _choices_have_images(params: Params, path: Path) -> None:
    for key, choose_on, otherwise in (
        ("nms_sweep", params.nms_sweep.choose_on, "test"),
        ("tta", params.tta.choose_on, "null"),
    ):
        if choose_on == "validation" and not params.data.holds_out:
            raise UserError(
                f"{path}: {key}.choose_on",
                "there is no validation split to choose on",
                found=choose_on,
                expected=f"{otherwise}, or data with a validation split",
                hint=f"set data.validation_fraction: 0.1, or {key}.choose_on: {otherwise}",
            )
    for run in params.runs.values():
        if run.train.validate_every is not None and not params.data.holds_out:
            raise UserError(
                f"{path}: train.validate_every",
                f"there is no validation split to validate {run.name} on",
                found=run.train.validate_every,
                expected="data with a validation split",
                hint="set data.validation_fraction: 0.1, or remove validate_every",
            )


def _require(fine: bool, where: str, problem: str, found: object, choices: list[str]) -> None:
    if not fine:
        expected = f"one of {', '.join(choices)}" if choices else None
        raise UserError(where, problem, found=found, expected=expected)


def rows_of(table: RunsTable, runs: Mapping[str, Run]) -> list[Run]:
    """Return the runs that a `runs` table shows, in the order of params.yaml, without reference runs."""
    return [
        run
        for run in runs.values()
        if run.role is None and all(getattr(run, key) == value for key, value in table.where.items())
    ]
