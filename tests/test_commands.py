"""Commands on a real, tiny study: their outputs, and that files of another run, data or setting are refused."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
import yaml
from conftest import ROOT, Watcher, assert_mistake, write_params
from model_helpers import train_and_predict
from PIL import Image
from safetensors.numpy import load_file, save_file

from fcos import records
from fcos.cli import main
from fcos.commands.compare import compare
from fcos.commands.detect import detect
from fcos.commands.evaluate import evaluate
from fcos.commands.import_checkpoint import import_checkpoint
from fcos.commands.nms_sweep import nms_sweep
from fcos.commands.predict import predict
from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.commands.tta import tta
from fcos.data.dataset import DetectionDataset
from fcos.detections import Candidates
from fcos.errors import UserError
from fcos.evaluation.candidates import read_candidates, save_candidates
from fcos.evaluation.predictor import Predictor, predict_split
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.files import sha256_file
from fcos.model.checkpoint import read_identity
from fcos.model.convert import to_torchvision
from fcos.study.build import build_grid, load_model
from fcos.study.scored_run import ScoredRun, best_step

RUN = Path("runs/smoke/one-epoch")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the smoke study: prepared, one run trained and predicted; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("trained")
    params = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    # Two epochs after one of warm-up and a low threshold are enough to detect something.
    params["runs"]["one-epoch"]["epochs"] = 2
    params["test"]["score_threshold"] = 0.001
    train_and_predict(folder, params)
    return folder


@pytest.fixture(scope="module")
def trained_and_held_out(trained, tmp_path_factory):
    """Return the trained study with 4 of its 16 training images for validation, on which every setting is chosen."""
    folder = tmp_path_factory.mktemp("held_out") / "study"
    shutil.copytree(trained, folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["data"]["validation_fraction"] = 0.25
        params["nms_sweep"]["choose_on"] = params["tta"]["choose_on"] = "validation"
        write_params(params)
        prepare()
        predict("one-epoch", "test")
        predict("one-epoch", "tta")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def study(trained, tmp_path, monkeypatch):
    """Return the params of a copy of the trained study, which is the current folder."""
    return copied(trained, tmp_path, monkeypatch)


@pytest.fixture
def held_out(trained_and_held_out, tmp_path, monkeypatch):
    """Return the same for the study with a validation split."""
    return copied(trained_and_held_out, tmp_path, monkeypatch)


def copied(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return yaml.safe_load(Path("params.yaml").read_text())


def read(name):
    return json.loads((RUN / name).read_text())


def test_training_leaves_weights_that_say_what_they_are(study):
    identity = read_identity(RUN / "model.safetensors", hint="")
    assert identity.run["backbone"] == "resnet18" and identity.run["train"]["sizes"] == [48, 64]
    assert [category["name"] for category in identity.categories] == ["circle", "square", "triangle"]
    assert read("train.json")["weights_sha256"] == sha256_file(RUN / "model.safetensors")
    header = (RUN / "history.csv").read_text().splitlines()
    assert header[0] == (
        "step,epoch,lr,loss,loss_classification,loss_regression,loss_centerness,num_positives,images_per_s"
    )
    assert len(header) == 1 + 3 * 4  # 16 images in batches of 4, 1 + 2 epochs


def test_evaluate_writes_the_twelve_numbers_and_where_they_come_from(study):
    metrics = evaluate("one-epoch")["metrics"]
    assert list(read("metrics.json")) == [
        "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
    ]  # fmt: skip
    assert read("metrics.json") == metrics
    evaluation = read("evaluation.json")
    assert evaluation["test"] == {
        "size": 64, "max_size": 96, "score_threshold": 0.001, "max_candidates": 100, "nms_iou_threshold": 0.6,
        "max_detections": 100,
    }  # fmt: skip
    assert evaluation["identity"]["weights_sha256"] == sha256_file(RUN / "model.safetensors")
    assert len(read("detections.json")) == evaluation["num_detections"] > 0


def test_scoring_runs_no_network_and_writes_the_same_again(study, monkeypatch):
    evaluate("one-epoch")
    first = (RUN / "detections.json").read_bytes()
    monkeypatch.setattr(Predictor, "__call__", lambda *_: pytest.fail("the network was run"))
    evaluate("one-epoch")
    assert (RUN / "detections.json").read_bytes() == first
    steps = nms_sweep("one-epoch")["steps"]
    assert [step["nms_iou_threshold"] for step in steps] == [0.5, 0.6]
    assert steps[1]["metrics"] == read("metrics.json")  # 0.6 is the test threshold
    views = tta("one-epoch")["steps"]
    assert [step["views"] for step in views] == [["s48"], ["s48", "s64"], ["s48", "s64", "s96"]]
    seconds = [step["seconds"] for step in views]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_the_files_have_the_keys_that_their_types_say(study):
    evaluate("one-epoch")
    nms_sweep("one-epoch")
    tta("one-epoch")
    evaluation, manifest = read("evaluation.json"), json.loads(Path("data/smoke/manifest.json").read_text())
    found = [
        (read("train.json"), records.TrainSummary),
        (read("timing.json"), records.Timings),
        (read("timing_tta.json"), records.Timings),
        (read("timing.json")["views"]["test"], records.ViewTiming),
        (evaluation, records.Evaluation),
        (evaluation["intervals"]["AP"], records.Interval),
        (evaluation["per_class"][0], records.ClassNumbers),
        (evaluation["provenance"], records.Provenance),
        (read("train.json")["provenance"], records.Provenance),
        (read("tta.json"), records.Tta),
        (read("tta.json")["steps"][0], records.TtaStep),
        (read("nms_sweep.json"), records.NmsSweep),
        (read("nms_sweep.json")["steps"][0], records.NmsStep),
        (manifest, records.Manifest),
        (manifest["splits"]["test"], records.SplitCounts),
    ]
    for content, kind in found:
        keys = content.keys() - ({"format"} if kind is not records.Manifest else set())
        assert kind.__required_keys__ <= keys <= kind.__required_keys__ | kind.__optional_keys__, kind


def test_without_held_out_images_files_say_that_test_chose(study):
    sweep = nms_sweep("one-epoch")
    assert read("nms_sweep.json") == {"format": 1, **sweep}
    assert {"split", "steps", "chosen", "metrics", "test", "identity", "provenance"} <= sweep.keys()
    best = max(sweep["steps"], key=lambda step: step["metrics"]["AP"])
    assert (sweep["split"], sweep["chosen"], sweep["metrics"]) == ("test", best["nms_iou_threshold"], best["metrics"])
    found = tta("one-epoch")
    assert read("tta.json") == {"format": 1, **found}
    assert {"split", "steps", "chosen", "metrics", "test", "identity", "provenance"} <= found.keys()
    assert "validation_digest" not in sweep.keys() | found.keys()
    assert (found["split"], found["chosen"], found["metrics"]) == ("test", 3, found["steps"][2]["metrics"])  # all views
    for folder in ("candidates", "candidates_tta"):
        assert not list((RUN / folder).glob("validation*"))
    assert list(read("timing.json")["views"]) == ["test"]


@pytest.mark.parametrize(
    ("aps", "best"), [([0.1, 0.3, 0.3], 1), ([None, 0.0, 0.0], 1), ([None, None], 0), ([0.2, None], 0)]
)
def test_the_best_step_is_the_first_with_the_highest_ap(aps, best):
    steps = [{"number": number, "metrics": {"AP": ap}} for number, ap in enumerate(aps)]
    assert best_step(steps)["number"] == best


def test_held_out_images_are_predicted_beside_the_test_images(held_out):
    scored = ScoredRun.open("one-epoch")
    validation = scored.on_validation().split
    assert [len(validation.images), len(scored.split.images)] == [4, 8]
    views = ["s48", "s64", "s96"]
    for folder, names, sizes in (
        ("candidates", ["test"], [64]),
        ("candidates_tta", views, [48, 64, 96]),
    ):
        beside = ["validation"] if names == ["test"] else [f"validation-{name}" for name in names]
        assert sorted(path.stem for path in (RUN / folder).iterdir()) == sorted([*names, *beside])
        for split, stems in ((scored.split, names), (validation, beside)):
            for stem, size in zip(stems, sizes, strict=True):
                file = read_candidates(RUN / folder / f"{stem}.safetensors", hint="")
                assert list(file.of_image) == [image["id"] for image in split.images]
                assert (file.header["data_digest"], file.header["view"]["size"]) == (split.digest, size)
    timed = read("timing.json")["views"]
    assert {view: timing["num_images"] for view, timing in timed.items()} == {"test": 8, "validation": 4}
    timed = read("timing_tta.json")["views"]
    assert list(timed) == [*views, "validation-s48", "validation-s64", "validation-s96"]


def test_tta_of_held_out_images_is_predicted_only_to_be_chosen_on(held_out):
    held_out["tta"]["choose_on"] = None
    write_params(held_out)
    predict("one-epoch", "tta")
    assert not list((RUN / "candidates_tta").glob("validation*"))
    assert tta("one-epoch")["split"] == "test"


def say(scored, name, boxes_of):
    """Write candidates of `scored`'s split: `boxes_of(n)` gives (share of the width, score) for the n-th object."""
    path = RUN / f"{name}.safetensors"
    header = read_candidates(path, hint="").header
    assert header["data_digest"] == scored.split.digest
    number, of_image = 0, {}
    for image in scored.split.images:
        found = []
        for annotation in scored.split.annotations_of(image["id"]):
            x, y, w, h = annotation["bbox"]
            label = scored.split.label_of[annotation["category_id"]]
            found += [([x, y, x + w * part, y + h], score, label) for part, score in boxes_of(number)]
            number += 1
        boxes, scores, labels = zip(*found, strict=True) if found else ((), (), ())
        of_image[image["id"]] = Candidates(
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            np.array(scores, dtype=np.float32),
            np.array(labels, dtype=np.int64),
        )
    save_candidates(path, of_image, header)


