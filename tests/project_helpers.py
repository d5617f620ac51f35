"""What git keeps of this repository, and copies of it in which commands run as a user types them."""

import shutil
import subprocess

import pytest
from conftest import ROOT


def _git(*arguments):
    """What git says of this repository; a downloaded archive is none, and not every machine has git."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no clone of the repository, or git is missing")
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def committed(name):
    """The text of a file as it was committed last."""
    return _git("show", f"HEAD:{name}")


def tracked_files():
    return [name for name in _git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


def copy_project(folder, params):
    """A clone of this repository as it stands, with the study of the text `params` active and nothing done yet."""
    for name in tracked_files():
        if not name.endswith(".lock") and not name.startswith("reports/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(params)
    for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]):
        call(folder, *command)


def call(folder, *command):
    """Run a command in a folder; its output."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr
