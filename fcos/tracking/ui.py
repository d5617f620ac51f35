"""`fcos ui`: MLflow's pages of this project."""

import os
import sys

from fcos.tracking.store import connect, find_experiment, reaching, shown_uri, tracking_uri
from fcos.tracking.view import view_addresses

HOST = "127.0.0.1"


def pages_of(study: str, port: int) -> str:
    """Return where the pages of the study will be: on this machine, or on the server that has the runs.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    client = connect()
    with reaching():
        table, charts = view_addresses(find_experiment(client, study))
    place = f"http://{HOST}:{port}" if is_own() else shown_uri().replace("***@", "").rstrip("/")
    return f"table of study {study}: {place}/{table}\nits charts:      {place}/{charts}"


def is_own() -> bool:
    """Whether the runs are in a database, which needs a server to be seen."""
    return not tracking_uri().startswith("http")


def serve(port: int) -> None:
    """Replace this process by MLflow's server of the database, which Ctrl-C ends."""
    # Arguments of a process can be seen by all users of the machine, and the address may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking_uri()
    # What runs MLflow's evaluations of language models: seven more processes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, *command])
