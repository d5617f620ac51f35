"""Damaged files of a study: each reader names the file and the command to run, never with a traceback."""

import contextlib
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, assert_mistake
from model_helpers import train_and_predict
from project_helpers import empty_store

from fcos.commands.evaluate import evaluate
from fcos.commands.nms_sweep import nms_sweep
from fcos.commands.tta import tta
from fcos.records import Evaluation, Tta, odd_value

RUN, DATA = Path("runs/smoke/one-epoch"), Path("data/smoke")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the smoke study with one run, complete except for its report."""
    folder = tmp_path_factory.mktemp("finished")
    params = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    params["runs"] = {"one-epoch": params["runs"]["one-epoch"]}
    params["tta"]["runs"] = params["nms_sweep"]["runs"] = ["one-epoch"]
    params["tables"] = [{"kind": "trained", "title": "Trained model", "run": "one-epoch"}]
    params["statistics"] = {**params.get("statistics", {}), "replicates": 100}
    params["test"]["score_threshold"] = 0.001
    train_and_predict(folder, params)
    with contextlib.chdir(folder):
        for score in (evaluate, nms_sweep, tta):
            score("one-epoch")
    shutil.copy(empty_store(), folder / "mlflow.db")
    return folder


@pytest.fixture
def study(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "study"))
    # These tests are about readers; drawing and batch trials would take seconds.
    monkeypatch.setattr("fcos.reporting.report.draw_run_images", lambda *_: None)
    monkeypatch.setattr("fcos.reporting.vega.Chart.write", lambda *_: None)
    monkeypatch.setattr("fcos.reporting.vega.Chart.write_png", lambda *_: None)
    monkeypatch.setattr("fcos.commands.doctor._batches", lambda *_: [])


READERS = (
    ["evaluate", "one-epoch"],
    ["tta", "one-epoch"],
    ["nms-sweep", "one-epoch"],
    ["report"],
    ["status", "--quick"],
    ["sync-mlflow"],
    ["doctor"],
)
WHOLE = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda _: b"",
    "a number": lambda _: b"5",
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "an empty object": lambda _: b"{}",
    "not UTF-8": lambda _: b"\xff\xfe{",
    "NaN": lambda _: b'{"metrics": NaN}',
}


def read_all(run, path, text, label):
    """Call every reader on a damaged file: it reports the file or does not need it."""
    for command in READERS:
        scores = command[0] in ("evaluate", "tta", "nms-sweep")
        if scores and (path.parent == RUN and path.name != "timing_tta.json"):
            continue
        path.write_bytes(text)
        try:
            done = run(*command)
        except Exception as error:
            raise AssertionError(f"{label}: {command}: {type(error).__name__}: {error}") from error
        if done.returncode == 2:
            assert_mistake(done, path.name, "hint: ")
        else:
            assert done.returncode == 0 or command == ["doctor"], (label, command, done.stderr)
        assert path.read_bytes() == text or command[0] == "report"


NAMES = [
    RUN / "metrics.json", RUN / "evaluation.json", RUN / "train.json", RUN / "timing.json", RUN / "timing_tta.json",
    RUN / "detections.json", RUN / "nms_sweep.json", RUN / "tta.json", RUN / "history.csv", DATA / "manifest.json",
    DATA / "test.json", DATA / "test.images.npy", DATA / "test.objects.npy",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("path", NAMES, ids=lambda path: path.name)
def test_a_damaged_file_is_told_by_every_reader(study, run, path):
    whole = path.read_bytes()
    for label, damage in WHOLE.items():
        read_all(run, path, damage(whole), label)


@pytest.mark.parametrize(
    ("content", "kind", "odd"),
    [
        ({"metrics": {"AP": 0.5, "APs": None}, "per_class": []}, Evaluation, None),
        ({"metrics": {"AP": "0.5"}}, Evaluation, "metrics.AP is a str"),
        ({"metrics": {"AP": True}}, Evaluation, "metrics.AP is a bool"),
        ({"metrics": {"AP": float("inf")}}, Evaluation, "metrics.AP is no finite number"),
        ({"metrics": []}, Evaluation, "metrics is a list"),
        ({"per_class": [{"name": "cat"}, {"name": None}]}, Evaluation, "per_class[1].name is null"),
        ({"steps": [{"views": ["s48", 5]}]}, Tta, "steps[0].views[1] is a int"),
        ({"of a later version": 1}, Tta, None),
        ([], Tta, "content is a list"),
    ],
)
def test_what_is_odd_is_named_by_its_place(content, kind, odd):
    assert odd_value(content, kind) == odd
