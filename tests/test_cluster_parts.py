"""The parts of trainings on a cluster that need no cluster; tests/test_engines.py has real ones."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, wait_until

from fcos.errors import UserError
from fcos.files import write_json
from fcos.interruption import postpone, postponed
from fcos.running.engines import bootstrap, cluster_status, follow
from fcos.running.engines.checks import commit_to_run, refuse_password, tracking_uri
from fcos.running.engines.cluster_status import ClusterStatus, ask_cluster
from fcos.running.engines.coordinator import failure_text
from fcos.running.engines.jobs_file import keep_jobs
from fcos.running.engines.options import EngineOptions, read_options
from fcos.running.engines.protocol import DONE, FAILED, QUEUED, RUNNING, EngineSilent, Job, JobState
from fcos.running.engines.slurm import _fields, _state
from fcos.running.heartbeat import Heartbeat


class Scripted:
    """An engine that returns the next of some states; exceptions are raised."""

    name = "scripted"
    poll_s = 0.0

    def __init__(self, *answers):
        self.answers, self.submitted = list(answers), []

    def submit(self, job):
        self.submitted.append(job.run_name)
        (job.folder / "ended.json").unlink()

    def states(self, jobs):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {job.run_name: answer[job.run_name] for job in jobs if job.run_name in answer}

    def cancel(self, jobs):
        pass

    def log(self, job):
        return job.log


@pytest.fixture
def jobs(tmp_path):
    found = [Job(f"study-{run}", run, tmp_path / run) for run in ("a", "b")]
    for job in found:
        job.folder.mkdir()
    return found


def followed(engine, jobs):
    said = []
    return {job.run_name: state for job, state in follow.ended(engine, jobs, said.append)}, said


def test_jobs_are_followed_until_each_has_ended(jobs):
    engine = Scripted(
        {"a": JobState(QUEUED, why="Resources"), "b": JobState(RUNNING, "n1")},
        {"a": JobState(RUNNING, "n2"), "b": JobState(RUNNING, "n1")},
        {"a": JobState(RUNNING, "n2", requeued=1), "b": JobState(DONE, "n1")},
        {"a": JobState(FAILED, "n2", 1, "timeout")},
    )
    states, said = followed(engine, jobs)
    assert {run: state.state for run, state in states.items()} == {"a": FAILED, "b": DONE}
    assert said == ["a: queued (Resources)", "b: running on n1", "a: running on n2", "a: running on n2, requeued 1 x"]


def test_silence_of_an_engine_is_told_once_and_waited_for(jobs):
    """A timeout of `squeue` does not mean that the job has ended."""
    silence = [EngineSilent("connection refused")] * 3
    states, said = followed(Scripted(*silence, {"a": JobState(DONE), "b": JobState(DONE)}), jobs)
    assert {state.state for state in states.values()} == {DONE}
    assert said == ["the engine does not answer, but its jobs may still be running: connection refused"]


def test_a_job_that_asks_for_another_turn_gets_one(jobs):
    write_json(jobs[0].folder / "ended.json", {"code": bootstrap.AGAIN, "node": "n1"})
    engine = Scripted({"a": JobState(FAILED, "n1"), "b": JobState(DONE)}, {"a": JobState(DONE, "n2")})
    states, said = followed(engine, jobs)
    assert engine.submitted == ["a"] and states["a"] == JobState(DONE, "n2")
    assert said == ["a: stopped on n1, submitted again"]


def test_a_cancelled_job_gets_no_other_turn(jobs):
    """On SIGTERM, as at a preemption, the training saves its state and the job asks to be started again."""
    write_json(jobs[0].folder / "ended.json", {"code": bootstrap.AGAIN, "node": "n1"})
    jobs[0].mark_cancelled(True)
    engine = Scripted({"a": JobState(FAILED, "n1", why="exit code 75"), "b": JobState(DONE)})
    states, _ = followed(engine, jobs)
    assert engine.submitted == [] and str(states["a"]) == "failed on n1 (cancelled)"


def test_a_job_that_the_engine_has_forgotten_is_judged_by_its_own_word(jobs):
    write_json(jobs[0].folder / "ended.json", {"code": 0, "node": "n1"})
    states, _ = followed(Scripted({}), jobs)
    assert states["a"] == JobState(DONE, "n1")
    assert states["b"].state == FAILED and "left no exit code" in states["b"].why


def test_a_failure_is_told_with_node_log_and_its_last_lines(jobs):
    jobs[0].log.write_text("".join(f"line {number}\n" for number in range(50)))
    text = failure_text(jobs[0], JobState(FAILED, "n7", why="exit code 2"), jobs[0].log).splitlines()
    assert text[0] == f"a: failed on n7 (exit code 2); log: {jobs[0].log}"
    assert text[1:] == [f"a | line {number}" for number in range(30, 50)]
    assert "but DVC's remote does not have all" in failure_text(jobs[1], JobState(DONE, "n1"), jobs[1].log)


@pytest.mark.parametrize(
    ("state", "code", "reason", "shown"),
    [
        ("PENDING", "0", "Priority", "queued (Priority)"),
        ("COMPLETING", "0", "None", "running on n1"),
        ("FAILED", "512", "NonZeroExitCode", "failed on n1 (exit code 2)"),
        ("TIMEOUT", "0", "TimeLimit", "failed on n1 (timeout)"),
        ("CANCELLED", "0", "None", "failed on n1 (cancelled)"),
        ("COMPLETED", "0", "None", "done on n1"),
        ("A_NEW_ONE", "0", "None", "failed on n1 (a_new_one)"),
    ],
)
def test_states_of_slurm(state, code, reason, shown):
    widths = (200, 20, 30, 100, 10, 20, 100)
    values = ("study-a", "17", state, "n1", "0", code, reason)
    line = "".join(value.ljust(width) for value, width in zip(values, widths, strict=True))
    assert _fields(line) == list(values)
    assert str(_state(*_fields(line)[2:])) == shown


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@host:5000", "https://0123456789abcdef0123@github.com/a/b", "postgresql://me:s3@db/mlflow"],
)
def test_an_address_with_a_secret_is_refused_without_showing_it(address):
    with pytest.raises(UserError) as raised:
        refuse_password(address, "the repository")
    assert address.partition("//")[2].partition("@")[0] not in str(raised.value)


@pytest.mark.parametrize(
    "address", ["git@github.com:a/b.git", "ssh://git@host/a", "http://host:5000", "/a@b/c", "s3://b"]
)
def test_an_address_without_a_secret_is_taken(address):
    refuse_password(address, "the repository")


def test_nodes_need_an_environment():
    """A project of `fcos init` has no pins."""
    with pytest.raises(UserError, match=r"requirements.txt: is missing.*\n.*python:"):
        commit_to_run(EngineOptions(scratch="."))
    with pytest.raises(UserError, match="this folder has none"):
        commit_to_run(EngineOptions(scratch=".", python="/opt/python"))


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "file:///runs", "runs"])
def test_a_store_that_nodes_cannot_share_is_refused(uri):
    with pytest.raises(UserError, match="nodes cannot write to a file of this machine"):
        tracking_uri({"MLFLOW_TRACKING_URI": uri})


def test_settings_of_a_site_are_checked(tmp_path):
    file = tmp_path / "engine.yaml"
    with pytest.raises(UserError, match="at least the folder that the nodes share"):
        read_options(file)
    file.write_text("scratch: /shared\nthread: 2\n")
    with pytest.raises(UserError, match=r"engine.yaml: thread: unknown key(.|\n)*did you mean `threads`"):
        read_options(file)
    file.write_text("scratch: /shared\nslurm: [--time=8:00:00]\nray: {address: 'h:1', num_gpus: 1}\n")
    assert read_options(file).slurm == ["--time=8:00:00"] and read_options(file).threads == 1


def test_status_tells_what_the_engine_says_and_how_far_a_job_is(workspace, tmp_path, monkeypatch):
    job = Job("smoke-one-epoch-1", "one-epoch", tmp_path / "smoke" / "jobs" / "smoke-one-epoch-1")
    write_json(job.folder / "job.json", {})
    keep_jobs("smoke", "slurm", EngineOptions(scratch=str(tmp_path)), [job])
    engine = Scripted({"one-epoch": JobState(RUNNING, "n2", requeued=1)})
    monkeypatch.setattr("fcos.running.engines.jobs_file.make_engine", lambda *_: engine)
    beat = Heartbeat(tmp_path / "smoke" / "at-work" / "train@one-epoch.json", "train", "one-epoch")
    beat.write(what="train", first=0, done=3, total=8, unit="steps", per_second=1.0, note=None)
    assert ask_cluster("smoke").lines() == [
        "jobs on slurm:",
        "one-epoch  running on n2, requeued 1 x  train 3 of 8 steps",
    ]
    assert ask_cluster("smoke").beats["train", "one-epoch"]["alive"]
    monkeypatch.setattr(cluster_status, "SILENT_S", -1.0)
    assert ask_cluster("smoke").lines()[1].endswith("train 3 of 8 steps, silent for 0 s")
    os.utime(job.folder / "job.json", (time.time() + 60,) * 2)  # submitted again, so the report is of its predecessor
    assert ask_cluster("smoke").lines()[1].endswith("requeued 1 x  making the environment, or transferring data")
    engine.answers = [EngineSilent("no controller")]
    assert ask_cluster("smoke").lines() == ["slurm does not answer, but its jobs may still be running: no controller"]
    assert ask_cluster("another") is None


def test_a_cluster_without_jobs_is_not_drawn():
    assert ClusterStatus("slurm", None, []).lines() == ["jobs on slurm:"]


def test_a_file_of_secrets_is_read_as_a_shell_would(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", str(tmp_path))
    (tmp_path / "secrets").write_text("# team\n\nexport KEY=abc=\nQUOTED='a b'\n TOKEN = x \n")
    assert bootstrap._secrets("$PLACE/secrets") == {"KEY": "abc=", "QUOTED": "a b", "TOKEN": "x"}
    assert bootstrap._secrets(None) == {}
    with pytest.raises(SystemExit, match=r"engine\.yaml: secrets\n.*no file .*none on this node"):
        bootstrap._secrets("$PLACE/none")


def test_signals_that_come_together_are_one_request_to_stop(monkeypatch):
    """SLURM sends SIGTERM to the worker and to the training, and the worker interrupts the training as well."""
    now = 100.0
    monkeypatch.setattr("fcos.interruption.time.monotonic", lambda: now)
    assert not postpone()  # nothing to save
    with postponed() as is_requested:
        assert not is_requested()
        assert postpone() and is_requested()
        now += 1.0
        assert postpone()
        now += 60.0
        assert not postpone()  # a second request
    assert not postpone()


def test_nodes_install_by_the_same_uv():
    assert f"UV_VERSION := {bootstrap.UV_VERSION}\n" in (ROOT / "Makefile").read_text()


def test_clones_in_use_are_not_deleted(tmp_path):
    """Of four commits two are kept; the oldest one is in use."""
    for age, name in enumerate(("new", "middle", "old", "oldest")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - 60 * age,) * 2)
    with (tmp_path / "oldest" / "in-use").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        os.utime(tmp_path / "oldest", (0, 0))
        bootstrap._drop_old(tmp_path / "mine", 2)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"mine", "new", "oldest"}


def test_the_worker_s_lock_outlives_a_change_of_program(tmp_path):
    """The bootstrap holds the lock of its clone and then becomes the worker."""
    script = "import os, sys; from pathlib import Path; from fcos.running.engines import bootstrap\n"
    script += "bootstrap._use(Path(sys.argv[1])); os.execv('/bin/sleep', ['sleep', '1000'])"
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: Path(f"/proc/{child.pid}/cmdline").read_text().startswith("sleep"), child)
        with (tmp_path / "in-use").open("a") as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.wait()


OWNER = """
import sys
from pathlib import Path
import torch
from fcos.training.remote_states import RemoteStates
from fcos.training.resume import Scratch