def remember_nms(monkeypatch, module):
    """Record each call of NMS as (number of images, IoU threshold)."""
    looked_at = []

    def remember(of_image, *, nms_iou_threshold, max_detections):
        looked_at.append((len(of_image), nms_iou_threshold))
        return detect_all(of_image, nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)

    monkeypatch.setattr(f"fcos.commands.{module}.detect_all", remember)
    return looked_at


# An exact box, and one of 0.58 of its width: their IoU is 0.58, so NMS at 0.5 keeps the better scored one only.
EXACT, NARROW = 1.0, 0.58


def exact_first(number):
    """At 0.6, narrow boxes remain as false positives above the exact boxes of later objects, so 0.5 is better."""
    return [(EXACT, 0.99 * 0.97**number), (NARROW, 0.985 * 0.97**number)]


def narrow_first(number):
    """At 0.5, exact boxes are suppressed, and IoU 0.60 to 0.95 find nothing, so 0.6 is better."""
    return [(EXACT, 0.985 * 0.97**number), (NARROW, 0.99 * 0.97**number)]


def test_the_nms_threshold_is_chosen_on_held_out_images(held_out, monkeypatch):
    """On validation 0.6 is better, on test 0.5, so 0.6 is chosen and test is scored only there."""
    test = ScoredRun.open("one-epoch")
    validation = test.on_validation()
    say(test, "candidates/test", exact_first)
    say(validation, "candidates/validation", narrow_first)
    looked_at = remember_nms(monkeypatch, "nms_sweep")
    sweep = nms_sweep("one-epoch")
    assert looked_at == [(4, 0.5), (4, 0.6), (8, 0.6)]
    assert (sweep["split"], sweep["chosen"]) == ("validation", 0.6)
    assert sweep["validation_digest"] == validation.split.digest
    assert sweep["identity"] == read_candidates(RUN / "candidates" / "test.safetensors", hint="").header
    assert read("nms_sweep.json") == {"format": 1, **sweep}

    def independently(scored, name, threshold):
        file = read_candidates(RUN / "candidates" / f"{name}.safetensors", hint="")
        found = detect_all(file.of_image, nms_iou_threshold=threshold, max_detections=100)
        return coco_metrics(coco_results(found, scored.split), scored.split)["metrics"]

    for step in sweep["steps"]:
        assert step["metrics"] == independently(validation, "validation", step["nms_iou_threshold"])
    assert sweep["metrics"] == independently(test, "test", 0.6) == evaluate("one-epoch")["metrics"]
    at_half, at_chosen = (step["metrics"]["AP"] for step in sweep["steps"])
    assert at_chosen > at_half + 0.2
    assert independently(test, "test", 0.5)["AP"] > sweep["metrics"]["AP"] + 0.1
    held_out["nms_sweep"]["choose_on"] = "test"
    write_params(held_out)
    assert nms_sweep("one-epoch")["chosen"] == 0.5


