"""One training on several ranks: the weights of one rank, resumed, broken off and found by torchrun; real processes."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, Watcher, wait_until, write_params
from safetensors.torch import load_file
from torch import nn

from fcos import distributed
from fcos.commands.predict import predict
from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.errors import UserError
from fcos.files import read_json
from fcos.reporting.results import trained_on
from fcos.study.layout import Layout
from fcos.training.ranks import synchronise_norms

RUN = "one-epoch"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "0"]
TORCHRUN += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "fcos"]


STEPS = 20  # 25 images in batches of 6 = 3 + 3; the last of an epoch has one image, which only one rank gets


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A project with prepared data, and the history and the weights of its training on two ranks."""
    folder = tmp_path_factory.mktemp("two-ranks")
    settings = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    settings["data"]["num_train"] = 25
    settings["model"]["batch_norm"] = "frozen"
    # AdamW, and larger rates, would amplify the last bits of small gradients.
    settings["train"] |= {"batch_size": 6, "precision": "float32", "optimizer": "sgd", "learning_rate": 0.002}
    settings["train"] |= {"devices": 2, "checkpoint_every_s": 0.0, "sizes": [32, 64]}  # two sizes to pad to
    settings["runs"][RUN]["epochs"] = 3
    with contextlib.chdir(folder):
        write_params(settings)
        prepare()
        shutil.copytree(".", folder / "prepared", ignore=shutil.ignore_patterns("prepared"))
        train(RUN, Watcher())
        return folder / "prepared", *outcome()


@pytest.fixture
def project(shared, tmp_path):
    """A copy of that project with nothing trained, as the current folder."""
    return shutil.copytree(shared[0], tmp_path, dirs_exist_ok=True)


def set_devices(number, section="train"):
    settings = yaml.safe_load(Path("params.yaml").read_text())
    settings[section]["devices"] = number
    write_params(settings)


def outcome():
    return pd.read_csv(Layout("smoke").run(RUN) / "history.csv"), load_file(Layout("smoke").weights(RUN))


def distance(weights, others):
    """The relative distance (L2) of two networks."""
    ours, theirs = (torch.cat([of[name].double().flatten() for name in weights]) for of in (weights, others))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.slow
def test_two_ranks_train_as_one(shared, project):
    """Losses that each rank divides by its own positives would differ by 1e-2 at once."""
    _, of_two, weights_of_two = shared
    set_devices(1)
    train(RUN, Watcher())
    history, weights = outcome()
    losses = [name for name in history if name.startswith("loss")]
    assert len(history) == STEPS and (history["num_positives"] == of_two["num_positives"]).all()
    np.testing.assert_allclose(of_two[losses][:5], history[losses][:5], atol=1e-6, rtol=0)
    # Another order of sums; training amplifies their last bits, on a processor with AVX-512 to 9e-5 in a loss.
    np.testing.assert_allclose(of_two[losses], history[losses], atol=1e-3, rtol=0)
    assert 0 < distance(weights_of_two, weights) < 1e-5


def fcos(*command):
    """A command of the project as a process of its own."""
    command = [sys.executable, "-m", "fcos", *command]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def ranks_of(process):
    """The ranks that a process has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in found if "RANK=1" in Path(f"/proc/{pid}/environ").read_text().split("\0")]


def broken_off(number, when, choose):
    """Send a signal to one of a training's ranks as soon as `when` holds; return its exit code and what it said."""
    with fcos("train", RUN) as process:
        wait_until(when, process)
        os.kill(choose([process.pid, *ranks_of(process)]), number)
        _, said = process.communicate()
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_a_training_broken_off_twice_resumes_bit_for_bit(shared, project):
    """First rank 1 is killed, which ends both with a message; then rank 0 is asked to end, and saves first."""
    code, said = broken_off(signal.SIGKILL, lambda: list(Path("runs").rglob("state.pt")), lambda ranks: ranks[1])
    assert code == 2 and "rank 1: SIGKILL" in said and "resumes from its last saved state" in said
    (state,) = Path("runs").rglob("state.pt")
    before = state.stat().st_mtime_ns
    code, said = broken_off(signal.SIGTERM, lambda: state.stat().st_mtime_ns > before, lambda ranks: ranks[0])
    assert code == 130 and "to resume: fcos train" in said
    assert not Layout("smoke").weights(RUN).exists()
    again = Watcher()
    train(RUN, again)
    assert 0 < len(again.seen) < STEPS
    assert distance(outcome()[1], shared[2]) == 0


@pytest.mark.slow
def test_torchrun_trains_the_same_and_two_devices_predict_the_same(shared, project):
    set_devices(1)
    subprocess.run([*TORCHRUN, "train", RUN], check=True, capture_output=True)
    assert distance(outcome()[1], shared[2]) == 0
    candidates = Layout("smoke").run(RUN) / "candidates" / "test.safetensors"
    predict(RUN, "test")
    of_one = candidates.read_bytes()
    set_devices(2, "test")
    predict(RUN, "test")
    assert candidates.read_bytes() == of_one  # every image once, and every bit
    assert read_json(candidates.parent.with_name("timing.json"), hint="")["provenance"]["devices"] == 2


def test_batch_norm_is_not_trained_on_parts_of_a_batch(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    cpu = torch.device("cpu")
    assert synchronise_norms(model, cpu, smallest_batch=1) is model  # alone
    monkeypatch.setattr(distributed, "size", lambda: 2)
    assert synchronise_norms(model.eval(), cpu, smallest_batch=1) is model  # frozen
    with pytest.raises(UserError, match=r"model.batch_norm.*\n.*trained, on 2 x cpu"):
        synchronise_norms(model.train(), cpu, smallest_batch=4)


@pytest.mark.parametrize(("size", "parts"), [(2, [3, 4]), (3, [2, 2, 3]), (8, [0, 1, 1, 1, 1, 1, 1, 1])])
def test_ranks_share_all_items_in_order(monkeypatch, size, parts):
    items = list("abcdefg")
    shares = []
    monkeypatch.setattr(distributed, "size", lambda: size)
    for rank in range(size):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.share(items))
    assert [len(share) for share in shares] == parts
    assert [item for share in shares for item in share] == items


@pytest.mark.parametrize(("devices", "expected"), [(1, 1), (3, 3), ("all", 3), (4, None)])
def test_devices_are_counted(monkeypatch, devices, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    if expected is None:
        with pytest.raises(UserError, match=r"params.yaml: devices: not available here\n.*4\n.*at most 3 \(cuda\)"):
            distributed.number_of(devices, torch.device("cuda"))
    else:
        assert distributed.number_of(devices, torch.device("cuda")) == expected


def test_rows_name_the_devices_that_shared_a_training():
    assert trained_on({"device": "cpu", "devices": 2, "dtype": "float32"}) == "2 x cpu, float32"
    assert trained_on({"device": "cpu", "dtype": "float32"}) == "cpu, float32"  # of an earlier version
