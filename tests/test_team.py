"""A team's servers as `deploy/serve` starts them: MLflow with passwords on PostgreSQL, and DVC's remote in S3."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from conftest import ROOT, free_ports, wait_until, write_params
from data_helpers import small_yolo
from project_helpers import call, copy_project, repro, small_study

from fcos.commands.prepare import prepare
from fcos.data import shards
from fcos.data.coco import read_split
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.errors import UserError
from fcos.running.heartbeat import read_heartbeats
from fcos.training.remote_states import RemoteStates
from fcos.training.resume import Scratch

pytestmark = [pytest.mark.engine, pytest.mark.slow]
PROGRAMS = ROOT / ".venv" / "servers" / "bin"
POINTS = """
import sys
from mlflow import MlflowClient

client = MlflowClient()
(experiment,) = [found for found in client.search_experiments() if found.name == "smoke"]
for run in client.search_runs([experiment.experiment_id]):
    if run.info.run_name == "one-epoch":
        print(sorted(point.step for point in client.get_metric_history(run.info.run_id, "loss")))
"""


class Servers:
    """`deploy/serve` as a process."""

    def __init__(self, folder):
        self.folder = folder
        pg, s3, mlflow = free_ports(3)
        self.s3 = f"http://127.0.0.1:{s3}"
        ports = {"PGPORT": str(pg), "S3_PORT": str(s3), "MLFLOW_PORT": str(mlflow)}
        log = folder / "log"
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [ROOT / "deploy" / "serve", folder],
                env={**os.environ, **ports, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: "Ctrl-C" in log.read_text(), self.process)
        secret = (folder / "secrets" / "s3").read_text().strip()
        self.environment = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": (folder / "secrets" / "mlflow").read_text().strip(),
            "AWS_ACCESS_KEY_ID": "team",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def restart_database(self):
        """Cut all its connections without notice."""
        ctl = shutil.which("pg_ctl") or str(max(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))
        command = [ctl, "restart", "--wait", "--mode=immediate", f"--pgdata={self.folder}/postgres", "--silent"]
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
        subprocess.run([*as_postgres, *command, f"--log={self.folder}/logs/postgres"], check=True, cwd="/")

    def stop(self):
        self.process.terminate()  # Ctrl-C does the same, but is ignored by what a script has started in the background
        self.process.wait()


@pytest.fixture(scope="module")
def servers():
    if not (PROGRAMS / "rclone").exists():
        pytest.skip("no servers: make test-engines")
    if not shutil.which("initdb") and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp())  # PostgreSQL's user needs access
    folder.chmod(0o755)
    running = Servers(folder)
    yield running
    running.stop()
    assert running.process.returncode == 130 or running.process.returncode == 1
    shutil.rmtree(folder)


@pytest.fixture
def project(tmp_path, servers):
    folder = tmp_path / "project"
    folder.mkdir()
    params = small_study()
    params["runs"]["one-epoch"]["epochs"] = 20
    copy_project(folder, params)
    call(folder, "dvc", "remote", "add", "--default", "team", "s3://dvc")
    call(folder, "dvc", "remote", "modify", "team", "endpointurl", servers.s3)
    return folder


def test_a_state_in_an_object_store_is_found_by_another_node(tmp_path, servers, monkeypatch):
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", servers.s3)
    url = "s3://dvc/states/smoke/one-epoch-1234"
    state = dict.fromkeys(("optimizer", "history", "seconds", "validation"), 0)
    state |= {"model": {"w": torch.arange(5.0)}, "step": 7}
    here = Scratch(tmp_path / "here", remote=RemoteStates(url))
    with here.alone():
        here.save(state)
    there = Scratch(tmp_path / "there", remote=RemoteStates(url))
    with there.alone():
        found = there.load(torch.device("cpu"))
        with pytest.raises(UserError, match="taken over"):
            here.save(state)
    assert found["step"] == 7 and torch.equal(found["model"]["w"], torch.arange(5.0))
    there.remote.drop()
    assert Scratch(tmp_path / "else", remote=RemoteStates(url)).load(torch.device("cpu")) is None


def test_a_training_reads_its_images_from_an_object_store(tmp_path, servers, monkeypatch):
    """Through DVC, on a real S3 server, twice: by whole shards and by ranges. The weights are those from files."""
    folder = tmp_path / "project"
    folder.mkdir()
    params = small_study()
    copy_project(folder, params)
    monkeypatch.chdir(folder)
    small_yolo(**{f"image{number}": ["0 0.5 0.5 0.5 0.5"] for number in range(6)})
    data = {"source": "yolo", "root": "yolo", "classes": ["cat", "dog"], "cache": "none"}
    environment = {**servers.environment, "AWS_ENDPOINT_URL": servers.s3, "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def trained(**more):
        write_params({**params, "data": {**data, **more}})
        call(folder, "dvc", "repro", "--force", "--single-item", "stages/source/dvc.yaml:source")
        call(folder, "dvc", "repro", "--single-item", "stages/prepare/dvc.yaml:prepare")
        shutil.rmtree("runs", ignore_errors=True)
        call(folder, sys.executable, "-m", "fcos", "train", "one-epoch")
        return Path("runs/smoke/one-epoch/model.safetensors").read_bytes()

    from_files = trained()
    shutil.rmtree("data/.scratch", ignore_errors=True)
    assert trained(shards="s3://dvc/images") == from_files
    assert len(list(Path("data/.scratch/shards").glob("*.tar"))) == 1  # the training images; no other were read
    split = read_split(Path("data/smoke"), "train")
    monkeypatch.setattr(shards, "DISK_TIMES", float("inf"))
    dataset = DetectionDataset(split)
    by_files = DetectionDataset(replace(split, shards=None))
    for samples in load_ahead(dataset, [[3, 0], [7, 1]], workers=2):
        for sample in samples:
            index = split.image_ids.tolist().index(sample.image_id)
            assert torch.equal(torch.as_tensor(sample.image), torch.as_tensor(by_files[index].image))


def test_a_store_that_does_not_answer_is_told_before_any_image_is_read(tmp_path, servers, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_yolo()
    write_params({**small_study(), "data": {"source": "yolo", "root": "yolo", "classes": ["cat", "dog"]}})
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", servers.s3)
    (port,) = free_ports(1)
    wrong = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_SECRET_ACCESS_KEY": "sesame"}
    for name, value in wrong.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            with pytest.raises(UserError, match=r"s3://dvc/images: the images cannot be (read|written)"):
                prepare("s3://dvc/images")
    assert "check train" not in capsys.readouterr().err and not Path("data/smoke").exists()


def test_a_study_on_a_team_s_servers(tmp_path, servers, project, monkeypatch):
    """The database is restarted during the training; at the end, each step is logged exactly once."""
    monkeypatch.chdir(project)
    with (tmp_path / "log").open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "fcos", "study", "run"],
            env={**os.environ, **servers.environment, "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )

    def steps():
        return read_heartbeats("smoke").get(("train", "one-epoch"), {}).get("done", 0)

    wait_until(lambda: steps() > 20, process)
    servers.restart_database()
    assert process.wait() == 0, (tmp_path / "log").read_text()
    said = call(project, sys.executable, "-c", POINTS, **servers.environment)
    assert said.splitlines()[-1] == str(list(range(21 * 4)))
    assert "MLflow was not updated" not in (tmp_path / "log").read_text()
    call(project, "dvc", "push", "--quiet", "--run-cache", **servers.environment)
    other = tmp_path / "other"
    call(tmp_path, "git", "clone", "-q", str(project), str(other))
    shutil.copy(project / ".dvc" / "config", other / ".dvc" / "config")
    ran = repro(other, "--pull", "stages/evaluate/dvc.yaml:evaluate@one-epoch", **servers.environment)
    assert ran == ["source"]  # everything else comes from S3
    name = "runs/smoke/one-epoch/model.safetensors"
    assert (other / name).read_bytes() == (project / name).read_bytes()

    wrong = servers.environment | {"MLFLOW_TRACKING_PASSWORD": "wrong"}
    assert "user name and password" in call(project, sys.executable, "-m", "fcos", "sync-mlflow", code=2, **wrong)
    assert "user name and password" in call(project, sys.executable, "-m", "fcos", "doctor", code=1, **wrong)