def test_the_score_threshold_is_chosen_on_held_out_images(held_out):
    """On validation all boxes below 0.9 are wrong; on test all are right, so that a lower score would be better."""
    scored = ScoredRun.open("one-epoch")
    say(scored, "candidates/test", lambda number: [(EXACT, 0.95 if number % 2 else 0.5)])
    say(scored.on_validation(), "candidates/validation", lambda _: [(EXACT, 0.9), (0.3, 0.7)])
    point = evaluate("one-epoch")["operating_point"]
    assert (point["chosen_on"], point["score_threshold"]) == ("validation", pytest.approx(0.9))
    found = json.loads((RUN / "detections.json").read_text())
    Path("half.json").write_text(json.dumps(found[::2]))
    files, score = [str(RUN / "detections.json"), "half.json"], str(point["score_threshold"])
    settings = {"replicates": 1000, "confidence": 0.95, "seed": 0}
    content = compare(files, Path("data/smoke/test.json"), out=Path("out"), at_score=[score], **settings)
    for name in ("precision", "recall", "F1"):
        assert point[name] == pytest.approx(content["rows"][0]["operating_point"][name], abs=1e-12)
    assert point["precision"]["value"] == 1.0 and 0.3 < point["recall"]["value"] < 0.6
    held_out["data"]["validation_fraction"] = 0.0
    write_params(held_out)
    prepare()
    predict("one-epoch", "test")
    say(ScoredRun.open("one-epoch"), "candidates/test", lambda number: [(EXACT, 0.95 if number % 2 else 0.5)])
    on_test = evaluate("one-epoch")["operating_point"]
    assert (on_test["chosen_on"], on_test["score_threshold"], on_test["best_threshold"]) == ("test", 0.5, [0.5, 0.5])


