"""The source of a study: a real DVC notices its changes, and the prepared data can be moved."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from data_helpers import save_image, small_coco, small_voc, small_yolo
from project_helpers import (
    address,
    call,
    changed_stages,
    copy_project,
    fcos,
    repro,
    set_params,
    small_study,
)
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fcos.commands.source import source
from fcos.errors import UserError

pytestmark = pytest.mark.usefixtures("quick")
VOC = {"source": "voc", "validation_fraction": 0.0, "cache": "auto"}
COCO = {**VOC, "source": "coco"}
YOLO = {**VOC, "source": "yolo", "classes": ["cat", "dog"]}
TRAIN_JSON = Path("data/pets/train.json")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_voc(root: Path) -> None:
    replace(root / "Annotations/000001.xml", "<xmax>40</xmax>", "<xmax>44</xmax>")


def add_voc(root: Path) -> None:
    save_image(root / "JPEGImages/000007.jpg")
    shutil.copy(root / "Annotations/000002.xml", root / "Annotations/000007.xml")
    replace(root / "ImageSets/Main/trainval.txt", "000001\n", "000001\n000007\n")


def remove_voc(root: Path) -> None:
    (root / "JPEGImages/000007.jpg").unlink()
    (root / "Annotations/000007.xml").unlink()
    replace(root / "ImageSets/Main/trainval.txt", "000007\n", "")


def edit_coco(root: Path) -> None:
    replace(root / "annotations/instances_train2017.json", "[10, 5, 30, 25]", "[10, 5, 34, 25]")


def add_coco(root: Path) -> None:
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 7, "file_name": "7.jpg"})
    path.write_text(json.dumps(content))
    save_image(root / "train2017/7.jpg")


def remove_coco(root: Path) -> None:
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"].pop()
    path.write_text(json.dumps(content))
    (root / "train2017/7.jpg").unlink()


def edit_yolo(root: Path) -> None:
    replace(root / "labels/train/a.txt", "0.5 0.625", "0.55 0.625")


def add_yolo(root: Path) -> None:
    save_image(root / "images/train/z.jpg")
    shutil.copy(root / "labels/train/b.txt", root / "labels/train/z.txt")


def remove_yolo(root: Path) -> None:
    (root / "images/train/z.jpg").unlink()
    (root / "labels/train/z.txt").unlink()


LAYOUTS: dict[str, Any] = {
    "voc": (VOC, small_voc, edit_voc, add_voc, remove_voc, "JPEGImages/000002.jpg"),
    "coco": (COCO, small_coco, edit_coco, add_coco, remove_coco, "train2017/000000000002.jpg"),
    "yolo": (YOLO, small_yolo, edit_yolo, add_yolo, remove_yolo, "images/train/b.jpg"),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_change_of_the_data_is_seen(tmp_path, layout):
    """DVC notices a corrected label and an added, removed or replaced image; `touch` changes nothing."""
    data, make, edit, add, remove, path_of_image = LAYOUTS[layout]
    root = make(tmp_path / "elsewhere")
    project = copy_project(tmp_path / "project", small_study(**data, root=str(root)))
    prepare, both = address("prepare"), ["prepare", "source"]
    assert repro(project, prepare) == both

    def prepared():
        content = json.loads((project / TRAIN_JSON).read_text())
        return [box["bbox"] for box in content["annotations"]], [image["sha256"] for image in content["images"]]

    first = prepared()
    for path in root.rglob("*"):
        path.touch()
    assert not {"prepare", "source"} & changed_stages(project) and repro(project, prepare) == []
    edit(root)
    assert {"prepare", "source"} <= changed_stages(project)
    assert repro(project, prepare) == both
    edited = prepared()
    assert edited[1] == first[1]
    assert sum(now != before for now, before in zip(edited[0], first[0], strict=True)) == 1
    add(root)
    assert {"prepare", "source"} <= changed_stages(project) and repro(project, prepare) == both
    assert len(prepared()[1]) == 3
    remove(root)
    assert {"prepare", "source"} <= changed_stages(project)
    # Its outputs may come from the cache, and equal the first ones.
    assert "source" in repro(project, prepare) and prepared() == edited
    save_image(root / path_of_image, name="another")
    assert {"prepare", "source"} <= changed_stages(project) and repro(project, prepare) == both
    assert prepared()[0] == edited[0] and prepared()[1] != edited[1]
    assert repro(project, prepare) == []


@pytest.mark.slow
def test_a_corrected_label_trains_again_where_it_is_trained_on_and_nowhere_else(tmp_path):
    root = small_yolo(tmp_path / "elsewhere")
    project = copy_project(tmp_path / "project", small_study(**YOLO, root=str(root)))
    train = address("train", "one-epoch")
    assert repro(project, train) == ["prepare", "source", "train@one-epoch"]
    replace(root / "labels/val/c.txt", "0.5 0.625", "0.55 0.625")
    shown = fcos(project, "status")
    assert "source: out of date: 1 file changed, 0 new, 0 gone (labels-test/c.txt)" in shown
    assert repro(project, train) == ["prepare", "source"]
    replace(root / "labels/train/a.txt", "0.5 0.625", "0.55 0.625")
    (root / "images/train/b.jpg").unlink()
    (root / "labels/train/b.txt").unlink()
    save_image(root / "images/train/n.jpg")
    output = fcos(project, "source")
    assert "1 file changed, 1 new, 2 gone (labels/a.txt, images/n.jpg, images/b.jpg, and 1 more)" in output
    assert "recorded in DVC: source is done" in output
    assert repro(project, train) == ["prepare", "train@one-epoch"]


@pytest.mark.slow
def test_a_corrected_held_out_label_trains_again_where_it_picks_the_weights(tmp_path):
    root = small_yolo(tmp_path / "elsewhere")
    for part in ("images", "labels"):
        shutil.copytree(root / part / "val", root / part / "held")
    params = small_study(**YOLO, root=str(root), validation_images="images/held", validation_labels="labels/held")
    save_image(root / "images/held/c.jpg", name="held")  # differs from the image in test
    params["train"]["validate_every"] = 1
    params["runs"]["picked"] = {**params["runs"]["one-epoch"], "train": {"keep": "best"}}
    project = copy_project(tmp_path / "project", params)
    trains = [address("train", run) for run in ("one-epoch", "picked")]
    assert repro(project, *trains) == ["prepare", "source", "train@one-epoch", "train@picked"]
    assert repro(project, *trains) == []
    replace(root / "labels/held/c.txt", "0.5 0.625", "0.55 0.625")
    assert repro(project, *trains) == ["prepare", "source", "train@picked"]
    params["test"]["nms_iou_threshold"] = 0.4  # the selection depends on it
    set_params(project, params)
    assert repro(project, *trains) == ["source", "train@picked"]


@pytest.mark.slow
def test_data_prepared_by_hand_are_not_replaced_by_those_of_before(tmp_path):
    root = small_voc(tmp_path / "elsewhere")
    project = copy_project(tmp_path / "project", small_study(**VOC, root=str(root)))
    repro(project, address("prepare"))
    edit_voc(root)
    fcos(project, "prepare")
    after = (project / TRAIN_JSON).read_bytes()
    assert b"[10.0,5.0,34.0,25.0]" in after
    assert repro(project, address("prepare")) == [] and (project / TRAIN_JSON).read_bytes() == after


@pytest.mark.slow
def test_another_checkpoint_of_the_same_name_is_imported(tmp_path):
    project = copy_project(tmp_path / "project", small_study())
    params = small_study()
    train, weights = address("train", "imported"), Path("runs/smoke/one-epoch/model.safetensors")
    repro(project, address("train", "one-epoch"))
    params["runs"]["imported"] = {"backbone": "resnet18", "num_convs": 1, "checkpoint": "given.safetensors"}
    shutil.copy(project / weights, project / "given.safetensors")
    set_params(project, params)
    assert "train@imported" in repro(project, train)
    assert repro(project, train) == []
    given = project / "given.safetensors"
    tensors = load_file(given)
    tensors["backbone.conv1.weight"] *= 2
    with safe_open(given, framework="numpy") as file:
        metadata = file.metadata()
    given.unlink()
    save_file(tensors, given, metadata=metadata)
    assert "train@imported" in changed_stages(project)
    assert "train@imported" in repro(project, train)


@pytest.mark.slow
def test_prepared_data_move_to_another_machine(tmp_path):
    """Clone A prepares, trains and pushes; clone B, in another place with other image paths, gets everything."""
    here = small_voc(tmp_path / "here")
    project = copy_project(tmp_path / "a", small_study(**VOC, root="datasets/pets"))
    fcos(project, "source", "--at", str(here))
    repro(project)
    call(project, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    call(project, "git", "add", "-A")
    call(project, "git", "commit", "-qm", "done")
    call(project, "dvc", "push")
    call(project, "dvc", "push", "--run-cache")
    for name in call(project, "git", "ls-files").split():
        text = (project / name).read_text(errors="replace")
        assert name == ".dvc/config" or str(tmp_path) not in text, name
    assert str(tmp_path) not in (project / "data/pets/manifest.json").read_text()
    call(tmp_path, "git", "clone", "-q", "a", "b")
    there = tmp_path / "there" / "photos"
    shutil.copytree(here, there)
    shutil.rmtree(here)
    clone = tmp_path / "b"
    missing = fcos(clone, "source", code=2)
    assert "params.yaml: data.root: no such folder" in missing and "fcos source --at FOLDER" in missing
    fcos(clone, "source", FCOS_DATA_ROOT=str(there))
    # The report is the only stage that is not in DVC's cache, and with --pull DVC ignores that it is missing.
    assert repro(clone, "--pull") == [] and repro(clone) == ["report"]
    assert call(clone, "dvc", "status").strip() == "Data and pipelines are up to date."
    assert (clone / TRAIN_JSON).read_bytes() == (project / TRAIN_JSON).read_bytes()
    train = address("train", "one-epoch")
    assert repro(clone, "--force", "--single-item", train) == ["train@one-epoch"]
    # The data set is moved again, and the project is renamed.
    there.rename(tmp_path / "moved")
    (tmp_path / "b").rename(tmp_path / "c")
    assert "fcos source --at FOLDER" in fcos(tmp_path / "c", "train", "one-epoch", code=2)
    fcos(tmp_path / "c", "source", "--at", str(tmp_path / "moved"))
    assert repro(tmp_path / "c", address("prepare")) == []


@pytest.mark.slow
def test_a_renamed_project_finds_its_data(tmp_path):
    project = tmp_path / "before"
    small_voc(project / "datasets" / "pets")
    copy_project(project, small_study(**VOC, root="datasets/pets"), git=False)
    fcos(project, "prepare", DVC_STAGE="prepare")
    project.rename(tmp_path / "after")
    assert (tmp_path / "after/data/.source/pets/images/000001.jpg").is_file()
    assert json.loads((tmp_path / "after/data/pets/manifest.json").read_text())["splits"]["test"]["image_dir"] == (
        "../.source/pets/images"
    )


@pytest.fixture
def pets(tmp_path):
    """Link a folder with a small YOLO set as the source of params.yaml."""
    set_params(tmp_path, small_study(**YOLO, root="pets"))
    root = small_yolo(tmp_path / "pets")
    assert source() is None
    return root


def test_what_is_no_file_is_refused_by_name(pets):
    os.mkfifo(pets / "images/train/pipe")
    with pytest.raises(UserError, match=r"images/pipe: is not a file"):
        source()
    (pets / "images/train/pipe").unlink()
    (pets / "labels/val/gone.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"labels-test/gone.txt: is a broken link\n.*nowhere"):
        source()


def test_a_touched_label_is_no_change_and_an_edited_one_of_the_same_size_is(pets):
    label = pets / "labels/train/a.txt"
    os.utime(label, ns=(1, 1))
    assert not source()
    text = label.read_text()
    label.write_text(text.replace("0.4375", "0.4376"))
    changes = source()
    assert changes is not None and changes.changed == ["labels/a.txt"] and not changes.new and not changes.gone


def test_links_follow_the_settings(pets, tmp_path):
    links = tmp_path / "data/.source/pets"
    assert str((links / "images-test").readlink()) == "../../../pets/images/val"
    assert (links / "images-validation").read_text() == "nothing of the source\n"
    params = small_study(**YOLO, root="pets", validation_images="images/val", validation_labels="labels/val")
    params["data"] |= {"test_images": None, "test_labels": None, "test_fraction": 0.5}
    set_params(tmp_path, params)
    source()
    assert str((links / "images-validation").readlink()) == "../../../pets/images/val"
    assert (links / "images-test").is_file() and not (links / "images-test").is_symlink()


@pytest.mark.parametrize(
    ("root", "at", "message"),
    [
        ("pets", "other", "pets: already exists and is another folder"),
        ("/pets", "other", "data.root: is an absolute path"),
        ("datasets/pets", "missing", "missing: no such folder"),
    ],
)
def test_a_place_that_cannot_be_given(pets, tmp_path, root, at, message):
    (tmp_path / "other").mkdir()
    set_params(tmp_path, small_study(**YOLO, root=root))
    with pytest.raises(UserError, match=message):
        source(Path(at))


def test_a_source_that_holds_the_project_is_refused(pets, tmp_path):
    set_params(tmp_path, small_study(**YOLO, root=".", train_images="."))
    with pytest.raises(UserError, match="contains this project itself"):
        source()
