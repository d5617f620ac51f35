"""`fcos status` and the end of commands by signals: with real processes, real signals and a real DVC."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from conftest import LIMIT_S, ROOT, wait_until, write_params
from project_helpers import copy_project

from fcos.config import params
from fcos.files import write_json
from fcos.progress import Progress, duration, watchers
from fcos.running.heartbeat import STUDY, heartbeat, read_heartbeats
from fcos.running.stages import Stage, StageState, all_stages, find_states, what_is_open
from fcos.running.status import StatusReader, status_text
from fcos.running.time_left import time_left
from fcos.study.layout import Layout

TRAIN, PREDICT, EVALUATE = (Stage(name, "one-epoch") for name in ("train", "predict", "evaluate"))


def heed_signals():
    """Restore signals that are ignored if pytest runs in the background or under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def fcos(*arguments, folder=None, ready):
    """Start a command as the leader of a process group and wait until `ready` is true."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fcos", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    try:
        wait_until(ready, process)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def has_handler(pid):
    """Return whether the process catches SIGINT, from the bits in /proc."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    # Python catches SIGINT from the start, so this checks SIGTERM, which only main() catches.
    return int(caught[1], 16) & 1 << (signal.SIGTERM - 1)


def has_ended(pid):
    """Return whether a process is gone; a child of a dead parent may wait until the system reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_stopped(process, command):
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, output
    assert "Traceback" not in output and output.rstrip().endswith(f"to resume: fcos {command}"), output
    return output


def beat_of(study, stage, run=None):
    return read_heartbeats(study).get((stage, run), {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_what_to_type(workspace, smoke_params, number):
    smoke_params["data"]["num_train"] = 50_000  # generating these images takes minutes
    write_params(smoke_params)
    with fcos("prepare", ready=lambda: beat_of("smoke", "prepare").get("done", 0) > 20) as process:
        os.kill(process.pid, number)
        assert_stopped(process, "prepare")
    assert list(Path("data").iterdir()) == []  # nothing is left half written
    assert "prepare: interrupted: stopped at " in status_text(StatusReader(quick=True)())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_told_to_end_saves_its_state_first(workspace, smoke_params, number):
    """No regular state was due for an hour; without the signal's own state the work would be lost."""
    smoke_params["train"]["checkpoint_every_s"] = 3600.0
    smoke_params["runs"]["one-epoch"]["epochs"] = 100_000
    write_params(smoke_params)
    with fcos("prepare", ready=Path("data/smoke/test.json").exists) as process:
        assert process.wait() == 0
    with fcos("train", "one-epoch", ready=lambda: beat_of("smoke", "train", "one-epoch").get("done", 0) > 0) as process:
        done = beat_of("smoke", "train", "one-epoch")["done"]
        os.kill(process.pid, number)
        assert_stopped(process, "train one-epoch")
    (state,) = Path("runs/smoke/.scratch").glob("one-epoch-*/state.pt")
    saved = torch.load(state)
    assert saved["step"] >= done and len(saved["history"]) == saved["step"]


def ends_with(script):
    """Return the exit code of a Python script and its last output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return done.returncode, done.stderr.splitlines()[-1:]


def test_a_signal_that_arrives_in_a_destructor_is_not_lost():
    """Python ignores exceptions raised there, so a command continued as if no signal had come."""
    script = """
import signal, time
import fcos.cli

class Object:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def app():
    Object()
    time.sleep(1000)

fcos.cli.app = app
fcos.cli.main()
"""
    code, said = ends_with(script)
    assert code == 130 and said[0].startswith("Interrupted. Finished work is kept")


def test_a_stage_that_does_not_heed_its_end_is_killed_with_its_dvc():
    script = """
import os, signal, time
from fcos.running import parent

