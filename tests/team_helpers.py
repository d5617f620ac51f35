"""The shared parts of a team: a git repository, a DVC remote, MLflow's server, and a folder that all nodes see."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml
from conftest import free_ports, wait_until
from project_helpers import call, copy_project

SECRET = "correct-horse-battery"
TIMES = re.compile(r"images_per_s|time|ms/image")  # columns


class Team:
    """A clone of the project whose trainings run on a cluster."""

    def __init__(self, folder, params, tracking_uri, cluster=None):
        self.folder, self.environment = folder, {"MLFLOW_TRACKING_URI": tracking_uri}
        self.environment |= cluster.environment if cluster else {}
        self.project, self.scratch, self.remote = folder / "project", folder / "scratch", folder / "remote"
        self.study = params["study"]
        self.scratch.mkdir()
        self.remote.mkdir()
        self.project.mkdir()
        # Variables of a login on a node, and a secret that must not appear anywhere.
        secrets = {"DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "AWS_SECRET_ACCESS_KEY": SECRET}
        secrets |= {"HOME": os.environ["HOME"], "DVC_SITE_CACHE_DIR": os.environ["DVC_SITE_CACHE_DIR"]}
        (folder / "secrets").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
        copy_project(self.project, params, git=False)
        call(self.project, "git", "init", "-q")
        call(self.project, "dvc", "remote", "add", "--default", "team", str(self.remote))
        self.options = {
            "scratch": str(self.scratch),
            "node_scratch": f"{folder}/nodes/${cluster.node_variable if cluster else 'USER'}",
            "python": sys.executable,
            "threads": 1,
            "secrets": str(folder / "secrets"),
        }
        self.write_options(**(cluster.options if cluster else {}))
        call(self.project, "git", "init", "-q", "--bare", str(folder / "origin.git"))
        call(self.project, "git", "remote", "add", "origin", str(folder / "origin.git"))
        self.push()

    def write_options(self, **changes):
        self.options |= changes
        (self.project / "engine.yaml").write_text(yaml.safe_dump(self.options))

    def push(self):
        call(self.project, "git", "add", "-A")
        call(self.project, "git", "commit", "-qm", "the study")
        call(self.project, "git", "push", "-q", "origin", "HEAD:main")

    def run(self, engine, *arguments, code=0):
        """Run `fcos study run` on a cluster and return its output."""
        command = [sys.executable, "-m", "fcos", "study", "run", "--engine", engine, *arguments]
        return call(self.project, *command, code=code, **self.environment)

    def fcos(self, *arguments, code=0):
        return call(self.project, sys.executable, "-m", "fcos", *arguments, code=code, **self.environment)

    def start(self, engine, *arguments):
        """Start the same as a process, whose output is in the file `log` of the process."""
        log = self.folder / f"output-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "fcos", "study", "run", "--engine", engine, *arguments]
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env={**os.environ, **self.environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process.log = log
        return process

    def folder_of(self, run):
        """Return the folder of the job of a run."""
        return next((self.scratch / self.study / "jobs").glob(f"{self.study}-{run}-*"))

    def steps(self, run):
        """Return the number of steps that a training has published."""
        with contextlib.suppress(OSError, ValueError):  # the training has not started yet, or has ended
            return json.loads((self.scratch / self.study / "at-work" / f"train@{run}.json").read_text()).get("done", 0)
        return 0

    def log(self, run):
        with contextlib.suppress(StopIteration, OSError):
            return (self.folder_of(run) / "log").read_text()
        return ""


@contextmanager
def mlflow_server(folder):
    """Start a server of MLflow on loopback and yield its address."""
    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nine additional processes
    with (folder / "mlflow.log").open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, env=environment, cwd="/"
        )
    try:
        wait_until(lambda: _answers(f"{uri}/health"), process)
        yield uri
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def results_of(project, run):
    """Return the content of the files that must not depend on where a run was trained."""
    folder = Path(project) / "runs" / "smoke" / run
    files = {name: (folder / name).read_bytes() for name in ("model.safetensors", "detections.json", "metrics.json")}
    return {**files, "history": _rows(folder / "history.csv")}


def tables_of(project):
    """Return the tables of the report by name."""
    return {path.name: _rows(path) for path in sorted(Path(project).glob("reports/smoke/tables/**/*.csv"))}


def _rows(path):
    """Return the rows of a CSV file without times."""
    with path.open(newline="") as stream:
        return [{name: row[name] for name in row if not TIMES.search(name)} for row in csv.DictReader(stream)]
