"""The pipeline with a real DVC in its own repository: a whole study, and which stages run again after a change."""

import csv
import json
import os
import re
import shutil

import pytest
import yaml
from conftest import ROOT
from project_helpers import call, copy_project, fcos, repro, stages_run

from fcos.files import md5_file
from fcos.tracking.store import connect

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]
RUNS = ["reference", "one-epoch"]


@pytest.fixture(scope="module")
def project(tmp_path_factory, quick_path):
    """Return a copy of this repository with the finished smoke study; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder, (ROOT / "studies" / "smoke.yaml").read_text())
    return folder, call(folder, "python", "-m", "fcos", "study", "run", "--jobs", "2", PATH=quick_path)


@pytest.fixture
def own_project(project, tmp_path):
    """Return a copy of the finished project that a test may change, without MLflow's store, which has its old paths."""
    no_store = shutil.ignore_patterns("mlflow.db*", "mlruns")
    return shutil.copytree(project[0], tmp_path / "project", symlinks=True, ignore=no_store)


def change(folder, edit):
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    edit(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def test_one_command_runs_every_stage_and_builds_every_table(project):
    folder, output = project
    expected = ["tta@reference", "prepare", "report", "source", "nms_sweep@one-epoch"]
    expected += [f"{stage}@{run}" for stage in ("train", "predict", "evaluate") for run in RUNS]
    assert stages_run(output) == sorted(expected)
    report = folder / "reports" / "smoke"
    assert len(list((report / "tables").glob("*.csv"))) == 5 + 1  # and one of all runs
    page = (report / "index.html").read_text()
    assert "one-epoch" in page and "report-data" in page
    for run in RUNS:
        metrics = json.loads((folder / "runs" / "smoke" / run / "metrics.json").read_text())
        assert 0 <= metrics["AP"] < 0.5


def test_a_second_run_does_nothing(project):
    folder, _ = project
    assert stages_run(call(folder, "dvc", "repro")) == []


def test_everything_is_in_mlflow(project, monkeypatch):
    folder, _ = project
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    client = connect()
    experiment = client.get_experiment_by_name("smoke")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    trainings = {run.info.run_name: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert sorted(trainings) == sorted(RUNS)
    assert len(runs) - len(trainings) == 3 + 2  # TTA with 1, 2 and 3 views; two NMS thresholds
    run = trainings["one-epoch"]
    expected = json.loads((folder / "runs/smoke/one-epoch/metrics.json").read_text())
    assert run.data.metrics["AP50"] == expected["AP50"]
    assert run.data.params["backbone"] == "resnet18" and run.data.params["num_convs"] == "1"
    curve = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda point: point.step)
    with (folder / "runs/smoke/one-epoch/history.csv").open() as stream:
        assert [point.value for point in curve] == [float(row["loss"]) for row in csv.DictReader(stream)]
    figures = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "figures")}
    charts = ("training-curves", "errors", "precision-recall", "confusion", "calibration", "difficulty", "classes")
    assert figures == {f"figures/{name}.png" for name in ("detections", "worst", *charts)}
    evaluation = json.loads((folder / "runs/smoke/reference/evaluation.json").read_text())
    logged = trainings["reference"].data.metrics  # without detections there is no interval, and none is logged
    assert logged.get("AP50_high") == evaluation["intervals"]["AP50"]["high"]
    assert logged["gain_AP50/missed"] == evaluation["analysis"]["errors"]["missed"]["delta_ap50"]
    assert [output.model_id for output in run.outputs.model_outputs]
    # The workspace and MLflow name one file on the disk.
    weights = folder / "runs/smoke/one-epoch/model.safetensors"
    stored = [path for path in (folder / "mlruns").rglob("model.safetensors") if path.samefile(weights)]
    assert len(stored) == 1


