"""The contact sheets that `fcos study new` writes."""

from pathlib import Path

import numpy as np
import pytest
from data_helpers import YOLO_CAT, YOLO_DOG, prepare_as_found, small_yolo, write
from PIL import Image

from fcos.authoring.contact_sheet import COLUMNS, ROWS, TILE, _chosen, _remarks, write_contact_sheets
from fcos.authoring.new import study_new
from fcos.data.coco import read_split
from fcos.inference.drawing import CAPTION, COLOURS


@pytest.fixture
def prepared(tmp_path):
    """Return splits and manifest; of 32 training images, one has a dropped box (k), and one is grey."""
    images = {f"i{number:02d}": [YOLO_DOG] for number in range(30)}
    root = small_yolo(tmp_path / "yolo", **images, k=[YOLO_CAT, "0 0.5 0.5 0 0.1"], grey=[YOLO_CAT])
    write(root / "classes.txt", "cat\ndog\n")
    image = Image.open(root / "images/train/grey.jpg").convert("L")
    image.save(root / "images/train/grey.jpg")
    manifest = prepare_as_found(root, tmp_path / "prepared")
    return {split: read_split(tmp_path / "prepared", split) for split in ("train", "test")}, manifest


def test_odd_images_come_first_and_the_others_are_spread_over_the_split(prepared):
    splits, manifest = prepared
    names = [image["file_name"] for image in _chosen(splits["train"], _remarks(manifest, "train"), 8)]
    assert sorted(names[:2]) == ["grey.jpg", "k.jpg"] and len(set(names)) == 8
    assert names[2] == "a.jpg" and names[-1] > "i20"


def test_a_sheet_of_each_split_shows_the_boxes(prepared, tmp_path):
    files = write_contact_sheets(*prepared, tmp_path / "sheets")
    assert [file.name for file in files] == ["train.png", "test.png"]
    train, test = (np.array(Image.open(file)) for file in files)
    assert train.shape == (ROWS * (TILE + CAPTION), COLUMNS * TILE, 3)
    assert test.shape == (TILE + CAPTION, COLUMNS * TILE, 3)
    # The single test image, 60 x 40, is shown 312 x 208 in the middle of its tile; `1 0.5 0.5 1 1` of class dog (2) is
    # all of it, and the left side of its box is drawn in the third colour.
    left, middle = (TILE - 312) // 2, CAPTION + TILE // 2
    colour = [int(COLOURS[2][digit : digit + 2], 16) for digit in (1, 3, 5)]
    assert test[middle, left].tolist() == colour


def test_an_image_that_cannot_be_decoded_is_named_on_the_sheet(prepared, tmp_path):
    """Header and end of the file are intact, so only decoding finds the damage."""
    splits, manifest = prepared
    path = splits["test"].path_of(splits["test"].images[0])
    path.write_bytes(path.read_bytes()[:200] + b"\xff\xd9")
    _, test = write_contact_sheets(splits, manifest, tmp_path / "sheets")
    assert np.array(Image.open(test))[CAPTION + TILE // 2, TILE // 2].tolist() == [128, 128, 128]


def test_a_new_study_leaves_its_sheets_beside_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr("fcos.authoring.trial.why_no_weights", lambda: None)
    monkeypatch.setattr("fcos.authoring.trial.try_runs", lambda *_: (100, [0.1, 0.2]))
    write(small_yolo(tmp_path / "yolo") / "classes.txt", "cat\ndog\n")
    said = study_new("pets", Path("yolo"))
    assert "data/contact_sheets/pets/" in said
    assert sorted(path.name for path in Path("data/contact_sheets/pets").iterdir()) == ["test.png", "train.png"]
