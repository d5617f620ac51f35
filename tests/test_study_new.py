"""`fcos study new`: how a folder is interpreted, which settings are chosen, and that the written study is valid."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from data_helpers import (
    CAT,
    DOG,
    REAL,
    YOLO_CAT,
    YOLO_DOG,
    coco_box,
    coco_content,
    coco_image,
    needs_real,
    save_image,
    small_coco,
    small_voc,
    small_yolo,
    snapshot,
    voc_object,
    voc_xml,
    write,
    write_voc,
    write_yolo,
)

import fcos.authoring.trial
from fcos.authoring.new import study_new
from fcos.authoring.settings import Facts, choose_settings
from fcos.commands.prepare import prepare
from fcos.commands.study import show_study, use_study
from fcos.config import params
from fcos.data.sources.discover import discover
from fcos.errors import UserError

MINE = Path("studies/mine.yaml")


@pytest.fixture(autouse=True)
def _offline(workspace, monkeypatch):
    """Use an empty project and no downloads or training steps, which have their own tests."""
    monkeypatch.setattr(fcos.authoring.trial, "why_no_weights", lambda: None)
    monkeypatch.setattr(fcos.authoring.trial, "try_runs", lambda *_: (100, [0.1, 0.2]))


def found(folder):
    """Return the part of the section `data` that differs between studies: source and splits."""
    data = discover(Path(folder)).data
    return {key: str(value) if key == "root" else value for key, value in data.items() if value is not None}


def refusal(call, *arguments):
    with pytest.raises(UserError) as raised:
        call(*arguments)
    return str(raised.value)


# What a folder is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "VOC2007", "VOCdevkit/VOC2012"])
def test_voc_folders_bare_and_nested(place):
    small_voc(Path("photos") / place)
    root = str(Path("photos") / place)
    assert found("photos") == {"source": "voc", "root": root, "train_split": "trainval", "test_split": "test"}


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (["train", "val", "test"], {"train": "train", "validation": "val", "test": "test"}),
        (["train", "valid"], {"train": "train", "test": "valid"}),
        (["train", "trainval", "val", "test"], {"train": "train", "validation": "val", "test": "test"}),
        (["train", "trainval", "test"], {"train": "trainval", "test": "test"}),
        (["trainval", "test", "cat_trainval", "cat_test"], {"train": "trainval", "test": "test"}),
        (["trainval"], {"train": "trainval"}),
        (["everything"], {"train": "everything"}),
    ],
)
def test_voc_lists(lists, expected):
    write_voc(Path("photos"), {name: {f"{number}": [CAT]} for number, name in enumerate(lists)})
    write(Path("photos/ImageSets/Main/empty.txt"), "")
    data = found("photos")
    assert {key.removesuffix("_split"): name for key, name in data.items() if key.endswith("_split")} == expected
    assert ("test_fraction" in data) == (len(expected) == 1)


def test_voc_without_lists_is_one_split():
    small_voc()
    shutil.rmtree("photos/ImageSets")
    discovered = discover(Path("photos"))
    assert (discovered.data["train_split"], discovered.data["test_fraction"]) == (None, 0.2)
    assert "all of Annotations/ is one split: 20%" in discovered.assumed[0]


def test_several_voc_folders_are_named():
    small_voc(Path("all/VOC2007"))
    small_voc(Path("all/VOC2012"))
    assert "--from all/VOC2007" in refusal(discover, Path("all"))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("train.json", "test.json"),
    ],
)
def test_coco_files_and_their_images_anywhere(train, test):
    content = {train: coco_content([coco_image(1)], [coco_box(1, 1)]), test: coco_content([coco_image(2)], [])}
    content[test]["annotations"] = [coco_box(1, 2)]
    for number, (name, folder) in enumerate(((train, "some/photos"), (test, "others")), start=1):
        save_image(Path("coco") / folder / f"{number:012d}.jpg")
        write(Path("coco") / name, json.dumps(content[name]))
    write(Path("coco/annotations/notes.json"), '{"images": []}')
    write(Path("coco/annotations/broken.json"), "{")
    assert found("coco") == {
        "source": "coco",
        "root": "coco",
        "train_annotations": train,
        "train_images": "some/photos",
        "test_annotations": test,
        "test_images": "others",
    }


def test_coco_s_captions_and_key_points_are_left_alone():
    small_coco()
    for name in ("captions", "person_keypoints"):
        shutil.copy("coco/annotations/instances_train2017.json", f"coco/annotations/{name}_train2017.json")
    assert found("coco")["train_annotations"] == "annotations/instances_train2017.json"
    assert found("coco")["test_images"] == "val2017"


def test_coco_images_of_one_name_in_two_folders_go_with_their_file():
    for split in ("train", "valid"):
        save_image(Path(f"coco/{split}/a.jpg"), name=split)
        content = coco_content([coco_image(0, file_name="a.jpg")], [coco_box(0, 0)])
        write(Path(f"coco/{split}/_annotations.coco.json"), json.dumps(content))
    data = found("coco")
    assert (data["train_images"], data["test_images"]) == ("train", "valid")


def test_single_coco_file_is_one_split():
    small_coco()
    Path("coco/annotations/instances_val2017.json").unlink()
    data = found("coco")
    assert (data["train_images"], data["test_fraction"]) == ("train2017", 0.2)


def test_coco_file_without_its_images_is_refused():
    small_coco()
    shutil.rmtree("coco/train2017")
    assert "not in this folder" in refusal(discover, Path("coco"))


def test_images_beside_the_given_folder_are_named():
    small_coco()
    said = refusal(discover, Path("coco/annotations"))
    assert f"give the folder above, {Path('coco').absolute()}: {Path('coco').absolute()}/" in said


@pytest.mark.parametrize(
    ("place", "train"),
    [
        ("{part}/{split}", ("images/train", "labels/train")),
        ("{split}/{part}", ("train/images", "train/labels")),
        ("{split}", ("train", "train")),
    ],
)
@pytest.mark.parametrize("names", ["names: [cat, dog]", "names: {0: cat, 1: dog}\nnc: 2\ntrain: ../elsewhere"])
def test_yolo_folders(place, train, names):
    write_yolo(Path("yolo"), {"train": {"a": [YOLO_CAT]}, "val": {"b": [YOLO_DOG]}}, place=place)
    write(Path("yolo/data.yaml"), names)
    data = found("yolo")
    assert (data["train_images"], data["train_labels"]) == train
    assert (data["test_images"], data["test_labels"]) == tuple(name.replace("train", "val") for name in train)
    assert data["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("place", ["{part}", "."])
@pytest.mark.parametrize("class_file", ["classes.txt", "obj.names"])
def test_yolo_with_one_split(place, class_file):
    write_yolo(Path("yolo"), {"all": {"a": [YOLO_CAT], "b": []}}, place=place)
    write(Path("yolo") / class_file, "cat\ndog\n")
    data = found("yolo")
    assert (data["train_images"], data["test_fraction"]) == ("images" if place == "{part}" else ".", 0.2)
    assert data["classes"] == ["cat", "dog"]


def test_yolo_split_without_labels_is_left_out_and_said():
    small_yolo()
    write(Path("yolo/classes.txt"), "cat\ndog\n")
    save_image(Path("yolo/images/test/x.jpg"))
    discovered = discover(Path("yolo"))
    assert discovered.data["test_images"] == "images/val"
    assert "yolo/images/test has images but no labels and is left out (1)" in discovered.unused


def test_yolo_without_class_names_is_refused():
    small_yolo()
    assert "write yolo/classes.txt" in refusal(discover, Path("yolo"))
    write(Path("yolo/data.yaml"), "names: {0: cat, 2: dog}")
    assert "gaps" in refusal(discover, Path("yolo"))


def test_a_folder_without_anything_known_says_what_was_looked_for():
    save_image(Path("photos/a.jpg"))
    write(Path("photos/a.txt"), "a caption, not five numbers")
    text = refusal(discover, Path("photos"))
    for part in ("a.txt", "'a caption", "Annotations/*.xml", "*.json with images", "labels/train", "data.yaml"):
        assert part in text
    Path("empty").mkdir()
    assert "an empty folder" in refusal(discover, Path("empty"))
    assert "no such folder" in refusal(discover, Path("nowhere"))


def test_splits_that_cannot_be_told_are_refused():
    write_voc(Path("photos"), {"north": {"1": [CAT]}, "south": {"2": [CAT]}})
    assert "contains no train, val or test" in refusal(discover, Path("photos"))
    write_voc(Path("others"), {"val": {"1": [CAT]}, "test": {"2": [CAT]}})
    assert "there is no training split" in refusal(discover, Path("others"))


# Which settings follow ------------------------------------------------------------------------------------------------


def facts(*, num_train=200, image=(480, 640), objects=((100, 100),)):
    """Return facts of equal images (height, width) with objects of these sizes."""
    sizes = np.array(objects, dtype=float).reshape(-1, 2)
    return Facts(num_train, np.tile(np.array(image, dtype=float), (4, 1)), sizes, np.tile(image, (len(sizes), 1)))


def chosen(*, pretrained=True, device="cpu", fitting=None, epochs=None, **data):
    return choose_settings(facts(**data), pretrained=pretrained, device=device, fitting=fitting, epochs=epochs)


@pytest.mark.parametrize(
    ("image", "device", "expected"),
    [
        # The published study's sizes for its own images: 480 of 480 x 640, and 288, 320, ... 480 in training.
        ((480, 640), "cpu", (480, 640)),
        ((128, 128), "cpu", (128, 128)),
        ((50, 60), "cpu", (64, 96)),  # at least 64: 64 * 60 / 50 = 76.8, to a multiple of 32
        ((375, 500), "cpu", (384, 512)),
        ((1080, 1920), "cpu", (480, 864)),  # 480 * 16 / 9 = 853.3
        ((1080, 1920), "cuda", (800, 1440)),  # 800 * 16 / 9 = 1422.2
        ((200, 2000), "cpu", (192, 384)),  # longer sides are limited to twice the shorter side
    ],
)
def test_sizes_are_those_of_the_images_within_reason(image, device, expected):
    settings = chosen(image=image, device=device, objects=[(0.3 * image[0], 0.3 * image[0])])
    assert (settings.size, settings.max_size) == expected
    assert settings.sizes[-1] == settings.size and settings.sizes[0] >= round(0.6 * settings.size)


def test_training_sizes_are_the_published_ones():
    assert chosen().sizes == [288, 320, 352, 384, 416, 448, 480]


def test_small_objects_get_more_pixels_but_never_more_than_there_are():
    # Of 2000 rows: objects of 48 are 48 * 480 / 2000 = 11.5 pixels at 480, and 16 at 667, which becomes 672.
    assert chosen(image=(2000, 2000), objects=[(48, 48)]).size == 672
    assert chosen(image=(2000, 2000), objects=[(4, 4)]).size == 800  # 5/3 of 480
    assert chosen(image=(500, 500), objects=[(4, 4)]).size == 512


@pytest.mark.parametrize(("side", "bounds"), [(100, [64, 128]), (80, [32, 64]), (30, [16, 32]), (400, [64, 128])])
def test_regression_ranges_follow_small_objects(side, bounds):
    ranges = chosen(objects=[(side, side / 2)]).regression_ranges
    assert ranges[1] == bounds and ranges[0][0] == 0 and ranges[-1][1] is None
    assert len(ranges) == 5


@pytest.mark.parametrize(
    ("num_train", "device", "epochs"), [(20, "cpu", 100), (200, "cpu", 40), (5000, "cpu", 12), (1000, "cuda", 24)]
)
def test_epochs_show_enough_images(num_train, device, epochs):
    assert chosen(num_train=num_train, device=device).epochs == epochs  # 8,000 on a CPU, 24,000 on a GPU, 12 to 100


@pytest.mark.parametrize(
    ("more", "batch_size", "rate"),
    [
        ({}, 4, 0.005),  # the published study's
        ({"device": "cuda", "num_train": 5000}, 16, 0.01),  # the paper's
        ({"pretrained": False}, 8, 0.0005),
        ({"fitting": 3}, 2, 0.0025),
        ({"fitting": 0}, 1, 0.00125),
        ({"pretrained": False, "num_train": 3}, 2, 0.00025),  # half of the rate for a quarter of the batch size
    ],
)
def test_batch_and_rate(more, batch_size, rate):
    settings = chosen(**more)
    assert (settings.batch_size, settings.learning_rate) == (batch_size, pytest.approx(rate))


def test_warm_up_is_a_hundred_steps_but_a_quarter_of_the_training_at_most():
    assert chosen(num_train=200).warmup_epochs == 2  # 50 steps an epoch
    assert chosen(num_train=5000).warmup_epochs == 1
    assert chosen(num_train=8, epochs=4).warmup_epochs == 1


# The study ------------------------------------------------------------------------------------------------------------


def test_study_of_a_voc_folder_is_valid_and_prepares():
    small_voc(a=[voc_object("cat", (10, 10, 30, 30))])
    said = study_new("mine", Path("photos"))
    study = show_study("mine")
    assert (study.data.root, study.data.classes, study.data.outside_boxes) == ("photos", ["cat", "dog"], "error")
    assert list(study.runs) == ["resnet18-e100-c3", "resnet34-e100-c3"]
    assert {run.model.weights for run in study.runs.values()} == {"imagenet"}
    for part in (
        "VOC (photos)",
        "train: 3 images, 3 objects",
        "cat 3, dog 2",
        "all 60 x 40",
        "fcos study use mine",
    ):
        assert part in said
    use_study("mine", force=True)
    assert prepare()["splits"]["train"]["num_images"] == 3


@pytest.mark.parametrize("is_project", [True, False])
def test_what_comes_next_works_in_this_folder(is_project):
    small_voc()
    if is_project:
        Path("dvc.yaml").touch()
        Path("Makefile").touch()  # a project of `fcos init` has none
    said = " ".join(study_new("mine", Path("photos")).split())
    assert ("fcos study run or both at once: make repro STUDY=mine" in said) == is_project
    assert ("this folder has no dvc.yaml, and `fcos study run` needs it" in said) != is_project


def test_each_backbone_is_trained_from_as_many_seeds_as_asked_for():
    small_voc()
    assert "one training each compares two networks only" in " ".join(study_new("mine", Path("photos")).split())
    said = study_new("three", Path("photos"), epochs=2, seeds=3)
    runs = show_study("three").runs
    assert [(name, run.backbone, run.seed) for name, run in runs.items()] == [
        (f"{backbone}-e2-c3{suffix}", backbone, seed)
        for backbone in ("resnet18", "resnet34")
        for seed, suffix in enumerate(("", "-s1", "-s2"))
    ]
    assert "6 runs: resnet18 and resnet34, 3 seeds each" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_value_has_a_comment(seeds):
    small_voc()
    study_new("mine", Path("photos"), seeds=seeds)
    lines = MINE.read_text().splitlines()
    assert max(map(len, lines)) <= 120 and lines[0].startswith("# ")
    assert [line for line in lines if re.match(r"  [a-z]\w*: ", line) and " # " not in line] == []


def test_study_of_one_split_tests_on_a_fifth():
    write_voc(Path("photos"), {"trainval": {f"{number}": [CAT, DOG] for number in range(10)}})
    said = study_new("mine", Path("photos"))
    assert "train: 8 images" in said and "test: 2 images" in said
    assert "trainval is the only split: 20% of its images" in said
    assert yaml.safe_load(MINE.read_text())["data"]["test_fraction"] == 0.2
    use_study("mine", force=True)
    assert prepare()["splits"]["test"]["num_images"] == 2


def test_choices_are_made_on_a_validation_split_where_there_is_one():
    small_voc()
    study_new("mine", Path("photos"))
    assert show_study("mine").nms_sweep.choose_on == "test"
    small_yolo()
    write_yolo(Path("yolo"), {"test": {"d": [YOLO_DOG]}})
    write(Path("yolo/classes.txt"), "cat\ndog\n")
    study_new("other", Path("yolo"), epochs=3)
    study = show_study("other")
    assert (study.nms_sweep.choose_on, study.tta.choose_on) == ("validation", "validation")
    assert {(run.train.validate_every, run.train.keep) for run in study.runs.values()} == {(1, "last")}
    assert (study.data.source, study.data.validation_images) == ("yolo", "images/val")
    assert list(study.runs) == ["resnet18-e3-c3", "resnet34-e3-c3"]


def test_coco_files_that_number_their_images_alike(tmp_path):
    for number, split in enumerate(("train", "valid")):
        save_image(Path(f"coco/{split}/{split}.jpg"))
        content = coco_content([coco_image(0, file_name=f"{split}.jpg")], [coco_box(number, 0)])
        write(Path(f"coco/{split}/_annotations.coco.json"), json.dumps(content))
    study_new("mine", tmp_path / "coco")
    use_study("mine", force=True)
    prepare()
    ids = {split: json.loads(Path(f"data/mine/{split}.json").read_text()) for split in ("train", "test")}
    (train,), (test,) = (ids[split]["images"] for split in ("train", "test"))
    assert [train["id"], train["original_id"], test["id"], test["original_id"]] == [1, 0, 2_000_000_001, 0]
    assert ids["test"]["annotations"][0]["image_id"] == 2_000_000_001


def test_boxes_far_outside_stop_unless_one_says_clip():
    small_voc(a=[voc_object("cat", (10, 10, 90, 30))])
    text = refusal(study_new, "mine", Path("photos"))
    assert "a.xml" in text and "outside_boxes: clip" in text
    assert "clipped: 1" in study_new("mine", Path("photos"), outside_boxes="clip")
    assert show_study("mine").data.outside_boxes == "clip"
    small_voc(Path("near"), a=[voc_object("cat", (10, 10, 61, 30))])  # one pixel
    study_new("other", Path("near"))
    assert show_study("other").data.outside_boxes == "error"


def test_damaged_items_stop_unless_one_says_leave_out():
    small_voc()
    write(Path("photos/Annotations/000001.xml"), "<annotation>")
    text = refusal(study_new, "mine", Path("photos"))
    assert "000001.xml" in text and "--damaged leave-out" in text
    said = study_new("mine", Path("photos"), damaged="leave-out")
    assert "left out as damaged: 1 (listed in manifest.json): 1 x is not XML" in said
    assert show_study("mine").data.damaged == "leave-out"
    use_study("mine", force=True)
    assert len(prepare()["damaged"]) == 1


def test_what_one_should_know_is_said():
    objects = [voc_object("cat", (x, 1, x + 9, 9)) for x in range(1, 52)]
    small_voc(a=[*objects, *objects], b=[voc_object("Cat", (10, 10, 30, 30))])
    said = " ".join(study_new("mine", Path("photos")).split())
    for part in (
        "1 test images are few",
        "an image has 102 objects, more than test.max_detections 100: raise it",
        "classes whose names differ in case only: Cat, cat",
    ):
        assert part in said
    assert "photos/JPEGImages" not in said  # no list of a hundred near duplicates


def test_ignored_boxes_are_counted():
    small_coco(train=coco_content([coco_image(1)], [coco_box(1, 1, iscrowd=1), coco_box(2, 1, [1, 2, 10, 20])]))
    assert "train: 1 images, 1 objects, 1 ignored boxes" in study_new("mine", Path("coco"))


def test_what_is_seen_and_not_used_is_said():
    small_coco()
    write(Path("coco/results.json"), "[]")
    assert "not used results.json: a list, not COCO" in study_new("mine", Path("coco"))


def test_the_only_image_is_refused_in_the_words_of_a_study_that_is_not_there_yet():
    write_voc(Path("photos"), {"trainval": {"1": [CAT]}})
    text = refusal(study_new, "mine", Path("photos"))
    assert "studies/mine.yaml (not written): data.test_fraction" in text and "params.yaml" not in text


@pytest.mark.parametrize("layout", ["yolo list", "key points", "voc folders"])
def test_studies_of_all_layouts_prepare(layout):
    folder = Path("yolo")
    if layout == "voc folders":
        for split in ("train", "valid"):
            save_image(folder / split / f"{split}.png")
            write(folder / split / f"{split}.xml", voc_xml([CAT]))
    else:
        line = YOLO_CAT + (" 0.1 0.1" if layout == "key points" else "")
        write_yolo(folder, {"all": {stem: [line] for stem in "abc"}}, place="{part}")
        write(folder / "data.yaml", "names: [cat]\n" + ("kpt_shape: [1, 2]\n" if layout == "key points" else ""))
    if layout == "yolo list":
        write(folder / "train.txt", "images/a.jpg\nimages/b.jpg\n")
        write(folder / "test.txt", "images/c.jpg\n")
    study_new("mine", folder)
    use_study("mine", force=True)
    splits = prepare()["splits"]
    assert splits["test"]["num_objects"] == 1
    assert splits["train"]["num_objects"] == (1 if layout == "voc folders" else 2)


def test_class_names_that_yaml_would_take_for_something_else():
    names = ["yes", "1.5", "stop sign", "a: b", "null", "grün, rot"]
    small_voc(a=[voc_object(name, (10, 10, 30, 30)) for name in names])
    study_new("mine", Path("photos"))
    assert show_study("mine").data.classes == sorted([*names, "cat", "dog"])


def test_without_weights_training_starts_from_scratch_and_that_is_said(monkeypatch):
    monkeypatch.setattr(fcos.authoring.trial, "why_no_weights", lambda: "resnet18: no network")
    monkeypatch.setenv("TORCH_HOME", "home")
    small_voc()
    said = " ".join(study_new("mine", Path("photos")).split())
    assert "resnet18: no network" in said and "from scratch" in said
    assert "models/resnet18-f37072fd.pth" in said and "models/resnet34-b627a593.pth into home/hub/checkpoints" in said
    (run, _) = show_study("mine").runs.values()
    assert (run.model.weights, run.model.batch_norm, run.train.optimizer) == ("none", "trained", "adamw")


def test_a_study_is_never_overwritten():
    small_voc()
    write(MINE, "study: mine\n")
    before = snapshot(Path("studies"))
    assert "already exists" in refusal(study_new, "mine", Path("photos"))
    assert "smoke.yaml" in refusal(study_new, "smoke", Path("photos"))
    assert "studies/My Data.yaml: study" in refusal(study_new, "My Data", Path("photos"))
    assert snapshot(Path("studies")) == before


def test_data_that_prepare_refuses_make_no_study():
    small_voc()
    Path("photos/JPEGImages/000001.jpg").write_bytes(b"")
    assert "000001.jpg" in refusal(study_new, "mine", Path("photos"))
    assert not MINE.exists()


def test_hours_bring_the_advice_to_train_less_at_first(monkeypatch):
    small_voc()
    assert "--epochs" not in study_new("mine", Path("photos"))
    # 2 images, 100 epochs of which 25 more are warm-up; (38.4 to 64 of 64 pixels: 48 and 64) a mean share of 0.78.
    monkeypatch.setattr(fcos.authoring.trial, "try_runs", lambda *_: (100, [10.0, 20.0]))
    said = study_new("other", Path("photos"))
    assert "--epochs 10" not in study_new("short", Path("photos"), epochs=2)  # at most the number that was given
    assert "--epochs 10" in said and "1 h 38 min" in said  # 250 images * 0.78 * 30 s = 97.7 minutes


@pytest.mark.parametrize("weights", [True, False])
def test_weights_are_there_or_asked_for(tmp_path, monkeypatch, weights):
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens at this address
    if weights:
        for name in ("resnet18-f37072fd.pth", "resnet34-b627a593.pth"):
            write(tmp_path / "hub" / "checkpoints" / name, "")
    assert (fcos.authoring.trial.why_no_weights() is None) == weights


@pytest.mark.slow
def test_a_step_of_training_is_tried_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcos.authoring.trial, "why_no_weights", lambda: "offline")
    small_voc()
    said = study_new("mine", Path("photos"))
    assert re.search(r"training takes about \d+ (s|min|h \d+ min) on this machine \(resnet18 ", said)
    assert "train.batch_size 2: 2 fit into memory" in said


@needs_real("bccd")
@pytest.mark.parametrize("name", ["bccd", "coco2017-mini", "voc2012-100"])
def test_real_folders(name):
    study_new("mine", REAL / name)
    study = params.read(MINE)
    assert study.data.source == ("coco" if "coco" in name else "voc")
    assert len(study.data.classes or []) == {"bccd": 3, "coco2017-mini": 80, "voc2012-100": 20}[name]


def test_a_folder_is_refused_without_waiting_for_torch():
    """Importing torch takes longer than reading a folder."""
    script = "import sys, fcos.authoring.new; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
