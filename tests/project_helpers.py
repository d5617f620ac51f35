"""Projects with a real git and a real DVC in folders of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
LIMIT_S = 300  # of whatever is waited for: a wait ends by what it waits for


def tracked_files() -> list[str]:
    """What git has of this repository, by name; without git, all that is not ignored there."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split("\n")
    return [name for name in listed if name and (ROOT / name).is_file()]


def make_project(folder: Path, params: dict[str, Any], *, git: bool = True) -> Path:
    """A copy of this repository without results, with `params` as params.yaml."""
    for name in tracked_files():
        if name.endswith(".lock") or name.startswith(("reports/shapes", "docs/", "tests/")):
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    write_params_to(folder, params)
    if git:
        for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]):
            call(folder, *command)
    return folder


def write_params_to(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def small_study(**data: Any) -> dict[str, Any]:
    """The settings of smoke with one training of two epochs, and this section `data`, if any."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    params["runs"] = {"one-epoch": {"backbone": "resnet18", "epochs": 1, "num_convs": 1}}
    params["tta"]["runs"] = params["nms_sweep"]["runs"] = []
    params["tables"] = [{"kind": "trained", "title": "Trained model", "run": "one-epoch"}]
    if data:
        params |= {"study": "pets", "data": data}
    return params


def environment() -> dict[str, str]:
    """This one's with its Python first, without what the user has set for DVC and MLflow."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "FCOS_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "DVC_NO_ANALYTICS": "true"}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    return env | {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def call(folder: Path, *command: str, code: int = 0, **more: str) -> str:
    """Run a command with this environment's programs; its output."""
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**environment(), **more}, check=False
    )
    assert done.returncode == code, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def fcos(folder: Path, *arguments: str, code: int = 0, **more: str) -> str:
    return call(folder, "python", "-m", "fcos", *arguments, code=code, **more)


def repro(folder: Path, *arguments: str, code: int = 0) -> list[str]:
    """The stages that `dvc repro` runs."""
    return stages_run(call(folder, "dvc", "repro", *arguments, code=code))


def stages_run(output: str) -> list[str]:
    return sorted(re.findall(r"Running stage '(?:stages/\w+/dvc.yaml:)?([^']+)'", output))


def changed_stages(folder: Path) -> list[str]:
    """What `dvc status` shows as changed."""
    shown = json.loads(call(folder, "dvc", "status", "--json").splitlines()[-1])
    return sorted(address.rpartition(":")[2] for address in shown)


def address(stage: str, run: str | None = None) -> str:
    return f"stages/{stage}/dvc.yaml:{stage}" + (f"@{run}" if run else "")


@contextmanager
def started(folder: Path, *command: str, ready: Callable[[], Any], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command as the leader of a group of its own, once `ready` says so; the group is killed at the end."""
    log = (folder / f"output-{time.monotonic_ns()}").open("w+")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment(), **more},
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    process.log = Path(log.name)  # type: ignore[attr-defined]
    try:
        wait_for(lambda: ready() or process.poll() is not None)
        assert ready(), Path(log.name).read_text()
        yield process
    finally:
        with_children = process.poll() is None
        if with_children:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
