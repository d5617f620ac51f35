"""`fcos detect`: the images and their order, the outputs, and the effect of an unreadable image."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from data_helpers import save_image
from model_helpers import RUN, make_study
from PIL import Image

from fcos.cli import main
from fcos.commands.detect import detect, find_images
from fcos.data.images import reduced
from fcos.errors import UserError
from fcos.evaluation import predictor
from fcos.inference.detector import Detector
from fcos.inference.drawing import draw_boxes
from fcos.palette import COLOURS


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study")) / "runs" / "smoke" / RUN / "model.safetensors"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Use an empty current folder, since a weights file needs no study."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths):
    return [str(path) for path in paths]


def written(folder):
    return json.loads((Path(folder) / "detections.json").read_text())


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fcos", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_frames_come_in_the_order_of_their_numbers(here, weights):
    for number in (10, 2, 1):
        save_image(Path("video") / f"frame{number}.png")
    save_image(Path("video/part2/frame1.png"))
    save_image(Path("video/._frame3.png"))
    Path("video/notes.txt").write_text("no image")
    frames = ["video/frame1.png", "video/frame2.png", "video/frame10.png", "video/part2/frame1.png"]
    assert names(find_images([Path("video")])) == frames
    found = detect([Path("video")], str(weights), Path("out"), score=0.3)
    assert {record["image_id"]: record["file_name"] for record in found} == dict(enumerate(frames, start=1))
    drawn = [f"{number:04d}-{Path(frame).name}" for number, frame in enumerate(frames, start=1)]
    assert sorted(path.name for path in Path("out").glob("*.png")) == drawn


def test_patterns_are_followed_and_no_image_is_taken_twice(here):
    for name in ("a/1.png", "a/b/2.png", "a/3.jpg"):
        save_image(Path(name))
    assert names(find_images([Path("a/*.png")])) == ["a/1.png"]
    assert names(find_images([Path("a/**/*.png")])) == ["a/1.png", "a/b/2.png"]
    assert names(find_images([here / "a" / "*.jpg"])) == [str(here / "a" / "3.jpg")]
    assert names(find_images([Path("a/3.jpg"), Path("a"), Path("a/*")])) == ["a/3.jpg", "a/1.png", "a/b/2.png"]
    save_image(Path("odd[1].png"))  # a file name that looks like a pattern is taken literally first
    assert names(find_images([Path("odd[1].png")])) == ["odd[1].png"]
    with pytest.raises(UserError, match=r"nothing/\*\.png: no such image or folder"):
        find_images([Path("nothing/*.png")])


def test_images_of_one_name_stay_apart(here, weights):
    save_image(Path("a/same.png"), width=60)
    save_image(Path("b/same.jpg"), width=90)
    found = detect([Path("a"), Path("b")], str(weights), Path("out"))
    widths = []
    for name in ("0001-same.png", "0002-same.png"):
        with Image.open(Path("out") / name) as drawn:
            widths.append(drawn.width)
    assert widths == [60, 90]
    assert {record["file_name"] for record in found} == {"a/same.png", "b/same.jpg"}


def test_a_broken_image_costs_only_itself(here, weights, monkeypatch, capsys):
    for name in "abc":
        save_image(Path("photos") / f"{name}.png")
    Path("photos/b.png").write_bytes(Path("photos/b.png").read_bytes()[:200])
    assert call(monkeypatch, "detect", "photos", "--checkpoint", weights, "--out", "out") == 2
    said = capsys.readouterr().err
    assert "1 of 3 images cannot be read; the others are done, see out/" in said and "photos/b.png: cannot be" in said
    assert sorted(path.name for path in Path("out").iterdir()) == ["0001-a.png", "0003-c.png", "detections.json"]
    found = {(record["image_id"], record["file_name"]) for record in written("out")}
    assert found == {(1, "photos/a.png"), (3, "photos/c.png")}  # c keeps its number although b is missing
    with pytest.raises(UserError, match=r"1 of 1 images cannot be read\n"):
        detect([Path("photos/b.png")], str(weights), Path("alone"))
    assert written("alone") == []


def test_an_interrupt_keeps_what_is_done(here, weights, monkeypatch):
    for name in "abc":
        save_image(Path("photos") / f"{name}.png")
    whole = detect([Path("photos")], str(weights), Path("whole"))
    run = Detector.__call__

    def run_twice(self, images):
        if Path("out/0002-b.png").exists():
            raise KeyboardInterrupt
        return run(self, images)

    monkeypatch.setattr(Detector, "__call__", run_twice)
    with pytest.raises(KeyboardInterrupt):
        detect([Path("photos")], str(weights), Path("out"))
    assert written("out") == [record for record in whole if record["image_id"] < 3] != []


def test_score_and_nms_decide_what_is_drawn_and_written(here, weights):
    image = [save_image(Path("a.png"))]
    everything = detect(image, str(weights), Path("all"), score=0.2, nms=0.5)
    best = detect(image, str(weights), Path("best"), score=0.5, nms=0.5)
    # A box with a lower score never suppresses one with a higher score.
    assert best == [record for record in everything if record["score"] > 0.5] and 0 < len(best) < len(everything)
    assert written("best") == best
    counts = [len(detect(image, str(weights), Path("x"), score=0.5, nms=nms)) for nms in (0.0, 0.3, 0.6)]
    assert counts == sorted(counts) and counts[0] < counts[2]


def test_boxes_of_a_reduced_image_are_in_its_own_pixels(weights):
    """An image four times as large as the network's input has its quarter's detections, four times as large."""
    detector = Detector.from_weights(weights)
    side = 4 * detector.test.size
    large = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    (of_large,), (of_small,) = detector([large]), detector([reduced(large, 4)])
    assert len(of_large) > 5
    assert [record["score"] for record in of_large] == [record["score"] for record in of_small]
    scaled = [[4 * number for number in record["bbox"]] for record in of_small]
    assert np.allclose([record["bbox"] for record in of_large], scaled, atol=1e-3)


def test_nms_on_the_device_finds_the_same_objects(weights, monkeypatch):
    """Candidates, of which there are many, are then not copied to the host."""
    test = Detector.from_weights(weights).test.model_copy(update={"score_threshold": 0.05})
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    on_device = Detector.from_weights(weights, test.model_copy(update={"nms_on_device": True}))
    expected = Detector.from_weights(weights, test)([image])
    monkeypatch.setattr(predictor, "candidates_of", None)
    assert on_device([image]) == expected and len(expected[0]) > 20


@pytest.mark.parametrize("option", ["--no-images", "--no-pictures"])
def test_images_need_not_be_drawn(here, weights, monkeypatch, capsys, option):
    """The former name of the option works, with a hint."""
    save_image(Path("a.png"))
    assert not call(monkeypatch, "detect", "a.png", "--checkpoint", weights, option, "--score", "0.4")
    assert [path.name for path in Path("detections").iterdir()] == ["detections.json"]
    found = written("detections")
    assert found and min(record["score"] for record in found) > 0.4
    said = capsys.readouterr()
    assert f"{len(found)} objects with a score of 0.4 or more; see detections/" in said.out
    assert ("--pictures is now --images" in said.err) == (option == "--no-pictures")


def test_images_of_ones_own_are_neither_overwritten_nor_found_in_the_output(here, weights):
    original = save_image(Path("photos/a.png")).read_bytes()
    with pytest.raises(UserError, match="an input image would be overwritten"):
        detect([Path("photos")], str(weights), Path("photos"))
    assert Path("photos/a.png").read_bytes() == original
    for _ in range(2):
        detect([Path("photos")], str(weights), Path("photos/found"))
    assert sorted(path.name for path in Path("photos/found").iterdir()) == ["a.png", "detections.json"]


@pytest.mark.parametrize(("longer", "line", "letter"), [(300, 2, 12), (1200, 3, 16), (4000, 10, 53)])
def test_lines_and_letters_grow_with_the_image(longer, line, letter):
    height = longer // 2
    box = [longer / 4, height / 2, longer / 2, height / 4]
    record = {"bbox": box, "category_id": 1, "category": "dog", "score": 0.5}
    drawn = np.asarray(draw_boxes(np.full((height, longer, 3), 90, np.uint8), [record]))
    color = tuple(int(COLOURS[1][i : i + 2], 16) for i in (1, 3, 5))
    filled = (drawn == color).all(axis=2)
    # In the middle of the lower edge there is only the line, above the corner only the label.
    assert filled[height // 2 + height // 8 :, longer // 2].sum() == line
    label = filled[: height // 2, int(box[0])].sum()
    assert letter <= label <= 2 * letter


@pytest.mark.parametrize("corner", [(0, 0), (280, 0), (0, 180), (280, 180)])
def test_a_label_is_whole_wherever_its_box_is(corner):
    grey = np.full((200, 300, 3), 90, np.uint8)
    record = {"bbox": [*corner, 20, 20], "category_id": 1, "category": "triangle", "score": 0.5}
    at_corner = np.asarray(draw_boxes(grey, [record]))
    in_the_middle = np.asarray(draw_boxes(grey, [{**record, "bbox": [100, 100, 20, 20]}]))
    letters = [(image.sum(axis=2) < 200).sum() for image in (at_corner, in_the_middle)]
    assert letters[0] == letters[1] > 20
