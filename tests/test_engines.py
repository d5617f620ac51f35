"""A study on a real cluster of two nodes on this machine, with MLflow's server, a DVC remote and a git remote."""

import os
import re
import shutil
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import LIMIT_S, ROOT, wait_until
from data_helpers import small_yolo
from project_helpers import call, copy_project, small_study
from ray_helpers import ray
from slurm_helpers import slurm
from team_helpers import SECRET, Team, mlflow_server, results_of, tables_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ENGINES = ("slurm", "ray")
RUNS = ("reference", "one-epoch")


def smoke():
    """Return the settings of smoke, with states saved every second."""
    params = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    params["train"]["checkpoint_every_s"] = 1.0
    return params


def small(**changes):
    """Return the same with one training and changes of its settings, such as epochs=30."""
    params = small_study()
    params["train"]["checkpoint_every_s"] = 1.0
    params["runs"]["one-epoch"] |= changes
    return params


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """Yield the address of MLflow's server and the folder of its files."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as uri:
        yield uri, folder


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Return a function that starts each cluster when it is first requested."""
    started = {}
    with ExitStack() as stack:

        def start(engine):
            if engine not in started:
                cluster = slurm(tmp_path_factory.mktemp("slurm")) if engine == "slurm" else ray()
                started[engine] = stack.enter_context(cluster)
            started[engine].start_nodes()
            return started[engine]

        yield start


@pytest.fixture
def team(tmp_path, clusters, tracking):
    """Return a function that creates a team with a study and a cluster."""

    def make(params, engine="slurm"):
        cluster = clusters(engine)
        return Team(tmp_path, params, tracking[0], cluster), cluster

    yield make
    # Ends what a failed test or a lost node leaves running.
    for process in [*working_in(tmp_path / "project"), *working_in(tmp_path / "nodes")]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(scope="module")
def run_locally(tmp_path_factory):
    """Run a study in one process; each study is run only once."""
    done = {}

    def run(params):
        key = yaml.safe_dump(params)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("local")
            copy_project(done[key], params)
            call(done[key], sys.executable, "-m", "fcos", "study", "run", "--jobs", "1")
        return done[key]

    return run


def steps_of(text):
    """Return the step at which each part of a training was resumed."""
    return [int(line.split()[3]) for line in text.splitlines() if line.startswith("resumed at step")]


def jobs_of(cluster):
    """Return the number of jobs that SLURM has seen."""
    return len(cluster.ask("squeue", "--noheader", "--states=all", "-o", "%i").split())


def working_in(folder):
    """Return the processes whose current folder is below `folder`."""
    return [process for process in psutil.process_iter(["cwd"]) if f"{folder}/" in f"{process.info['cwd']}/"]


@contextmanager
def frozen(folder):
    """Suspend the processes that work in a folder."""
    processes = working_in(folder)
    assert len(processes) >= 3  # the job, DVC and the training
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # its engine has already ended it
                process.resume()


