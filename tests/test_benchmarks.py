"""The programs behind docs/performance.md run at a small size, and the page is generated from their output."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(program: str, *arguments: str) -> None:
    command = [sys.executable, str(BENCHMARKS / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import side_by_side

    return side_by_side


@pytest.mark.slow
def test_training_step_at_small_size(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    small = ["--backbones", "resnet18", "--batch-size", "1", "--size", "64", "96", "--repetitions", "1"]
    run("training_step.py", "--out", str(out), *small)
    report = json.loads(out.read_text())
    assert [of["target"] for of in report["lines"]] == [2.5, 1.2]
    assert all(len(of["ours_s"]) == len(of["peer_s"]) == 1 for of in report["lines"])
    kept = report["settings"]["activations"]["resnet18"]
    # C2 alone, 64 x 16 x 24 floats, is saved many times, so less than 1 MB would mean that activations are not counted.
    assert kept["ours_mb_per_image"] > 1 and kept["torchvision_mb_per_image"] > 1


@pytest.mark.slow
def test_epoch_at_small_size(tmp_path: Path) -> None:
    out = tmp_path / "epoch.json"
    small = ["--number", "3", "--batch-size", "2", "--size", "64", "96", "--workers", "1", "--repetitions", "1"]
    run("epoch.py", "--out", str(out), *small)
    lines = json.loads(out.read_text())["lines"]
    assert [(of["what"].split()[0], of["target"]) for of in lines] == [
        ("first", 1.5), ("first", 1.2), ("later", 1.5), ("later", 1.2),
    ]  # fmt: skip
    assert lines[0]["peer_s"] == lines[2]["peer_s"] and lines[0]["ours_s"] != lines[2]["ours_s"]


@pytest.mark.slow
def test_files_to_numbers_at_small_size(tmp_path: Path) -> None:
    out = tmp_path / "files.json"
    run("file_to_numbers.py", "--out", str(out), "--repetitions", "1", "--images", "40", "30")
    lines = json.loads(out.read_text())["lines"]
    assert lines[0]["peer"] == "pycocotools, once" and "COCO val2017's size" in lines[0]["what"]
    assert any("VOC2007 test's size" in of["what"] for of in lines)


def test_files_to_numbers_refuses_evaluators_that_disagree(side_by_side: Any) -> None:
    from file_to_numbers import equal

    numbers = [0.25, 0.5]
    equal({"ours": numbers, "hotcoco": [0.25 + 1e-14, 0.5], "pycocotools": numbers})
    for name, change in (("hotcoco", 1e-9), ("ours", 1e-15)):
        with pytest.raises(SystemExit, match=f"{name} has other numbers than pycocotools"):
            equal({name: [0.25 + change, 0.5], "pycocotools": numbers})


@pytest.mark.slow
def test_prediction_at_small_size(tmp_path: Path) -> None:
    out = tmp_path / "prediction.json"
    run(
        "prediction.py",
        "--out",
        str(out),
        "--number",
        "2",
        "--size",
        "96",
        "128",
        "--repetitions",
        "1",
        "--workers",
        "0",
    )
    peers = [of["peer"] for of in json.loads(out.read_text())["lines"]]
    assert peers[0] == "torchvision, float32, batch 1" and len(peers) == 3


@pytest.mark.slow
def test_large_data_at_small_size(tmp_path: Path) -> None:
    out = tmp_path / "large.json"
    run("large_data.py", "--images", "60", "--images", "120", "--out", str(out))
    lines = json.loads(out.read_text())["lines"]
    assert [[row["size"] for row in of["rows"]] for of in lines] == [[60, 120]] * 3
    assert all(row["peak_gb"] > 0 for of in lines for row in of["rows"])
    assert all(0 <= row["epoch_s"] < row["seconds"] for row in lines[1]["rows"])


@pytest.mark.engine
def test_shards_at_small_size(tmp_path: Path) -> None:
    if not (BENCHMARKS.parent / ".venv/servers/bin/rclone").exists():
        pytest.skip("no servers: make test-engines")
    out = tmp_path / "shards.json"
    run("shards.py", "--number", "40", "--latency", "5", "--repetitions", "1", "--out", str(out))
    report = json.loads(out.read_text())
    assert len(report["lines"]) == 3 and report["settings"]["latency_ms"] == 5
    assert all(of["ours_s"] > 0 and of["peer_s"] > 0 for of in report["lines"])


def test_wall_time_of_stages(side_by_side: Any) -> None:
    import study

    heard = [
        (1.0, "prepare | Running stage 'stages/prepare/dvc.yaml:prepare':\n"),
        (3.0, "prepare | Updating lock file\n"),
        (4.0, "a | Running stage 'stages/train/dvc.yaml:train@a':\n"),
        (5.0, "b | Running stage 'stages/train/dvc.yaml:train@b':\n"),
        (9.0, "a | Running stage 'stages/predict/dvc.yaml:predict@a':\n"),
        (11.0, "b | train: 2/2 steps\n"),
        (12.0, "a | Updating lock file\n"),
        (13.0, "'data/smoke/test.json' didn't change, skipping\n"),
        (14.0, "Running stage 'report':\n"),
        (17.0, "Updating lock file 'dvc.lock'\n"),
    ]
    assert study.in_stages(heard) == (3 - 1) + (12 - 4) + (11 - 5) + (17 - 14)


def test_work_is_what_the_commands_measured(side_by_side: Any, tmp_path: Path) -> None:
    import study

    for run, seconds in (("a", 2.5), ("b", 4.0)):
        (tmp_path / run).mkdir()
        for name in ("train", "evaluation"):
            (tmp_path / run / f"{name}.json").write_text(json.dumps({"provenance": {"seconds": seconds}}))
        (tmp_path / run / "metrics.json").write_text('{"AP": 0.3}')
    assert study.work(tmp_path) == 2 * 2.5 + 2 * 4.0


def test_ratio_of_each_repetition(side_by_side: Any) -> None:
    # Repetitions 4/2 = 2, 9/3 = 3, 5/1 = 5, so the median is 3.
    faster = side_by_side.line("step", [2.0, 3.0, 1.0], [4.0, 9.0, 5.0], peer="theirs", target=2.5)
    assert (faster["ratio"], faster["lowest"], faster["highest"], faster["reached"]) == (3.0, 2.0, 5.0, True)
    # The time must be at most a share of the peer's: 1/4, 3/4, 2/4.
    share = side_by_side.line("views", [1.0, 3.0, 2.0], [4.0, 4.0, 4.0], peer="apart", target=0.4, at_most=True)
    assert (share["ratio"], share["reached"]) == (0.5, False)


def test_programs_take_turns(side_by_side: Any) -> None:
    calls: list[str] = []
    programs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = side_by_side.in_turn(programs, 2, label="test")
    assert calls == ["a", "b", "a", "b", "a", "b"]  # the first pair is a warm-up
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_page_says_what_is_committed(side_by_side: Any) -> None:
    import page

    text = page.PAGE.read_text(encoding="utf-8")
    between = text.partition(page.BEGIN)[2].partition(page.END)[0]
    assert between.strip() == page.figures(), "run python benchmarks/page.py"


@pytest.mark.slow
def test_intervals_of_few_images_hold_better_than_draws_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 intervals, 57 should contain the truth; without the correction, 40 do (docs/statistics.md)."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import coverage

    monkeypatch.setattr(coverage, "SMALL_POPULATION", 3000)
    found = coverage.small(60, 100, *coverage.SMALL["20 classes, 20 images"])
    assert found["printed"] == found["judged"] == 1
    assert found["coverage"] >= 0.85 > 0.8 > found["coverage_before"]
    assert found["rejected"] <= 0.1  # 0.05 and two standard errors
    rare = coverage.small(20, 100, *coverage.SMALL["a class of 0.7 objects, 200 images"])
    assert rare["printed"] == 0 and rare["coverage"] is None
