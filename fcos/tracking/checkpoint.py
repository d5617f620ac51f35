"""The weights of a run as an MLflow model: images in, boxes out (see pyfunc_model.py)."""

import base64
import contextlib
import io
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fcos.files import sha256_file

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

NAME = "model"
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "pydantic", "pyyaml", "safetensors", "torch", "torchvision")


def log_checkpoint(client: "MlflowClient", run: "Run", weights: Path) -> None:
    """Log the weights of `run` to MLflow unless they are logged already, and delete older ones there.

    Does nothing if the weights are not logged and not on disk.
    """
    digest = run.data.tags["weights_sha256"]
    models = _models(client, run)
    ready = ready_model(client, run)
    if ready is None:
        if not weights.exists() or sha256_file(weights) != digest:
            return
        _log(client, run, weights, digest)
    for model in models:
        if ready is None or model.model_id != ready.model_id:
            client.delete_logged_model(model.model_id)


def ready_model(client: "MlflowClient", run: "Run") -> "LoggedModel | None":
    """Return the weights of `run` in MLflow, or None if they are missing or incomplete."""
    from mlflow.entities import LoggedModelStatus

    digest = run.data.tags["weights_sha256"]
    whole = (
        model
        for model in _models(client, run)
        if model.status == LoggedModelStatus.READY and model.tags.get("weights_sha256") == digest
    )
    return next(whole, None)


def drop_checkpoints(client: "MlflowClient", run: "Run") -> None:
    """Delete the weights of `run` from MLflow."""
    for model in _models(client, run):
        client.delete_logged_model(model.model_id)


def _models(client: "MlflowClient", run: "Run") -> list["LoggedModel"]:
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def _log(client: "MlflowClient", run: "Run", weights: Path, digest: str) -> None:
    """Do what `mlflow.pyfunc.log_model` does, for a given run and store and without an active run."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    model = client.create_logged_model(
        run.info.experiment_id,
        name=NAME,
        source_run_id=run.info.run_id,
        tags={"weights_sha256": digest, "run": run.data.tags["run"]},
        params=run.data.params,
    )
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / NAME
        mlflow.pyfunc.save_model(
            saved,
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                run_id=run.info.run_id,
                model_id=model.model_id,
            ),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"weights": str(weights.resolve())},
            signature=_signature(),
            input_example=_input_example(),
            # Listed here because MLflow would otherwise run the model to infer them. Serving needs this package too.
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )
        client.log_model_artifacts(model.model_id, str(saved))
    _share(weights, model)
    client.finalize_logged_model(model.model_id, "READY")


def _input_example() -> "pd.DataFrame":
    """Return a generated image in the form that a server accepts."""
    import pandas as pd
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (128, 96), (225, 220, 205))
    ImageDraw.Draw(image).ellipse((40, 24, 88, 72), fill=(200, 60, 40))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    columns = [("long", "image"), ("long", "category_id"), ("string", "category")]
    columns += [("double", name) for name in ("score", "x", "y", "width", "height")]
    outputs = Schema([ColSpec(kind, name) for kind, name in columns])
    return ModelSignature(Schema([ColSpec("string", "image")]), outputs)


def _share(weights: Path, model: "LoggedModel") -> None:
    """Replace MLflow's copy by a hard link to save disk space; if that fails, the copy is kept."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if not is_local_uri(model.artifact_location):  # type: ignore[no-untyped-call]
        return
    stored = Path(local_file_uri_to_path(model.artifact_location))  # type: ignore[no-untyped-call]
    for copy in stored.rglob(weights.name):
        link = copy.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            os.link(weights, link)
            link.replace(copy)
        link.unlink(missing_ok=True)