os.environ |= {"DVC_STAGE": "train", parent.STARTED_BY: "0:0.0"}  # of a process that is gone
parent.END_S = 0.1
signal.signal(signal.SIGTERM, signal.SIG_IGN)
parent.end_with_parents()
time.sleep(1000)
"""
    assert ends_with(script) == (-signal.SIGKILL, ["this command stops, since the process that started it was killed"])


def test_scoring_is_stopped_too(workspace):
    with fcos("prepare", ready=Path("data/smoke/test.json").exists) as process:
        assert process.wait() == 0
    write_json(Path("results.json"), [])
    arguments = ["score", "--gt", "data/smoke/test.json", "--detections", "results.json"]
    arguments += ["--out", "numbers.json", "--replicates", "3000000"]
    with fcos(*arguments, ready=lambda: True) as process:
        wait_until(lambda: has_handler(process.pid), process)
        os.kill(process.pid, signal.SIGINT)
        assert_stopped(process, " ".join(arguments))
    assert not Path("numbers.json").exists()


def test_watching_is_ended_by_ctrl_c_without_a_word(workspace):
    with fcos("prepare", ready=Path("data/smoke/test.json").exists) as process:
        process.wait()
    with fcos("status", "--watch", "--quick", ready=lambda: True) as process:
        first = process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        output = first + process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 0 and output.startswith("study smoke: 0 of 11 stages done"), output
    assert "Traceback" not in output


def test_a_command_says_how_far_it_is_and_takes_its_file_away(workspace):
    with heartbeat("smoke", "train", "one-epoch"):
        progress = Progress("train", 10, unit="steps", done=4)
        progress.update(6, "loss 0.5")
        beat = beat_of("smoke", "train", "one-epoch")
    progress.close()
    assert beat["alive"] and beat["pid"] == os.getpid()
    assert (beat["first"], beat["done"], beat["total"], beat["note"]) == (4, 10, 10, "loss 0.5")
    assert read_heartbeats("smoke") == {} and watchers == []


def test_a_clock_that_is_set_back_stops_no_heartbeat(workspace, monkeypatch):
    """The clock changes by an hour, as after sleep or a suspended virtual machine."""
    clock, wall = 1000.0, 1_700_000_000.0
    monkeypatch.setattr("fcos.running.heartbeat.time.monotonic", lambda: clock)
    monkeypatch.setattr("fcos.running.heartbeat.time.time", lambda: wall)
    with heartbeat("smoke", "prepare"):
        progress = Progress("draw", 100)
        progress.update()
        wall -= 3600
        clock += 2
        progress.update()
        assert beat_of("smoke", "prepare")["done"] == 2
        assert "draw, 2 of 100 it" in status_text(StatusReader(quick=True)())
        progress.close()


def test_a_killed_process_is_not_taken_for_one_at_work(workspace, smoke_params):
    smoke_params["data"]["num_train"] = 50_000
    write_params(smoke_params)
    with fcos("prepare", ready=lambda: beat_of("smoke", "prepare").get("done", 0) > 20) as process:
        before = beat_of("smoke", "prepare")
        percent = re.search(r"^prepare +running (\d+) %$", status_text(StatusReader(quick=True)()), re.MULTILINE)
        after = beat_of("smoke", "prepare")
        assert before["alive"] and percent
        assert before["done"] <= (int(percent[1]) + 1) * after["total"] / 100
        assert int(percent[1]) * after["total"] / 100 <= after["done"]
        process.kill()
        process.wait()
    assert not beat_of("smoke", "prepare")["alive"]
    text = status_text(StatusReader(quick=True)())
    assert "prepare: interrupted: the process was killed" in text and text.endswith("to resume: fcos study run")


def test_what_reads_an_open_stage_is_open_too(workspace):
    stages = all_stages(params.read())
    still_open = what_is_open(stages, {TRAIN.address: "fcos/losses.py modified"})
    assert set(still_open) == {
        TRAIN.address,
        PREDICT.address,
        EVALUATE.address,
        Stage("nms_sweep", "one-epoch").address,
        "report",
    }
    assert still_open[EVALUATE.address] == "reads what predict one-epoch will write"
    layout = Layout("smoke")
    write_json(layout.run("one-epoch") / "train.json", {})
    states = {found.stage: found.state for found in find_states(stages, layout, {}, still_open)}
    assert states[TRAIN] == "out of date" and states[PREDICT] == "to do" and states[Stage("prepare")] == "done"
    unknown = {found.stage: found.state for found in find_states(stages, layout, {}, dict.fromkeys(still_open))}
    assert unknown[TRAIN] == "not checked"


def summary(run, seconds):
    """Return train.json of a training that took this long."""
    return {"params": run.identity(), "provenance": {"training_seconds": seconds}}


def test_time_left_goes_by_network_epochs_and_runs_at_a_time(workspace, smoke_params):
    runs = {"short": ("resnet18", 1), "long": ("resnet18", 5), "deep": ("resnet34", 2), "deeper": ("resnet34", 2)}
    smoke_params["runs"] = {
        name: {"backbone": backbone, "epochs": epochs, "num_convs": 1} for name, (backbone, epochs) in runs.items()
    }
    smoke_params["tta"]["runs"] = smoke_params["nms_sweep"]["runs"] = []
    smoke_params["tables"] = []
    write_params(smoke_params)
    study = params.read()
    trainings = [StageState(Stage("train", name), "to do") for name in runs]
    assert "unknown until a training" in str(time_left(study, trainings, jobs=1))
    # With one epoch of warm-up, 2 epochs took 20 s, so 6 epochs take 60 s. Nothing has been measured for ResNet-34, so
    # its time is scaled by layers: 3 epochs of 34 layers at 20 / (2 * 18) s take 56.7 s. Each stage takes 5 s to start.
    write_json(Layout("smoke").run("short") / "train.json", summary(study.runs["short"], 20.0))
    trainings[0] = StageState(Stage("train", "short"), "done")
    one = 65.0 + 2 * (5 + 20 / 36 * 3 * 34)
    assert time_left(study, trainings, jobs=1).seconds == pytest.approx(one)
    assert time_left(study, trainings, jobs=2).seconds == pytest.approx(2 * (5 + 20 / 36 * 3 * 34))
    # Its own speed takes precedence: 90 of 100 steps are left, at 2 steps a second.
    beat = {"what": "train", "first": 0, "done": 10, "total": 100, "per_second": 2.0, "started": 0.0, "alive": True}
    alone = [StageState(Stage("train", "long"), "running", beat=beat)]
    assert time_left(study, alone, jobs=1).seconds == pytest.approx(50.0)
    # A training that has just started has no speed yet: 65 s as before.
    begun = {"started": 0.0, "alive": True}
    assert time_left(study, [StageState(Stage("train", "long"), "running", beat=begun)], jobs=1).seconds == 65.0
    assert time_left(study, [StageState(Stage("predict", "long"), "to do")], jobs=1).not_counted == ["predict"]


def test_durations_are_said_as_one_says_them():
    assert [duration(s) for s in (4.4, 89, 90, 3599, 7500)] == ["4 s", "89 s", "2 min", "1 h 0 min", "2 h 5 min"]


@pytest.fixture
def project(tmp_path, smoke_params, jobs):
    """Return a clone of this repository without results as the current folder, with a training that does not end. With
    one job, it runs alone.
    """
    smoke_params["runs"]["one-epoch"]["epochs"] = 100_000
    if jobs == "1":
        smoke_params["runs"] = {"one-epoch": smoke_params["runs"]["one-epoch"]}
        smoke_params["tables"] = [{"kind": "trained", "title": "Trained model", "run": "one-epoch"}]
        smoke_params["tta"]["runs"] = smoke_params["nms_sweep"]["runs"] = []
    copy_project(tmp_path, yaml.safe_dump(smoke_params, sort_keys=False))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["2", "1"])
def test_a_study_is_watched_and_stopped_with_all_that_it_started(project, jobs):
    before = StatusReader(quick=False)()
    assert {found.state for found in before.states} == {"to do"} and before.unasked is None
    assert "unknown until a training" in before.headline

    def trains():
        beat = beat_of("smoke", "train", "one-epoch")
        return beat.get("alive") and beat.get("per_second", 0) > 0

    with fcos("study", "run", "--jobs", jobs, ready=trains) as process:
        output = subprocess.run(
            [sys.executable, "-m", "fcos", "status", "--json"],
            stdout=subprocess.PIPE,  # errors are shown in the test's own output
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).stdout
        status = json.loads(output)
        states = {(of["stage"], of["run"]): of for of in status["stages"]}
        assert states["prepare", None]["state"] == "done" and states["train", "one-epoch"]["state"] == "running"
        assert states["evaluate", "one-epoch"]["state"] == "to do"
        assert status["jobs"] == int(jobs) and status["seconds_left"] > 0 and status["dvc"] == "asked"
        trainer = states["train", "one-epoch"]["at_work"]["pid"]
        os.kill(process.pid, signal.SIGINT)  # to this process alone, which must end its children itself
        said = assert_stopped(process, f"study run --jobs {jobs}")
    assert jobs == "1" or "2 of 11 stages done, " in said
    wait_until(lambda: has_ended(trainer))
    assert not beat_of("smoke", "train", "one-epoch")["alive"]
    text = status_text(StatusReader(quick=False)())
    assert "train one-epoch: interrupted: stopped at" in text and text.endswith("to resume: fcos study run")


def test_a_study_run_that_has_just_begun_is_no_mystery(workspace):
    with heartbeat("smoke", STUDY):
        status = StatusReader(quick=True)()
    assert status.at_work and status.unasked == "`fcos study run` is checking"
    assert status.count("done") == 0


def test_a_file_of_another_version_says_nothing_of_time(workspace):
    write_json(Path("runs/smoke/reference/train.json"), {"provenance": {"training_seconds": 5.0}, "params": {"old": 1}})
    write_json(Path("runs/smoke/reference/timing.json"), {"a": 1})
    assert str(StatusReader(quick=True)().left).startswith("time left: unknown")