def test_the_number_of_views_is_chosen_on_held_out_images(held_out, monkeypatch):
    """On validation, the first view is exact and the others are worse; on test, the second view corrects the first.

    Scores are 0.9 times the width on test and 0.5 over it on validation: exact boxes come first there, last here.
    """
    test = ScoredRun.open("one-epoch")
    validation = test.on_validation()
    for view, of_test, of_validation in (("s48", NARROW, EXACT), ("s64", EXACT, NARROW), ("s96", EXACT, NARROW)):
        of_test, of_validation = (of_test, 0.9 * of_test), (of_validation, 0.5 / of_validation)
        say(test, f"candidates_tta/{view}", lambda _, box=of_test: [box])
        say(validation, f"candidates_tta/validation-{view}", lambda _, box=of_validation: [box])
    looked_at = remember_nms(monkeypatch, "tta")
    found = tta("one-epoch")
    assert looked_at == [(4, 0.6), (4, 0.6), (4, 0.6), (8, 0.6)]  # three views on validation, one on test
    assert (found["split"], found["chosen"]) == ("validation", 1)
    assert found["validation_digest"] == validation.split.digest
    assert found["identity"] == read_candidates(RUN / "candidates_tta" / "s96.safetensors", hint="").header
    assert read("tta.json") == {"format": 1, **found}
    assert [step["views"] for step in found["steps"]] == [["s48"], ["s48", "s64"], ["s48", "s64", "s96"]]
    timed = read("timing_tta.json")["views"]
    assert found["steps"][0]["seconds"] == timed["validation-s48"]["seconds"]
    # Exact boxes find every object; narrow ones, of IoU 0.58, do at 2 of the 10 thresholds 0.50, 0.55, ... 0.95.
    assert found["steps"][0]["metrics"]["AP"] == pytest.approx(1)
    assert found["metrics"]["AP"] == pytest.approx(0.2)
    held_out["tta"]["choose_on"] = None
    write_params(held_out)
    assert tta("one-epoch")["metrics"]["AP"] == pytest.approx(1)


