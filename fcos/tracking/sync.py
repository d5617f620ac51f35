"""Update MLflow from the files of finished trainings; repeating it changes nothing."""

import calendar
import csv
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import safetensors

from fcos.config.results import NOT_TRAINED_HERE
from fcos.errors import UserError
from fcos.files import sha256_file, sha256_json
from fcos.formats import header_of
from fcos.progress import track
from fcos.study.run_files import command_for, read_run_file
from fcos.tracking.checkpoint import drop_checkpoints, log_checkpoint
from fcos.tracking.database import renewed
from fcos.tracking.describe import NOTE, describe_run, describe_study
from fcos.tracking.registry import register_best
from fcos.tracking.runs import find_run, flatten, log_rows, rows_logged, run_params, search, update
from fcos.tracking.store import connect, find_experiment, reaching
from fcos.training.history import COLUMNS, VALIDATION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


MOST_LETTERS = 200  # longest class name in a metric name; MLflow accepts 250 characters in all
# Required keys; files of earlier versions may lack other keys.
_NEEDED = {
    "train.json": (
        *("weights_sha256", "training_key", "role", "imported_from", "provenance.commit", "provenance.started"),
        *("provenance.seconds", "params.study", "params.name", "params.backbone", "params.epochs", "params.num_convs"),
        "params.seed",
    ),
    "timing.json": ("views.test.ms_per_image", "views.test.seconds"),
}
_OF_NUMBERS = ("metrics.AP", "metrics.AP50", "per_class", "provenance.started", "provenance.seconds")


def sync(
    study: str,
    runs_dir: Path,
    names: Sequence[str],
    *,
    known: Sequence[str] = (),
    given: Mapping[str, Path] = MappingProxyType({}),
    checkpoints: str,
    figures: Callable[[str], list[Path]],
) -> int:
    """Update the runs `names` in `runs_dir` (`runs/STUDY`) in MLflow, and return their number.

    Args:
        known: all runs of the study; a database that had to be created again is filled with them.
        given: by name, the folder of each results file that was not made here.
        checkpoints: `all`, `best` or `none`: which runs have their weights in MLflow.
        figures: returns the figures of a run, given its name.

    Raises:
        StoreUnavailable: nothing is lost; the next call logs what is missing.
    """
    scored = {name: folder for name, folder in given.items() if (folder / "metrics.json").exists()}
    if not _trained(names, runs_dir) and not scored:
        return 0
    client = connect()
    trained = _trained([*names, *known] if renewed else names, runs_dir)
    with reaching():
        experiment_id = find_experiment(client, study)
        for name in track([*trained, *scored], "MLflow", total=len(trained) + len(scored), unit="runs"):
            if name in scored:
                sync_given(client, experiment_id, study, name, scored[name], figures=figures(name))
                continue
            run = sync_run(client, experiment_id, runs_dir / name, figures=figures(name))
            if checkpoints == "all":
                log_checkpoint(client, run, runs_dir / name / "model.safetensors")
        trainings = _trainings(client, experiment_id, study)
        best = max((run for run in trainings if "AP" in run.data.metrics), key=_ap, default=None)
        if checkpoints == "best":
            _keep_only(client, trainings, best, runs_dir)
        describe_study(client, experiment_id, study, trainings)
        if checkpoints != "none" and best is not None:
            register_best(client, study, best)
    return len(trained) + len(scored)


def _trained(names: Sequence[str], runs_dir: Path) -> list[str]:
    return [name for name in dict.fromkeys(names) if (runs_dir / name / "train.json").exists()]


def sync_run(client: "MlflowClient", experiment_id: str, run_dir: Path, *, figures: Sequence[Path] = ()) -> "Run":
    """Update the MLflow run of one training from the files in `run_dir`, except for its weights, and return it."""
    train = _read(run_dir / "train.json")
    digest = train["weights_sha256"]
    evaluation = _of_weights(run_dir / "evaluation.json", digest)
    params = run_params(train["params"])
    started, ended = _times(train)
    run = find_run(
        client,
        experiment_id,
        study=train["params"]["study"],
        run_name=train["params"]["name"],
        key=train["training_key"],
        start_time=started,
    )
    data_digest = _data_digest(run_dir / "model.safetensors")
    tags = {
        "weights_sha256": digest,
        "role": train["role"] or "none",
        "data_digest": data_digest,
        "commit": train["provenance"]["commit"],
        "imported_from": train["imported_from"],
        NOTE: describe_run(evaluation, train),
        # Test settings are tags: scoring again may change them, and MLflow does not allow changes of parameters.
        **flatten({"test": evaluation.get("test", {})}),
    }
    metrics = _metrics(evaluation, run_dir) if evaluation else {}
    measured = _times(evaluation)[1] if evaluation else ended
    update(client, run, params=params, metrics=metrics, tags=tags, timestamp=measured)
    _log_history(client, run, run_dir / "history.csv", started, ended)
    _log_dataset(client, run, data_digest)
    _log_files(client, run, run_dir, figures)
    for kind, children in (("tta", _tta(run_dir, digest)), ("nms", _nms(run_dir, digest))):
        if children:
            _sync_children(client, run, kind, children)
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED", ended)
    return client.get_run(run.info.run_id)


