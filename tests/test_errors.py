"""Mistakes and system errors on the command line: each gives one message with the place, the error and a hint."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from conftest import ROOT, assert_mistake

from fcos.errors import UserError
from fcos.evaluation.candidates import read_candidates
from fcos.files import write_json
from fcos.model.checkpoint import read_identity, read_state_dict
from fcos.running import study_progress
from fcos.running.dvc import recorded_outputs
from fcos.running.run import run_study
from fcos.scoring.replicates import read_replicates
from fcos.study.provenance import provenance
from fcos.system_errors import explain

TEST, MANIFEST = Path("data/smoke/test.json"), Path("data/smoke/manifest.json")


def as_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"", ["params.yaml: is not a mapping", "nothing", "fcos study use"]),
        (b"study: \xff\xfe", ["params.yaml: is not text in UTF-8", "save it as UTF-8"]),
        (b"study: smoke\nuntil: 2026-02-30\n", ["params.yaml:2:8: is not YAML", "day is out of range"]),
        (b"study: smoke\nuntil: 2026-01-01T99:00:00Z\n", ["params.yaml:2:8: is not YAML", "hour must be in 0..23"]),
        (b"study: !!int x\n", ["params.yaml:1:8: is not YAML", "invalid literal for int"]),
        (b"study: !!bool 7\n", ["params.yaml:1:8: is not YAML", "not a valid bool"]),
        (b"study: !!python/object/apply:os.system [id]\n", ["params.yaml:1:8: is not YAML", "constructor for the tag"]),
        (b"seed: " + b"9" * 5000, ["params.yaml:1:7: is not YAML", "4300 digits"]),
        (b"study: " + b"[" * 3000, ["params.yaml:1:", "is not YAML", "nested too deeply"]),
        (b"study: &a [*a]", ["params.yaml:1:8: is not YAML", "recursive"]),
        (b"study: smoke\nruns: {}\nstudy: shapes\n", ["params.yaml:3:1: is not YAML", "duplicate key `study`"]),
        (b"study: \x07", ["params.yaml: is not YAML", "special characters are not allowed"]),
    ],
)
def test_params_yaml_that_is_no_study(workspace, run, text, parts):
    Path("params.yaml").write_bytes(text)
    assert_mistake(run("status"), *parts)
    Path("studies/odd.yaml").write_bytes(text)
    assert_mistake(run("study", "show", "odd"), *[part.replace("params.yaml", "studies/odd.yaml") for part in parts])


DEEP, LONG = "[" * 3000 + "]" * 3000, "9" * 5000


@pytest.mark.parametrize(
    ("text", "found"), [(DEEP, "maximum recursion depth"), (f'{{"images": {LONG}}}', "4300 digits"), ("5", "a int")]
)
def test_json_that_python_cannot_hold(workspace, run, text, found):
    """Errors of results, ground truth, data sets, and files of this project."""
    Path("gt.json").write_text(text)
    Path("set").mkdir()
    Path("set/train.json").write_text(text)
    scored = run("score", "--gt", "gt.json", "--detections", "gt.json")
    assert_mistake(scored, "gt.json", "is not" if found != "a int" else "")
    assert_mistake(run("study", "new", "odd", "--from", "set"), "set", "train.json")
    assert run("prepare").returncode == 0
    TEST.write_text(text)
    assert_mistake(run("evaluate", "one-epoch"), f"{TEST}: is ", found, "hint:     fcos prepare")


@pytest.mark.parametrize("text", ["{}", "[]", "5", '{"stage": "train", "run": null}', '{"stage": 1, "what": "train"}'])
def test_status_reads_over_a_heartbeat_of_nobody(workspace, run, text):
    beat = Path("runs/smoke/.scratch/at-work/train@one-epoch.json")
    beat.parent.mkdir(parents=True)
    beat.write_text(text)
    done = run("status")
    assert done.returncode == 0 and "one-epoch" in done.stdout


STUDY_BEAT = {"stage": "study", "run": None, "jobs": 1, "open": {}, "begun": []}


@pytest.mark.parametrize(
    "change",
    [
        {"total": 0},
        {"total": -5},
        {"total": 10**400},
        {"per_second": -1.0},
        {"started": None},
        {"pid": 10**30},
        {**STUDY_BEAT, "jobs": "x"},
        {**STUDY_BEAT, "jobs": -3},
        {**STUDY_BEAT, "open": [1]},
        {**STUDY_BEAT, "begun": None},
    ],
)
def test_status_reads_over_odd_numbers_of_a_heartbeat(workspace, run, change):
    """A damaged heartbeat counts as running while its lock is held."""
    said = {"stage": "train", "run": "one-epoch", "pid": 1, "started": 1.0, "updated": 1.0, "what": "train", "first": 0}
    said |= {"done": 1, "total": 9, "unit": "steps", "per_second": 1.0, "note": "", **change}
    name = "study.json" if said["stage"] == "study" else "train@one-epoch.json"
    beat = Path("runs/smoke/.scratch/at-work") / name
    beat.parent.mkdir(parents=True)
    beat.write_text(json.dumps(said))
    with beat.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("status", "--quick")
    assert done.returncode == 0 and "one-epoch" in done.stdout


@pytest.mark.parametrize("text", ['{"images": 5}', '{"a": {"b": 5}}', '{"a": null}', '{"a": []}', "[]", "5"])
def test_an_index_of_the_source_that_is_none_is_made_anew(workspace, run, text):
    assert run("prepare").returncode == 0
    Path("data/.source/smoke/index.json").write_text(text)
    assert run("status").returncode == 0 and run("source").returncode == 0
    assert "images" in Path("data/.source/smoke/index.json").read_text()


@pytest.mark.parametrize(
    "text", ["stages: [1]", "stages: {a: {outs: [5]}}", "5", "a: [", "stages: {a: {outs: [{md5: 1}]}}"]
)
def test_a_lock_file_that_dvc_did_not_write(tmp_path, text):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(UserError, match=r"dvc.lock: is damaged"):
        recorded_outputs(tmp_path / "dvc.lock")


def test_links_that_lead_in_a_circle(workspace, run):
    Path("studies/loop.yaml").symlink_to("loop.yaml")
    assert_mistake(run("study", "use", "loop"), "studies/loop.yaml", "symbolic links")


def test_class_names_in_data_yaml_are_texts_and_stand_once(tmp_path, run):
    """`no` and `007` name classes 0 and 1 of a folder of results; a duplicate number is refused."""
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 7, "name": "007"}, {"id": 9, "name": "no"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 9, "bbox": [40, 40, 20, 20], "area": 400, "iscrowd": 0},
        ],
    }  # fmt: skip
    write_json(tmp_path / "gt.json", truth)
    labels, names = tmp_path / "labels" / "a.txt", tmp_path / "labels" / "data.yaml"
    labels.parent.mkdir()
    labels.write_text("0 0.5 0.5 0.2 0.2 0.9\n")
    names.write_text("names: [no, 007]\n")
    arguments = ["score", "--gt", str(tmp_path / "gt.json"), "--detections", str(labels.parent), "--replicates", "0"]
    done = run(*arguments)
    assert done.returncode == 0 and "AP    100.0" in done.stdout
    names.write_text("names: {0: no, 0: 007}\n")
    assert_mistake(run(*arguments), "data.yaml:1:16: is not YAML", "duplicate key `0`")
    names.unlink()
    names.with_name("classes.txt").write_text("no\n\n007\n")
    assert_mistake(run(*arguments), "classes.txt:2: a blank line among the class names")


@pytest.mark.parametrize(
    ("path", "spoil", "parts"),
    [
        (TEST, lambda path: path.write_text("{}"), ["is not what `fcos prepare` wrote", "keys none", "annotations"]),
        (TEST, lambda path: path.write_text("[]"), ["is damaged", "a list", "a JSON object"]),
        (TEST, lambda path: path.write_text('{"images": ['), ["is not JSON"]),
        (TEST, as_folder, ["is a folder"]),
        (MANIFEST, lambda path: path.write_text("{}"), ["is not what `fcos prepare` wrote", "splits"]),
    ],
)
def test_prepared_data_that_were_damaged(workspace, run, path, spoil, parts):
    assert run("prepare").returncode == 0
    spoil(path)
    assert_mistake(run("evaluate", "one-epoch"), str(path), "hint:     fcos prepare", *parts)


@pytest.mark.parametrize("read", [read_candidates, read_identity, read_replicates])
def test_a_folder_where_a_file_should_be(tmp_path, read):
    with pytest.raises(UserError, match="is not a whole"):
        read(tmp_path, hint="fcos train RUN")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("studies", ["studies: is a folder"]),
        ("params.yaml", ["params.yaml: cannot be read as a state dict", "torch.save(model.state_dict()"]),
    ],
)
def test_checkpoints_that_are_none(workspace, run, source, parts):
    assert run("prepare").returncode == 0
    assert_mistake(run("import-checkpoint", source, "--run", "one-epoch"), *parts)


def _network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))


def _zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


def _tarred(path):
    with tarfile.open(path, "w") as archive:
        archive.add("params.yaml")


def _cut(path):
    torch.save({"a": torch.zeros(99)}, path)
    path.write_bytes(path.read_bytes()[:700])


OTHER_FILES = {
    "TorchScript": (lambda path: torch.jit.script(_network()).save(str(path)), "a TorchScript archive"),
    "torch.export": (
        lambda path: torch.export.save(torch.export.export(_network(), (torch.zeros(1, 3, 4, 4),)), path),
        "an archive of torch.export",
    ),
    "module": (lambda path: torch.save(_network(), path), "more than tensors in it, such as a whole module"),
    "old module": (
        lambda path: torch.save(_network(), path, _use_new_zipfile_serialization=False),
        "a pickle with more than tensors in it",
    ),
    "tar": (_tarred, "a tar archive"),
    "zip": (_zipped, "a zip archive with a.txt in it"),
    "safetensors": (
        lambda path: safetensors.torch.save_file({"a": torch.zeros(2)}, path),
        "has to end in .safetensors",
    ),
    "cut off": (_cut, "cut off or damaged"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><html>404"), "a web page"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
    "nothing": (lambda path: path.touch(), "an empty file"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("make", "kind"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files_given_as_checkpoints_are_told_by_their_kind(workspace, run, make, kind):
    """torch's own message says how to run the code in such a file."""
    path = Path("given.pt2")
    make(path)
    assert run("prepare").returncode == 0
    imported = run("import-checkpoint", str(path), "--run", "one-epoch")
    assert_mistake(imported, f"{path}: cannot be read as a state dict", kind, "torch.save(model.state_dict()")
    Path("x.png").touch()
    detected = run("detect", "x.png", "--checkpoint", str(path))
    assert_mistake(detected, str(path), "its header is missing or incomplete" if "safetensors" in kind else kind)
    assert "weights_only" not in imported.stderr + detected.stderr


