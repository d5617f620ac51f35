"""MLflow agrees with the files, tested on a real store with files as the commands write them."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import LIMIT_S, ROOT, free_ports, wait_until, write_params
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from fcos.config.model import ModelConfig
from fcos.config.runs import Run
from fcos.config.train import TrainConfig
from fcos.errors import UserError
from fcos.files import sha256_file, write_csv, write_json
from fcos.model.checkpoint import Identity, save_weights
from fcos.study.build import build_model
from fcos.tracking import live, view
from fcos.tracking.database import renewed
from fcos.tracking.describe import NOTE
from fcos.tracking.live import LiveRun
from fcos.tracking.runs import CURVES, search
from fcos.tracking.store import StoreUnavailable, connect, find_experiment, masked, reaching, shown_uri
from fcos.tracking.sync import sync

STUDY = "tiny"
CATEGORIES = [{"id": 3, "name": "traffic light"}, {"id": 7, "name": "cat/dog"}]
NUM_ROWS = 130  # more metrics than fit into one request
METRICS = {"AP": 0.25, "AP50": 0.5, "APs": None}


def tiny_run(name: str) -> Run:
    return Run(
        study=STUDY,
        name=name,
        backbone="resnet18",
        epochs=1,
        num_convs=1,
        seed=0,
        checkpoint=None,
        role=None,
        # Nearly every location predicts an object, so that untrained weights give detections.
        model=ModelConfig(weights="none", batch_norm="trained", fpn_channels=32, prior_probability=0.9),
        train=TrainConfig(sizes=[64], max_size=64),
    )


def row(step: int) -> dict[str, float]:
    return {"step": step, "epoch": 0, **{name: step + index / 8 for index, name in enumerate(CURVES)}}


class Files:
    """Return the folder `runs/tiny` of a project, with files as the commands write them."""

    def __init__(self, root: Path, weights: Path) -> None:
        self.runs_dir, self.weights = root / "runs" / STUDY, weights

    def train(self, name: str = "one", *, key: str = "k1", weights: Path | None = None) -> None:
        folder = self.runs_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").unlink(missing_ok=True)
        shutil.copy(weights or self.weights, folder / "model.safetensors")
        write_csv(folder / "history.csv", [row(step) for step in range(NUM_ROWS)], ["step", "epoch", *CURVES])
        summary = {
            "training_key": key,
            "weights_sha256": sha256_file(folder / "model.safetensors"),
            "params": tiny_run(name).identity(),
            "role": None,
            "imported_from": None,
            "provenance": {"commit": "c0ffee", "started": "2026-01-02T03:04:05Z", "seconds": 60.5},
        }
        write_json(folder / "train.json", summary)

    def evaluate(self, name: str = "one", *, ap: float = 0.25, size: int = 64) -> None:
        folder = self.runs_dir / name
        common = self._common(name, size)
        metrics = {**METRICS, "AP": ap}
        per_class = [{"name": category["name"], "AP": ap} for category in CATEGORIES]
        intervals = {name: {"low": ap - 0.02, "high": ap + 0.02} for name in ("AP", "AP50")}
        errors = {"AP50": 0.5, "missed": {"count": 3, "delta_ap50": 0.125}}
        more = {"intervals": intervals, "analysis": {"errors": errors}}
        write_json(folder / "evaluation.json", {"metrics": metrics, "per_class": per_class, **more, **common})
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "timing.json", {"views": {"test": {"seconds": 2.0, "ms_per_image": 20.0}}})

    def sweeps(self, name: str, thresholds: list[float]) -> None:
        folder, common = self.runs_dir / name, self._common(name, 64)
        tta = [
            {"num_views": n, "views": [f"s{i}" for i in range(n)], "seconds": 1.5 * n, "metrics": METRICS}
            for n in (1, 2)
        ]
        nms = [{"nms_iou_threshold": threshold, "metrics": METRICS} for threshold in thresholds]
        chosen = {"chosen": 2, "metrics": {**METRICS, "AP": 0.75}}
        write_json(folder / "tta.json", {"split": "validation", "steps": tta, **chosen, **common})
        write_json(folder / "nms_sweep.json", {"split": "test", "steps": nms, **common})

    def _common(self, name: str, size: int) -> dict[str, Any]:
        digest = sha256_file(self.runs_dir / name / "model.safetensors")
        provenance = {"commit": "c0ffee", "started": "2026-01-02T03:05:00Z", "seconds": 1.0}
        return {"test": {"size": size}, "identity": {"weights_sha256": digest}, "provenance": provenance}

    def sync(
        self,
        *names: str,
        known: Sequence[str] = (),
        checkpoints: str = "none",
        figures: Callable[[str], list[Path]] = lambda _: [],
    ) -> int:
        return sync(STUDY, self.runs_dir, names or ["one"], known=known, checkpoints=checkpoints, figures=figures)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    run = tiny_run("one")
    identity = Identity(run=run.identity(), categories=CATEGORIES, data_digest="d" * 64)
    save_weights(path, build_model(run, len(CATEGORIES), pretrained=False).state_dict(), identity)
    return path


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new database; creating it takes seconds, so each test gets a copy."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        connect()
    return root / "mlflow.db"


@pytest.fixture
def files(tmp_path: Path, weights: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(live, "CLOSE_S", LIMIT_S)  # the last rows are sent, also on a slow machine
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    renewed.clear()
    return Files(tmp_path, weights)


@pytest.fixture
def away(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that closes every connection; it is asked twice, since eight times would take minutes."""
    calls = []

    def hang_up() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = server.accept()
                calls.append(connection)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=hang_up)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(calls) == 2