def test_choosing_on_held_out_images_that_are_not_there_says_what_to_do(study):
    study["nms_sweep"]["choose_on"] = study["tta"]["choose_on"] = "validation"
    write_params(study)  # while the prepared data have no validation split
    for command in (nms_sweep, tta, lambda name: predict(name, "tta")):
        with pytest.raises(UserError, match=r"validation.json: there are no validation images(.|\n)*fcos prepare"):
            command("one-epoch")
    study["data"]["validation_fraction"] = 0.25
    write_params(study)
    prepare()
    with pytest.raises(UserError, match=r"validation.safetensors: no such file(.|\n)*fcos predict one-epoch"):
        nms_sweep("one-epoch")
    with pytest.raises(UserError, match=r"validation-s48.safetensors: no such file(.|\n)*one-epoch --views tta"):
        tta("one-epoch")


def test_other_held_out_images_than_were_predicted_are_refused(held_out):
    held_out["data"]["validation_fraction"] = 0.5
    write_params(held_out)
    prepare()
    for command in (nms_sweep, evaluate):
        with pytest.raises(UserError, match=r"validation.safetensors: was computed with a different data_digest"):
            command("one-epoch")


def test_the_command_line_says_where_a_choice_was_made(held_out, monkeypatch, capsys):
    monkeypatch.setenv("DVC_STAGE", "nms_sweep@one-epoch")  # the report stage logs to MLflow
    for command, former, steps, chosen in (
        (
            "nms-sweep",
            "sweep-nms",
            r"validation, NMS IoU 0.5: AP \d+\.\d\n",
            r"chosen: NMS IoU 0\.[56], test AP \d+\.\d\n$",
        ),
        (
            "tta",
            "evaluate-tta",
            r"validation, 3 views: AP \d+\.\d, \d+\.\d s\n",
            r"chosen: \d views, test AP \d+\.\d\n$",
        ),
    ):
        for name in (command, former):
            monkeypatch.setattr("sys.argv", ["fcos", name, "one-epoch"])
            with pytest.raises(SystemExit, match="0"):
                main()
            out, err = capsys.readouterr()
            assert re.search(steps, out) and re.search(chosen, out), out
            assert (f"hint: `fcos {former}` is now `fcos {command}`" in err) == (name == former)


def test_candidates_do_not_depend_on_batches_or_workers(study):
    scored = ScoredRun.open("one-epoch")
    path = RUN / "model.safetensors"
    results = []
    for batch_size, workers in ((1, 0), (3, 2), (8, 1)):
        predictor = Predictor(
            model=load_model(scored.run, read_identity(path, hint=""), path), grid=build_grid(scored.run.model),
            device=torch.device("cpu"), dtype=torch.float32, score_threshold=0.001, max_candidates=100,
        )  # fmt: skip
        found, timing = predict_split(
            predictor, DetectionDataset(scored.split), shorter=64, longest=96, batch_size=batch_size, workers=workers,
            description="",
        )  # fmt: skip
        assert timing.num_images == len(found) == 8
        results.append(found)
    for found in results[1:]:
        for image_id, expected in results[0].items():
            assert len(found[image_id]) == len(expected)
            np.testing.assert_allclose(found[image_id].scores, expected.scores, rtol=0, atol=1e-5)


def test_a_view_that_was_not_predicted_says_what_to_type(study):
    shutil.rmtree(RUN / "candidates_tta")
    with pytest.raises(UserError, match="fcos predict one-epoch --views tta"):
        tta("one-epoch")
    shutil.rmtree(RUN / "candidates")
    with pytest.raises(UserError, match="scoring does not run the network"):
        nms_sweep("one-epoch")


