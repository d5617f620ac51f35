"""List the files that git tracks, and make copies of the repository in which commands run as a user types them."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, wait_until

PATH = os.environ["PATH"]  # has the real commands; the fixture `quick` puts others before them


def _git(*arguments):
    """Return git's answer about this repository; an archive has no repository, and some machines have no git."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no clone of the repository, or git is missing")
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def tracked_files():
    return [name for name in _git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


@functools.cache
def empty_store():
    """Return a new MLflow database to be copied, since creating one takes as long as a short training."""
    path = Path(tempfile.mkdtemp(dir=os.environ["HOME"])) / "mlflow.db"
    make = "from fcos.tracking.store import connect; connect()"
    call(path.parent, sys.executable, "-c", make, MLFLOW_TRACKING_URI=f"sqlite:///{path}", PYTHONPATH=str(ROOT))
    return path


def copy_project(folder, params, *, git=True):
    """Return a clone of this repository as it is, with the study `params` (text or data) active and nothing done."""
    for name in tracked_files():
        if not name.endswith(".lock") and not name.startswith("reports/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(empty_store(), folder / "mlflow.db")
    set_params(folder, params)
    for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]) if git else ():
        call(folder, *command)
    return folder


def set_params(folder, params):
    text = params if isinstance(params, str) else yaml.safe_dump(params, sort_keys=False)
    (folder / "params.yaml").write_text(text)


def small_study(**data):
    """Return the settings of smoke with one training of two epochs, and this section `data`, if any."""
    params = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    params["runs"] = {"one-epoch": {"backbone": "resnet18", "epochs": 1, "num_convs": 1}}
    params["tta"]["runs"] = params["nms_sweep"]["runs"] = []
    params["tables"] = [{"kind": "trained", "title": "Trained model", "run": "one-epoch"}]
    return params | ({"study": "pets", "data": data} if data else {})


def call(folder, *command, code=0, **environment):
    """Run a command in a folder and return its output."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)
    assert done.returncode == code, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def fcos(folder, *arguments, code=0, **environment):
    return call(folder, "python", "-m", "fcos", *arguments, code=code, **environment)


def repro(folder, *arguments, **environment):
    """Return the stages that `dvc repro` runs."""
    return stages_run(call(folder, "dvc", "repro", *arguments, **environment))


def stages_run(output):
    return sorted(re.findall(r"Running stage '(?:stages/\w+/dvc.yaml:)?([^']+)'", output))


def changed_stages(folder):
    """Return the stages that `dvc status` shows as changed."""
    shown = json.loads(call(folder, "dvc", "status", "--json").splitlines()[-1])
    return {address.rpartition(":")[2] for address in shown}


def address(stage, run=None):
    return f"stages/{stage}/dvc.yaml:{stage}" + (f"@{run}" if run else "")


def start(folder, *command):
    """Start the real command as the leader of a process group; its output is in the file `log` of the process."""
    log = folder / f"output-{time.monotonic_ns()}"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": PATH},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.log = log
    return process


@contextmanager
def started(folder, *command, ready):
    """Start such a command and wait until `ready` is true; at the end it is killed with its group."""
    process = start(folder, *command)
    try:
        wait_until(lambda: ready() or process.poll() is not None)
        assert process.poll() is None, process.log.read_text()
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
