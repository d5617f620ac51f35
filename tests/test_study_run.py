"""`fcos study run`: its calls of DVC, and its handling of DVC's output; test_pipeline.py tests complete studies."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_params

from fcos.config import params
from fcos.errors import UserError
from fcos.running import jobs, reproduce, study_progress
from fcos.running.run import run_study
from fcos.running.stages import all_stages, stages_of

# A substitute for DVC: records its arguments and the number of threads, then prints and does what the test says.
SCRIPT = """
import os, sys
from pathlib import Path
with Path("calls").open("a") as stream:
    stream.write(" ".join([os.environ.get("OMP_NUM_THREADS", "-"), *sys.argv[1:]]) + "\\n")
{what}
"""


@pytest.fixture
def dvc(workspace, monkeypatch):
    """Return a function that sets a script to run instead of DVC, and the recorded calls."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(reproduce, "RETRY_S", 0.01)
    everything = {stage.address: "new" for stage in all_stages(params.read())}
    for module in (study_progress, reproduce):
        monkeypatch.setattr(module, "ask_dvc", lambda: (everything, None))

    def does(what):
        Path("dvc.py").write_text(SCRIPT.format(what=what))
        monkeypatch.setattr(reproduce, "dvc", lambda *arguments: [sys.executable, "dvc.py", *arguments])

    def calls():
        return Path("calls").read_text().splitlines()

    return does, calls


# Two runs that started without the longest one would wait for it, so that no process overtakes it on a busy machine.
ONLY_WITH_LONG = """
import time
until = time.monotonic() + 300
while "train@" in str(sys.argv) and "train@long" not in Path("calls").read_text() and time.monotonic() < until:
    time.sleep(0.01)
"""


def test_each_run_has_a_dvc_of_its_own_and_the_longest_comes_first(dvc, smoke_params, monkeypatch):
    does, calls = dvc
    smoke_params["runs"] |= {"long": {"backbone": "resnet50", "epochs": 9, "num_convs": 1}}
    write_params(smoke_params)
    monkeypatch.setattr("fcos.running.jobs.usable_cores", lambda: 5)
    does(ONLY_WITH_LONG)
    run_study(2)
    of = {name: " ".join(stage.address for stage in stages_of(name, params.read())) for name in smoke_params["runs"]}
    assert calls()[0] == "- repro --single-item stages/source/dvc.yaml:source stages/prepare/dvc.yaml:prepare"
    assert sorted(calls()[1:-1]) == sorted(f"2 repro --single-item {stages}" for stages in of.values())
    assert of["long"] in " ".join(calls()[1:3])
    assert calls()[-1] == "- repro"
    assert of["reference"].split()[-1] == "stages/tta/dvc.yaml:tta@reference"
    assert of["one-epoch"].split()[-1] == "stages/nms_sweep/dvc.yaml:nms_sweep@one-epoch"


# Output of DVC: it runs each requested stage except predict, which has not changed.
SAYS = """
for stage in sys.argv[3:]:
    if "predict" in stage:
        print(f"Stage '{stage}' didn't change, skipping")
    else:
        print(f"Running stage '{stage}':")
"""


@pytest.mark.parametrize("ends", ["", "sys.exit(1)"])
def test_after_each_stage_the_count_is_said(dvc, capfd, ends):
    does, _ = dvc
    does(SAYS + (f"if 'train@one-epoch' in str(sys.argv): {ends}" if ends else ""))
    with pytest.raises(UserError) if ends else contextlib.nullcontext():
        run_study(2)
    said = re.findall(r"^(\d+) of 11 stages done(.*)$", capfd.readouterr().out, re.MULTILINE)
    counts = [int(done) for done, _ in said]
    # The last stage that DVC started, nms_sweep, is done only if DVC ends without an error.
    assert counts == sorted(set(counts)) and counts[-1] == (9 if ends else 10)
    assert len(counts) == counts[-1] - 2 and "unknown until a training" in said[0][1]


def test_nothing_is_started_where_all_is_up_to_date(dvc, monkeypatch, capfd):
    does, _ = dvc
    does("")
    monkeypatch.setattr(study_progress, "ask_dvc", lambda: ({}, None))
    run_study(2)
    assert not Path("calls").exists() and "11 of 11 stages done" in capfd.readouterr().out


def test_one_at_a_time_is_plain_dvc(dvc):
    does, calls = dvc
    does("")
    run_study(1)
    assert calls() == ["- repro"]


def test_a_busy_dvc_is_asked_again(dvc, capfd):
    does, calls = dvc
    does(
        "if 'train@one-epoch' in ' '.join(sys.argv) and not Path('asked').exists():\n"
        "    Path('asked').touch()\n"
        "    sys.exit(print('ERROR: Unable to acquire lock. Most likely another') or 255)"
    )
    run_study(2)
    assert len(calls()) == 1 + 2 + 1 + 1  # prepare, the runs, one of them again, the rest
    printed = capfd.readouterr().out
    assert "Unable" not in printed and printed.count("waiting for another DVC") == 1


