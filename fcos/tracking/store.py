"""Connect to MLflow's store, and report when it cannot be reached."""

import contextlib
import logging
import os
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from fcos.errors import UserError
from fcos.files import project_root
from fcos.locks import locked
from fcos.tracking.database import Damaged, Unusable, check_database, set_aside

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Defaults for variables that the user has not set. Each retry doubles its wait: MLflow's seven take four minutes.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


_SECRET = re.compile(r"([?&;][\w-]*(?:pass|pwd|token|secret|key|auth)[\w-]*=)[^&;\s]*", re.IGNORECASE)
_REFUSED = re.compile(r"\b40[13]\b|authenti|credential|password|access denied|permission.denied", re.IGNORECASE)
_NOT_PERMITTED = re.compile(r"\b403\b|permission.denied", re.IGNORECASE)
_WRONG = re.compile(
    r"unsupported URI|maintenance mode|Invalid|int\(\)|No module named|Unity Catalog|parse|JSON|as MLflow does"
    r"|database of something else|a folder",
)


class StoreUnavailable(Exception):
    """MLflow's store is unavailable or broken; no result is lost, since the files have all of them."""

    @property
    def hint(self) -> str:
        """Return a hint for the user."""
        if _NOT_PERMITTED.search(str(self)):
            return "ask whoever runs the server for the permission EDIT, or check the user name and password"
        if _REFUSED.search(str(self)):
            return "check the user name and password (MLFLOW_TRACKING_USERNAME and _PASSWORD, or in the address)"
        if _WRONG.search(str(self)):
            return "set MLFLOW_TRACKING_URI to a server (http://HOST:5000) or a database (sqlite:////FILE), or unset it"
        return "start the server and run the command again"


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the database beside dvc.yaml.

    Its path is absolute, because a relative one would be lost in DVC's copies of the project.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or own_uri()


def own_uri() -> str:
    """Return the URI of the database beside dvc.yaml, for any name of the folder."""
    path = str(project_root().resolve() / "mlflow.db")
    return "sqlite:///" + path.translate({ord(mark): quote(mark) for mark in "%?#"})


def shown_uri() -> str:
    """Return the URI of the store without secrets."""
    return masked(tracking_uri())


def masked(text: str) -> str:
    """Return `text` without user names, passwords and tokens, of the store or of any other URI in it."""
    uri = tracking_uri()
    secrets = {uri: _without_user(uri)}
    with contextlib.suppress(ValueError):  # urllib rejects a URI whose password has brackets
        parts = urlsplit(uri)
        secrets |= {unquote(found): "***" for found in (parts.password,) if found and len(found) > 3}
    for secret, shown in secrets.items():
        text = text.replace(secret, shown)
    text = re.sub(r"(\w+://)[^/\s@]*@", r"\1***@", text)
    return _SECRET.sub(r"\1***", text)


def _without_user(uri: str) -> str:
    """Remove everything before the last `@`, since a password may contain any character (`@`, `/`, spaces)."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.split("+")[0] in ("sqlite", "file"):
        return uri
    place, question, query = rest.partition("?")
    if "@" in query:  # the question mark belongs to the password
        place, question, query = rest, "", ""
    return f"{scheme}://{'***@' if '@' in place else ''}{place.rpartition('@')[2]}{question}{query}"


def connect(*, renew: bool = True) -> "MlflowClient":
    """Return a client of a store that answers; creates a missing database, which takes some seconds.

    Args:
        renew: whether a damaged database of the project is set aside; otherwise it is an error.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic)\b")
    # Two processes that create one database at the same time both fail.
    with reaching(), locked(project_root() / "mlflow.db.lock"):
        _check_sqlite(renew=renew)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        client = MlflowClient(tracking_uri())
        client.search_experiments(max_results=1)  # a client sends no request to a server until it is used
        return client


def _check_sqlite(*, renew: bool) -> None:
    """Check a database file first, because MLflow tries for two minutes to open an unusable one."""
    uri = tracking_uri()
    name = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or name in ("", ":memory:"):
        return
    try:
        check_database(Path(name))
    except Damaged as why:
        if not renew or uri != own_uri():
            raise
        set_aside(Path(name), why)


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Convert errors of an unavailable or broken store to StoreUnavailable; other exceptions pass through."""
    try:
        yield
    except (StoreUnavailable, UserError):
        raise
    except Exception as error:
        if not isinstance(error, OSError | ModuleNotFoundError | Unusable) and not _is_of_mlflow(error):
            raise
        line = masked((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
        if not _is_refusal(line):
            what = "cannot be used"
        elif _NOT_PERMITTED.search(line):
            what = "does not permit this user to do it"
        else:
            what = "refuses the user name or the password"
        raise StoreUnavailable(f"MLflow's store {shown_uri()} {what}: {line}") from error


def _is_of_mlflow(error: BaseException) -> bool:
    """Whether MLflow or a library below it raised `error`: drivers, protobuf and urllib have their own exceptions."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.partition(".")[0] == "mlflow" for name in names)


def _is_refusal(text: str) -> bool:
    """Whether a server denied access; file permissions are a different error."""
    return not tracking_uri().startswith("sqlite:") and bool(_REFUSED.search(text))


def find_experiment(client: "MlflowClient", study: str) -> str:
    """Return the id of the study's experiment, which is created if missing or restored if deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(study)
    if found is None:
        try:
            return _create_experiment(client, study)
        except MlflowException:  # another process has created it in the meantime
            found = client.get_experiment_by_name(study)
            if found is None:
                raise
    if not found.experiment_id:  # a server that answers every request with 200 and `{}`
        raise StoreUnavailable(f"MLflow's store {shown_uri()} cannot be used: it does not answer as MLflow does")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _create_experiment(client: "MlflowClient", study: str) -> str:
    own_place = None if os.environ.get("MLFLOW_TRACKING_URI") else project_root().resolve() / "mlruns" / study
    note = f"The trainings of the study `{study}`, copied from `runs/{study}/`; `fcos sync-mlflow` refills it."
    return str(
        client.create_experiment(
            study,
            artifact_location=None if own_place is None else own_place.as_uri(),
            # The kind makes the UI open the table of runs instead of traces of language models.
            tags={"mlflow.note.content": note, "mlflow.experimentKind": "custom_model_development"},
        )
    )
