"""One training on several ranks: the weights of one rank, resumed, broken off and found by torchrun; real processes."""

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
from conftest import Watcher, wait_until, write_params
from safetensors.torch import load_file
from torch import nn

from fcos import distributed
from fcos.commands.predict import predict
from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.errors import UserError
from fcos.study.layout import Layout
from fcos.training.ranks import synchronise_norms

RUN = "one-epoch"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "0"]
TORCHRUN += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "fcos"]


@pytest.fixture
def settings(workspace, smoke_params):
    """20 steps of smoke: 25 images in batches of 6 = 3 + 3; the last one has one image, which only one rank gets."""
    smoke_params["data"]["num_train"] = 25
    smoke_params["model"]["batch_norm"] = "frozen"
    # AdamW, and larger rates, would blow up the last bits of small gradients.
    smoke_params["train"] |= {"batch_size": 6, "precision": "float32", "optimizer": "sgd", "learning_rate": 0.002}
    smoke_params["runs"][RUN]["epochs"] = 3
    write_params(smoke_params)
    prepare()
    return smoke_params


def trained(settings, devices):
    """The history and the weights of a training on so many devices, done anew."""
    settings["train"]["devices"] = devices
    write_params(settings)
    shutil.rmtree("runs", ignore_errors=True)
    train(RUN, Watcher())
    return outcome()


def outcome():
    return pd.read_csv(Layout("smoke").run(RUN) / "history.csv"), load_file(Layout("smoke").weights(RUN))


def distance(weights, others):
    """The relative distance (L2) of two networks."""
    ours, theirs = (torch.cat([of[name].double().flatten() for name in weights]) for of in (weights, others))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.slow
def test_two_ranks_train_as_one(settings):
    """Positives that are not summed over the ranks change the losses by 1e-2 (seen)."""
    history, weights = trained(settings, 1)
    shared, shared_weights = trained(settings, 2)
    losses = [name for name in history if name.startswith("loss")]
    assert len(history) == 20 and (history["num_positives"] == shared["num_positives"]).all()
    np.testing.assert_allclose(shared[losses][:5], history[losses][:5], atol=1e-6, rtol=0)
    assert distance(shared_weights, weights) < 1e-5
    assert distance(shared_weights, weights) > 0  # another order of sums: they were computed apart


def fcos(*command):
    """A command of the project as a process of its own."""
    command = [sys.executable, "-m", "fcos", *command]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def ranks_of(process):
    """The ranks that a process has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in found if "RANK=1" in Path(f"/proc/{pid}/environ").read_text().split("\0")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_broken_off_training_resumes_bit_for_bit(settings, how):
    """Either rank 1 is killed, which ends both with a message, or rank 0 is asked to end, and saves first."""
    settings["runs"][RUN]["epochs"] = 7
    _, weights = trained(settings, 2)
    shutil.rmtree("runs", ignore_errors=True)
    settings["train"]["checkpoint_every_s"] = 0.0
    write_params(settings)
    with fcos("train", RUN) as process:
        wait_until(lambda: list(Path("runs").rglob("state.pt")), process)
        os.kill(process.pid if how == signal.SIGTERM else ranks_of(process)[0], how)
        _, said = process.communicate()
    if how == signal.SIGKILL:
        assert process.returncode == 2 and "rank 1: SIGKILL" in said and "resumes from its last saved state" in said
    else:
        assert process.returncode == 130 and "to resume: fcos train" in said
    assert not Layout("smoke").weights(RUN).exists()
    again = Watcher()
    train(RUN, again)
    assert 0 < len(again.seen) < 40  # 8 epochs of 5 steps
    assert distance(outcome()[1], weights) == 0


@pytest.mark.slow
def test_torchrun_trains_and_predicts_as_one_process_does(settings):
    _, weights = trained(settings, 2)
    predict(RUN, "test")
    candidates = Layout("smoke").run(RUN) / "candidates" / "test.safetensors"
    alone = candidates.read_bytes()
    candidates.unlink()
    subprocess.run([*TORCHRUN, "predict", RUN], check=True, capture_output=True)
    assert candidates.read_bytes() == alone  # every image once, and every bit
    settings["train"]["devices"] = 1
    write_params(settings)
    shutil.rmtree("runs", ignore_errors=True)
    subprocess.run([*TORCHRUN, "train", RUN], check=True, capture_output=True)
    assert distance(outcome()[1], weights) == 0


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
