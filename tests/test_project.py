"""`fcos init`: a project whose stages run the installed package, here the wheel, outside the clone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest import mock

import pytest
import yaml
from conftest import ROOT, assert_mistake
from project_helpers import call, small_study, tracked_files
from quick_fcos import quick_fcos

from fcos.authoring import project
from fcos.authoring.project import init_project, upgrade_project
from fcos.errors import UserError
from fcos.running.code_link import refresh_link

FILES = {"dvc.yaml", "params.yaml", ".fcos.json", ".dvcignore", ".gitignore", "README.md", "stages", "studies", "fcos"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with what the wheel holds, as an installation has it in site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked_files():  # not what an earlier build left in build/
        if name.startswith("fcos/") or name in ("pyproject.toml", "README.md"):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    call(folder, sys.executable, *command, str(folder / "source"))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def commands(installed, tmp_path_factory):
    """Return a search path for quick commands of the installed package."""
    with (
        mock.patch.dict(os.environ, PYTHONPATH=str(installed)),
        quick_fcos(tmp_path_factory.mktemp("commands")) as path,
    ):
        yield path


def test_the_wheel_holds_the_code_and_the_pipeline_of_the_clone(installed):
    for name in tracked_files():
        if name.startswith("fcos/"):
            assert (installed / name).read_bytes() == (ROOT / name).read_bytes()
    assert not [path for path in installed.rglob("*") if path.name == "dvc.yaml"]  # DVC would take it for a pipeline


def _running(said):
    """The addresses of the stages that `dvc repro` says it runs."""
    return [line.partition("'")[2].rstrip("':") for line in said.splitlines() if line.startswith("Running stage")]


@pytest.mark.slow
def test_a_project_runs_the_installed_package(installed, commands, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", commands)
    folder = tmp_path / "mine"
    said = call(tmp_path, "fcos", "init", "mine")
    assert "5 ready-made studies" in said and "cd mine" in said
    assert {path.name for path in folder.iterdir()} == FILES | {".git", ".dvc"}
    (folder / "params.yaml").write_text(yaml.safe_dump(small_study()))
    call(folder, "git", "add", "-A")
    assert "fcos\n" not in call(folder, "git", "ls-files") and ".fcos.json" in call(folder, "git", "ls-files")
    assert len(_running(call(folder, "dvc", "repro"))) == 6
    assert (folder / "reports" / "smoke" / "index.html").is_file()
    record = json.loads((folder / "runs" / "smoke" / "one-epoch" / "evaluation.json").read_text())
    assert record["metrics"]["AP"] >= 0
    assert not _running(call(folder, "dvc", "repro"))

    for module, stages in [("training/step.py", {"train@one-epoch"}), ("reporting/findings.py", {"report"})]:
        code = installed / "fcos" / module
        before = code.read_text()
        code.write_text(f"{before}# patched\n")
        assert {address.rpartition(":")[2] for address in _running(call(folder, "dvc", "repro", "--dry"))} == stages
        said = call(folder, "fcos", "init", "--upgrade")
        assert ("1 x train " in said) == ("training" in module) and "1 x report" in said and "x prepare" not in said
        code.write_text(before)
    assert "nothing of study smoke will run again" in call(folder, "fcos", "init", "--upgrade")

    # Another machine has the files that git tracks, and the package at another place.
    other = tmp_path / "theirs"
    call(folder, "git", "commit", "--quiet", "--message", "start")
    call(tmp_path, "git", "clone", "--quiet", "mine", "theirs")
    assert f"linked fcos to the installed package: {installed / 'fcos'}" in call(other, "fcos", "init")
    assert (other / "fcos").resolve() == (installed / "fcos").resolve()


@pytest.fixture
def mine(tmp_path):
    init_project(tmp_path / "mine")
    return tmp_path / "mine"


def test_nothing_that_exists_is_replaced(tmp_path, run):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "params.yaml").write_text("mine")
    (folder / "README.md").write_text("mine")
    assert_mistake(run("init", "there"), "there: has 1 files", "params.yaml", "nothing was written")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "params.yaml"]
    (folder / "params.yaml").unlink()
    (folder / ".gitignore").write_text("*.log\n/data/")
    assert "README.md was there already" in run("init", "there").stdout
    assert (folder / "README.md").read_text() == "mine"
    lines = (folder / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["*.log", "/data/"] and lines.count("/data/") == 1 and "/fcos" in lines


def test_an_upgrade_replaces_what_nobody_edited(mine):
    record = json.loads((mine / ".fcos.json").read_text())
    stage, study, gone = mine / "stages/train/dvc.yaml", mine / "studies/smoke.yaml", mine / "studies/shapes.yaml"
    new = {path: path.read_text() for path in (stage, study)}
    # As an older version would have left it: other text, recorded as written; and a file that no longer exists.
    for path, text in ((stage, "stages: {}\n"), (mine / "stages/former/dvc.yaml", "stages: {}\n")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        record["files"][path.relative_to(mine).as_posix()] = project.sha256_bytes(text.encode())
    record["version"] = "0.0.1"
    (mine / ".fcos.json").write_text(json.dumps(record))
    study.write_text("# mine\n" + new[study])
    gone.unlink()
    (mine / "stages/evaluate/dvc.yaml").unlink()
    (mine / ".gitignore").write_text("")
    said = upgrade_project(mine)
    assert said.startswith("fcos 0.0.1 -> ")
    assert stage.read_text() == new[stage] and (mine / "stages/evaluate/dvc.yaml").is_file()
    assert study.read_text() == "# mine\n" + new[study] and Path(f"{study}.new").read_text() == new[study]
    assert not gone.exists() and not (mine / "stages/former/dvc.yaml").exists()
    for line in ("replaced", "added", "kept, since you edited it", "deleted", "completed", "no stage of study smoke"):
        assert line in said
    upgrade_project(mine)  # an edited file is still known as edited
    assert study.read_text() == "# mine\n" + new[study]


def test_a_folder_that_is_no_project(tmp_path, run, mine):
    assert_mistake(run("init", "--upgrade"), "is no project of `fcos init`", ".fcos.json")
    (mine / ".fcos.json").write_text("{")
    assert_mistake(run("init", "mine"), ".fcos.json", "git checkout")
    with pytest.raises(UserError, match="a clone of the repository needs no init"):
        init_project(ROOT)


def test_inside_of_another_repository(tmp_path):
    subprocess.run(["git", "init", "-q"], check=True)
    init_project(tmp_path / "part")
    assert not (tmp_path / "part" / ".git").exists() and (tmp_path / "part" / ".dvc" / "config").is_file()


def test_the_link_is_renewed_and_a_folder_of_that_name_is_left_alone(mine, monkeypatch):
    monkeypatch.chdir(mine)
    link = Path("fcos")
    for broken in (link.unlink, lambda: (link.unlink(), link.symlink_to("nowhere"))):
        broken()
        refresh_link()
        assert link.resolve() == ROOT / "fcos"
    link.unlink()
    link.mkdir()
    refresh_link()
    assert not link.is_symlink()