def test_a_busy_dvc_is_asked_again_where_it_tells_the_terminal(dvc, monkeypatch):
    does, calls = dvc
    does(
        "if not Path('asked').exists():\n"
        "    Path('asked').touch()\n"
        "    sys.exit(print('ERROR: Unable to acquire lock. Most likely another', file=sys.stderr) or 255)"
    )
    answers = iter([({"report": "new"}, None), (None, "Unable to acquire lock. Most likely another")])
    for module in (study_progress, reproduce):
        monkeypatch.setattr(module, "ask_dvc", lambda: next(answers))
    run_study(1)
    assert calls() == ["- repro", "- repro"]


def test_a_failed_run_is_named_and_the_others_go_on(dvc, capfd):
    does, calls = dvc
    does("if 'train@one-epoch' in ' '.join(sys.argv): sys.exit(print('ERROR: failed to reproduce') or 1)")
    with pytest.raises(UserError, match=re.escape("one-epoch")):
        run_study(2)
    assert len(calls()) == 3 and "repro" not in calls()[-1].split()[-1]  # no last `dvc repro`
    assert "one-epoch | ERROR: failed to reproduce" in capfd.readouterr().out


def test_without_data_nothing_is_trained(dvc):
    does, calls = dvc
    does("sys.exit(1)")
    with pytest.raises(UserError, match="prepare"):
        run_study(2)
    assert len(calls()) == 1


@pytest.fixture
def machine(monkeypatch):
    """A machine with eight cores and no GPU."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("fcos.running.jobs.usable_cores", lambda: 8)
    monkeypatch.setattr(jobs, "available_memory", lambda: 100 << 30)
    monkeypatch.setattr(jobs, "num_gpus", lambda: 0)
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_job_counts_the_cores_that_it_may_use():
    """SLURM and containers give a process some of a machine's cores; os.cpu_count() counts all of them."""
    said = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from fcos.running import jobs; "
    said += "print(jobs.usable_cores(), jobs.slots(1, []))"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 [{'OMP_NUM_THREADS': '1'}]\n"


def on(device, workspace_runs, devices=1):
    """Return the runs of the study with trainings on a device, or on several of a kind."""
    return [
        run.model_copy(update={"train": run.train.model_copy(update={"device": device, "devices": devices})})
        for run in workspace_runs.values()
    ]


def test_jobs_by_cores_memory_and_gpus(workspace, machine):
    runs = params.read().runs
    for free, expected in ((100 << 30, 8), (13 << 30, 3), (1 << 30, 1)):
        machine.setattr(jobs, "available_memory", lambda free=free: free)
        assert jobs.suitable_jobs(on("auto", runs)) == expected
    machine.setattr(jobs, "num_gpus", lambda: 2)
    assert jobs.suitable_jobs(on("auto", runs)) == jobs.suitable_jobs(on("cuda", runs)) == 2
    assert jobs.suitable_jobs(on("cuda", runs, devices="all")) == 1  # each training has all of them
    machine.setattr(jobs, "available_memory", lambda: 100 << 30)
    assert jobs.suitable_jobs(on("cpu", runs)) == 8
    machine.setattr("sys.platform", "darwin")
    assert jobs.suitable_jobs(on("auto", runs)) == 1


def test_each_job_has_its_share_of_the_cores_or_a_gpu_of_its_own(workspace, machine):
    runs = params.read().runs
    assert jobs.slots(3, on("auto", runs)) == [{"OMP_NUM_THREADS": "2"}] * 3
    machine.setattr(jobs, "num_gpus", lambda: 2)
    gpus = [slot["CUDA_VISIBLE_DEVICES"] for slot in jobs.slots(3, on("auto", runs))]
    assert gpus == ["0", "1", "0"]
    machine.setenv("CUDA_VISIBLE_DEVICES", "4,7")  # the devices that the user allows
    machine.setenv("OMP_NUM_THREADS", "1")
    assert jobs.slots(2, on("cuda", runs)) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    assert jobs.slots(2, on("cpu", runs)) == [{}, {}]
    assert jobs.slots(1, on("cuda", runs, devices="all")) == [{}]


def test_without_a_driver_torch_is_not_asked_for_gpus(monkeypatch):
    """torch is not imported, which takes seconds, since `fcos status` also asks for the jobs."""
    monkeypatch.setattr(jobs, "_DRIVERS", ("libnothing.so.0",))
    monkeypatch.setitem(sys.modules, "torch", None)
    jobs.num_gpus.cache_clear()
    assert jobs.num_gpus() == 0
    jobs.num_gpus.cache_clear()