def damage_candidates(path, change):
    """Change the tensors of a file of candidates, as a bad copy or a user's script would."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def put(name, index, value):
    """Return a change of one entry of a tensor."""
    return lambda tensors: tensors[name].__setitem__(index, value)


def as_rows(tensors):
    tensors["boxes"] = tensors["boxes"].reshape(-1)


def without_the_last_image(tensors):
    last = tensors["ends"][-2]
    tensors.update(image_ids=tensors["image_ids"][:-1], ends=tensors["ends"][:-1])
    tensors.update({name: tensors[name][:last] for name in ("boxes", "scores", "labels")})


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            put("image_ids", 0, 991),
            ["its images are not the split's", "image ids 991: 1 too many; 1 of 8 missing: "],
        ),
        (lambda tensors: put("image_ids", 1, tensors["image_ids"][0])(tensors), ["names an image twice"]),
        (without_the_last_image, ["its images are not the split's", "1 of 8 missing"]),
        (put("labels", 3, 3), ["has a class that the data do not have", "label 3", "0 to 2"]),
        (put("labels", 3, -1), ["has a class that the data do not have", "label -1"]),
        (put("ends", -1, 10**6), ["is not a whole candidates file", "ends"]),
        (put("ends", 0, -4), ["is not a whole candidates file", "ends"]),
        (put("scores", 0, np.nan), ["is not a whole candidates file", "scores", "not finite"]),
        (put("boxes", (0, 2), np.inf), ["is not a whole candidates file", "boxes", "not finite"]),
        (as_rows, ["is not a whole candidates file", "boxes"]),
        (lambda tensors: tensors.pop("labels"), ["is not a whole candidates file", "labels"]),
    ],
)
def test_candidates_that_do_not_fit_the_split_or_themselves_are_refused(study, run, change, parts):
    commands = {
        RUN / "candidates" / "test.safetensors": (["evaluate", "nms-sweep"], "fcos predict one-epoch"),
        RUN / "candidates_tta" / "s64.safetensors": (["tta"], "fcos predict one-epoch --views tta"),
    }
    for path, (names, hint) in commands.items():
        damage_candidates(path, change)
        for name in names:
            assert_mistake(run(name, "one-epoch"), f"error: {path}: ", *parts, f"hint:     {hint}")


def test_another_score_threshold_than_was_predicted_with_is_refused(study):
    study["test"]["score_threshold"] = 0.5
    write_params(study)
    with pytest.raises(UserError, match=r"different test.score_threshold(.|\n)*found: +0.001\n +expected: +0.5"):
        evaluate("one-epoch")


def test_another_nms_threshold_needs_no_prediction(study):
    study["test"]["nms_iou_threshold"] = 0.3
    write_params(study)
    evaluate("one-epoch")
    assert read("evaluation.json")["test"]["nms_iou_threshold"] == 0.3


def test_weights_of_another_network_than_the_run_names_are_refused(study):
    """The study's mistake: a run called resnet101 that was configured, and trained, as resnet50."""
    study["runs"]["one-epoch"]["backbone"] = "resnet34"
    write_params(study)
    with pytest.raises(UserError, match=r"a backbone that differs(.|\n)*found: +resnet18\n +expected: +resnet34"):
        predict("one-epoch", "test")
    with pytest.raises(UserError, match=r"different run.backbone"):
        evaluate("one-epoch")


def test_other_weights_than_were_predicted_with_are_refused(study):
    train("reference", Watcher())
    shutil.copy("runs/smoke/reference/model.safetensors", RUN / "model.safetensors")
    with pytest.raises(UserError, match="different weights_sha256"):
        evaluate("one-epoch")


def test_other_test_images_than_were_predicted_are_refused(study):
    study["data"]["seed"] = 1
    write_params(study)
    prepare()
    with pytest.raises(UserError, match="different data_digest"):
        evaluate("one-epoch")


def test_a_checkpoint_of_another_number_of_classes_names_both_lists(study):
    path = Path("data/smoke/test.json")
    content = json.loads(path.read_text())
    content["categories"] = content["categories"][:2]
    content["annotations"] = [of for of in content["annotations"] if of["category_id"] < 3]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        predict("one-epoch", "test")
    assert "3 classes: 1 circle, 2 square, 3 triangle" in str(raised.value)
    assert "2 classes: 1 circle, 2 square" in str(raised.value)


def test_a_truncated_image_is_named_when_it_is_decoded(study):
    path = next(Path("data/smoke/images/test").glob("*.png"))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match=rf"{path.name}: cannot be decoded"):
        predict("one-epoch", "test")
    assert (RUN / "candidates" / "test.safetensors").exists()  # the previous file is kept