def trainings(**tags: str) -> list[Any]:
    client = connect()
    return search(client, find_experiment(client, STUDY), kind="training", **tags)


def only_run() -> Any:
    (run,) = trainings()
    return run


def test_a_validation_is_a_point_at_the_last_step_of_its_epoch(files: Files) -> None:
    files.train()
    columns = ["step", "epoch", *CURVES]
    rows = [row(step) for step in range(NUM_ROWS)]
    for step in range(NUM_ROWS - 1):
        del rows[step]["validation_AP"], rows[step]["validation_AP50"]
    write_csv(files.runs_dir / "one" / "history.csv", rows, columns)
    files.sync("one")
    points = connect().get_metric_history(only_run().info.run_id, "validation_AP")
    assert [(point.step, point.value) for point in points] == [(NUM_ROWS - 1, row(NUM_ROWS - 1)["validation_AP"])]
    assert len(connect().get_metric_history(only_run().info.run_id, "loss")) == NUM_ROWS


def everything() -> dict[str, Any]:
    """Return the content of the store without its own ids."""
    client, said = connect(), {}
    for run in client.search_runs([find_experiment(client, STUDY)]):
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        curves = {
            name: [
                (point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        said[run.info.run_name] = (run.data.params, tags, curves, run.info.status, run.inputs.to_dictionary())
    return said


def test_a_run_says_what_its_files_say(files: Files, tmp_path: Path) -> None:
    files.train()
    files.evaluate()
    figure = tmp_path / "loss.svg"
    figure.write_text("<svg/>")
    assert files.sync("one", "never-trained", figures=lambda name: [figure] if name == "one" else []) == 1
    run, client = only_run(), connect()
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    kind = client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"  # makes the UI open the table of runs
    params = run.data.params
    assert (params["backbone"], params["epochs"], run.data.tags["test.size"]) == ("resnet18", "1", "64")
    assert (params["model.fpn_channels"], params["train.sizes"]) == ("32", "[64]")
    metrics = run.data.metrics
    assert (metrics["AP"], metrics["AP/traffic light"], metrics["AP/cat_dog"]) == (0.25, 0.25, 0.25)
    assert (metrics["ms_per_image"], metrics["test_seconds"]) == (20.0, 2.0)
    assert (metrics["AP_low"], metrics["AP_high"], metrics["gain_AP50/missed"]) == (0.23, 0.27, 0.125)
    assert "APs" not in metrics
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(s, row(s)["loss"]) for s in range(NUM_ROWS)]
    tags = run.data.tags
    assert (tags["study"], tags["training_key"], tags["commit"], tags["data_digest"]) == (
        STUDY,
        "k1",
        "c0ffee",
        "d" * 64,
    )
    assert tags["weights_sha256"] == sha256_file(files.weights)
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["tiny-train"]
    assert {f.path for f in client.list_artifacts(run.info.run_id, "figures")} == {"figures/loss.svg"}
    assert (tmp_path / "mlruns" / STUDY).is_dir()


def test_who_opens_the_study_reads_what_it_is(files: Files) -> None:
    for name, ap in (("one", 0.2), ("two", 0.3)):
        files.train(name)
        files.evaluate(name, ap=ap)
    files.sync("one", "two")
    client = connect()
    experiment_id = find_experiment(client, STUDY)
    note = client.get_experiment(experiment_id).tags["mlflow.note.content"]
    one, two = sorted(trainings(), key=lambda run: str(run.info.run_name))
    assert f"| [one](#/experiments/{experiment_id}/runs/{one.info.run_id}) | resnet18 | 1 | 1 | 0 | 20.0 |" in note
    assert "| 30.0 | 28.0 to 32.0 | 50.0 | 20.0 |" in note
    assert 'load_model("models:/fcos-tiny@best")' in note
    assert two.data.tags["mlflow.note.content"].startswith(
        "resnet18, 1 epochs, num_convs 1, seed 0. AP 30.0 [28.0, 32.0], AP50 50.0 [28.0, 32.0]. Files: `runs/tiny/two/`"
    )


def test_long_names_and_names_in_other_scripts_are_metrics_of_their_own(files: Files) -> None:
    """MLflow allows 250 characters and no other scripts: both would raise, or overwrite silently."""
    files.train()
    files.evaluate()
    path = files.runs_dir / "one" / "evaluation.json"
    content = json.loads(path.read_text())
    names = ["кот", "пёс", "x" * 300]
    content["per_class"] = [{"name": name, "AP": 0.1 * place} for place, name in enumerate(names, start=1)]
    write_json(path, content)
    files.sync()
    logged = only_run().data.metrics
    assert (logged["AP/___"], logged["AP/___ 2"]) == (pytest.approx(0.1), pytest.approx(0.2))
    assert logged[f"AP/{'x' * 200}"] == pytest.approx(0.3)


def test_the_description_survives_odd_names(files: Files) -> None:
    """train.json may come from others: its texts are table cells and lines of a page."""
    files.train()
    path = files.runs_dir / "one" / "train.json"
    content = json.loads(path.read_text())
    content["params"]["backbone"] = "res|net`<b>\x1b[31m\u202e\n\n# x"
    write_json(path, content)
    files.sync()
    client = connect()
    shown = r"res\|net\`&lt;b&gt;\\x1b\[31m\\u202e # x"
    table = client.get_experiment(find_experiment(client, STUDY)).tags["mlflow.note.content"]
    assert f"| {shown} | 1 | 1 | 0 |" in table
    assert only_run().data.tags["mlflow.note.content"].startswith(f"{shown}, 1 epochs")


def test_a_damaged_history_is_named(files: Files) -> None:
    files.train()
    path = files.runs_dir / "one" / "history.csv"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"history\.csv: is damaged"):
        files.sync()


def test_each_step_of_a_sweep_is_a_child_run(files: Files) -> None:
    files.train()
    files.sweeps("one", [0.5, 0.6])
    files.sync()
    files.sweeps("one", [0.6, 0.7])
    files.sync()
    client, parent = connect(), only_run()
    children = search(client, parent.info.experiment_id, **{"mlflow.parentRunId": parent.info.run_id})
    names = {"one tta 1", "one tta 2", "one tta chosen", "one nms 0.6", "one nms 0.7"}
    assert {run.info.run_name for run in children} == names
    said = {run.info.run_name: run for run in children}
    assert said["one tta 2"].data.params == {"num_views": "2"}
    assert said["one tta 2"].data.metrics["validation_seconds"] == 3.0
    # Chosen on the validation split; test has this single result.
    chosen = said["one tta chosen"]
    assert (chosen.data.params, chosen.data.metrics["AP"]) == ({"num_views": "2"}, 0.75)
    assert chosen.data.tags["split"] == "test"
    assert said["one nms 0.7"].data.params == {"nms_iou_threshold": "0.7"}
    assert said["one nms 0.7"].data.metrics["AP"] == 0.25
    assert [said[name].data.tags["split"] for name in ("one tta 2", "one nms 0.7")] == ["validation", "test"]


def test_syncing_again_adds_nothing(files: Files) -> None:
    files.train()
    files.evaluate()
    files.sweeps("one", [0.5])
    files.sync()
    before, runs = everything(), len(trainings())
    files.sync()
    assert (everything(), len(trainings())) == (before, runs)


def test_a_lost_database_is_refilled(
    files: Files, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.train()
    files.evaluate()
    files.sweeps("one", [0.5])
    files.sync()
    before = everything()
    fresh = tmp_path / "fresh.db"
    shutil.copy(empty_store, fresh)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{fresh}")
    files.sync()
    assert everything() == before


def test_another_training_supersedes_the_first_and_back(files: Files, tmp_path: Path) -> None:
    files.train()
    files.evaluate()
    files.sync()
    other = tmp_path / "other.safetensors"
    identity = Identity(run=tiny_run("one").identity(), categories=CATEGORIES, data_digest="d" * 64)
    save_weights(other, {"w": torch.zeros(1)}, identity)
    files.train(key="k2", weights=other)
    files.sync()
    (first,), (second,) = trainings(training_key="k1"), trainings(training_key="k2")
    assert first.data.tags["superseded"] == "true" and "superseded" not in second.data.tags
    assert "AP" not in second.data.metrics  # evaluation.json is still that of the first
    files.train()
    files.sync()
    (first,), (second,) = trainings(training_key="k1"), trainings(training_key="k2")
    assert second.data.tags["superseded"] == "true" and "superseded" not in first.data.tags


def test_numbers_stay_with_the_test_settings_they_belong_to(files: Files) -> None:
    files.train()
    files.evaluate(size=64, ap=0.25)
    files.sync()
    files.evaluate(size=96, ap=0.5)
    files.sync()
    run = only_run()  # scoring the same weights again updates the same run
    assert (run.data.tags["test.size"], run.data.metrics["AP"]) == ("96", 0.5)


def test_the_checkpoint_is_a_link_and_finds_boxes(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    files.train()
    files.sync(checkpoints="all")
    files.sync(checkpoints="all")
    client, run = connect(), only_run()
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    (stored,) = (tmp_path / "mlruns").rglob("model.safetensors")
    assert stored.samefile(files.runs_dir / "one" / "model.safetensors")
    image = tmp_path / "image.png"
    Image.new("RGB", (80, 60), (200, 30, 30)).save(image)
    encoded = base64.b64encode(image.read_bytes()).decode()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    boxes = loaded.predict(pd.DataFrame({"image": [str(image), encoded]}))
    assert list(boxes.columns) == ["image", "category_id", "category", "score", "x", "y", "width", "height"]
    assert set(boxes["image"]) == {0, 1} and set(boxes["category_id"]) <= {3, 7}
    of_path, of_base64 = (boxes[boxes["image"] == n].drop(columns="image").reset_index(drop=True) for n in (0, 1))
    pd.testing.assert_frame_equal(of_path, of_base64)


def test_only_the_best_run_keeps_its_checkpoint(files: Files) -> None:
    for name, ap in (("one", 0.2), ("two", 0.3)):
        files.train(name)
        files.evaluate(name, ap=ap)
        files.sync(name, checkpoints="best")
    client = connect()
    models = client.search_logged_models([find_experiment(client, STUDY)])
    assert [model.tags["run"] for model in models] == ["two"]


@pytest.mark.slow
def test_the_best_run_has_an_alias_in_the_registry(files: Files) -> None:
    for name, ap in (("one", 0.3), ("two", 0.2)):
        files.train(name)
        files.evaluate(name, ap=ap)
    files.sync("one", "two", checkpoints="all")
    client = connect()
    assert client.get_model_version_by_alias("fcos-tiny", "best").tags["run"] == "one"
    files.evaluate("two", ap=0.4)
    files.sync("two", checkpoints="all")
    best = client.get_model_version_by_alias("fcos-tiny", "best")
    assert (best.tags["run"], best.tags["weights_sha256"]) == ("two", sha256_file(files.weights))
    files.sync("one", "two", checkpoints="best")  # removes the other runs' weights and versions
    assert [version.tags["run"] for version in client.search_model_versions("name = 'fcos-tiny'")] == ["two"]


@pytest.mark.slow
def test_a_served_model_finds_boxes(files: Files, tmp_path: Path) -> None:
    files.train()
    files.evaluate()
    files.sync(checkpoints="all")
    (port,) = free_ports(1)
    command = ["mlflow", "models", "serve", "-m", "models:/fcos-tiny@best", "--env-manager", "local", "-p", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    (example,) = (tmp_path / "mlruns").rglob("serving_input_example.json")
    # A process group of its own, since the server has children.
    with subprocess.Popen([*command, "-h", "127.0.0.1"], env=environment, start_new_session=True) as server:
        try:
            answer = _post(f"http://127.0.0.1:{port}/invocations", example.read_bytes(), server)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    boxes = answer["predictions"]
    assert boxes and boxes[0].keys() == {"image", "category_id", "category", "score", "x", "y", "width", "height"}
    assert boxes[0]["category"] in ("traffic light", "cat/dog")


def _post(url: str, body: bytes, server: "subprocess.Popen[bytes]") -> Any:
    """Repeat a request until there is an answer."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})

    def answered() -> Any:
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    return wait_until(answered, server)


@pytest.mark.usefixtures("away")
def test_a_store_that_is_away_is_told_in_one_line(files: Files) -> None:
    files.train()
    with pytest.raises(StoreUnavailable) as caught:
        files.sync()
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://anna:pw12@host:5000", "http://***@host:5000"),
        ("postgresql://anna:se@c/r et?x@db:5432/m", "postgresql://***@db:5432/m"),
        ("postgresql://anna:a%40b@db/m", "postgresql://***@db/m"),
        ("mysql+pymysql://u:p@h/d?ssl_key=abcd&charset=utf8", "mysql+pymysql://***@h/d?ssl_key=***&charset=utf8"),
        ("http://h/?password=abcd;api_key=efgh&x=1", "http://h/?password=***;api_key=***&x=1"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_no_secret_of_the_store_is_shown(monkeypatch: pytest.MonkeyPatch, uri: str, shown: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert shown_uri() == shown
    said = masked(f"no answer from {uri}; see also http://x:y@other/")
    assert said == f"no answer from {shown}; see also http://***@other/"


@pytest.mark.parametrize("name", ["a b?", "a%20b#1"])
def test_the_store_lies_in_the_project_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    project = tmp_path / name
    project.mkdir()
    (project / "dvc.yaml").touch()
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = connect()
    run = client.create_run(find_experiment(client, "pets"))
    (project / "weights").write_text("w")
    client.log_artifact(run.info.run_id, "weights")
    assert (project / "mlflow.db").is_file()
    assert [path.read_text() for path in (project / "mlruns" / "pets").rglob("weights")] == ["w"]


def test_a_password_in_the_words_of_a_driver_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://anna:a%40bcd@db/m")
    assert masked("refused: anna / a@bcd") == "refused: anna / ***"


def test_a_refused_password_is_not_called_a_server_that_is_away() -> None:
    assert "user name and password" in StoreUnavailable("API request failed with error code 401").hint
    assert "user name and password" in StoreUnavailable('FATAL: password authentication failed for user "u"').hint
    assert "start the server" in StoreUnavailable("Connection refused").hint


@pytest.mark.usefixtures("away")
def test_a_store_that_is_away_does_not_stop_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    observer = LiveRun(STUDY)
    observer.started(run_name="one", key="k1")
    observer.rows([row(0)])
    observer.close()
    observer.rows([row(1)])
    assert capsys.readouterr().err.count("fcos sync-mlflow") == 1


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "random bytes": lambda _: bytes(range(256)) * 40,
    "cut off": lambda data: data[: len(data) // 2],
    "another beginning": lambda data: b"X" * 16 + data[16:],
    "a header alone": lambda data: data[:100],
    "pages overwritten": lambda data: data[:20_000] + b"\xff" * 60_000 + data[80_000:],
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_database_makes_room_for_one_filled_from_the_files(
    files: Files, tmp_path: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        files.train(name)
        files.evaluate(name)
    database = tmp_path / "mlflow.db"
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)
    (tmp_path / "mlflow.db.damaged-1").write_text("of before")
    (tmp_path / "mlflow.db-journal").write_bytes(b"no journal")
    assert files.sync("one", known=["one", "two", "never-trained"]) == 2
    assert len(trainings()) == 2
    assert (tmp_path / "mlflow.db.damaged-1").read_text() == "of before"
    assert (tmp_path / "mlflow.db.damaged-2").read_bytes() == damaged
    assert not (tmp_path / "mlflow.db-journal").exists()
    assert capsys.readouterr().err.count("it is mlflow.db.damaged-2 now, and a new one is filled") == 1


def test_a_database_of_something_else_is_left_as_it_is(files: Files, tmp_path: Path) -> None:
    files.train()
    (tmp_path / "mlflow.db").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("CREATE TABLE songs (title)")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(StoreUnavailable, match="is a database of something else, with tables songs") as raised:
        files.sync()
    assert "sqlite:////FILE" in raised.value.hint
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert not list(tmp_path.glob("*damaged*"))


def test_a_database_that_another_program_holds_is_waited_for_and_told(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcos.tracking.database.WAIT_S", 0.1)
    files.train()
    before = (tmp_path / "mlflow.db").read_bytes()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match=r"database is locked; another program may be using it"):
            files.sync()
    assert (tmp_path / "mlflow.db").read_bytes() == before and not list(tmp_path.glob("*damaged*"))
    assert files.sync() == 1


def test_a_damaged_database_elsewhere_and_a_look_at_ours_change_nothing(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the project's own database is replaced, and not by `fcos doctor`."""
    for path in (tmp_path / "mlflow.db", tmp_path / "team.db"):
        path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        connect(renew=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'team.db'}")
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        connect()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}")
    with pytest.raises(StoreUnavailable, match="it is a folder"):
        connect()
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["mlflow.db", "mlflow.db.lock", "team.db"]


@pytest.mark.parametrize(
    "uri",
    [
        "http://[", "http://", "http://a b", "http://127.0.0.1:99999", "postgresql://u:secret@h:bad/x", "ftp://x",
        "file:", "file://host/x", "foo", ":", " ", "uc:x", "mssql://x", "C:\\x", "s3://bucket",
    ],
)  # fmt: skip
def test_addresses_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StoreUnavailable) as raised:
        connect()
    said = f"{raised.value}"
    assert "cannot be used" in said and "\n" not in said and "secret" not in said
    assert "set MLFLOW_TRACKING_URI to a server" in raised.value.hint or uri == "http://"


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Return the address of a server that gives everyone the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://anna:secret@127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


ANSWERS = {
    "HTML": (200, b"<html>hello</html>", "not in a valid JSON format"),
    "nothing": (200, b"", "does not answer as MLflow does"),
    "another object": (200, b'{"x": 1}', "does not answer as MLflow does"),
    "a number": (200, b"5", "not in a valid JSON format"),
    "other types": (200, b'{"experiments": 5}', "Failed to parse experiments field"),
    "other types within": (200, b'{"experiments": [{"experiment_id": {}}]}', "Failed to parse experiments field"),
    "no text": (200, b"\xff\xfe", "does not answer as MLflow does"),
    "no such page": (404, b"no", "404"),
    "401": (401, b"no", "refuses the user name or the password"),
    "403": (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "does not permit this user to do it"),
}


@pytest.mark.parametrize(("status", "body", "said"), ANSWERS.values(), ids=ANSWERS)
def test_a_server_of_something_else_is_told(
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Errors are reported by sync, and by a training while it runs."""
    files.train()
    with answering(status, body) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(StoreUnavailable, match=said) as raised:
            files.sync()
        watch(range(2))
        assert capsys.readouterr().err.count("training continues without MLflow") == 1
    assert "\n" not in f"{raised.value}" and "secret" not in f"{raised.value}"
    assert ("user name and password" in raised.value.hint) == (status in (401, 403))


def test_mistakes_of_ours_are_not_called_the_store_s() -> None:
    with pytest.raises(KeyError), reaching():
        raise KeyError("AP")
    with pytest.raises(UserError), reaching():
        raise UserError("history.csv", "is damaged")


def watch(rows: range) -> None:
    observer = LiveRun(STUDY)
    observer.started(run_name="one", key="k1")
    for step in rows:
        observer.rows([row(step)])
    observer.close()


def test_live_rows_come_when_the_store_is_back(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is down for the first rows."""
    del files
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said: list[str] = []
    monkeypatch.setattr(live, "say", said.append)
    monkeypatch.setattr(live, "RETRY_S", 0.05)
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        observer = LiveRun(STUDY)
        observer.started(run_name="one", key="k1")
        observer.rows([row(step) for step in range(5)])
        wait_until(lambda: said)
    wait_until(lambda: [run for run in trainings() if run.data.tags.get("history_rows") == "5"])
    observer.rows([row(step) for step in range(5, 9)])
    observer.close()
    assert only_run().data.tags["history_rows"] == "9" and len(said) == 1


def test_live_rows_and_synced_rows_are_one_curve(files: Files) -> None:
    watch(range(10))
    run = only_run()
    assert (run.info.status, run.data.tags["history_rows"]) == ("RUNNING", "10")
    watch(range(5, 12))  # resumed from an earlier checkpoint
    watch(range(20, 25))  # resumed after rows that were never sent, which are left to `sync`
    assert only_run().data.tags["history_rows"] == "12"
    files.train()
    files.sync()
    run = only_run()
    points = connect().get_metric_history(run.info.run_id, "loss")
    assert run.info.status == "FINISHED"
    assert sorted(point.step for point in points) == list(range(NUM_ROWS))


def test_a_training_shows_what_the_machine_does(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    observer = LiveRun(STUDY)
    observer.started(run_name="one", key="k1")
    observer.rows([row(0)])
    name = "system/cpu_utilization_percentage"
    wait_until(lambda: any(name in run.data.metrics for run in trainings()))
    observer.close()
    assert 0 <= only_run().data.metrics[name] <= 100
    assert only_run().data.metrics["system/system_memory_usage_percentage"] > 0


@pytest.mark.slow
def test_the_first_view_shows_the_study(files: Files, chromium: Browser) -> None:
    """The table has intervals and settings, best first, without child runs; the charts are those of the study."""
    for name, ap in (("worse", 0.125), ("better", 0.5)):
        files.train(name)
        files.evaluate(name, ap=ap)
    files.sweeps("worse", [0.5, 0.6])
    files.sync("worse", "better")
    experiment = next(one for one in connect().search_experiments() if one.name == STUDY)
    packed = experiment.tags[view.TAG]
    assert len(packed) < 5000  # characters of a tag
    assert json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;")))) == view.first_view()
    write_params({**yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text()), "study": STUDY})
    with mlflow_ui() as (table, charts):
        for address in (table, charts):
            assert f"](#{address.partition('#')[2]})" in experiment.tags[NOTE]
        page = chromium.new_page(viewport={"width": 2600, "height": 1000})  # columns out of sight are not drawn
        columns = view.first_view()["selectedColumns"]
        grid = page.locator(".ag-root")  # the description has a table too
        heads = grid.locator(".ag-header-cell")
        last = heads.and_(page.locator(f"[col-id='{columns[-1]}']"))
        opened(page, table, page.get_by_text("2 matching runs"), last)
        places = {head.get_attribute("col-id"): int(head.get_attribute("aria-colindex") or 0) for head in heads.all()}
        assert [name for name in sorted(places, key=places.__getitem__) if name in columns] == columns
        assert grid.get_by_role("link", name=re.compile("better|worse")).all_inner_texts() == ["better", "worse"]
        titles = [f"{name} vs. AP" for name in ("backbone", "epochs", "num_convs", "ms_per_image")]
        every = [page.get_by_role("heading", name=name, exact=True) for name in (*titles, "loss", "validation_AP")]
        opened(page, charts, *every)
        page.close()


def opened(page: Page, address: str, *parts: Locator) -> None:
    """Open a page until all its parts are there: MLflow's UI gives up where its server, just started, is slow."""

    def complete() -> bool:
        page.goto(address)
        page.reload()  # an address that differs after its # alone loads nothing
        try:
            for part in parts:
                expect(part).to_be_visible(timeout=20_000)
        except AssertionError:
            return False
        return True

    wait_until(complete)


@contextlib.contextmanager
def mlflow_ui() -> Iterator[list[str]]:
    """Run `fcos ui` until the block ends; yield the two addresses that it prints, once they answer."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "fcos", "ui", "--port", str(port)]
    # A process group of its own, since the server has children.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            assert server.stdout is not None
            addresses = [server.stdout.readline().partition(": ")[2].strip() for _ in range(2)]

            def answers() -> bool:
                with contextlib.suppress(OSError), urllib.request.urlopen(addresses[0], timeout=LIMIT_S) as answer:
                    return answer.status == 200
                return False

            wait_until(answers, server)
            yield addresses
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def test_mlflow_is_not_imported_before_it_is_used() -> None:
    code = "import sys, fcos.tracking.sync, fcos.tracking.live; print('mlflow' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_short_training_does_not_leave_half_a_database(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating the tables takes longer than the training on a slow machine; the process ends after `close`."""
    making, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        making.set()
        assert go_on.wait(LIMIT_S)
        raise StoreUnavailable("made, and of no further interest here")

    monkeypatch.setattr(live, "connect", slow)
    monkeypatch.setattr(live, "CLOSE_S", 0.0)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = live.LiveRun("smoke")
    run.started(run_name="one-epoch", key="k")
    assert making.wait(LIMIT_S)
    closing = threading.Thread(target=run.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    closing.join(LIMIT_S)
    assert not closing.is_alive()