@pytest.mark.filterwarnings("ignore::UserWarning")  # about sparse tensors
@pytest.mark.parametrize(
    "tensors",
    [
        {1: torch.zeros(2)},
        {"a": torch.zeros(2).to_sparse()},
        {"a": torch.zeros(3, device="meta")},
        {"a": torch.zeros(3, dtype=torch.complex64)},
        {"a": {"b": torch.zeros(3)}},
        [torch.zeros(3)],
    ],
)
def test_tensors_that_are_no_plain_numbers_by_name(tmp_path, tensors):
    torch.save(tensors, tmp_path / "given.pth")
    with pytest.raises(UserError, match="is not a state dict"):
        read_state_dict(tmp_path / "given.pth")


def test_an_out_that_cannot_be_written_is_refused_before_the_work(workspace, run):
    arguments = ["score", "--gt", "no.json", "--detections", "no.json", "--out", "params.yaml/numbers.json"]
    assert_mistake(run(*arguments), "--out params.yaml/numbers.json: cannot be written")


def test_names_that_are_not_utf8(workspace, run):
    assert run("prepare").returncode == 0
    odd = os.fsdecode(b"\xff.json")
    for name in (odd, "b.json"):
        write_json(Path(name), [{"image_id": 17, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fcos", "compare", "--gt", str(TEST), odd, "b.json", "--replicates", "100"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert "\\xff" in Path("comparison/comparison.csv").read_text()
    missing = subprocess.run([*command[:-4], os.fsdecode(b"\xfe.json"), "b.json"], capture_output=True, env=environment)
    assert missing.returncode == 2 and b"no such file" in missing.stderr


def test_no_study_here(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    assert_mistake(run("study", "use", "smoke"), "studies/smoke.yaml", "`fcos init FOLDER` makes")
    assert_mistake(run("train", "x"), "params.yaml: is missing, so this is no project folder", "fcos init FOLDER")


def test_a_study_file_without_a_line(workspace, run):
    Path("studies/mine.yaml").write_text("")
    assert "mine" in run("study", "list").stdout


def test_without_dvc_nothing_is_run(workspace, monkeypatch):
    monkeypatch.setattr(study_progress, "ask_dvc", lambda: (None, "No module named dvc"))
    with pytest.raises(UserError, match=r"(?s)DVC: cannot be used here.*No module named dvc.*source .venv"):
        run_study(2)


def test_a_folder_that_is_no_dvc_repository_says_so(workspace):
    with pytest.raises(UserError, match="not inside of a DVC repository"):
        run_study(1)


def test_without_git_nothing_is_lost(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    made = provenance(0.0)
    assert made["commit"] is None and made["clean_tree"] is None


def no_room(path):
    return OSError(errno.ENOSPC, "No space left on device", path)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (no_room("a.json"), ["a.json: no space left on its disk", "free some space"]),
        (
            safetensors.SafetensorError("I/O error: No space left on device (os error 28)"),
            ["no space left on its disk", "free some space"],
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), ["x: cannot be read or written", "permissions"]),
        (OSError(errno.ENOLCK, "No locks available"), ["its file system has no locks", "docs/how-to/resume.md"]),
        (OSError(errno.EROFS, "Read-only file system", "x"), ["x: cannot be read or written", "another folder"]),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x/y"), ["x/y: cannot be opened", "correct the path"]),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), ["train.batch_size", "fcos doctor"]),
        (MemoryError(), ["out of memory"]),
    ],
)
def test_system_errors_are_told(error, parts):
    said = str(explain(error))
    assert all(part in said for part in parts), said


def test_a_mistake_of_ours_keeps_its_traceback():
    assert explain(KeyError("x")) is None and explain(RuntimeError("shape")) is None