def end(process, number):
    os.killpg(process.pid, number)
    process.wait(LIMIT_S)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_study_on_a_cluster_equals_a_local_one(tmp_path, team, tracking, run_locally, engine):
    params = smoke()
    local = run_locally(params)
    ours, cluster = team(params, engine)
    said = ours.run(engine)
    assert said.count(f"submitted to {engine}") == 2 and "11 of 11 stages done" in said
    for run in RUNS:
        assert results_of(ours.project, run) == results_of(local, run)
    assert tables_of(ours.project) == tables_of(local) != {}
    assert ours.run(engine) == "11 of 11 stages done\n"
    # A second clone has only the lock files, so everything is pulled from the remote.
    ours.push()
    call(tmp_path, "git", "clone", "-q", "-b", "main", str(tmp_path / "origin.git"), "other")
    ours.project = tmp_path / "other"
    ours.write_options()
    said = ours.run(engine)
    assert "8 stages were restored from the remote" in said and "submitted" not in said
    assert results_of(ours.project, "one-epoch") == results_of(local, "one-epoch")
    places = (ours.scratch, cluster.folder, tracking[1])  # job files and logs, the engine's spools, parameters and tags
    written = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(written) > 8 and [path for path in written if SECRET.encode() in path.read_bytes()] == []
    assert engine != "slurm" or SECRET not in cluster.ask("scontrol", "show", "job", "-d")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_goes_on_elsewhere_after_its_node_was_lost(tmp_path, team, run_locally, engine):
    params = small(epochs=20)
    local = run_locally(params)
    ours, cluster = team(params, engine)
    process = ours.start(engine)
    wait_until(lambda: list(ours.scratch.glob("smoke/one-epoch-*/state.pt")), process)
    first, second = ("n1", "n2") if " on n1\n" in ours.log("one-epoch") else ("n2", "n1")
    if engine == "slurm":
        with frozen(tmp_path / "nodes" / first):
            cluster.kill_node(first)
            wait_until(lambda: "taking over this training from process" in ours.log("one-epoch"), process)
        # The first training continues, as on a node whose network is back.
        wait_until(lambda: "another process has taken over this training, so this one ends" in ours.log("one-epoch"))
    else:  # the worker of an actor ends with its raylet, together with its child processes
        cluster.kill_node(first)
    assert process.wait(LIMIT_S) == 0, process.log.read_text()
    said = process.log.read_text()
    assert "requeued 1 x" in said and f"one-epoch: done on {second}" in said and steps_of(ours.log("one-epoch"))
    assert results_of(ours.project, "one-epoch") == results_of(local, "one-epoch")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failed_run_is_named_while_others_finish(team, engine):
    params = small()
    wrong = {"learning_rate": 1.0e38}  # the weights overflow
    params["runs"]["reference"] = {**params["runs"]["one-epoch"], "seed": 1, "train": wrong}
    ours, _ = team(params, engine)
    said = ours.run(engine, code=1)
    assert f"log: {ours.folder_of('reference') / 'log'}" in said
    assert re.search(r"^reference: failed on n[12] \(exit code \d+\); log: ", said, re.MULTILINE)
    assert "reference | error: training step" in said and said.splitlines()[-1].startswith("failed: reference;")
    assert "one-epoch: done on n" in said


def test_a_killed_coordinator_goes_on_and_a_stopped_training_loses_no_step(tmp_path, team):
    params = small(epochs=20)
    params["train"]["checkpoint_every_s"] = 3600.0
    ours, cluster = team(params)
    states = tmp_path / "states"
    ours.write_options(states=f"file://{states}")
    before = jobs_of(cluster)
    process = ours.start("slurm")
    wait_until(lambda: ours.steps("one-epoch"), process)
    end(process, signal.SIGKILL)
    assert "one-epoch  running on n" in ours.fcos("status")
    # As SLURM does at the time limit, or when a job with a higher priority needs the node.
    cluster.ask("scancel", "--batch", "--signal=TERM", f"--name={ours.folder_of('one-epoch').name}")
    wait_until(lambda: "stopped by the engine" in ours.log("one-epoch"))
    assert list(states.glob("smoke/one-epoch-*/state.pt"))
    said = ours.run("slurm")
    assert jobs_of(cluster) == before + 1 and "submitted to" not in said  # it was found by its name
    assert "one-epoch: done on n" in said
    assert steps_of(ours.log("one-epoch")) > [0] and not (states / "smoke").exists()


def test_cancelled_jobs_end_and_are_not_started_again(team):
    """A cancelled job is restarted neither by SLURM nor by the command that follows the jobs."""
    params = small(epochs=1000)
    params["train"]["checkpoint_every_s"] = 3600.0  # only the signals cause a state to be saved
    ours, cluster = team(params)
    assert "not waiting" in ours.run("slurm", "--detach")
    before = jobs_of(cluster)
    process = ours.start("slurm")
    wait_until(lambda: ours.steps("one-epoch") and "already submitted" in process.log.read_text(), process)
    assert "cancelled: one-epoch" in ours.fcos("study", "cancel")
    assert process.wait(LIMIT_S) == 1, process.log.read_text()
    assert "one-epoch: failed" in process.log.read_text() and "(cancelled)" in process.log.read_text()
    assert not cluster.ask("squeue", "--noheader", f"--name={ours.folder_of('one-epoch').name}")
    assert "(cancelled)" in ours.fcos("status") and jobs_of(cluster) == before
    assert list(ours.scratch.glob("smoke/one-epoch-*/state.pt"))
    assert "no job of this study" in ours.fcos("study", "cancel")


