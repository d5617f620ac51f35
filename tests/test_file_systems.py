"""Operations that some file systems refuse: locks on NFS without a lock service, hard links on FAT and FUSE. These file
systems cannot be mounted here, so the calls are replaced by ones that raise the same errors.
"""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from fcos.files import link_or_copy
from fcos.locks import locked
from fcos.running.heartbeat import heartbeat, read_heartbeats
from fcos.training.resume import Scratch


def raising(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "ENOTSUP"])
def no_locks(request, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(getattr(errno, request.param)))
    monkeypatch.setattr("fcos.locks._told", set())


def test_without_locks_a_command_goes_on_and_says_so_once(no_locks, capsys):
    for _ in range(2):
        with locked(Path("a.lock")):
            pass
    assert capsys.readouterr().err.count("has no locks") == 1
    with pytest.raises(KeyError), locked(Path("a.lock")):
        raise KeyError("of the block")


def test_without_locks_a_training_goes_on_and_says_so(no_locks, capsys):
    with Scratch(Path("run-key")).alone():
        pass
    assert capsys.readouterr().err.count("has no locks") == 1


def test_other_errors_of_a_lock_are_told(monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), locked(Path("a.lock")):
        pytest.fail("nobody has the lock")


def test_without_locks_a_command_at_work_is_known_by_its_process(no_locks, capsys):
    with heartbeat("smoke", "train", "one"):
        assert [beat["alive"] for beat in read_heartbeats("smoke").values()] == [True]
    with pytest.raises(KeyError), heartbeat("smoke", "train", "one"):
        raise KeyError("broke off")
    path = Path("runs/smoke/.scratch/at-work/train@one.json")
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194999'))
    assert [beat["alive"] for beat in read_heartbeats("smoke").values()] == [False]
    assert capsys.readouterr().err.count("has no locks") == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links_files_are_copied(monkeypatch, number):
    monkeypatch.setattr(os, "link", raising(number))
    Path("weights").write_text("numbers")
    link_or_copy(Path("weights"), Path("kept/weights"))
    assert Path("kept/weights").read_text() == "numbers" and not Path("kept/weights").samefile("weights")
    assert [path.name for path in Path("kept").iterdir()] == ["weights"]


def test_without_hard_links_a_full_disk_leaves_what_was_there(monkeypatch):
    monkeypatch.setattr(os, "link", raising(errno.EXDEV))
    monkeypatch.setattr(shutil, "copyfile", raising(errno.ENOSPC))
    for name in ("weights", "kept"):
        Path(name).write_text(name)
    with pytest.raises(OSError, match="No space left"):
        link_or_copy(Path("weights"), Path("kept"))
    assert Path("kept").read_text() == "kept" and len(list(Path().iterdir())) == 2
