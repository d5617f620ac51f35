"""The command line: its options are frozen, it starts quickly, and a mistake gives one message and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml
from conftest import LIMIT_S, READY_MADE, ROOT, assert_mistake, write_params
from data_helpers import small_voc, snapshot, voc_object

import fcos.cli
from fcos.config.params import read
from fcos.tracking import live

# Scripts and stages rely on these, so a change here affects users and goes into CHANGELOG.md.
STATISTICS = ["--replicates", "--confidence", "--seed"]
READING = [
    "--max-detections", "--areas", "--iou", "--area-from-box", "--ignore-unknown-images", "--ignore-unknown-classes",
    "--split", "--groups",
]  # fmt: skip
UNKNOWN = ["--ignore-unknown-images", "--ignore-unknown-classes"]
OPTIONS = {
    "compare": [
        "RESULTS",
        "--gt",
        "--out",
        *STATISTICS,
        *READING,
        "--power",
        "--baseline",
        "--fail-if-worse",
        "--fail-unless-better",
        "--html",
        "--images",
        "--at-score",
        "--slices",
    ],
    "demo": ["--port"],
    "detect": ["PATHS", "--checkpoint", "--out", "--score", "--nms", "--images", "--pictures"],
    "doctor": ["--verify"],
    "evaluate": ["RUN"],
    "tta": ["RUN"],
    "export": ["RUN_OR_FILE", "--format", "--out", "--score", "--nms"],
    "import-checkpoint": ["FILE", "--run"],
    "labels": ["RUNS", "--gt", "--out", "--top", "--images", *UNKNOWN, "--split"],
    "predict": ["RUN", "--views"],
    "results": ["NAME"],
    "prepare": ["--shards"],
    "report": [],
    "source": ["--at"],
    "score": ["--gt", "--detections", "--out", "--per-class", *STATISTICS, *READING],
    "status": ["--watch", "--json", "--quick"],
    "study list": [],
    "study new": [
        "NAME",
        "[NAME=]FILE[,FILE...]",
        "--from",
        "--gt",
        "--split",
        "--images",
        "--epochs",
        "--seeds",
        "--damaged",
        "--outside-boxes",
    ],
    "study plan": ["--price", "--jobs", "--json"],
    "init": ["FOLDER", "--upgrade"],
    "study cancel": [],
    "study run": ["--jobs", "--engine", "--engine-options", "--detach"],
    "study show": ["NAME"],
    "study use": ["NAME", "--force"],
    "nms-sweep": ["RUN"],
    "sync-mlflow": [],
    "train": ["RUN"],
    "ui": ["--port"],
}


def commands(group=None, prefix=""):
    group = group or typer.main.get_command(fcos.cli.app)
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def test_the_options_are_frozen():
    offered = {
        name: [p.opts[0] if p.opts[0].startswith("-") else (p.metavar or p.name.upper()) for p in command.params]
        for name, command in commands()
    }
    assert offered == OPTIONS


def test_every_command_has_help_with_an_example():
    for name, command in commands():
        assert command.help, name
        assert f"fcos {name.split()[0]}" in (command.epilog or ""), name


def test_the_list_of_commands_has_whole_sentences(run):
    shown = run("--help").stdout + run("study", "--help").stdout
    assert "..." not in shown.replace("[ARGS]...", "")
    for name, command in commands():
        assert command.short_help.endswith((".", ":")) or "/" in command.short_help.split()[-1], name


def test_the_version_names_what_matters(run):
    done = run("--version")
    assert done.returncode == 0
    for name in ("fcos", "Python", "torch", "torchvision", "dvc", "mlflow"):
        assert f"{name} " in done.stdout


def test_help_loads_neither_torch_nor_mlflow_nor_pydantic():
    code = "import sys, fcos.cli; print({'torch', 'mlflow', 'pydantic', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_a_mistake_in_a_process_of_its_own(workspace):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "fcos", "train", "x"], capture_output=True, text=True, env=env)
    assert_mistake(done, "params.yaml: runs: no such run")
    assert done.stdout == ""


def test_an_unknown_key(workspace, smoke_params, run):
    smoke_params["train"]["learing_rate"] = 0.1
    write_params(smoke_params)
    assert_mistake(run("prepare"), "params.yaml: train.learing_rate", "did you mean `learning_rate`?")
    assert not Path("data").exists()


def test_a_params_yaml_that_is_not_yaml(workspace, run):
    Path("params.yaml").write_text("study: {")
    assert_mistake(run("prepare"), "params.yaml", "is not YAML")


def test_no_params_yaml(workspace, run):
    Path("params.yaml").unlink()
    assert_mistake(run("train", "one-epoch"), "params.yaml", "fcos study use")


def test_a_run_that_does_not_exist(workspace, run):
    assert_mistake(run("train", "resnet19"), "no such run", "resnet19", "one of reference, one-epoch")
    assert_mistake(run("evaluate", "resnet19"), "no such run")


def test_training_before_preparing(workspace, run):
    assert_mistake(run("train", "one-epoch"), "train.json", "fcos prepare")
    assert not Path("runs/smoke/one-epoch").exists()


def use_data(params, **data):
    params["data"] = data
    write_params(params)


def test_a_missing_data_folder(workspace, smoke_params, run):
    use_data(smoke_params, source="voc", root="nowhere")
    assert_mistake(run("prepare"), "data.root", "nowhere", "nothing was changed")


BAD_VOC = {
    "annotation naming a missing image": (lambda root: (root / "JPEGImages" / "a.jpg").unlink(), "missing"),
    "truncated JPEG": (
        lambda root: (root / "JPEGImages" / "a.jpg").write_bytes((root / "JPEGImages" / "a.jpg").read_bytes()[:300]),
        "cannot be decoded",
    ),
    "same image in both splits": (
        lambda root: (root / "ImageSets" / "Main" / "test.txt").write_text("a\n"),
        "the same image is in both splits",
    ),
}


@pytest.mark.parametrize("what", BAD_VOC)
def test_bad_voc_folders(workspace, smoke_params, what, run):
    use_data(smoke_params, source="voc", root="photos", test_split="test")
    root = small_voc(a=[voc_object("cat", (10, 10, 30, 30))])
    assert run("prepare").returncode == 0
    before = snapshot(Path("data"))
    assert before
    spoil, problem = BAD_VOC[what]
    spoil(root)
    assert_mistake(run("prepare"), problem)
    assert snapshot(Path("data")) == before


@pytest.mark.parametrize(
    ("objects", "changes", "problem"),
    [
        ([voc_object("cat", (10, 10, 300, 30))], {}, "a box lies outside its image"),
        (["<object><name>cat</name></object>"], {}, "there is no <bndbox>"),
    ],
)
def test_bad_annotations(workspace, smoke_params, objects, changes, problem, run):
    use_data(smoke_params, source="voc", root="photos", test_split="test", **changes)
    small_voc(a=objects)
    assert_mistake(run("prepare"), problem, "a.xml")
    assert not Path("data/smoke").exists()


@pytest.mark.slow
def test_a_store_that_is_away_stops_nothing(workspace, monkeypatch, run):
    assert run("prepare").returncode == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(live, "CLOSE_S", LIMIT_S)
    done = run("train", "one-epoch")
    assert done.returncode == 0 and "fcos sync-mlflow" in done.stderr
    assert Path("runs/smoke/one-epoch/model.safetensors").exists()
    assert_mistake(run("sync-mlflow"), "cannot be used")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "1 runs are up to date" in run("sync-mlflow").stdout


@pytest.mark.parametrize("uri", ["http://[", "postgresql://u:p@h:bad/x", "ftp://x", "foo"])
def test_what_ends_a_report_goes_on_whatever_the_store_is(workspace, monkeypatch, capsys, run, uri):
    """If only the upload fails, the command succeeds with one line; `fcos sync-mlflow` and `fcos doctor` say why."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    train = Path("runs/smoke/one-epoch/train.json")
    train.parent.mkdir(parents=True)
    train.write_text("{}")
    monkeypatch.setenv("DVC_STAGE", "report")
    fcos.cli._track(read(), ["one-epoch"])
    assert capsys.readouterr().err.count("MLflow was not updated") == 1
    assert_mistake(run("sync-mlflow"), "MLFLOW_TRACKING_URI: the store cannot be used", "set MLFLOW_TRACKING_URI to")
    found = run("doctor").stdout
    assert "wrong  tracking     not reachable" in found and "set MLFLOW_TRACKING_URI to" in found


def test_doctor_says_what_is_wrong(workspace, run):
    done = run("doctor")
    assert done.returncode == 1
    assert "not prepared yet" in done.stdout and "ok     device" in done.stdout
    Path("params.yaml").write_text("study: 3")
    assert "not valid" in run("doctor").stdout


def test_studies_are_listed_shown_and_chosen(workspace, run):
    listed = run("study", "list").stdout
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(READY_MADE)
    assert "resnet101-e12-c3: resnet101" in run("study", "show", "voc2007").stdout
    assert run("study", "use", "shapes").returncode == 0
    assert yaml.safe_load(Path("params.yaml").read_text())["study"] == "shapes"
