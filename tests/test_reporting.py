"""Every number of the report equals that in its file, and a file of another run, data or setting is refused."""

import base64
import copy
import dataclasses
import hashlib
import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from operator import methodcaller
from pathlib import Path
from typing import Any

import altair
import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT
from PIL import Image
from playwright.sync_api import expect

from fcos.config.params import Params, parse
from fcos.data.coco import CocoSplit
from fcos.errors import UserError
from fcos.files import read_json, write_csv, write_json
from fcos.reporting.charts import study_charts, table_charts
from fcos.reporting.convergence import last_epochs
from fcos.reporting.report import build_report
from fcos.reporting.results import read_study
from fcos.reporting.tables import build_table
from fcos.reporting.vega import Chart
from fcos.scoring.analysis import analyse
from fcos.scoring.bootstrap import Drawn, Support
from fcos.scoring.errors import ERROR_KINDS
from fcos.scoring.matching import match
from fcos.scoring.replicates import numbers_digest, read_replicates, save_replicates, sweep_steps
from fcos.training.history import COLUMNS, LOSSES

METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
REST = dict.fromkeys(["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"], 0.5)
EVIL = "<script>alert('$x_1$ | `class`')</script>"
SHAPES = yaml.safe_load((ROOT / "studies" / "shapes.yaml").read_text())
# Settings that the expected values depend on, fixed so that tuning the study changes no test.
SHAPES["runs"] = {name: run for name, run in SHAPES["runs"].items() if not name.endswith("-s1")}  # one seed per row
SHAPES["test"] |= {"size": 128, "max_size": 160, "score_threshold": 0.1, "max_candidates": 1000}
SHAPES["tta"]["sizes"] = [96, 112, 128, 144, 160]
SHAPES["nms_sweep"]["thresholds"] = [0.5, 0.6, 0.7]
SHAPES["runs"]["resnet18-reference"]["seed"] = 1
TRAINED = "resnet18-e12-c3"
REFERENCE = "resnet18-reference"
RUNS = list(SHAPES["runs"])
BACKBONES = 3  # AP of each run; `metrics` derives the other metrics from it.
# AP of each run; the others follow from it in `metrics`.
AP = {
    REFERENCE: 0.32,
    TRAINED: 0.33,
    "resnet34-e12-c3": 0.38,
    "resnet50-e12-c3": 0.39,
    "resnet101-e12-c3": 0.395,
    "resnet34-e30-c3": 0.385,
    "resnet34-e12-c4": 0.375,
}


def metrics(ap: float) -> dict[str, float | None]:
    """AP50 = AP + 0.25, AP75 = AP + 0.01, APs undefined, APm = AP - 0.1, APl = AP + 0.05."""
    return {"AP": ap, "AP50": ap + 0.25, "AP75": ap + 0.01, "APs": None, "APm": ap - 0.1, "APl": ap + 0.05, **REST}


@dataclass
class Study:
    """Write the files of finished runs as the commands do."""

    raw: dict[str, Any]
    root: Path
    split: CocoSplit
    manifest: Any

    @property
    def params(self) -> Params:
        return parse(self.raw)

    @property
    def out_dir(self) -> Path:
        return self.root / "reports" / "shapes"

    @property
    def runs_dir(self) -> Path:
        return self.root / "runs" / "shapes"

    def build(self) -> Path:
        build_report(
            self.params, runs_dir=self.runs_dir, split=self.split, manifest=self.manifest, out_dir=self.out_dir
        )
        return self.out_dir

    def table(self, number: int) -> pd.DataFrame:
        (path,) = (self.out_dir / "tables").glob(f"{number}-*.csv")
        return pd.read_csv(path, dtype={"epochs": object, "num_convs": object, "NMS IoU": object, "weights": str})

    def edit(self, run: str, file: str, change: Callable[[Any], object]) -> None:
        path = self.runs_dir / run / file
        content = read_json(path, hint="")
        change(content)
        write_json(path, content)


def make_study(root: Path, raw: dict[str, Any] | None = None, ap: dict[str, float] | None = None) -> Study:
    raw = copy.deepcopy(raw or SHAPES)
    split = _images(root / "data" / "images")
    counts = {
        "image_dir": "images",
        "num_images": 8,
        "num_objects": 16,
        "num_ignored": 0,
        "num_empty_images": 0,
        "per_class": {category["name"]: 8 for category in split.categories},
        "per_size": {"small": 10, "medium": 6, "large": 0},
    }
    splits = {"train": {**counts, "num_images": 1234, "digest": "0" * 64}, "test": {**counts, "digest": split.digest}}
    findings: dict[str, list[Any]] = {"dropped": [], "clipped": [{}, {}], "near_duplicates": [], "odd": []}
    study = Study(raw, root, split, {"categories": split.categories, "splits": splits, **findings})
    for number, run in enumerate(study.params.runs):
        _write_run(study, run, {**AP, **(ap or {})}[run], weights=f"{number:02d}" * 32)
    return study


def _images(folder: Path) -> CocoSplit:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 9):
        name = f"{number}.png"
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        coarse.resize((96, 64)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": 96, "height": 64, "sha256": "-"})
        for category_id, x in ((3, 5), (7, 50)):
            box = {"bbox": [x, 10.0, 30.0, 40.0], "area": 1200.0, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category_id, **box})
    return CocoSplit(images, [{"id": 3, "name": EVIL}, {"id": 7, "name": "круг"}], annotations, folder)


