"""Finished work is not repeated: with a real DVC, real kills and real locks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import zc.lockfile
from conftest import wait_until
from project_helpers import (
    address,
    call,
    changed_stages,
    copy_project,
    fcos,
    repro,
    set_params,
    small_study,
    stages_run,
    start,
    started,
)

from fcos.files import sha256_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]  # `started` runs real processes
TRAIN = address("train", "one-epoch")
RUN = Path("runs/smoke/one-epoch")
SCRATCH = Path("runs/smoke/.scratch")
DVC, FCOS = ((sys.executable, "-m", name) for name in ("dvc", "fcos"))


def finished(project):
    return list((project / SCRATCH).glob("one-epoch-*/finished"))


def digests(project):
    return {name: sha256_file(project / RUN / name) for name in ("model.safetensors", "history.csv")}


def trainer(project):
    """Return the id of the training process; 0 if there is none."""
    for lock in (project / SCRATCH).glob("one-epoch-*.lock"):
        try:
            return json.loads(lock.read_text())["pid"]
        except ValueError:  # it is being written
            pass
    return 0


@contextmanager
def paused(project):
    """Suspend the training in the block, so that it cannot end before the block does."""
    pid = trainer(project)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def log_of(project):
    """Return the output of the last command that was started."""
    return max(project.glob("output-*")).read_text()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, quick_path):
    """Return a project with prepared data, which tests copy."""
    project = copy_project(tmp_path_factory.mktemp("prepared") / "project", small_study())
    call(project, "dvc", "repro", address("prepare"), PATH=quick_path)
    return project


@pytest.fixture
def project(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


@pytest.fixture
def long_project(project):
    """Return a project whose training takes hours."""
    params = small_study()
    params["runs"]["one-epoch"]["epochs"] = 100_000
    set_params(project, params)
    return project


@pytest.mark.slow
def test_stages_run_by_hand_count(tmp_path):
    project = copy_project(tmp_path / "project", small_study())
    assert "recorded in DVC: prepare is done" in fcos(project, "prepare")
    assert "recorded in DVC: train one-epoch is done" in fcos(project, "train", "one-epoch")
    before = digests(project)
    shown = fcos(project, "status")
    assert "prepare    done" in shown and "one-epoch  done" in shown
    assert finished(project) == []  # DVC has recorded it
    output = fcos(project, "study", "run")
    assert stages_run(output) == ["evaluate@one-epoch", "predict@one-epoch", "report"]
    assert digests(project) == before


@pytest.mark.slow
def test_both_commands_of_a_stage_by_hand_count(project):
    params = small_study()
    params["tta"] = {**params["tta"], "runs": ["one-epoch"]}
    set_params(project, params)
    fcos(project, "train", "one-epoch")
    fcos(project, "predict", "one-epoch", "--views", "tta")
    assert "tta@one-epoch" in changed_stages(project)
    fcos(project, "tta", "one-epoch")
    assert "tta@one-epoch" not in changed_stages(project)


@pytest.mark.slow
def test_what_changed_while_it_ran_is_not_recorded(project):
    with started(project, *FCOS, "train", "one-epoch", ready=lambda: trainer(project)) as process:
        with paused(project):
            params = small_study()
            params["train"]["learning_rate"] = 0.123
            set_params(project, params)
        assert process.wait() == 0
        assert "train one-epoch was not recorded in DVC and will run again" in process.log.read_text()
    assert "train@one-epoch" in changed_stages(project)


@pytest.mark.slow
def test_a_busy_dvc_is_told_later(project):
    lock = zc.lockfile.LockFile(str(project / ".dvc/tmp/lock"))
    try:
        output = fcos(project, "train", "one-epoch")
    finally:
        lock.close()
    assert "waiting for another DVC" in output and "the next `fcos study run` records train one-epoch" in output
    shown = "recorded in DVC: train one-epoch is done"
    with started(project, *FCOS, "study", "run", ready=lambda: shown in log_of(project)) as process:
        process.send_signal(signal.SIGINT)  # another test checks how it continues
        process.wait()
    assert "train@one-epoch" not in changed_stages(project)


@pytest.mark.slow
def test_a_training_that_ends_while_dvc_is_locked_is_not_lost(project):
    """After a command, DVC waits three seconds for its lock, and then records nothing."""
    with started(project, *DVC, "repro", "-s", TRAIN, ready=lambda: trainer(project)) as process:
        with paused(project):
            lock = zc.lockfile.LockFile(str(project / ".dvc/tmp/lock"))
        assert process.wait() != 0
    lock.close()
    before = digests(project)
    output = call(project, "dvc", "repro", TRAIN)
    assert stages_run(output) == ["train@one-epoch"] and "one-epoch has already been trained" in output
    assert digests(project) == before and repro(project, TRAIN) == []


@pytest.mark.slow
def test_a_training_is_not_lost_to_a_kill_before_dvc_wrote_its_lock_file(project):
    with started(project, *DVC, "repro", "-s", TRAIN, ready=lambda: trainer(project)) as process:
        with paused(project):
            lock = zc.lockfile.LockFile(str(project / ".dvc/tmp/lock"))
        wait_until(lambda: finished(project))
        process.kill()
        process.wait()
    lock.close()
    before = digests(project)
    assert before and "one-epoch has already been trained" in call(project, "dvc", "repro", TRAIN)
    assert digests(project) == before and finished(project) != []
    fcos(project, "source")  # any command that asks DVC records the training
    assert finished(project) == []


def test_a_training_is_not_lost_where_the_cache_cannot_hold_it(project):
    (project / "no-folder").write_text("a file where the cache should be")
    call(project, "dvc", "config", "--local", "cache.dir", str(project / "no-folder"))
    call(project, "dvc", "repro", "-s", TRAIN, code=255)
    before = digests(project)
    call(project, "dvc", "config", "--local", "--unset", "cache.dir")
    assert "one-epoch has already been trained" in call(project, "dvc", "repro", "-s", TRAIN)
    assert before and digests(project) == before


@pytest.mark.slow
def test_two_of_one_training_wait_for_each_other(project):
    with started(project, *FCOS, "train", "one-epoch", ready=lambda: trainer(project)) as first:
        waits = f"waiting: this training is already running in process {first.pid}"
        with paused(project):
            second = start(project, *DVC, "repro", "-s", TRAIN)
            wait_until(lambda: waits in second.log.read_text())
        with second:
            assert second.wait() == 0
            assert "one-epoch has already been trained" in second.log.read_text()
        assert first.wait() == 0, first.log.read_text()
    assert repro(project, TRAIN) == []


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["study run", "dvc"])
def test_a_kill_leaves_no_training_behind(long_project, killed):
    command = [*FCOS, "study", "run"] if killed == "study run" else [*DVC, "repro", TRAIN]
    with started(long_project, *command, ready=lambda: trainer(long_project)) as process:
        pid = trainer(long_project)
        below = [child.pid for child in process_tree(process.pid)]
        assert pid in below
        process.kill()
        process.wait()
        wait_until(lambda: all(map(is_gone, below)))


def process_tree(pid):
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.slow
def test_a_training_under_nohup_goes_on(long_project):
    """A command that was started by hand does not end with another process."""
    script = (
        "import subprocess, sys, time\n"
        "command = ['nohup', sys.executable, '-m', 'fcos', 'train', 'one-epoch']\n"
        "subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)\n"
        "time.sleep(1000)"
    )
    with started(long_project, sys.executable, "-c", script, ready=lambda: trainer(long_project)) as parent:
        pid = trainer(long_project)
        try:
            parent.kill()
            parent.wait()
            steps = num_steps(long_project)
            wait_until(lambda: num_steps(long_project) > steps)
            assert not is_gone(pid)
        finally:
            os.kill(pid, signal.SIGKILL)


def num_steps(project):
    """Return the number of steps that the training has reported."""
    beat = project / SCRATCH / "at-work/train@one-epoch.json"
    return json.loads(beat.read_text()).get("done", 0)


@pytest.mark.slow
def test_a_lock_that_names_another_program_is_explained(project):
    """A killed DVC leaves its process id behind, which the system reuses."""
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            info = {"pid": stranger.pid, "cmd": "dvc repro"}
            place = str(project / "runs/smoke/one-epoch/model.safetensors")
            (project / ".dvc/tmp/rwlock").write_text(json.dumps({"write": {place: info}, "read": {}}))
            said = fcos(project, "study", "run", "--jobs", "1", code=2)
        finally:
            stranger.kill()
    assert f"process {stranger.pid}: sleep 1000" in said and "rm .dvc/tmp/rwlock" in said
    assert "lists a process that is not DVC" in said


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_empty_lock_is_explained(project, jobs):
    (project / ".dvc/tmp/rwlock").write_text("")
    said = fcos(project, "study", "run", "--jobs", jobs, code=2)
    assert ".dvc/tmp/rwlock: is damaged" in said and "rm .dvc/tmp/rwlock" in said and "dvc init" not in said


@pytest.mark.slow
def test_an_archive_without_git_below_another_repository(tmp_path):
    """`make repro` in an archive: DVC needs no git, and the commit of an outer repository is not recorded."""
    call(tmp_path, "git", "init", "-q")
    (tmp_path / "notes").write_text("of others")
    call(tmp_path, "git", "add", "notes")
    call(tmp_path, "git", "commit", "-qm", "others")
    project = copy_project(tmp_path / "archive", small_study(), git=False)
    output = fcos(project, "study", "run")
    assert "train@one-epoch" in stages_run(output)
    provenance = json.loads((project / RUN / "train.json").read_text())["provenance"]
    assert provenance["commit"] is None and provenance["clean_tree"] is None
    assert repro(project) == []
