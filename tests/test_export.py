"""`fcos export`: the file gives the same boxes in its own runtime and has metadata, or it is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from data_helpers import pixels
from model_helpers import RUN, loud, make_study

import fcos.commands.export as exporting
from fcos.cli import main
from fcos.commands.export import as_input, check_images, compare, export
from fcos.data.images import reduced, reduction
from fcos.detections import Detections
from fcos.errors import UserError
from fcos.files import sha256_file
from fcos.inference.detector import Detector, Weights
from fcos.inference.exportable import load_torchscript


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")


def run_onnx(path, image):
    return onnxruntime.InferenceSession(path).run(["boxes", "scores", "labels"], {"image": as_input(image)})


def run_torchscript(path, image):
    return [output.numpy() for output in load_torchscript(path)(torch.from_numpy(as_input(image)))]


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fcos", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "name", "run"), [("onnx", "x.onnx", run_onnx), ("torchscript", "x.pt", run_torchscript)]
)
def test_the_file_finds_the_same_boxes_in_images_of_any_shape(study, format, name, run):
    written, check = export(RUN, format, Path("out") / name, score=0.3, nms=0.5)
    assert check.passed and check.boxes > 100 and check.images == 10
    ours = Detector(Weights.find(RUN).with_test(score_threshold=0.3, nms_iou_threshold=0.5, precision="float32"))
    # From a level of the pyramid with a single row to larger ones; the last is resized down to one row of 2 pixels.
    for width, height in ((64, 64), (200, 130), (33, 96), (640, 480), (400, 5)):
        image = pixels("any", width=width, height=height)
        # Images of at least twice the network's resolution are reduced before the exported graph.
        image = reduced(image, reduction((height, width), ours.test.size, ours.test.max_size))
        expected = ours.detect(ours.candidates(image))
        boxes, scores, labels = run(written, image)
        assert len(expected) > 0
        assert np.abs(boxes - expected.boxes).max() < 0.01 and np.abs(scores - expected.scores).max() < 1e-4
        assert labels.tolist() == expected.labels.tolist()


def test_a_image_without_objects_has_no_boxes(study):
    weights = Weights.find(RUN)
    ours = Detector(weights.with_test(precision="float32"))
    best = {float(ours.candidates(image).scores.max()): image for image in check_images(weights)}
    written, check = export(RUN, "onnx", score=max(best) - 1e-3)
    boxes, scores, labels = run_onnx(written, best[min(best)])
    assert check.boxes > 0
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


def test_the_file_says_what_it_is(study, monkeypatch, capsys):
    assert call(monkeypatch, "export", RUN) == 0
    said = capsys.readouterr().out
    assert "coordinates differ by at most" in said and f"wrote {RUN}.onnx" in said
    model = onnx.load(f"{RUN}.onnx")
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["classes"]) == ["circle", "square", "triangle"]
    assert json.loads(found["category_ids"]) == [1, 2, 3]
    assert (found["study"], found["run"]) == ("smoke", RUN)
    assert found["weights_sha256"] == sha256_file(Path(f"runs/smoke/{RUN}/model.safetensors"))
    assert json.loads(found["normalisation"])["mean"] == [0.485, 0.456, 0.406]
    assert json.loads(found["test"])["size"] == 64
    sizes = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [1, 3, "height", "width"]
    export(RUN, "torchscript")
    extra = {"classes": ""}
    with pytest.warns(FutureWarning, match=r"torch\.jit\.load"):
        torch.jit.load(f"{RUN}.pt", _extra_files=extra)
    assert json.loads(extra["classes"]) == ["circle", "square", "triangle"]


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_file_that_finds_other_boxes_is_refused(study, monkeypatch, capsys, format):
    make = exporting._exportable

    def other_weights(weights):
        module = make(weights)
        loud(module.model.head, seed=99)
        return module

    monkeypatch.setattr(exporting, "_exportable", other_weights)
    Path("out").mkdir()
    Path("out/x").write_text("an earlier file")
    assert call(monkeypatch, "export", RUN, "--format", format, "--out", "out/x") == 1
    assert "out/x was not written: its boxes differ from PyTorch's" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["x"] and Path("out/x").read_text() == "an earlier file"


def test_without_the_packages_it_says_how_to_get_them(study, monkeypatch):
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "a_runtime_that_is_not_there"))
    with pytest.raises(UserError, match=r"no a_runtime_that_is_not_there(.|\n)*pip install '\.\[export\]'"):
        export(RUN, "onnx")
    assert export(RUN, "torchscript")[0].exists()  # needs no additional package


def test_a_check_of_nothing_is_none(study):
    with pytest.raises(UserError, match="detects nothing in the check images"):
        export(RUN, "torchscript", score=1.0)
    assert not Path(f"{RUN}.pt").exists()


def test_it_is_checked_on_test_images_where_they_are_there(study, monkeypatch):
    weights = Weights.find(RUN)
    shapes = [image.shape[:2] for image in check_images(weights)]
    assert shapes == [(64, 64)] * 8 + [(32, 64), (64, 22)]
    file = str(weights.path.resolve())
    monkeypatch.chdir("/")
    drawn = [image.shape[:2] for image in check_images(Weights.find(file))]
    assert drawn == [(64, 85)] * 8 + [(32, 85), (64, 29)]


def found(*rows):
    """Return detections from rows of (x, score, label): squares of 10 pixels."""
    boxes = np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64)
    )


OURS = ((0, 0.9, 0), (50, 0.8, 1), (100, 0.3, 0))


@pytest.mark.parametrize(
    ("theirs", "passed"),
    [
        (OURS, True),
        (((50, 0.8, 1), (0, 0.9, 0), (100, 0.3, 0)), True),  # in another order
        (((0.05, 0.90005, 0), *OURS[1:]), True),
        (((0.2, 0.9, 0), *OURS[1:]), False),  # 0.2 pixels away
        (((0, 0.9005, 0), *OURS[1:]), False),
        (((0, 0.9, 1), *OURS[1:]), False),  # another class
        (OURS[1:], False),
        ((*OURS, (200, 0.5, 1)), False),
        ((*OURS, (200, 0.20005, 1)), True),  # at the lowest score, where rounding decides
    ],
)
def test_what_counts_as_the_same_boxes(theirs, passed):
    assert compare(found(*OURS), found(*theirs), lowest=0.2, most=100).passed is passed


def test_the_last_of_as_many_as_may_be_is_a_matter_of_rounding():
    ours, theirs = found((0, 0.9, 0), (50, 0.3, 0)), found((0, 0.9, 0), (90, 0.30002, 1))
    assert compare(ours, theirs, lowest=0.1, most=2).passed
    assert not compare(ours, theirs, lowest=0.1, most=3).passed