def test_dvc_shows_metrics_and_plots(project):
    folder, _ = project
    shown = json.loads(call(folder, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert sorted(shown) == [f"runs/smoke/{run}/metrics.json" for run in sorted(RUNS)]
    metrics = json.loads((folder / "runs/smoke/reference/metrics.json").read_text())
    defined = {name: value for name, value in metrics.items() if value is not None}  # 64 pixels fit no large object
    assert shown["runs/smoke/reference/metrics.json"]["data"] == defined and len(metrics) == 12
    plots = json.loads(call(folder, "dvc", "plots", "show", "--json"))["data"]
    kinds = {name: plot[0]["type"] for name, plot in plots.items()}
    assert {kinds[f"runs/smoke/{run}/history.csv"] for run in RUNS} == {"vega"}
    assert kinds["AP of the runs"] == "vega"
    assert kinds["reports/smoke/figures/training-curves.png"] == "image"


@pytest.mark.slow
def test_another_threshold_runs_no_network(own_project):
    folder = own_project
    output = call(folder, "dvc", "exp", "run", "-S", "nms_sweep.thresholds=[0.4]")
    assert stages_run(output) == ["nms_sweep@one-epoch", "report", "source"]  # source reads all of params.yaml
    sweep = json.loads((folder / "runs/smoke/one-epoch/nms_sweep.json").read_text())
    assert [step["nms_iou_threshold"] for step in sweep["steps"]] == [0.4]
    shown = call(folder, "dvc", "exp", "show", "--md", "--only-changed", "--drop", "^(fcos|data|runs|reports|stages)/")
    assert [name.strip() for name in shown.splitlines()[0].split("|")[3:-1]] == ["nms_sweep.thresholds"]
    assert "['0.4']" in shown


@pytest.mark.slow
def test_changing_a_run_runs_that_run_and_the_report(own_project):
    folder = own_project
    change(folder, lambda params: params["runs"]["one-epoch"].update(epochs=2))
    change(folder, lambda params: params["tables"].pop())
    output = call(folder, "dvc", "repro")
    own = [f"{stage}@one-epoch" for stage in ("train", "predict", "evaluate", "nms_sweep")]
    assert stages_run(output) == sorted([*own, "report", "source"])


@pytest.mark.slow
def test_damage_of_the_workspace_leaves_the_cache_whole(own_project):
    """Valid JSON, CSV and weights of other content, written into the files that DVC has put there."""
    names = ("metrics.json", "evaluation.json", "history.csv", "model.safetensors")
    paths = [own_project / "runs/smoke/one-epoch" / name for name in names]
    call(own_project, "dvc", "checkout", "--relink")
    before = {path: path.read_bytes() for path in paths}
    for path, content in before.items():
        status = path.stat()
        path.chmod(0o644)
        with path.open("r+b") as stream:
            stream.write(content.replace(b"1", b"2"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.read_bytes() != content
    said = fcos(own_project, "doctor", "--verify", code=1)
    damaged = re.findall(r"rm -f (.*); then", said)
    assert sorted(damaged) == sorted(str(path.relative_to(own_project)) for path in paths)  # none of the cache
    for path in paths:
        path.unlink()
    assert repro(own_project) == []
    assert {path: path.read_bytes() for path in paths} == before
    paths[0].write_text("{}")
    call(own_project, "dvc", "checkout", "--force")
    assert paths[0].read_bytes() == before[paths[0]]


@pytest.mark.slow
def test_a_file_that_the_disk_has_damaged_is_found_and_made_anew(own_project):
    """Two bytes of metrics.json, in a project whose cache is linked: DVC sees nothing, and would put it back."""
    metrics = own_project / "runs/smoke/one-epoch/metrics.json"
    content, md5 = metrics.read_bytes(), md5_file(metrics)
    cached = own_project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.unlink()
    os.link(metrics, cached)
    assert repro(own_project) == []
    before = metrics.stat()
    metrics.chmod(0o644)
    with metrics.open("r+b") as stream:
        stream.seek(content.index(b"AP"))
        stream.write(b"XX")
    metrics.chmod(before.st_mode)
    os.utime(metrics, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert repro(own_project) == []
    said = fcos(own_project, "doctor", "--verify", code=1)
    cure = re.search(r"rm -f (.*); then", said)[1].split()
    assert cure == [str(path.relative_to(own_project)) for path in (cached, metrics)]
    for name in cure:
        (own_project / name).unlink()
    assert repro(own_project) == ["evaluate@one-epoch", "report"]
    assert metrics.read_bytes() == content and "match what DVC recorded" in fcos(own_project, "doctor", "--verify")
