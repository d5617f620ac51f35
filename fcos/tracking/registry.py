"""Register the study in MLflow's model registry: one model, whose alias `best` is the run with the highest AP."""

from typing import TYPE_CHECKING

from fcos.tracking.checkpoint import ready_model
from fcos.tracking.describe import model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

BEST = "best"
_DESCRIPTION = "FCOS: column `image` takes paths or base64 of image files; one row out for each object."


def register_best(client: "MlflowClient", study: str, best: "Run") -> None:
    """Set the alias to the weights of `best`, if MLflow has them, and delete versions whose weights are gone."""
    model = ready_model(client, best)
    if model is None:
        return
    name = model_name(study)
    versions = _versions(client, name)
    version = next((version for version in versions if version.model_id == model.model_id), None)
    if version is None:
        version = client.create_model_version(
            name,
            source=f"models:/{model.model_id}",
            run_id=best.info.run_id,
            model_id=model.model_id,
            tags={"run": best.data.tags["run"], "weights_sha256": best.data.tags["weights_sha256"]},
            description=f"The weights of {best.data.tags['run']}: images in, boxes out.",
            await_creation_for=0,
        )
    if client.get_registered_model(name).aliases.get(BEST) != version.version:
        client.set_registered_model_alias(name, BEST, version.version)
    for old in versions:
        if old.model_id != model.model_id and _is_gone(client, old.model_id):
            client.delete_model_version(name, old.version)


def _is_gone(client: "MlflowClient", model_id: str | None) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_logged_model(str(model_id))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True
    return False


def _versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=_DESCRIPTION)
    return list(client.search_model_versions(f"name = '{name}'"))