def _write_run(study: Study, name: str, ap: float, *, weights: str) -> None:
    params, split, folder = study.params, study.split, study.runs_dir / name
    run = params.runs[name]
    versions = {"fcos": "0.1.0", "python": "3.11.7", "torch": "2.15.0"}
    made = {
        "commit": "c0ffee" * 7,
        "clean_tree": True,
        "versions": versions,
        "machine": "Linux",
        "training_seconds": 90.0,
    }
    train = {"training_key": "k", "weights_sha256": weights, "params": run.identity(), "role": run.role}
    write_json(
        folder / "train.json",
        {**train, "imported_from": None, "provenance": {**made, "device": "cpu", "dtype": "float32"}},
    )
    others = {"lr": 0.001, "num_positives": 1, "images_per_s": 9.5}
    steps = [
        {"step": step, "epoch": step // 10, **dict.fromkeys(LOSSES, 1 / (1 + step)), **others} for step in range(60)
    ]
    write_csv(folder / "history.csv", steps, COLUMNS)
    timing = {"num_images": 8, "seconds": 20.5, "forward_seconds": 20.0, "ms_per_image": 2562.5}
    write_json(folder / "timing.json", {"views": {"test": timing}, "provenance": made})
    detection = {"bbox": [6.0, 12.0, 28.0, 36.0], "category_id": 3}
    detections = [
        {"image_id": image["id"], "score": score, **detection} for image in split.images for score in (0.9, 0.1)
    ]
    write_json(folder / "detections.json", detections)
    write_json(folder / "metrics.json", metrics(ap))
    test = params.test.settings()
    header = {
        "run": run.identity(),
        "categories": split.categories,
        "data_digest": split.digest,
        "weights_sha256": weights,
        "view": {"size": params.test.size, "max_size": params.test.max_size},
        "test": {"score_threshold": 0.1, "max_candidates": 1000},
        "dtype": "float32",
    }
    common = {"test": test, "identity": header, "provenance": made}
    interval = {"low": ap - 0.02, "high": ap + 0.02}
    write_json(
        folder / "evaluation.json",
        {
            "metrics": metrics(ap),
            "per_class": [
                {**category, "num_objects": 8, "AP": ap, "AP50": ap + 0.25, "intervals": {"AP": interval}}
                for category in split.categories
            ],
            "intervals": {"AP": interval},
            "num_detections": len(detections),
            "statistics": params.statistics.model_dump(),
            "analysis": analyse(match(detections, split), split, np.zeros((0, 8), dtype=int), confidence=0.95),
            **common,
        },
    )
    sizes = params.tta.sizes
    views = [f"s{size}" for size in sizes]
    # The last of five views: AP + 0.04.
    tta = [
        {"num_views": n, "views": views[:n], "seconds": 2.0 * n, "metrics": metrics(ap - 0.01 + 0.01 * n)}
        for n in range(1, len(sizes) + 1)
    ]
    everything = {"split": "test", "chosen": len(sizes), "metrics": tta[-1]["metrics"]}
    header_tta = {**header, "view": {"size": sizes[-1], "max_size": params.test.max_size}}
    write_json(folder / "tta.json", {**everything, "steps": tta, **common, "identity": header_tta})
    write_replicates(
        study, name, "tta_replicates", {"chosen": tta[-1]["metrics"]}, {"identity": header_tta, "test": test}
    )
    # AP falls by 0.01 from threshold to threshold, from AP + 0.01 at 0.5.
    sweep = [
        {"nms_iou_threshold": threshold, "metrics": metrics(ap + 0.01 - 0.01 * index)}
        for index, threshold in enumerate(params.nms_sweep.thresholds)
    ]
    chosen = {"split": "test", "chosen": 0.5, "metrics": sweep[0]["metrics"]}
    write_json(folder / "nms_sweep.json", {**chosen, "steps": sweep, **common})
    steps_of = {str(step["nms_iou_threshold"]): step["metrics"] for step in sweep}
    identity = {"identity": header, "test": test}
    write_replicates(study, name, "nms_sweep_replicates", {**steps_of, "chosen": sweep[0]["metrics"]}, identity)
    write_replicates(study, name, "replicates", {"test": metrics(ap)}, identity)


def write_replicates(study: Study, name: str, stem: str, steps: dict[str, Any], identity: dict[str, Any]) -> None:
    """Return replicates with s.d. 1 AP that all steps of all runs share, and 0.1 AP of their own, without bias."""
    common = standard_normal("draws", 400)
    replicates = {}
    for step, numbers in steps.items():
        own = standard_normal(f"{name} {stem} {step}", 400)
        values = np.array([np.nan if numbers[metric] is None else numbers[metric] for metric in [*METRICS, *REST]])
        of_step = values + (0.01 * common + 0.001 * own)[:, None]
        replicates[step] = Drawn(of_step, Support(np.ones(len(values)), np.full(len(values), np.inf)))
    header = {**identity, "statistics": study.params.statistics.model_dump(), "numbers": numbers_digest(steps)}
    save_replicates(study.runs_dir / name / f"{stem}.safetensors", replicates, header)


def standard_normal(key: str, count: int) -> np.ndarray:
    """Return numbers with a mean of exactly 0 and an s.d. of 1."""
    drawn = np.random.default_rng(list(key.encode())).normal(size=count)
    return (drawn - drawn.mean()) / drawn.std(ddof=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Study:
    raw = copy.deepcopy(SHAPES)
    raw["tables"][BACKBONES]["published"] = {
        "resnet18": [33.9, 60.5, 33.8, 7.2, 20.6, 41.9],
        "resnet152": [40.0, 68.0, 41.0, 10.0, None, 48.0],
    }
    study = make_study(tmp_path_factory.mktemp("study"), raw)
    study.edit("resnet34-e12-c3", "evaluation.json", give_costs)
    study.build()
    return study


def give_costs(evaluation: Any) -> None:
    """Return 6, 5 ... 1 points for the error types; the synthetic detections have none with an effect."""
    for place, kind in enumerate(ERROR_KINDS):
        evaluation["analysis"]["errors"][kind]["delta_ap50"] = 0.06 - 0.01 * place


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the drawing of images, which takes seconds, for tests of numbers."""
    monkeypatch.setattr("fcos.reporting.report.draw_run_images", lambda *_: None)
    monkeypatch.setattr("fcos.reporting.vega.Chart.write", lambda *_: None)
    monkeypatch.setattr("fcos.reporting.vega.Chart.write_png", lambda *_: None)


def ours(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["source"] == "ours"].reset_index(drop=True)


def test_reference_table_has_the_numbers_and_times_of_its_files(built: Study) -> None:
    (row,) = built.table(1).to_dict("records")
    # 0.32 and metrics(): 57, 33, undefined, 22, 37 percent.
    assert [row[m] for m in ("AP", "AP50", "AP75", "APm", "APl")] == pytest.approx([32, 57, 33, 22, 37])
    assert np.isnan(row["APs"])
    assert (row["backbone"], row["run"], row["weights"]) == ("resnet18", REFERENCE, "0000000000")
    assert (row["test time (s)"], row["ms/image"]) == (20.5, 2562.5)
    assert "an independent training of this study, with seed 1" in (built.out_dir / "report.md").read_text()


def test_all_runs_stand_in_one_table(built: Study) -> None:
    frame = pd.read_csv(built.out_dir / "tables" / "runs.csv").set_index("run")
    assert list(frame.index) == RUNS
    row = frame.loc[TRAINED]
    assert (row["backbone"], row["epochs"], row["AP"], row["AP50"]) == ("resnet18", 12, 33.0, pytest.approx(58.0))
    assert (row["AP low"], row["AP high"], row["ms/image"], row["training time (s)"]) == (
        pytest.approx(31.0),
        pytest.approx(35.0),
        2562.5,
        90.0,
    )


def test_trained_table_has_epochs_and_training_time(built: Study) -> None:
    (row,) = built.table(2).to_dict("records")
    assert row["AP"] == pytest.approx(33)
    assert (row["epochs"], row["training time (s)"], row["run"]) == ("12", 90.0, TRAINED)


def test_tta_table_compares_the_last_step_with_the_single_view(built: Study) -> None:
    frame = built.table(3)
    assert list(frame["views"]) == ["1 view", "5 views", "relative change (%)"]
    # Reference AP 32, with five views 32 + 4 = 36: + 12.5 %. AP50 57 to 61: 100 * 4 / 57 = 7.0175 %.
    assert list(frame["AP"]) == pytest.approx([32, 36, 12.5])
    assert list(frame["AP50"]) == pytest.approx([57, 61, 7.0175], abs=1e-4)
    assert frame["APs"].isna().all()


def test_runs_table_has_a_row_for_each_run_without_the_reference(built: Study) -> None:
    frame = ours(built.table(4))
    assert list(frame["backbone"]) == ["resnet18", "resnet34", "resnet50", "resnet101"]
    assert list(frame["AP"]) == pytest.approx([33, 38, 39, 39.5])
    assert list(frame["AP75"]) == pytest.approx([34, 39, 40, 40.5])
    assert list(frame["run"]) == [f"{backbone}-e12-c3" for backbone in frame["backbone"]]
    assert list(frame["weights"]) == ["0101010101", "0202020202", "0303030303", "0404040404"]
    assert list(frame["n"]) == [1, 1, 1, 1]
    assert "s.d. of AP" not in frame


def test_nms_table_has_a_row_for_each_threshold(built: Study) -> None:
    frame = built.table(5)
    assert list(frame["NMS IoU"]) == ["0.5", "0.6", "0.7"]
    assert list(frame["AP"]) == pytest.approx([34, 33, 32])  # AP + 1, AP, AP - 1
    assert set(frame["run"]) == {TRAINED}


def test_tables_of_epochs_and_convolutions(built: Study) -> None:
    epochs, convs = built.table(6), built.table(7)
    assert list(zip(epochs["epochs"], epochs["AP"], strict=True)) == [("12", 38.0), ("30", 38.5)]
    assert list(zip(convs["num_convs"], convs["AP"], strict=True)) == [("3", 38.0), ("4", 37.5)]


def test_published_numbers_stand_below_ours_with_their_difference(built: Study) -> None:
    frame = built.table(4)
    assert list(frame["source"][:4]) == ["ours", "published", "difference", "ours"]
    assert list(frame.loc[1, METRICS]) == [33.9, 60.5, 33.8, 7.2, 20.6, 41.9]
    # 33 - 33.9, 58 - 60.5, 34 - 33.8, undefined, 23 - 20.6, 38 - 41.9.
    assert list(frame.loc[2, METRICS]) == pytest.approx([-0.9, -2.5, 0.2, np.nan, 2.4, -3.9], nan_ok=True)
    assert list(frame.iloc[-1][["backbone", "source", "AP"]]) == ["resnet152", "published", 40.0]  # not trained here
    markdown = (built.out_dir / "report.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:8]] for line in markdown.splitlines() if line.startswith("|")]
    # 1.96 times the standard deviation of the bootstrap samples, 1 AP.
    assert ["resnet18", "33.0 ± 2.0", "58.0 ± 2.0", "34.0 ± 2.0", "—", "23.0 ± 2.0", "38.0 ± 2.0"] in cells
    assert ["resnet18 (published)", "33.9", "60.5", "33.8", "7.2", "20.6", "41.9"] in cells
    assert ["resnet18 (ours - published)", "-0.9", "-2.5", "+0.2", "—", "+2.4", "-3.9"] in cells


def test_intervals_stand_in_the_csv(built: Study) -> None:
    row = built.table(2).iloc[0]
    # s.d. 1.00 to 1.01: the shared draws and, 1 % more at most, its own. 0.33 * 0.67 / 0.01^2 = 2211 trials; Wilson's
    # (2211 * 33 + 192) / 2214.8 = 33.03 -+ 100 * 1.96 / 2214.8 * sqrt(2211 * 0.2211 + 0.96) = 1.96.
    assert (row["AP low"], row["AP high"]) == pytest.approx((31.07, 34.99), abs=0.03)
    assert np.isnan(row["APs low"])


def test_every_pair_of_rows_has_a_paired_difference(built: Study) -> None:
    frame = pd.read_csv(built.out_dir / "tables" / "differences" / "4-backbones.csv")
    of_ap = frame[frame["metric"] == "AP"].set_index(["row", "other"])
    assert len(of_ap) == 6  # pairs of four
    # Draws that both share cancel: s.d. 0.1 * sqrt(2) = 0.14 AP, so 0.5 AP are 3.5 of them, p about 0.0004.
    pair = of_ap.loc[("resnet101", "resnet50")]
    assert pair["difference"] == pytest.approx(0.5)
    assert (pair["high"] - pair["low"]) / 2 == pytest.approx(1.96 * 0.1414, rel=0.1)
    assert 1e-5 < pair["p"] < 5e-3
    # Holm: the largest p of the six counts once, and this one is the largest.
    assert pair["p (Holm)"] == pytest.approx(pair["p"])
    assert (of_ap["p (Holm)"] >= of_ap["p"]).all()


def test_rows_trained_under_other_conditions_are_named(tmp_path: Path, no_figures: None) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = raw["tables"][-1:]
    study = make_study(tmp_path, raw)
    assert "same conditions" not in (study.build() / "report.md").read_text()
    there = {"device": "NVIDIA H200", "dtype": "bfloat16"}
    study.edit("resnet34-e12-c4", "train.json", lambda content: content["provenance"].update(there))
    assert (
        "Not all trainings ran under the same conditions, which can change the weights: "
        "cpu, float32, torch 2.15.0 (resnet34-e12-c3); NVIDIA H200, bfloat16, torch 2.15.0 (resnet34-e12-c4)."
    ) in (study.build() / "report.md").read_text()


def test_the_text_beside_a_table_says_what_the_data_support(tmp_path: Path, no_figures: None) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = raw["tables"][-2:]
    study = make_study(tmp_path, raw, {"resnet34-e12-c4": 0.3795})
    markdown = (study.build() / "report.md").read_text()
    # 38.5 against 38: 3.5 s.d.; 37.95 against 38: 0.35 s.d., and 0.05 + 1.96 * 0.14 = 0.33.
    assert re.search(
        r"30 epochs against 12 epochs: \+0\.5 AP \\\[0\.2, 0\.8\\\], significant \(Holm p &lt; 0\.001\)",
        markdown,
    )
    assert "num_convs 4 against num_convs 3: no difference shown, -0.1 AP \\[-0.3, 0.2\\]." in markdown
    assert markdown.count("Conclusions (these networks, over images)") == 2
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in markdown.splitlines() if line.startswith("|")]
    assert ["num_convs 4 - num_convs 3", "-0.1 ± 0.3 (n.s.)"] in cells
    assert ["30 epochs - 12 epochs", "+0.5 ± 0.3"] in cells
    assert "intervals and differences are about these networks, over images." in markdown
    assert re.search(
        r"To detect 1 AP \(.*\), comparing two networks takes about \d+ test images like these; how many", markdown
    )


def test_a_choice_made_on_the_test_images_is_named(built: Study) -> None:
    markdown = (built.out_dir / "report.md").read_text()
    assert (
        "Choosing 0.5 because it scores best here would be tuning on the test set; its AP would be optimistic."
        in markdown
    )


@pytest.mark.usefixtures("no_figures")
def test_a_choice_made_on_held_out_images_is_scored_once_on_test(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["data"]["validation_fraction"] = 0.1
    raw["nms_sweep"]["choose_on"] = raw["tta"]["choose_on"] = "validation"
    raw["tables"] = [raw["tables"][2], raw["tables"][4]]
    study = make_study(tmp_path, raw)
    study.manifest["splits"]["validation"] = {**study.manifest["splits"]["train"], "digest": "held out"}
    with pytest.raises(UserError, match="has a different split from this table cell"):
        study.build()
    for run, file, chosen in ((REFERENCE, "tta.json", 3), (TRAINED, "nms_sweep.json", 0.6)):
        held_out = {"split": "validation", "chosen": chosen, "metrics": metrics(0.3)}
        study.edit(run, file, methodcaller("update", held_out))
    with pytest.raises(UserError, match="has a different validation_digest from this table cell"):
        study.build()
    for run, file in ((REFERENCE, "tta.json"), (TRAINED, "nms_sweep.json")):
        study.edit(run, file, lambda c: c.update(validation_digest="held out"))
    with pytest.raises(UserError, match=r"tta_replicates\.safetensors has a different numbers from this table cell"):
        study.build()  # they belong to the previous metrics
    for run, stem in ((REFERENCE, "tta"), (TRAINED, "nms_sweep")):
        content = read_json(study.runs_dir / run / f"{stem}.json", hint="")
        steps = sweep_steps(content) if stem == "nms_sweep" else {"chosen": content["metrics"]}
        identity = {"identity": content["identity"], "test": content["test"]}
        write_replicates(study, run, f"{stem}_replicates", steps, identity)
    markdown = (study.build() / "report.md").read_text()
    assert list(study.table(1)["views"]) == ["1 view", "3 views", "relative change (%)"]
    assert "(3 of 5) was chosen on the validation split" in markdown
    sweep = study.table(2)
    assert list(sweep["NMS IoU"]) == ["0.5", "0.6", "0.7", "0.6, chosen"]
    assert list(sweep["scored on"]) == ["validation"] * 3 + ["test"]
    assert sweep["AP"].iloc[-1] == 30
    differences = pd.read_csv(study.out_dir / "tables" / "differences" / "2-nms-thresholds.csv")
    assert set(differences["row"]) | set(differences["other"]) == {"IoU 0.5", "IoU 0.6", "IoU 0.7"}


# Runs of the table `num_convs` beside its two: AP 38 with 3 convolutions, and, as given, with 4. Draws have an s.d. of
# 0.14 AP in a difference.
WORDINGS = {
    "one training each": (
        {},
        0.42,
        "The network trained with num_convs 4 scores 4.0 AP [3.7, 4.3] higher on these images than the one trained "
        "with num_convs 3; one training each, so this says nothing certain about num_convs.",
    ),
    "one training each, not shown": (
        {},
        0.381,
        "No difference is shown between the two networks: num_convs 4 against num_convs 3, +0.1 AP [-0.2, 0.4].",
    ),
    # s.d. 0.71 of 38 and 39, and of 46 and 47: 8 AP with an error of sqrt(2 * 0.5 / 2) and two degrees of freedom: 3.0.
    "two trainings each": (
        {"s1": ("resnet34-e12-c3", 0.39), "s2": ("resnet34-e12-c4", 0.47)},
        0.46,
        "num_convs 4 is better than num_convs 3 by 8.0 AP [5.0, 11.0]; two trainings each.",
    ),
    "two trainings each, not shown": (
        {"s1": ("resnet34-e12-c3", 0.39), "s2": ("resnet34-e12-c4", 0.41)},
        0.40,
        "No difference is shown: num_convs 4 against num_convs 3, +2.0 AP [-1.0, 5.0].",
    ),
    # s.d. 0.5 of each three: 8 AP with an error of sqrt(2 * 0.25 / 3) and four degrees of freedom: 2.78 * 0.408 = 1.1.
    "three trainings each": (
        {
            "s1": ("resnet34-e12-c3", 0.385),
            "s2": ("resnet34-e12-c3", 0.39),
            "s3": ("resnet34-e12-c4", 0.465),
            "s4": ("resnet34-e12-c4", 0.47),
        },
        0.46,
        "num_convs 4 is better than num_convs 3 by 8.0 AP [6.9, 9.1].",
    ),
    # 38, 38.5, 39 against one of 46, which takes their s.d. of 0.5: an error of
    # sqrt(0.083 + 0.25 + 0.01) with 0.343^2 / (0.083^2 / 2 + 0.25^2 / 2) = 3.4 degrees of freedom: 2.98 * 0.586 = 1.7.
    "one against three": (
        {"s1": ("resnet34-e12-c3", 0.385), "s2": ("resnet34-e12-c3", 0.39)},
        0.46,
        "num_convs 4 is better than num_convs 3 by 7.5 AP [5.7, 9.3]; one training against three trainings, with the "
        "spread between seeds of other rows.",
    ),
}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("case", WORDINGS)
def test_no_sentence_says_more_than_the_trainings_show(tmp_path: Path, case: str) -> None:
    more, of_four, sentence = WORDINGS[case]
    raw = copy.deepcopy(SHAPES)
    for number, (name, (like, _)) in enumerate(more.items(), start=1):
        raw["runs"][name] = {**raw["runs"][like], "seed": number}
    raw["tables"] = [raw["tables"][-1]]
    aps = {"resnet34-e12-c4": of_four, **{name: ap for name, (_, ap) in more.items()}}
    markdown = (make_study(tmp_path, raw, aps).build() / "report.md").read_text().replace("\\", "")
    assert f"**Do more convolutions in the heads help?** {sentence}\n" in markdown
    assert "chosen by its AP on these test images" in markdown
    every = "one training each" in case
    assert ("They do not include the spread between seeds of the same settings." in markdown) == every


@pytest.mark.usefixtures("no_figures")
def test_what_the_test_split_is_too_small_for_is_said(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = raw["tables"][:1]
    study = make_study(tmp_path, raw)
    markdown = (study.build() / "report.md").read_text()
    assert "Objects in 8 test images only: intervals from fewer than 50 are a little too narrow." in markdown
    assert "Fewer than 10 test objects, so AP is uncertain: " in markdown and "AP is the mean over" not in markdown


@pytest.mark.usefixtures("no_figures")
def test_one_file_in_two_rows_is_named(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = [raw["tables"][-1]]
    study = make_study(tmp_path, raw, {"resnet34-e12-c4": 0.38})
    _write_run(study, "resnet34-e12-c4", 0.38, weights=f"{RUNS.index('resnet34-e12-c3'):02d}" * 32)
    markdown = (study.build() / "report.md").read_text()
    assert "resnet34-e12-c3 and resnet34-e12-c4 have the same weights (sha256)." in markdown


@pytest.mark.usefixtures("no_figures")
def test_runs_that_differ_in_seed_only_are_averaged(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["runs"]["resnet18-s1"] = {**raw["runs"][TRAINED], "seed": 1}
    raw["runs"]["resnet18-s2"] = {**raw["runs"][TRAINED], "seed": 2}
    raw["runs"]["resnet18-lr"] = {**raw["runs"][TRAINED], "train": {"learning_rate": 0.1}}
    raw["tables"] = [raw["tables"][BACKBONES]]
    study = make_study(tmp_path, raw, {"resnet18-s1": 0.35, "resnet18-s2": 0.31, "resnet18-lr": 0.2})
    markdown = (study.build() / "report.md").read_text()
    first, *others = study.table(1).to_dict("records")
    # Mean of 33, 35, 31 is 33; sample variance (0 + 4 + 4) / 2 = 4.
    assert (first["AP"], first["n"], first["s.d. of AP"]) == pytest.approx((33, 3, 2))
    assert first["AP50"] == pytest.approx(58)
    assert np.isnan(first["APs"])
    assert first["run"] == f"{TRAINED}, resnet18-s1, resnet18-s2"
    assert [row["n"] for row in others] == [1, 1, 1, 1]
    # A run with another learning rate is not a repeat, and the report says what else differs.
    assert others[-1]["run"] == "resnet18-lr"
    assert "The rows also differ in train.learning_rate." in markdown
    assert "means over n seeds" in markdown
    # Seeds: s.d. 2 / sqrt(3) = 1.155; bootstrap samples: 1.0; together 1.53 with 2 * (1.53 / 1.155)^4 = 6.2 degrees of
    # freedom, for which Student's t is 2.43: 3.7.
    assert (first["AP high"] - first["AP low"]) / 2 == pytest.approx(3.7, abs=0.05)


def other_backbone(content: Any) -> None:
    content["identity"]["run"]["backbone"] = "resnet50"


def other_digest(content: Any) -> None:
    content["identity"]["data_digest"] = "other"


def other_weights(content: Any) -> None:
    content["identity"]["weights_sha256"] = "other"


def other_threshold(content: Any) -> None:
    content["test"]["score_threshold"] = 0.05


def other_view(content: Any) -> None:
    content["identity"]["view"]["size"] = 64


def no_settings(content: Any) -> None:
    del content["test"]


def one_step_less(content: Any) -> None:
    content["steps"].pop()


@pytest.mark.parametrize(
    ("run", "stem", "key", "value", "cell"),
    [
        (
            "resnet101-e12-c3",
            "replicates",
            "statistics",
            {"confidence": 0.95, "replicates": 9, "seed": 0},
            "row resnet101",
        ),
        ("resnet101-e12-c3", "replicates", "test", {"size": 1}, "row resnet101"),
        (REFERENCE, "tta_replicates", "identity", {"weights_sha256": "other"}, "row 5 views"),
        (TRAINED, "nms_sweep_replicates", "identity", {"data_digest": "other"}, "row 0.5"),
    ],
)
def test_draws_of_something_else_stop_the_report(
    tmp_path: Path, run: str, stem: str, key: str, value: Any, cell: str
) -> None:
    study = make_study(tmp_path)
    path = study.runs_dir / run / f"{stem}.safetensors"
    file = read_replicates(path, hint="")
    save_replicates(path, file.drawn, {**file.header, key: {**file.header[key], **value}})
    with pytest.raises(UserError, match=rf"{cell}.*{stem}\.safetensors has a different {key}"):
        study.build()


RUN101 = "resnet101-e12-c3"
CELL101 = "Table 4 (Backbones), row resnet101, cell AP to APl"
CELL_TTA = "Table 3 (Test-time augmentation), row 5 views, cell AP to APl"
CELL_NMS = "Table 5 (NMS thresholds), row 0.5, cell AP to APl"


@pytest.mark.parametrize(
    ("run", "file", "change", "cell", "key", "found", "expected"),
    [
        (RUN101, "evaluation.json", other_backbone, CELL101, "identity.run.backbone", "resnet50", "resnet101"),
        (RUN101, "evaluation.json", other_digest, CELL101, "identity.data_digest", "other", ""),
        (RUN101, "evaluation.json", other_weights, CELL101, "identity.weights_sha256", "other", "04" * 32),
        (RUN101, "evaluation.json", other_threshold, CELL101, "test.score_threshold", "0.05", "0.1"),
        (RUN101, "evaluation.json", other_view, CELL101, "identity.view.size", "64", "128"),
        (RUN101, "evaluation.json", no_settings, CELL101, "test", "nothing", ""),
        (RUN101, "evaluation.json", lambda c: c["statistics"].update(seed=5), CELL101, "statistics.seed", "5", "0"),
        (RUN101, "metrics.json", lambda c: c.update(AP=0.5), CELL101, "AP", "0.5", "0.395"),
        (RUN101, "train.json", lambda c: c["params"].update(seed=7), CELL101, "params.seed", "7", "0"),
        (RUN101, "train.json", lambda c: c.update(weights_sha256="new"), CELL101, "weights_sha256", "0404", "new"),
        (REFERENCE, "tta.json", other_weights, CELL_TTA, "identity.weights_sha256", "other", "00" * 32),
        (REFERENCE, "tta.json", one_step_less, CELL_TTA, "views", "['s96', 's112', 's128', 's144']", "'s160']"),
        (TRAINED, "nms_sweep.json", other_backbone, CELL_NMS, "identity.run.backbone", "resnet50", "resnet18"),
        (TRAINED, "nms_sweep.json", one_step_less, CELL_NMS, "thresholds", "[0.5, 0.6]", "[0.5, 0.6, 0.7]"),
    ],
)
def test_a_file_of_something_else_stops_the_report(
    tmp_path: Path,
    run: str,
    file: str,
    change: Callable[[Any], object],
    cell: str,
    key: str,
    found: str,
    expected: str,
) -> None:
    study = make_study(tmp_path)
    study.edit(run, file, change)
    with pytest.raises(UserError) as error:
        study.build()
    where, found_line, expected_line, hint = str(error.value).splitlines()
    assert where.startswith(f"{cell}: ")
    assert f"{key} from this table cell" in where
    assert found in found_line
    assert expected in expected_line
    assert run in hint
    assert not study.out_dir.exists()


def test_scores_of_a_resnet50_cannot_stand_in_the_row_of_a_resnet101(tmp_path: Path) -> None:
    # The mistake of the published study: the run called resnet101 was a second ResNet-50.
    study = make_study(tmp_path)
    for path in (study.runs_dir / "resnet50-e12-c3").iterdir():
        (study.runs_dir / RUN101 / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"row resnet101, cell AP to APl: .*different params.name") as error:
        study.build()
    assert "resnet50-e12-c3" in str(error.value)


def test_the_threshold_of_one_run_cannot_stand_in_the_table_of_another(tmp_path: Path) -> None:
    # Another one: the 0.6 column of the table said to be ResNet-34's was the ResNet-18 run.
    raw = copy.deepcopy(SHAPES)
    raw["nms_sweep"]["runs"] = [TRAINED, "resnet34-e12-c3"]
    raw["tables"] = [{"kind": "nms", "title": "NMS thresholds", "run": "resnet34-e12-c3"}]
    study = make_study(tmp_path, raw)
    for file in ("nms_sweep.json", "nms_sweep_replicates.safetensors"):
        content = (study.runs_dir / TRAINED / file).read_bytes()
        (study.runs_dir / "resnet34-e12-c3" / file).write_bytes(content)
    with pytest.raises(UserError, match=r"Table 1 .*row 0\.5, cell AP to APl: .*different identity.run.name") as error:
        study.build()
    assert "fcos nms-sweep resnet34-e12-c3" in str(error.value)


def test_a_run_in_no_table_is_checked_too(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = raw["tables"][:1]
    study = make_study(tmp_path, raw)
    study.edit(RUN101, "evaluation.json", other_backbone)
    with pytest.raises(UserError, match=f"Appendix, row {RUN101}"):
        study.build()


@pytest.mark.parametrize(
    ("run", "file", "command"),
    [
        (TRAINED, "train.json", "fcos train resnet18-e12-c3"),
        (TRAINED, "history.csv", "fcos train resnet18-e12-c3"),
        (TRAINED, "timing.json", "fcos predict resnet18-e12-c3"),
        (TRAINED, "evaluation.json", "fcos evaluate resnet18-e12-c3"),
        (TRAINED, "metrics.json", "fcos evaluate resnet18-e12-c3"),
        (TRAINED, "detections.json", "fcos evaluate resnet18-e12-c3"),
        (TRAINED, "replicates.safetensors", "fcos evaluate resnet18-e12-c3"),
        (TRAINED, "nms_sweep.json", "fcos nms-sweep resnet18-e12-c3"),
        (TRAINED, "nms_sweep_replicates.safetensors", "fcos nms-sweep resnet18-e12-c3"),
        (REFERENCE, "tta_replicates.safetensors", "fcos tta resnet18-reference"),
        (REFERENCE, "tta.json", "fcos tta resnet18-reference"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(
    tmp_path: Path, run: str, file: str, command: str
) -> None:
    study = make_study(tmp_path)
    (study.runs_dir / run / file).unlink()
    with pytest.raises(UserError) as error:
        study.build()
    assert f"{run}/{file}" in str(error.value)
    assert str(error.value).endswith(command)


@pytest.mark.parametrize(
    ("file", "key"),
    [("train.json", "weights_sha256"), ("evaluation.json", "analysis.confusion"), ("tta.json", "steps")],
)
def test_a_damaged_or_old_file_is_named_with_the_key_that_is_missing(tmp_path: Path, file: str, key: str) -> None:
    study = make_study(tmp_path)

    def remove(content: Any) -> None:
        *parents, last = key.split(".")
        for parent in parents:
            content = content[parent]
        del content[last]

    study.edit(REFERENCE, file, remove)
    with pytest.raises(UserError, match=f"no key {key}"):
        study.build()


@pytest.mark.usefixtures("no_figures")
def test_files_that_params_do_not_ask_for_are_not_needed(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    (study.runs_dir / RUN101 / "tta.json").unlink()
    (study.runs_dir / RUN101 / "tta_replicates.safetensors").unlink()
    (study.runs_dir / RUN101 / "nms_sweep.json").unlink()
    write_json(study.runs_dir / "no-such-run" / "train.json", {})
    assert study.build().is_dir()


@pytest.mark.slow
def test_other_detections_than_the_evaluated_are_not_drawn(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.edit(TRAINED, "detections.json", lambda detections: detections.pop())
    with pytest.raises(UserError, match="does not match the evaluation"):
        study.build()


def test_a_manifest_of_other_data_stops_the_report(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.manifest["splits"]["test"]["digest"] = "other"
    with pytest.raises(UserError, match=r"manifest\.json"):
        study.build()


@pytest.mark.slow
def test_an_imported_checkpoint_has_no_training_time_and_no_curves(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["runs"] = {REFERENCE: {"backbone": "resnet18", "num_convs": 3, "checkpoint": "a.pth", "role": "reference"}}
    raw["tables"] = [
        {"kind": "reference", "title": "Given"},
        {"kind": "trained", "title": "!", "run": REFERENCE},
        {"kind": "tta", "title": "Views", "run": REFERENCE},
        {"kind": "tta", "title": "Views again", "run": REFERENCE},
    ]
    raw["nms_sweep"]["runs"] = []
    study = make_study(tmp_path, raw)
    study.edit(REFERENCE, "train.json", lambda train: train.update(imported_from="a.pth"))
    write_csv(study.runs_dir / REFERENCE / "history.csv", [], COLUMNS)
    report = (study.build() / "report.md").read_text()
    assert "The reference is an imported checkpoint (a.pth)." in report
    assert "- **Total training time**: 0 s in 0 trainings" in report
    assert study.table(2)["training time (s)"].isna().all()
    assert {path.name for path in (study.out_dir / "tables").iterdir()} >= {"1-given.csv", "2-trained.csv"}
    figures = {path.stem for path in (study.out_dir / "figures").glob("*.svg")}
    views = {f"{stem}-{what}" for stem in ("3-views", "4-views-again") for what in ("cost", "differences")}
    assert figures == {*views, "accuracy-and-time", *set(OF_RUNS) - {"training-curves"}}


class Page(HTMLParser):
    """Return what a browser would run, fetch or link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []


def test_page_escapes_names_and_fetches_nothing(built: Study) -> None:
    text = (built.out_dir / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert EVIL not in text
    assert "&lt;script&gt;alert(" in text and r"\u003cscript>alert(" in text  # in the tables, and in the data of charts
    assert not {"link", "iframe", "object", "base", "img"} & set(page.tags)
    assert page.tags.count("script") == 3 and page.sources == []
    assert not any(re.match(r"[a-z]+:|//", link) for link in page.links)
    assert not re.search(r"url\(|@import", text[: text.index("</style>")])


def test_names_neither_steer_nor_turn_around_what_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    """Escape sequences, direction marks and line breaks in a class name reach no file that people read."""
    steering = "\x1b[2J\u202e\u2067\u200e\u2028\x00"
    monkeypatch.setattr(sys.modules[__name__], "EVIL", f"{steering}`|\n\n# no | heading <b>")
    study = make_study(tmp_path)
    study.build()
    for name in ("index.html", "report.md"):
        text = (study.out_dir / name).read_text(encoding="utf-8")
        assert not set(steering) - set("[2J") & set(text), name
        assert "\\x1b" in text and r"\u202e" in text
    page = (study.out_dir / "index.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('id="report-data">')[2].partition("</script>")[0])
    assert data["gallery"]["classes"][0].startswith(r"\x1b[2J\u202e\u2067\u200e\u2028\x00`|")
    lines = (study.out_dir / "report.md").read_text().split("\n")
    rows = [line for line in lines if "heading &lt;b&gt;" in line]
    assert rows and not any(line.startswith("# no") for line in lines)
    assert all(r"\`\| # no \| heading" in row for row in rows)


def test_page_runs_no_other_script_than_its_own(built: Study) -> None:
    text = (built.out_dir / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r'<script type="module">(.*?)</script>', text, flags=re.DOTALL)
    allowed = re.search(r"script-src ([^;]*);", html.unescape(text))
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed and allowed[1].split() == [f"'sha256-{digest}'" for digest in digests]


def test_every_number_of_a_table_leads_to_its_run(built: Study) -> None:
    text = (built.out_dir / "index.html").read_text(encoding="utf-8")
    assert f'<td class="number"><a href="#run-{TRAINED}" tabindex="-1">33.0 ± 2.0</a></td>' in text
    assert f'<details id="run-{TRAINED}">' in text


def test_links_of_the_page_lead_somewhere(built: Study) -> None:
    page = Page((built.out_dir / "index.html").read_text(encoding="utf-8"))
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert {f"table-{number}" for number in range(1, 8)} <= set(inner) <= set(page.ids)
    outer = [link for link in page.links if not link.startswith("#")]
    assert f"../../runs/shapes/{TRAINED}/metrics.json" in outer
    assert all((built.out_dir / link).is_file() for link in outer)


def test_markdown_has_no_html_of_others_and_its_images_exist(built: Study) -> None:
    markdown = (built.out_dir / "report.md").read_text(encoding="utf-8")
    assert "<" not in markdown
    assert r"\|" in markdown  # of the class name, where it would end a cell
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", markdown)
    assert len(images) == len(OF_TABLES) + 1 + len(OF_RUNS) + 1  # one of accuracy and time, and one of detections
    assert all((built.out_dir / image).is_file() for image in images)


def test_pages_say_what_is_wrong_with_each_run(built: Study) -> None:
    markdown = (built.out_dir / "report.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("|")]
    # In each of 8 images the object of class 3 is found (IoU 28 * 36 / 1200 = 0.84) and that of class 7 is missed; the
    # second detection of class 3 is a duplicate with the lowest score. So AP50 is 1 and 0, with mean 50; if missed
    # objects are not counted, class 7 has no object and no detection, and its AP stays 0.
    row = next(row for row in cells if row[0] == TRAINED and len(row) == 9)
    assert row[:8] == [TRAINED, "50.0", *["+0.0"] * 6]
    # Calibration: 8 of score 0.9 all right, 8 of 0.1 all wrong: off by 0.1 each.
    assert row[8] == "10.0"
    # 33 percent, and -+ 2 as the file says; the second run of the list is TRAINED.
    assert next(row for row in cells if row[0] == "круг" and len(row) == 9)[3] == "33.0 ± 2.0"


def test_pages_say_what_the_numbers_rest_on(built: Study) -> None:
    for name in ("index.html", "report.md"):
        text = (built.out_dir / name).read_text(encoding="utf-8")
        assert "train 1,234 images with 16 objects; test 8 images" in text
        assert "c0ffeec0ffee" in text
        assert "10 min in 7 trainings" in text  # 7 * 90 s = 10.5 min, rounded to even
        assert "What varies: backbone. What is fixed: epochs 12, num_convs 3." in text
        assert built.split.digest[:10] in text
        assert "01" * 32 in text


OF_RUNS = ("training-curves", "errors", "precision-recall", "confusion", "calibration", "difficulty", "classes")
OF_TABLES = (
    "3-test-time-augmentation-cost",
    "3-test-time-augmentation-differences",
    "4-backbones",
    "4-backbones-differences",
    "5-nms-thresholds",
    "6-training-length",
    "6-training-length-differences",
    "7-convolutions-in-the-heads",
    "7-convolutions-in-the-heads-differences",
)
CURVES = [f"training-curves-{name}" for name in ("centerness-loss-bce", "learning-rate", "images-s")]
OTHER_CURVES = [
    f"training-curves-{name}"
    for name in ("classification-loss-focal", "regression-loss-giou", "positive-locations-in-a-batch")
]
CHARTS = [*OF_TABLES, "accuracy-and-time", *OF_RUNS, *CURVES]
IMAGES = [f"runs/{run}/{name}" for run in SHAPES["runs"] for name in ("detections", "worst", *OF_RUNS)]
FIGURES = [*CHARTS, *IMAGES]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_there_and_not_blank(built: Study, name: str) -> None:
    with Image.open(built.out_dir / "figures" / f"{name}.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert image.width >= 500
    corner = pixels[0]
    assert (corner == 255).all()
    assert (pixels != corner).any(axis=1).mean() > 0.01


@pytest.mark.slow
def test_every_chart_is_what_vega_lite_s_schema_allows(built: Study) -> None:
    study = read_study(built.params, built.runs_dir, built.split, built.manifest)
    tables = [build_table(number, config, study) for number, config in enumerate(built.params.tables, start=1)]
    schema = json.loads((Path(altair.vegalite.v6.schema.__file__).parent / "vega-lite-schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert validator.is_valid({"mark": "bar", "encoding": {}, "data": {"values": []}})
    assert not validator.is_valid({"mark": "bars", "encoding": {}, "data": {"values": []}})
    charts = [*table_charts(tables), *study_charts(study)]
    assert len(charts) > 10
    for chart in charts:
        for spec in (chart.live, chart.static()):
            assert validator.is_valid(spec), (chart.stem, jsonschema.exceptions.best_match(validator.iter_errors(spec)))


def test_report_is_complete_and_small(built: Study) -> None:
    files = [path for path in built.out_dir.rglob("*") if path.is_file()]
    assert {str(path.relative_to(built.out_dir)) for path in files} == {
        "index.html",
        "report.md",
        "tables/1-reference-checkpoint.csv",
        "tables/2-trained-model.csv",
        "tables/3-test-time-augmentation.csv",
        "tables/4-backbones.csv",
        "tables/5-nms-thresholds.csv",
        "tables/6-training-length.csv",
        "tables/7-convolutions-in-the-heads.csv",
        "tables/runs.csv",
        "tables/differences/3-test-time-augmentation.csv",
        "tables/differences/4-backbones.csv",
        "tables/differences/5-nms-thresholds.csv",
        "tables/differences/6-training-length.csv",
        "tables/differences/7-convolutions-in-the-heads.csv",
        *(f"figures/{name}.png" for name in [*FIGURES, *OTHER_CURVES]),
        *(f"figures/{name}.svg" for name in [*CHARTS, *OTHER_CURVES]),
    }
    # Of this 0.9 MB are Vega.
    assert (built.out_dir / "index.html").stat().st_size < 1_500_000
    assert sum(path.stat().st_size for path in files) < 5_000_000


@pytest.mark.slow
def test_the_same_files_give_the_same_report(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = raw["tables"][:3]
    raw["runs"] = {name: raw["runs"][name] for name in (REFERENCE, TRAINED)}
    first, second = (make_study(tmp_path / name, raw).build() for name in ("a", "b"))
    files = [path for path in first.rglob("*") if path.is_file()]
    # Pages, tables, differences; PNG and SVG of two charts of TTA, seven of all runs, accuracy and six more curves;
    # nine images of each run.
    assert len(files) == 2 + 4 + 1 + 2 * (2 + 7 + 1 + 6) + 2 * 9
    for path in files:
        assert (second / path.relative_to(first)).read_bytes() == path.read_bytes(), path.name


def test_reporting_loads_no_torch() -> None:
    code = "import sys, fcos.reporting.report; print(json.dumps([m for m in sys.modules if m.startswith('torch')]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.slow
def test_charts_are_whole_whatever_the_classes_and_runs_are_called(built: Study) -> None:
    """Charts have as many marks as with other names: empty charts raise nothing, and invalid XML ends the process."""

    def renamed(value: Any, of_class: str, of_run: str) -> Any:
        if isinstance(value, dict):
            return {key: renamed(inner, of_class, of_run) for key, inner in value.items()}
        if isinstance(value, list):
            return [renamed(inner, of_class, of_run) for inner in value]
        return value.replace(EVIL, of_class).replace(TRAINED, of_run) if isinstance(value, str) else value

    def marks(chart: Chart, folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        chart.write(folder)
        return len(re.findall("<(?:path|text)", (folder / f"{chart.stem}.svg").read_text()))

    results = read_study(built.params, built.runs_dir, built.split, built.manifest)
    for chart in study_charts(results):
        usual = marks(chart, built.root / "charts")
        for names in (("constructor", "a\ufffeb\x00"), ("a\ufffeb\x00", "constructor")):
            spec = renamed(chart.spec, *names)
            assert marks(dataclasses.replace(chart, spec=spec), built.root / "charts") == usual


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        # Means 3.5 and 2.5; the variance of a step is (0.5^2 + 0.5^2) / 1 in both: 2 sqrt(0.5 / 2 + 0.5 / 2) = 1.41.
        ([5, 5, 3, 4, 2, 3], False),
        ([5, 5, 3.5, 3.5, 2.5, 2.6], True),  # 0.95 lower, and 2 sqrt(0.005 / 2) = 0.1
        ([5, 5, 2, 2, 3, 3], False),
    ],
)
def test_whether_the_loss_still_falls(losses: list[float], falling: bool) -> None:
    ends = last_epochs(pd.DataFrame({"epoch": [0, 0, 1, 1, 2, 2], "loss": losses}))
    assert ends is not None and ends.falling == falling


@pytest.mark.slow
def test_the_report_says_whether_losses_still_fall(built: Study) -> None:
    """The losses of make_study, 1 / (1 + step), fall from 0.0221 to 0.0181 in epochs of ten steps."""
    for name in ("report.md", "index.html"):
        text = (built.out_dir / name).read_text()
        assert (
            f"In {len(built.params.runs)} of {len(built.params.runs)} runs the mean loss of the last epoch was" in text
        )
        assert "0.022" in text and "0.018" in text and "-18.1" in text


@pytest.mark.slow
def test_the_report_says_which_weights_were_picked_and_shows_over_fitting(tmp_path: Path) -> None:
    raw = copy.deepcopy(SHAPES)
    raw["tables"] = raw["tables"][:3]
    raw["runs"] = {name: raw["runs"][name] for name in (REFERENCE, TRAINED)}
    raw["data"]["validation_fraction"] = 0.1
    raw["train"] |= {"validate_every": 1, "keep": "best", "patience": 5}
    study = make_study(tmp_path, raw)
    found = {"every": 1, "keep": "best", "patience": 5, "epochs": 9, "epoch": 4, "AP": 0.412, "num_images": 30}
    found |= {"best_AP": 0.412, "best_epoch": 4, "training_AP": 0.876, "num_training_images": 29, "seconds": 3.5}
    study.edit(TRAINED, "train.json", lambda content: content.update(validation=found))
    history = study.runs_dir / TRAINED / "history.csv"
    text = history.read_text().splitlines()
    more = ["validation_AP,validation_AP50", *[",", "0.1,0.2"] * 30]
    history.write_text("\n".join(f"{line},{new}" for line, new in zip(text, more, strict=True)) + "\n")
    study.build()
    for name in ("report.md", "index.html"):
        said = (study.out_dir / name).read_text()
        assert f"The weights of {TRAINED} are those of the epoch with the highest AP on the validation images" in said
        assert "makes that number optimistic; the test images were not used for it" in said
        assert f"{TRAINED} ended after epoch 9 of 13" in said and "had not risen for 5 epochs" in said
        assert all(text in said for text in ("87.6 (29 images)", "41.2 (30 images)", "41.2 (epoch 4)"))
    assert "AP on the validation images" in (study.out_dir / "index.html").read_text()  # of the training curves


def test_without_validation_there_is_no_word_of_it(built: Study) -> None:
    assert "validation images" not in (built.out_dir / "report.md").read_text()
    assert "validation images" not in (built.out_dir / "index.html").read_text()


@pytest.mark.parametrize("text", ["", "step,loss\n1,2\n1,2,3,4\n", "\0"])
def test_a_damaged_history_is_named(tmp_path: Path, text: str) -> None:
    study = make_study(tmp_path)
    (study.runs_dir / TRAINED / "history.csv").write_text(text)
    with pytest.raises(UserError, match=rf"history.csv: is damaged(.|\n)*fcos train {TRAINED}"):
        study.build()


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(built: Study, page: Any) -> Any:
    """Open the report from the disk and wait until its charts are drawn, folded ones included."""
    page.goto((built.out_dir / "index.html").as_uri())
    first = len(OF_TABLES) + 3  # accuracy and time, training curves, errors
    page.wait_for_selector(f'html[data-charts="{first}"]')
    page.locator("details.more > summary").click()
    page.wait_for_selector(f'html[data-charts="{len(OF_TABLES) + 1 + len(OF_RUNS)}"]')
    return page


def test_every_chart_is_drawn(shown: Any) -> None:
    charts = shown.locator(".chart").count()
    assert charts == len(OF_TABLES) + 1 + len(OF_RUNS)
    assert shown.evaluate("document.documentElement.dataset.charts") == str(charts)
    assert shown.locator(".chart svg :is(path, line)[stroke], .chart svg path[fill]").count() > 10 * charts
    assert shown.locator(".chart svg").evaluate_all("all => all.every(svg => svg.getBoundingClientRect().width > 500)")


def test_bars_are_as_long_as_what_an_error_costs(shown: Any) -> None:
    bars = [bar.bounding_box()["width"] for bar in shown.locator("#chart-errors .mark-rect path").all()]
    assert len(bars) == 6 * len(RUNS)
    long = sorted((length for length in bars if length > 2), reverse=True)  # the others have no length
    assert np.array(long) / long[0] == pytest.approx(np.array([6, 5, 4, 3, 2, 1]) / 6, abs=0.01)


def test_a_run_can_be_taken_out_of_all_charts_and_of_the_gallery(shown: Any) -> None:
    points = shown.locator("#chart-classes .mark-symbol path")
    before = points.count()
    figures = shown.locator(".strip").first.locator("figure")
    expect(figures).to_have_count(1 + len(RUNS))
    box = shown.get_by_role("checkbox", name=TRAINED)
    box.focus()
    shown.keyboard.press("Space")
    shown.wait_for_function(
        "count => document.querySelectorAll('#chart-classes .mark-symbol path').length < count", arg=before
    )
    expect(figures).to_have_count(len(RUNS))
    expect(shown.locator("#images")).not_to_contain_text(TRAINED)
    box.check()
    expect(figures).to_have_count(1 + len(RUNS))
    expect(points).to_have_count(before)


def test_a_run_that_was_taken_out_is_not_in_a_chart_that_is_opened_later(built: Study, page: Any) -> None:
    page.goto((built.out_dir / "index.html").as_uri())
    page.wait_for_selector("html[data-charts]")
    page.get_by_role("checkbox", name=TRAINED).uncheck()
    page.locator("details.more > summary").click()
    page.wait_for_selector(f'html[data-charts="{len(OF_TABLES) + 1 + len(OF_RUNS)}"]')
    points = page.locator("#chart-classes .mark-symbol path")
    without = points.count()
    page.get_by_role("checkbox", name=TRAINED).check()
    expect(points).not_to_have_count(without)


def test_the_gallery_comes_in_parts(shown: Any) -> None:
    expect(shown.locator(".strip")).to_have_count(6)
    shown.locator("#gallery-more").click()
    expect(shown.locator(".strip")).to_have_count(8)
    expect(shown.locator("#gallery-more")).to_be_hidden()


def test_the_contents_stay_in_view_where_there_is_room(shown: Any) -> None:
    shown.set_viewport_size({"width": 1800, "height": 900})
    shown.locator("#appendix").scroll_into_view_if_needed()
    contents, main = (shown.locator(name).bounding_box() for name in ("nav", "main"))
    assert contents["x"] >= 0 and contents["x"] + contents["width"] < main["x"] + 24 and 0 <= contents["y"] < 900


def test_another_metric_can_be_chosen(shown: Any) -> None:
    expect(shown.locator("#chart-4-backbones")).to_contain_text("38.0")  # AP of ResNet-34
    shown.locator('select[data-chart="4-backbones"]').select_option("AP50")
    shown.wait_for_function("document.getElementById('chart-4-backbones').innerText.includes('63.0')")  # AP + 25


def test_gallery_shows_what_became_of_each_object(shown: Any) -> None:
    """In each image the highest-scoring detection finds the first object; the second is missed; 0.1 is not shown."""
    card = shown.locator(".strip").first.locator("figure")
    expect(card.nth(0).locator("rect")).to_have_count(2)
    expect(card.nth(0)).to_contain_text("2 objects")
    expect(card.nth(1)).to_contain_text("1 right, 0 wrong, 1 missed")
    expect(card.nth(1).locator("rect title")).to_have_text(["круг: missed", f"{EVIL} 0.90: right"])
    controls = shown.locator("#gallery-controls")
    controls.get_by_label("with").select_option("missed")
    expect(card.nth(1).locator("rect.faded")).to_have_count(1)
    controls.get_by_label("score").fill("0.95")  # above every score, so both objects are missed
    expect(card.nth(1)).to_contain_text("0 right, 0 wrong, 2 missed")
    controls.get_by_label("with").select_option("duplicate")
    expect(shown.locator(".strip")).to_have_count(0)
    expect(shown.locator("#gallery-count")).to_contain_text("0 images of 8")


def test_a_number_leads_to_its_run(shown: Any) -> None:
    shown.locator("#table-2").get_by_role("link", name="33.0 ± 2.0").click()
    run = shown.locator(f"#run-{TRAINED}[open]")
    for text in ("metrics.json", "train.learning_rate"):
        expect(run.get_by_text(text).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_can_be_used_by_all(shown: Any, scheme: str) -> None:
    shown.emulate_media(color_scheme=scheme)
    found = Axe().run(shown)
    assert found.violations_count == 0, found.generate_report()


def test_page_fits_a_phone_and_paper(built: Study, page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((built.out_dir / "index.html").as_uri())
    page.wait_for_selector("html[data-charts]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") > 5
    expect(page.locator("details:not([open])")).to_have_count(0)
    expect(page.locator("details[open]")).not_to_have_count(0)
