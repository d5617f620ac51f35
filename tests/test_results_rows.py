"""Detectors that were not trained here, as rows of a study."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, write_params
from drawn_results import draw_results
from project_helpers import changed_stages, copy_project, fcos, repro, set_params

from fcos.commands.compare import compare
from fcos.commands.prepare import prepare
from fcos.commands.results import results
from fcos.config import params
from fcos.config.results import ResultsConfig
from fcos.data.coco import read_manifest, read_split
from fcos.errors import UserError
from fcos.reporting.results import read_study
from fcos.reporting.tables import build_table
from fcos.scoring.average_precision import AP_METRICS, score
from fcos.scoring.bootstrap import Sample, draw_weights
from fcos.scoring.comparison import compare_all
from fcos.scoring.matching import match_table
from fcos.scoring.protocol import COCO
from fcos.scoring.results import read_results
from fcos.scoring.support import drawn_metrics
from fcos.scoring.truth import read_truth
from fcos.study.layout import Layout
from fcos.tracking.store import connect


@pytest.fixture
def prepared(workspace, smoke_params):
    """A study of 120 test images, with two entries: one file, and three seeds of another detector."""
    smoke_params["data"] |= {"num_train": 4, "num_test": 120}
    smoke_params["results"] = {
        "yolo": {"files": "given/yolo.json", "ms_per_image": 3.5},
        "detr": {"files": [f"given/detr{seed}.json" for seed in (1, 2, 3)]},
    }
    write_params(smoke_params)
    prepare()
    split = read_split(Layout("smoke").data, "test")
    draw_results(split.annotations, Path("given/yolo.json"), 0)
    for seed in (1, 2, 3):
        draw_results(split.annotations, Path(f"given/detr{seed}.json"), seed, found=0.7)
    return split


def test_rows_and_differences_are_those_of_compare(prepared):
    for name in ("yolo", "detr"):
        results(name)
    study = params.read()
    (config,) = [table for table in study.tables if table.kind == "results"]
    assert config.runs == ["one-epoch"]  # the run with `role: reference` is in no such table
    layout = Layout("smoke")
    given = given_only(study, layout, prepared)
    table = build_table(9, config.model_copy(update={"runs": []}), given)
    rows = ["yolo=given/yolo.json", "detr=" + ",".join(f"given/detr{seed}.json" for seed in (1, 2, 3))]
    content = compare(rows, layout.data / "test.json", out=Path("out"), replicates=1000, confidence=0.95, seed=0)
    shown = table.frame.to_dict("records")
    assert [(row["detector"], row["settings"], row["n"], row["ms/image"]) for row in shown] == [
        ("yolo", "not trained here", 1, 3.5),
        ("detr", "not trained here", 3, None),
    ]
    for row, other in zip(shown, content["rows"], strict=True):
        assert (row["APl"], other["metrics"]["APl"]) == (None, None)  # no object is large
        for metric in AP_METRICS[:-1]:
            assert row[metric] == pytest.approx(100 * other["metrics"][metric], abs=1e-9)
            interval = other["intervals"][metric]
            ends = [100 * interval[end] for end in ("low", "high")]
            assert [row[f"{metric} low"], row[f"{metric} high"]] == pytest.approx(ends, abs=1e-9)
    (comparison,), (difference,) = table.comparisons, content["differences"]
    found = difference["metrics"]["AP"]
    assert (comparison.row, comparison.other) == (difference["first"], difference["second"])
    measured = (comparison.found.value[0], comparison.found.low[0], comparison.found.high[0], comparison.corrected_p[0])
    assert measured == pytest.approx([found[key] for key in ("difference", "low", "high", "p_holm")], abs=1e-9)
    assert abs(found["difference"]) > 0.02 and found["low"] < found["high"]


def test_a_score_threshold_is_that_of_compare(prepared):
    (found,) = results("yolo")
    files, gt = ["given/yolo.json", "given/detr1.json"], Layout("smoke").data / "test.json"
    settings = {"replicates": 1000, "confidence": 0.95, "seed": 0}
    content = compare(files, gt, out=Path("out"), at_score=["best"], **settings)
    point, other = found["operating_point"], content["rows"][0]["operating_point"]
    assert ([point["score_threshold"]], point["chosen_on"], point["iou"]) == (other["score_thresholds"], "test", 0.5)
    assert point["best_threshold"] == pytest.approx([other["best_threshold"][end] for end in ("low", "high")])
    for name in ("precision", "recall", "F1"):
        assert point[name] == pytest.approx(other[name], abs=1e-12)


def given_only(study, layout, split):
    """Return the results of the study without its runs, of which none is trained."""
    none = study.__class__(**{**study.__dict__, "runs": {}})
    return read_study(none, layout.runs, split, read_manifest(layout.data))


def test_results_keep_the_order_of_their_file(prepared):
    """AP depends on the order of equal scores, and pycocotools takes that of the file."""
    (before,) = results("yolo")
    listed = json.loads(Path("given/yolo.json").read_text())
    same = [{**row, "score": 0.5} for row in listed]
    aps = []
    for order in (same, same[::-1]):
        Path("given/yolo.json").write_text(json.dumps(order))
        (after,) = results("yolo")
        assert json.loads((Layout("smoke").run("yolo") / "1" / "detections.json").read_text()) == order
        aps.append(after["metrics"]["AP"])
    assert aps[0] != aps[1] != before["metrics"]["AP"]


def test_images_are_found_by_the_ids_of_their_source(workspace, smoke_params):
    """COCO files with text as ids are renumbered by `fcos prepare`; other tools have written the text."""
    shutil.rmtree("given", ignore_errors=True)
    smoke_params["data"] |= {"num_train": 4, "num_test": 6}
    write_params(smoke_params)
    prepare()
    layout = Layout("smoke")
    for split in ("train", "test"):
        content = json.loads((layout.data / f"{split}.json").read_text())
        for image in content["images"]:
            image["file_name"] = str(Path(content.get("image_dir", ""), image["file_name"]))
        as_text = {image["id"]: f"{split}-{image['id']}" for image in content["images"]}
        own = {
            "images": [{**image, "id": as_text[image["id"]]} for image in content["images"]],
            "annotations": [{**a, "image_id": as_text[a["image_id"]]} for a in content["annotations"]],
            "categories": [{**c, "id": c["id"] + 40} for c in content["categories"]],
        }
        for annotation in own["annotations"]:
            annotation["category_id"] += 40
        folder = Path("mine") / split
        folder.mkdir(parents=True)
        for image in own["images"]:
            name = Path(image["file_name"]).name
            shutil.copy(read_split(layout.data, split).path_of({**image, "id": 0}), folder / name)
            image["file_name"] = name
        (Path("mine") / f"{split}.json").write_text(json.dumps(own))
    smoke_params |= {
        "study": "mine",
        "data": {
            "source": "coco", "root": "mine", "train_annotations": "train.json", "train_images": "train",
            "test_annotations": "test.json", "test_images": "test", "validation_fraction": 0.0,
        },
        "results": {"perfect": {"files": "perfect.json"}},
    }  # fmt: skip
    write_params(smoke_params)
    from fcos.commands.source import source

    truth = json.loads(Path("mine/test.json").read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox")
    Path("perfect.json").write_text(json.dumps([{**{key: a[key] for key in keys}, "score": 0.9} for a in truth]))
    source()
    prepare()
    (found,) = results("perfect")
    assert found["metrics"]["AP"] == pytest.approx(1.0)
    written = json.loads(Path("runs/mine/perfect/1/detections.json").read_text())
    assert {row["image_id"] for row in written} <= {
        image["id"] for image in read_split(Path("data/mine"), "test").images
    }


def test_mistakes_are_named(prepared, smoke_params, run):
    done = run("results", "yola")
    assert done.returncode == 2 and "one of yolo, detr" in done.stderr
    path = Path("given/yolo.json")
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, {**rows[0], "image_id": 99_999}]))
    with pytest.raises(UserError, match=r"1 of .* image ids are not in the ground truth"):
        results("yolo")
    smoke_params["results"]["yolo"]["ignore_unknown_images"] = True
    smoke_params["results"]["detr"]["files"].pop()
    write_params(smoke_params)
    (found,) = results("yolo")
    assert found["num_detections"] == len(rows)
    assert any(text.startswith(f"1 of {len(rows) + 1} detections are left out") for text in found["findings"])
    (Layout("smoke").run("detr") / "3").mkdir(parents=True)  # of an entry that had one file more
    assert len(results("detr")) == 2 and not (Layout("smoke").run("detr") / "3").exists()
    shutil.copy("given/detr1.json", "given/detr2.json")
    with pytest.raises(UserError, match="files with the same content"):
        results("detr")
    path.unlink()
    done = run("source")  # which trainings need too
    assert done.returncode == 0 and "results.yolo.files: no such file" in done.stderr
    done = run("results", "yolo")
    assert done.returncode == 2 and "results.yolo.files: no such file" in done.stderr
    for section, problem in (
        ({"detr": {"files": ["a", "b"]}, "detr-2": {"files": "c"}}, r"results\.detr-2: has the name of results\.detr"),
        (None, "results: is no mapping"),
    ):
        smoke_params["results"] = section
        write_params(smoke_params)
        with pytest.raises(UserError, match=problem):
            params.read()
    smoke_params["results"] = {"one-epoch": {"files": "a.json"}}
    write_params(smoke_params)
    with pytest.raises(UserError, match=r"results\.one-epoch: has the name of a run"):
        params.read()


def test_numbers_of_another_file_enter_no_table(prepared, smoke_params):
    for name in ("yolo", "detr"):
        results(name)
    study, layout = params.read(), Layout("smoke")
    shutil.copy("given/detr1.json", "given/yolo.json")
    with pytest.raises(UserError, match=r"different identity\.sha256") as error:
        build_table(1, study.tables[-1].model_copy(update={"runs": []}), given_only(study, layout, prepared))
    assert error.value.hint == "fcos results yolo"


def test_trainings_are_not_compared_with_each_other_among_other_detectors(prepared):
    truth = read_truth(Layout("smoke").data / "test.json")
    weights = draw_weights(truth.num_images, replicates=100, seed=0)

    def sample(path):
        matches = match_table(read_results(Path(path), truth).table, truth.objects, COCO)
        value = score(matches, np.ones((1, truth.num_images))).metrics()
        return Sample.of(value, [drawn_metrics(score(matches, weights), matches)])

    rows = {"mine": "given/detr1.json", "mine too": "given/detr2.json", "theirs": "given/yolo.json"}
    samples = {name: sample(path) for name, path in rows.items()}
    found = compare_all(samples, confidence=0.95, apart=("mine", "mine too"))
    assert [(pair.row, pair.other) for pair in found] == [("theirs", "mine"), ("theirs", "mine too")]
    smaller, larger = sorted(float(pair.found.p_value[0]) for pair in found)
    holm = sorted(float(pair.corrected_p[0]) for pair in found)
    assert holm == pytest.approx([min(1.0, 2 * smaller), max(min(1.0, 2 * smaller), larger)])


def test_numbers_of_classes_are_refused_where_some_are_left_out(prepared, smoke_params, monkeypatch):
    """The labels of YOLO count all classes from 0, those of a study only the chosen ones, from 1."""
    smoke_params["results"]["yolo"]["ignore_unknown_classes"] = True
    write_params(smoke_params)
    monkeypatch.setattr("fcos.commands.results._OF_FILES", ("shapes",))  # as if its ids were only assigned here
    with pytest.raises(UserError, match="numbers of classes, whose meaning is not known"):
        results("yolo")
    path = Path("given/yolo.json")
    name_of = {category["id"]: category["name"] for category in prepared.categories}
    rows = [{**row, "category_id": name_of[row["category_id"]]} for row in json.loads(path.read_text())]
    path.write_text(json.dumps([*rows, {**rows[0], "category_id": "unicorn"}]))
    (found,) = results("yolo")
    assert found["num_detections"] == len(rows)


def number(text):
    return float(text) if text else None


def same(row, columns, fractions):
    """Hold percentages of a row of a CSV file against fractions, of which some may be undefined."""
    found = [number(row[column]) for column in columns]
    wanted = [None if of is None else pytest.approx(100 * of, abs=1e-9) for of in fractions]
    assert found == wanted


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_they_are_scored_by_dvc_and_stand_in_the_report(tmp_path, page, monkeypatch):
    own = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    own["data"]["num_test"] = 60  # enough for intervals
    folder = copy_project(tmp_path / "project", own)
    fcos(folder, "study", "run")
    monkeypatch.chdir(folder)
    split = read_split(Layout("smoke").data, "test")
    elsewhere = tmp_path / "elsewhere"
    for name in ("yolo", "ssd", "detr1", "detr2", "detr3"):
        draw_results(split.annotations, elsewhere / f"{name}.json", name)
    entries = {"yolo": {"files": str(elsewhere / "yolo.json"), "ms_per_image": 2.0}}
    entries["ssd"] = {"files": str(elsewhere / "ssd.json")}
    entries["detr"] = {"files": [str(elsewhere / f"detr{number}.json") for number in (1, 2, 3)]}
    set_params(folder, {**own, "results": entries})
    assert repro(folder) == ["report", "results@detr", "results@ssd", "results@yolo", "source"]
    assert repro(folder) == [] and changed_stages(folder) == set()
    assert "results yolo  done" in fcos(folder, "status")
    (table,) = (folder / "reports/smoke/tables").glob("*other-detectors.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["detector"] for row in rows] == ["one-epoch", "yolo", "ssd", "detr"]
    files = [f"one-epoch={Layout('smoke').run('one-epoch') / 'detections.json'}"]
    files += [f"{name}={','.join(ResultsConfig(**entry).paths)}" for name, entry in entries.items()]
    gt, settings = Layout("smoke").data / "test.json", {"replicates": 1000, "confidence": 0.95, "seed": 0}
    content = compare(files, gt, out=tmp_path / "compared", **settings)
    for row, other in zip(rows, content["rows"], strict=True):
        interval = other["intervals"]["AP"]
        same(row, ("AP", "AP low", "AP high"), [other["metrics"]["AP"], interval["low"], interval["high"]])
    pairs = csv.DictReader((table.parent / "differences" / table.name).read_text().splitlines())
    shown = {(pair["row"], pair["other"]): pair for pair in pairs if pair["metric"] == "AP"}
    assert len(shown) == len(content["differences"]) == 6
    for pair in content["differences"]:
        found, row = pair["metrics"]["AP"], shown[pair["first"], pair["second"]]
        same(row, ("difference", "low", "high"), [found["difference"], found["low"], found["high"]])
        assert number(row["p (Holm)"]) == pytest.approx(found["p_holm"], abs=1e-9)
    page.goto((folder / "reports/smoke/index.html").as_uri())
    shown = page.evaluate("document.body.innerText")
    for name in ("yolo", "ssd", "detr-1", "detr-2", "detr-3"):
        assert shown.count(name) >= 4 and (folder / f"reports/smoke/figures/runs/{name}/detections.png").is_file()
    client = connect()
    (experiment,) = [of for of in client.search_experiments() if of.name == "smoke"]
    logged = client.search_runs([experiment.experiment_id], "tags.kind = 'results'")
    evaluation = json.loads((folder / "runs/smoke/yolo/1/evaluation.json").read_text())
    of_yolo = next(run for run in logged if run.info.run_name == "yolo")
    assert len(logged) == 5 and of_yolo.data.metrics["AP"] == evaluation["metrics"]["AP"]
    assert of_yolo.data.tags["results_sha256"] == evaluation["identity"]["sha256"]
    draw_results(split.annotations, elsewhere / "yolo.json", "another")
    assert repro(folder) == ["report", "results@yolo", "source"]
    set_params(folder, own)
    assert repro(folder) == ["report", "source"]
    assert "yolo" not in (folder / "reports/smoke/index.html").read_text()