def test_an_exported_checkpoint_imports_to_the_same_weights(study, tmp_path):
    from safetensors.torch import load_file

    weights = load_file(RUN / "model.safetensors")
    exported = tmp_path / "fcos.pth"
    torch.save(to_torchvision(weights), exported)
    import_checkpoint(exported, "reference")
    imported = load_file("runs/smoke/reference/model.safetensors")
    assert imported.keys() == weights.keys()
    assert all(torch.equal(imported[name], weights[name]) for name in weights)
    summary = json.loads(Path("runs/smoke/reference/train.json").read_text())
    assert summary["imported_from"] == "fcos.pth"
    predict("reference", "test")  # a run like any other


def test_a_published_checkpoint_with_one_output_per_coco_id_is_cut_to_the_classes(study, tmp_path):
    from safetensors.torch import load_file

    state = to_torchvision(load_file(RUN / "model.safetensors"))
    for part in ("weight", "bias"):
        name = f"head.classification_head.cls_logits.{part}"
        state[name] = torch.cat((torch.full_like(state[name][:1], 9.0), state[name]))  # id 0 is background
    torch.save(state, tmp_path / "published.pth")
    import_checkpoint(tmp_path / "published.pth", "reference")
    kept = load_file("runs/smoke/reference/model.safetensors")["head.class_logits.weight"]
    assert torch.equal(kept, load_file(RUN / "model.safetensors")["head.class_logits.weight"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: {**state, "head.classification_head.cls_logits.bias": torch.zeros(7)}, "7 class outputs"),
        (lambda state: {**state, "head.classification_head.cls_logits.bias": torch.tensor(7.0)}, "1 class outputs"),
        (lambda state: {**state, "head.classification_head.cls_logits.weight": torch.zeros(1)}, "does not fit run"),
        (lambda state: {k: v for k, v in state.items() if "p7" not in k}, "does not fit run reference"),
        (lambda _: {"model.0.weight": torch.zeros(1)}, "is not a torchvision FCOS state dict"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(study, tmp_path, change, problem):
    from safetensors.torch import load_file

    torch.save(change(to_torchvision(load_file(RUN / "model.safetensors"))), tmp_path / "other.pth")
    with pytest.raises(UserError, match=problem):
        import_checkpoint(tmp_path / "other.pth", "reference")
    assert not Path("runs/smoke/reference/model.safetensors").exists()


def test_a_run_with_a_checkpoint_is_imported_by_train(study, tmp_path):
    from safetensors.torch import load_file

    torch.save(to_torchvision(load_file(RUN / "model.safetensors")), "given.pth")
    study["runs"]["reference"] = {"backbone": "resnet18", "num_convs": 1, "checkpoint": "given.pth"}
    study["runs"]["reference"]["role"] = "reference"
    write_params(study)
    train("reference", Watcher())
    assert json.loads(Path("runs/smoke/reference/train.json").read_text())["imported_from"] == "given.pth"


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_detect_draws_boxes_and_writes_records(study, tmp_path, monkeypatch):
    images = tmp_path / "photos"
    (images / "more").mkdir(parents=True)
    shutil.copy("data/smoke/images/test/000017.png", images / "a.png")
    Image.fromarray(np.full((40, 90), 127, np.uint8)).save(images / "more" / "grey.jpg")
    found = detect([images], "one-epoch", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0001-a.png",
        "0002-grey.png",
        "detections.json",
    ]
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == found
    assert pixels_of(tmp_path / "out" / "0002-grey.png").shape == (40, 90, 3)
    of_a = [record for record in found if record["image_id"] == 1]
    assert of_a and {record["category"] for record in of_a} <= {"circle", "square", "triangle"}
    assert (pixels_of(tmp_path / "out" / "0001-a.png") != pixels_of(images / "a.png")).any()
    # A weights file describes its network, so it needs no params.yaml.
    weights = (RUN / "model.safetensors").resolve()
    monkeypatch.chdir(tmp_path)
    assert detect([images / "a.png"], str(weights), tmp_path / "alone") is not None


def test_detect_refuses_what_is_not_there(study, tmp_path):
    with pytest.raises(UserError, match="no such image or folder"):
        detect([tmp_path / "none.png"], "one-epoch", tmp_path)
    with pytest.raises(UserError, match="no run and no file called 'resnet19'"):
        detect([Path("data/smoke/images/test")], "resnet19", tmp_path)