def sync_given(
    client: "MlflowClient", experiment_id: str, study: str, name: str, folder: Path, *, figures: Sequence[Path] = ()
) -> None:
    """Update the MLflow run of a results file that was not made here; its `kind` is `results`."""
    evaluation = read_run_file(folder / "evaluation.json", _OF_NUMBERS, hint=f"fcos results {folder.parent.name}")
    digest = evaluation["identity"]["sha256"]
    started, ended = _times(evaluation)
    run = find_run(client, experiment_id, study=study, run_name=name, key=digest, start_time=started, kind="results")
    tags = {"results_sha256": digest, "data_digest": evaluation["identity"]["data_digest"], "role": NOT_TRAINED_HERE}
    update(client, run, params={}, metrics=_metrics(evaluation, folder), tags=tags, timestamp=ended)
    _log_files(client, run, folder, figures)
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED", ended)


def _read(path: Path) -> Any:
    return read_run_file(path, _NEEDED.get(path.name, ()))


def _of_weights(path: Path, digest: str) -> dict[str, Any]:
    """Return the file's content if it was computed from these weights, otherwise {}.

    After a new training, files of the previous weights remain until their stages run again.
    """
    content = _read(path) if path.exists() else {}
    if content.get("identity", {}).get("weights_sha256") != digest:
        return {}
    return dict(read_run_file(path, _OF_NUMBERS if path.name == "evaluation.json" else ()))