def test_a_remote_that_is_away_is_waited_for(team):
    ours, _ = team(small())
    process = ours.start("slurm")
    wait_until(lambda: "images: " in ours.log("one-epoch"), process)
    away = ours.remote.with_name("away")
    ours.remote.rename(away)
    ours.remote.write_text("the disk is not mounted")
    wait_until(lambda: "could not push" in ours.log("one-epoch"), process)
    ours.remote.unlink()
    away.rename(ours.remote)
    assert process.wait(LIMIT_S) == 0, process.log.read_text()
    assert "one-epoch: done on n" in process.log.read_text()


def test_images_of_one_s_own_are_found_on_the_node_and_must_be_the_same(tmp_path, team):
    here, there = small_yolo(tmp_path / "here"), tmp_path / "there"
    shutil.copytree(here, there)
    label = there / "labels" / "train" / "a.txt"
    right = label.read_text()
    label.write_text(right.replace("0.5 0.625", "0.55 0.625"))
    data = {"source": "yolo", "validation_fraction": 0.0, "cache": "auto", "classes": ["cat", "dog"]}
    ours, _ = team(small_study(**data, root="datasets/pets"))
    ours.write_options(data=str(there))
    ours.fcos("source", "--at", str(here))
    said = ours.run("slurm", code=1)
    assert "the data differ from the coordinator's" in said and "labels modified" in said
    assert "Running stage 'stages/train" not in ours.log("one-epoch")
    label.write_text(right)
    assert "6 of 6 stages done" in ours.run("slurm")
    assert str(here) not in ours.log("one-epoch")


def idle(ours):
    """Put a `squeue` before the real one that answers: there is no job."""
    programs = ours.folder / "programs"
    programs.mkdir()
    (programs / "squeue").write_text("#!/bin/sh\n")
    (programs / "squeue").chmod(0o755)
    ours.environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"


REFUSALS = {
    "a change that is not committed": (lambda ours: (ours.project / "fcos" / "new.py").touch(), "fcos/new.py"),
    "a commit that is not pushed": (
        lambda ours: call(ours.project, "git", "commit", "-qm", "x", "--allow-empty"),
        "not pushed",
    ),
    "no repository": (lambda ours: call(ours.project, "git", "remote", "remove", "origin"), "no remote `origin`"),
    "no remote": (
        lambda ours: (call(ours.project, "dvc", "remote", "default", "--unset"), ours.push()),
        "has no default remote",
    ),
    "a remote that is away": (lambda ours: (ours.remote.rmdir(), ours.remote.touch(), idle(ours)), "dvc push"),
    "no shared folder": (lambda ours: ours.write_options(scratch="/nowhere/shared"), "engine.yaml: scratch"),
    "a relative shared folder": (lambda ours: ours.write_options(scratch="scratch"), "absolute path"),
    "a cluster that is away": (lambda _: None, "the cluster does not answer; nothing was submitted"),
    "an unknown option": (lambda ours: ours.write_options(partition="gpu"), "engine.yaml: partition"),
    "a store of this machine": (lambda ours: ours.environment.update(MLFLOW_TRACKING_URI=""), "nodes cannot write"),
    "a password": (
        lambda ours: ours.environment.update(MLFLOW_TRACKING_URI=f"http://me:{SECRET}@127.0.0.1"),
        "has a password",
    ),
    "a missing command": (
        lambda ours: ours.environment.update(PATH=str(Path(sys.executable).parent)),
        "no such command",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_run_there_is_refused_by_name(tmp_path, what):
    ours = Team(tmp_path, small(), "http://127.0.0.1:9")
    change, said = REFUSALS[what]
    change(ours)
    output = ours.run("slurm", code=2)
    assert said in output and SECRET not in output and "Traceback" not in output
    assert not list(ours.scratch.glob("smoke/jobs/*/slurm.sh")) or what == "a missing command"


def test_a_node_with_another_torch_runs_nothing(tmp_path, team):
    ours, _ = team(small())
    other = tmp_path / "site"
    other.mkdir()
    # An interpreter whose torch reports another version.
    (other / "sitecustomize.py").write_text("import importlib.abc, importlib.util, sys\n" + FAKE)
    with (tmp_path / "secrets").open("a") as stream:
        stream.write(f"PYTHONPATH={other}\n")
    said = ours.run("slurm", code=1)
    assert "has a different torch, which would change the weights; nothing was run" in said and "2.0.0" in said
    assert "Running stage 'stages/train" not in said


FAKE = """
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.__version__ = "2.0.0"

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
