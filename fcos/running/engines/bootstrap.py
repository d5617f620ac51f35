"""The first step of a job on a node: get the code of the commit and an environment, and start the worker in them.

The coordinator copies this file beside job.json; it runs under any Python 3.9 or newer, without this project.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UV_VERSION = "0.13.9"  # as in the Makefile
AGAIN = 75  # EX_TEMPFAIL: another try, perhaps elsewhere, may succeed


def main() -> None:
    """Prepare the node as job.json says and replace this process by the worker."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    options = job["options"]
    environment = {**os.environ, **_secrets(options["secrets"])}
    place = Path(os.path.expandvars(options["node_scratch"]))
    place.mkdir(parents=True, exist_ok=True)
    clone = _clone(job, place / "clones" / job["commit"], environment)
    python = options["python"] or str(_python(clone, place / "environments", environment))
    environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", "")])
    os.chdir(clone)
    os.execve(python, [python, "-m", "fcos.running.engines.worker", str(path)], environment)


def _secrets(file: "str | None") -> "dict[str, str]":
    if file is None:
        return {}
    path = Path(os.path.expandvars(file)).expanduser()
    if not path.is_file():
        sys.exit(f"error: engine.yaml: secrets\n  found:    no file {path} on this node\n  expected: lines NAME=VALUE")
    if path.stat().st_mode & 0o077:
        print(f"warning: others can read {path}; chmod 600 keeps it to yourself", flush=True)
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in map(str.strip, lines) if line and not line.startswith("#"))
    return {name.strip().removeprefix("export "): value.strip().strip("\"'") for name, _, value in pairs}


def _clone(job: "dict[str, Any]", folder: Path, environment: "dict[str, str]") -> Path:
    """Return a clone at the job's commit. A job started again on the node finds its own; two jobs share none."""
    mine: Path = folder / job["run"]
    with _locked(folder.parent / "lock"):
        _drop_old(folder, job["options"]["keep"])
        if not (mine / ".git").is_dir():
            part = mine.with_name(f".{mine.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(parents=True, exist_ok=True)
            _call("git", "clone", "--quiet", job["repository"], str(part), environment=environment)
            _call("git", "-C", str(part), "checkout", "--quiet", "--detach", job["commit"], environment=environment)
            part.rename(mine)
    return mine


def _python(clone: Path, folder: Path, environment: "dict[str, str]") -> Path:
    """Return the Python of an environment with exactly what requirements.txt of the commit pins."""
    lock = clone / "requirements.txt"
    mine = folder / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    with _locked(folder / "lock"):
        _drop_old(mine, 2)
        if not (mine / "complete").exists():
            print(f"creating the environment from {lock.name} in {mine}", flush=True)
            _call(sys.executable, "-m", "venv", "--clear", str(mine), environment=environment)
            python = str(mine / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            uv = str(mine / "bin" / "uv")  # takes half a minute, where pip takes ten
            has_uv = subprocess.run([*pip, f"uv=={UV_VERSION}"], env=environment, check=False).returncode == 0
            install = [uv, "pip", "install", "--quiet", "--python", python] if has_uv else pip
            _call(*install, "--require-hashes", "-r", str(lock), environment=environment)
            _use(mine)  # the folder was created anew
            (mine / "complete").touch()
    return mine / "bin" / "python"


def _drop_old(mine: Path, keep: int) -> None:
    """Mark `mine` as used, and delete all but the `keep` last used folders beside it; those in use stay."""
    mine.mkdir(parents=True, exist_ok=True)
    os.utime(mine)
    _use(mine)
    others = sorted((path for path in mine.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in others[:-keep]:
        try:
            with (path / "in-use").open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass


def _use(folder: Path) -> None:
    """Hold a lock on the folder until this process ends, even after the worker has replaced it."""
    file = os.open(folder / "in-use", os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(file, True)
    fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def _locked(path: Path):  # type: ignore[no-untyped-def]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _call(*command: str, environment: "dict[str, str]") -> None:
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        print(f"error: {command[0]} {command[1]} failed with exit code {code}", file=sys.stderr)
        sys.exit(AGAIN if command[0] == "git" else code)


if __name__ == "__main__":
    main()