def _times(content: Mapping[str, Any]) -> tuple[int, int]:
    """Return start and end of the command that wrote `content`, in milliseconds since the epoch."""
    provenance = content["provenance"]
    try:
        started = 1000 * calendar.timegm(time.strptime(provenance["started"], "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        started = 0  # only the position of the run in a list depends on it
    return started, started + round(1000 * provenance["seconds"])


def _data_digest(weights: Path) -> str | None:
    if not weights.exists():
        return None
    try:
        with safetensors.safe_open(weights, framework="numpy") as file:
            return str(header_of(weights, file.metadata(), hint=None)["data_digest"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        hint = command_for(weights.name, weights.parent.name)
        raise UserError(weights, "is not a whole weights file", found=error, hint=hint) from None


def _metrics(evaluation: Mapping[str, Any], run_dir: Path) -> dict[str, float | None]:
    metrics = dict(evaluation["metrics"])
    for place, row in enumerate(evaluation["per_class"], start=1):
        name = f"AP/{re.sub(r'[^A-Za-z0-9_ -]', '_', row['name'])[:MOST_LETTERS]}"
        metrics[f"{name} {place}" if name in metrics else name] = row["AP"]  # non-ASCII names may become equal
    for name, interval in evaluation.get("intervals", {}).items():  # files of earlier versions have none
        metrics |= {f"{name}_{end}": interval[end] for end in ("low", "high")}
    errors = evaluation.get("analysis", {}).get("errors", {})
    metrics |= {f"gain_AP50/{kind}": of["delta_ap50"] for kind, of in errors.items() if kind != "AP50"}
    timing = run_dir / "timing.json"
    if timing.exists():
        view = _read(timing)["views"]["test"]
        metrics |= {"ms_per_image": view["ms_per_image"], "test_seconds": view["seconds"]}
    return metrics


def _log_history(client: "MlflowClient", run: "Run", path: Path, started: int, ended: int) -> None:
    """Log the missing rows, with timestamps spread over the training."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            rows = [
                {name: float(value) for name, value in row.items() if value or name not in VALIDATION}
                for row in csv.DictReader(stream)
            ]
            if not all(row.keys() >= {*COLUMNS} and all(map(math.isfinite, row.values())) for row in rows):
                raise ValueError("not a finite number in each column")
        except (TypeError, ValueError, csv.Error):
            raise UserError(
                path,
                "is damaged",
                expected="a row of numbers for each training step",
                hint=command_for(path.name, path.parent.name),
            ) from None
    timestamps = [started + (ended - started) * index // len(rows) for index in range(1, len(rows) + 1)]
    logged = rows_logged(run)
    log_rows(client, run.info.run_id, rows[logged:], timestamps[logged:], logged=logged)


def _log_dataset(client: "MlflowClient", run: "Run", digest: str | None) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if digest is None or (run.inputs is not None and run.inputs.dataset_inputs):
        return
    study = run.data.tags["study"]
    source = json.dumps({"uri": f"data/{study}/train.json"})
    # MLflow keeps 36 characters of a digest; the tag has the whole digest.
    dataset = Dataset(name=f"{study}-train", digest=digest[:32], source_type="local", source=source)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _log_files(client: "MlflowClient", run: "Run", run_dir: Path, figures: Sequence[Path]) -> None:
    """Log figures and summaries again if any of them has changed."""
    summaries = [path for name in ("train", "evaluation") if (path := run_dir / f"{name}.json").exists()]
    files = [(path, "files") for path in summaries] + [(path, "figures") for path in figures]
    digest = sha256_json([[folder, path.name, sha256_file(path)] for path, folder in files])
    if run.data.tags.get("files_sha256") == digest:
        return
    for path, folder in files:
        client.log_artifact(run.info.run_id, str(path), folder)
    client.set_tag(run.info.run_id, "files_sha256", digest)


Child = tuple[dict[str, str], dict[str, float | None], dict[str, str | None]]  # params, metrics, tags


def _tta(run_dir: Path, digest: str) -> dict[str, Child]:
    tta = _of_weights(run_dir / "tta.json", digest)
    split = tta.get("split", "test")
    children: dict[str, Child] = {
        str(step["num_views"]): (
            {"num_views": str(step["num_views"])},
            {**step["metrics"], f"{split}_seconds": step["seconds"]},
            {"views": " ".join(step["views"]), "split": split},
        )
        for step in tta.get("steps", [])
    }
    return children | _chosen(tta, "num_views")


def _nms(run_dir: Path, digest: str) -> dict[str, Child]:
    sweep = _of_weights(run_dir / "nms_sweep.json", digest)
    children: dict[str, Child] = {
        str(step["nms_iou_threshold"]): (
            {"nms_iou_threshold": str(step["nms_iou_threshold"])},
            step["metrics"],
            {"split": sweep.get("split", "test")},
        )
        for step in sweep.get("steps", [])
    }
    return children | _chosen(sweep, "nms_iou_threshold")


def _chosen(content: Mapping[str, Any], parameter: str) -> dict[str, Child]:
    """Return the test metrics of a value chosen on the validation split; {} if it was chosen on the test split."""
    if content.get("split", "test") == "test":
        return {}
    return {"chosen": ({parameter: str(content["chosen"])}, content["metrics"], {"split": "test"})}


def _sync_children(client: "MlflowClient", parent: "Run", kind: str, children: Mapping[str, Child]) -> None:
    """Make one child run of `parent` for each step, so that MLflow's charts can use the parameter as an axis."""
    shared = {name: parent.data.tags[name] for name in ("study", "run", "training_key")}
    shared |= {"kind": kind, "mlflow.parentRunId": parent.info.run_id}
    existing = {run.data.tags["number"]: run for run in search(client, parent.info.experiment_id, **shared)}
    for number, (params, metrics, tags) in children.items():
        run = existing.pop(number, None) or client.create_run(
            parent.info.experiment_id,
            start_time=parent.info.start_time,
            tags={**shared, "number": number},
            run_name=f"{shared['run']} {kind} {number}",
        )
        update(client, run, params=params, metrics=metrics, tags=tags, timestamp=parent.info.start_time)
        if run.info.status != "FINISHED":
            client.set_terminated(run.info.run_id, "FINISHED")
    for stale in existing.values():
        client.delete_run(stale.info.run_id)


def _trainings(client: "MlflowClient", experiment_id: str, study: str) -> list["Run"]:
    """Return the current trainings, without those that a later training has superseded."""
    found = search(client, experiment_id, kind="training", study=study)
    return [run for run in found if "superseded" not in run.data.tags and "weights_sha256" in run.data.tags]


def _ap(run: "Run") -> float:
    return float(run.data.metrics["AP"])


def _keep_only(client: "MlflowClient", trainings: Sequence["Run"], best: "Run | None", runs_dir: Path) -> None:
    """Keep only the weights of `best` in MLflow, and delete those of the other runs."""
    for run in trainings:
        if run is best:
            log_checkpoint(client, run, runs_dir / run.data.tags["run"] / "model.safetensors")
        elif "AP" in run.data.metrics:
            drop_checkpoints(client, run)