folder, url, value = sys.argv[1:]
scratch = Scratch(Path(folder), shared=not url, remote=RemoteStates(url) if url else None)
with scratch.alone():
    print("mine", flush=True)
    sys.stdin.readline()
    scratch.save({"model": {"w": torch.full((3,), float(value))}, "step": 1})
    print("saved", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "URL"])
def test_of_two_processes_the_last_one_owns_a_training(tmp_path, place):
    """A process that was considered dead saves nothing more and says why; the files of its successor remain."""
    url = f"file://{tmp_path}/states" if place == "URL" else ""

    def start(value):
        folder = tmp_path / (f"node-{value}" if url else "shared") / "run-key"
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder), url, value],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        said = []
        while "mine\n" not in said:
            assert process.poll() is None
            said.append(process.stdout.readline())
        return process, said

    first, said = start("1")
    assert said == ["mine\n"]
    second, said = start("2")
    assert f"taking over this training from process {first.pid} on " in said[0]
    said = second.communicate("\n")[0]
    assert second.returncode == 0 and "saved" in said
    said = first.communicate("\n")[0]
    assert first.returncode == 1 and "another process has taken over this training" in said
    folder = tmp_path / ("states" if url else "shared/run-key")
    assert {path.name for path in folder.iterdir()} == {"state.pt", "owner.json"}
    assert torch.load(folder / "state.pt")["model"]["w"].tolist() == [2.0, 2.0, 2.0]
    third, said = start("3")  # the second process ended normally, so there is nothing to take over
    assert said == ["mine\n"]
    third.kill()
    third.communicate()
