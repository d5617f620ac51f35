"""Find MLflow runs by their tags, never by a stored id, and write only what differs from the wanted content."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fcos.training.history import CURVES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BATCH = 800  # metrics per request: MLflow accepts 1,000 entries, parameters and tags included
_ELSEWHERE = frozenset({"study", "name", "checkpoint"})  # entries of an identity that are logged as tags


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the parameters by dotted name, as the strings that MLflow stores."""
    flat = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def run_params(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a training from the identity stored with its weights."""
    return flatten({key: value for key, value in identity.items() if key not in _ELSEWHERE})


def find_run(
    client: "MlflowClient",
    experiment_id: str,
    *,
    study: str,
    run_name: str,
    key: str,
    start_time: int,
    kind: str = "training",
) -> "Run":
    """Return the MLflow run of one training, created if missing; tag all others of that name as superseded.

    Args:
        key: what the run has been made from: the training's key, or for `kind` results the sha256 of the file.
    """
    tags = {"kind": kind, "study": study, "run": run_name, "training_key": key}
    of_name = search(client, experiment_id, kind=kind, study=study, run=run_name)
    same = [found for found in of_name if found.data.tags["training_key"] == key]
    chosen = min(same, key=lambda found: "superseded" in found.data.tags, default=None)
    if chosen is None:
        chosen = client.create_run(experiment_id, start_time=start_time, tags=tags, run_name=run_name)
    elif "superseded" in chosen.data.tags:
        client.delete_tag(chosen.info.run_id, "superseded")
    for other in of_name:
        if other.info.run_id != chosen.info.run_id and "superseded" not in other.data.tags:
            client.set_tag(other.info.run_id, "superseded", "true")
    return client.get_run(chosen.info.run_id)


def search(client: "MlflowClient", experiment_id: str, **tags: str) -> list["Run"]:
    """Return the runs that have all these tags, oldest first."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    return list(client.search_runs([experiment_id], wanted, max_results=1000, order_by=["attributes.start_time ASC"]))


def update(
    client: "MlflowClient",
    run: "Run",
    *,
    params: Mapping[str, str],
    metrics: Mapping[str, float | None],
    tags: Mapping[str, str | None],
    timestamp: int,
) -> None:
    """Log the values that `run` does not have yet; None values are skipped."""
    from mlflow.entities import Metric, Param, RunTag

    new_params = [Param(name, value) for name, value in params.items() if name not in run.data.params]
    new_tags = [RunTag(name, value) for name, value in tags.items() if value not in (None, run.data.tags.get(name))]
    new_metrics = [
        Metric(name, value, timestamp, 0)
        for name, value in metrics.items()
        if value is not None and value != run.data.metrics.get(name)
    ]
    if new_params or new_tags:
        client.log_batch(run.info.run_id, params=new_params, tags=new_tags)
    for first in range(0, len(new_metrics), BATCH):
        client.log_batch(run.info.run_id, metrics=new_metrics[first : first + BATCH])


def rows_logged(run: "Run") -> int:
    """Return how many rows of the history are in MLflow, counted from the first."""
    return int(run.data.tags.get("history_rows", "0"))


def log_rows(
    client: "MlflowClient", run_id: str, rows: Sequence[Mapping[str, float]], timestamps: Sequence[int], *, logged: int
) -> None:
    """Log the rows that follow the first `logged` ones; each request also updates the count of logged rows."""
    from mlflow.entities import Metric, RunTag

    size = BATCH // len(CURVES)
    for first in range(0, len(rows), size):
        part = list(zip(rows, timestamps, strict=True))[first : first + size]
        points = [(name, row, time_ms) for row, time_ms in part for name in CURVES if name in row]
        metrics = [Metric(name, row[name], time_ms, int(row["step"])) for name, row, time_ms in points]
        client.log_batch(run_id, metrics=metrics, tags=[RunTag("history_rows", str(logged + first + len(part)))])
