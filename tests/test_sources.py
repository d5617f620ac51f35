"""The data sources: what each reads, corrects and lists, or refuses."""

import json
import re
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from data_helpers import (
    CAT,
    CATEGORIES,
    DATA,
    DOG,
    HEIGHT,
    REAL,
    WIDTH,
    YOLO_CAT,
    YOLO_DOG,
    assert_refused,
    boxes,
    coco_box,
    coco_content,
    coco_image,
    exif,
    needs_real,
    pixels,
    read,
    run_prepare,
    save_image,
    small_coco,
    small_voc,
    small_yolo,
    snapshot,
    voc_object,
    voc_xml,
    write,
    write_coco,
    write_voc,
    write_yolo,
)
from PIL import Image

from fcos.data.cache import Images
from fcos.data.coco import read_split
from fcos.data.images import read_image
from fcos.data.sources.description import Seen
from fcos.data.sources.shapes import NAMES, OVERSAMPLING, _box_of, _paint, _place
from fcos.data.sources.voc import _read_object
from fcos.errors import UserError
from fcos.model.checkpoint import Identity

VOC = {"source": "voc", "root": "photos"}
COCO = {"source": "coco", "root": "coco"}
YOLO = {"source": "yolo", "root": "yolo", "classes": ["cat", "dog"]}
XML = Path("photos/Annotations/000001.xml")
LISTS = Path("photos/ImageSets/Main")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# PASCAL VOC: boxes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corners", "bbox"),
    [
        # 1-based, inclusive: columns 11 to 40 are 30 columns, the first at 0-based 10; rows 6 to 30 are 25.
        ((11, 6, 40, 30), [10, 5, 30, 25]),
        ((1, 1, WIDTH, HEIGHT), [0, 0, WIDTH, HEIGHT]),  # the whole image
        ((1, 1, 2, 2), [0, 0, 2, 2]),
        (("11.5", "6.25", "40.75", "30"), [10.5, 5.25, 30.25, 24.75]),
        (("45.70000076", "6", "50", "30"), [44.70000076, 5, 5.29999924, 25]),  # as in VOC2012
    ],
)
def test_voc_box_is_one_based_and_inclusive(corners: tuple[object, ...], bbox: list[float]) -> None:
    small_voc(**{"000001": [voc_object("cat", corners)]})
    run_prepare(**VOC)
    assert boxes()[0] == pytest.approx(bbox, abs=1e-9)
    assert read("train")["annotations"][0]["area"] == pytest.approx(bbox[2] * bbox[3])


@pytest.mark.parametrize(
    "corners", [(20, 10, 20, 30), (20, 10, 30, 10), (30, 10, 20, 30), (20, 30, 30, 10), (5, 5, 5, 5)]
)
def test_box_without_area_is_dropped_counted_and_listed(corners: tuple[int, ...]) -> None:
    small_voc(**{"000001": [CAT, voc_object("dog", corners)]})
    manifest = run_prepare(**VOC)
    assert manifest["splits"]["train"]["num_objects"] == 2  # this cat and the dog of 000002
    (dropped,) = manifest["dropped"]
    corner = [corners[0] - 1, corners[1] - 1]
    assert dropped == {
        "split": "train",
        "image": "000001.jpg",
        "class": "dog",
        "bbox": [*corner, 0, 0],
        "why": "no area",
    }
    assert boxes() == [[10, 5, 30, 25], [0, 0, WIDTH, HEIGHT]]


@pytest.mark.parametrize(
    ("corners", "clipped"),
    [
        ((0, 1, 30, 30), [0, 0, 30, 30]),  # x = -1
        ((31, 21, WIDTH + 1, HEIGHT + 1), [30, 20, 30, 20]),
        (("0.5", "1", "30", str(HEIGHT + 0.5)), [0, 0, 30, HEIGHT]),
    ],
)
def test_box_outside_by_a_pixel_is_clipped_and_listed(corners: tuple[object, ...], clipped: list[float]) -> None:
    small_voc(**{"000001": [voc_object("cat", corners)]})
    (entry,) = run_prepare(**VOC)["clipped"]
    assert boxes()[0] == clipped
    assert (entry["image"], entry["class"]) == ("000001.jpg", "cat")
    assert entry["bbox"] != clipped  # as annotated


@pytest.mark.parametrize("corners", [(-1, 1, 30, 30), (1, -1, 30, 30), (31, 1, 61.05, 30), (31, 1, 60, 42)])
def test_box_further_outside_is_refused_or_clipped_on_demand(corners: tuple[float, ...]) -> None:
    small_voc(**{"000001": [voc_object("cat", corners)]})
    assert_refused("000001.xml", "outside its image", "60 x 40", "outside_boxes: clip", **VOC)
    manifest = run_prepare(**VOC, outside_boxes="clip")
    x, y, w, h = boxes()[0]
    assert min(x, y) >= 0
    assert x + w <= WIDTH
    assert y + h <= HEIGHT
    assert len(manifest["clipped"]) == 1


def test_box_wholly_outside_is_dropped_when_clipping() -> None:
    small_voc(**{"000001": [CAT, voc_object("cat", (70, 10, 90, 20))]})
    manifest = run_prepare(**VOC, outside_boxes="clip")
    assert [entry["why"] for entry in manifest["dropped"]] == ["outside the image"]
    assert manifest["splits"]["train"]["num_objects"] == 2


@pytest.mark.parametrize(("difficult", "counted", "ignored"), [("keep", 3, 0), ("ignore", 2, 1)])
def test_difficult_boxes_are_objects_or_ignored(difficult: str, counted: int, ignored: int) -> None:
    small_voc(**{"000001": [CAT, voc_object("dog", (5, 5, 20, 20), difficult=1)]})
    train = run_prepare(**VOC, difficult=difficult)["splits"]["train"]
    assert (train["num_objects"], train["num_ignored"]) == (counted, ignored)
    assert train["per_class"] == {"cat": 1, "dog": counted - 1}
    assert sum(train["per_size"].values()) == counted
    flags = [(a["iscrowd"], a["difficult"]) for a in read("train")["annotations"]]
    assert flags == [(0, 0), (ignored, 1), (0, 0)]


def test_image_with_ignored_boxes_only_is_not_empty() -> None:
    small_voc(**{"000001": [voc_object("dog", (5, 5, 20, 20), difficult=1)], "000002": []})
    train = run_prepare(**VOC, difficult="ignore", classes=["cat", "dog"])["splits"]["train"]
    assert (train["num_images"], train["num_empty_images"]) == (2, 1)


def test_boxes_of_parts_are_not_read() -> None:
    # VOC's person layout has <part> elements with their own <bndbox> in an <object>, here before the object's.
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    small_voc(**{"000001": [CAT.replace("<bndbox>", part + "<bndbox>", 1)]})
    manifest = run_prepare(**VOC)
    assert boxes()[0] == [10, 5, 30, 25]
    assert list(manifest["splits"]["train"]["per_class"]) == ["cat", "dog"]


def test_one_object_annotated_twice_is_listed_and_kept() -> None:
    # 30 x 25 = 750 pixels and 30 x 24 = 720 inside them: IoU 0.96. The dog is another class; the third box shares 25 of
    # 30 columns: 625 / (750 + 750 - 625) = 0.714.
    twins = [CAT, voc_object("cat", (11, 6, 40, 29)), voc_object("dog", (11, 6, 40, 30))]
    small_voc(**{"000001": [*twins, voc_object("cat", (16, 6, 45, 30))]})
    manifest = run_prepare(**VOC)
    entry = {"split": "train", "image": "000001.jpg", "class": "cat", "iou": 0.96}
    assert manifest["near_duplicates"] == [entry]
    assert manifest["splits"]["train"]["num_objects"] == 5


# PASCAL VOC: folders, lists and classes -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "VOC2007", "VOCdevkit/VOC2012"])
def test_voc_folder_is_found_bare_or_nested(place: str) -> None:
    small_voc(Path("photos") / place)
    manifest = run_prepare(**VOC)
    assert manifest["splits"]["train"]["num_images"] == 2
    images = DATA / manifest["splits"]["train"]["image_dir"]
    assert images.resolve() == (Path("photos") / place / "JPEGImages").resolve()


def test_several_voc_years_are_refused() -> None:
    small_voc(Path("photos/VOCdevkit/VOC2007"))
    small_voc(Path("photos/VOCdevkit/VOC2012"))
    assert_refused("several folders", "VOC2007", "VOC2012", "data.root", **VOC)
    assert run_prepare(source="voc", root="photos/VOCdevkit/VOC2012")["splits"]["train"]["num_images"] == 2


def test_folder_without_voc_layout_is_refused() -> None:
    assert_refused("params.yaml: data.root", "no such folder", **VOC)
    Path("photos").mkdir()
    assert_refused("no folder in VOC layout", "without Annotations/", "JPEGImages/", **VOC)


def test_root_that_is_a_file_is_refused() -> None:
    write(Path("photos"), "")
    assert_refused("params.yaml: data.root", "no such folder", **VOC)


def test_own_split_names_and_lists_of_voc_s_class_files() -> None:
    # ImageSets/Main/cat_trainval.txt has 1 or -1 after each name.
    write_voc(Path("photos"), {"mine": {"a1": [CAT], "a2": [DOG]}, "yours": {"a3": [CAT]}})
    write(LISTS / "mine.txt", "a1  1\n\na2 -1\n")
    run_prepare(**VOC, train_split="mine", test_split="yours")
    assert [image["file_name"] for image in read("train")["images"]] == ["a1.jpg", "a2.jpg"]


def test_missing_split_list_is_refused_with_those_there() -> None:
    small_voc()
    assert_refused("val.txt", "no such split", "test, trainval", **VOC, test_split="val")


def test_empty_split_list_is_refused() -> None:
    small_voc()
    write(LISTS / "test.txt", "\n")
    assert_refused("the test split has no image", **VOC)


def test_a_name_twice_in_a_list_is_refused() -> None:
    small_voc()
    write(LISTS / "trainval.txt", "000001\n000002\n000001\n")
    assert_refused("trainval.txt:3: duplicate name", "000001, first in line 1", **VOC)


def test_classes_are_those_found_in_either_split_sorted() -> None:
    small_voc(**{"000001": [voc_object("zebra", (5, 5, 20, 20))], "000002": []})
    manifest = run_prepare(**VOC)
    assert manifest["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "zebra"}]
    assert manifest["splits"]["train"]["per_class"] == {"cat": 0, "dog": 0, "zebra": 1}


def test_own_classes_keep_their_order_also_when_unused() -> None:
    small_voc()
    manifest = run_prepare(**VOC, classes=["dog", "snowy owl", "cat"])
    assert [c["name"] for c in manifest["categories"]] == ["dog", "snowy owl", "cat"]
    assert [a["category_id"] for a in read("train")["annotations"]] == [3, 1]  # a cat, a dog


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dog", "cat"], "duplicate class name"),
        ([{"pet": ["cat", "dog"]}, "cat"], "duplicate class name"),
        (["cat", "dgo"], "did you mean `dog`?"),
    ],
)
def test_impossible_class_lists_are_refused(classes: list[Any], message: str) -> None:
    small_voc()
    assert_refused("data.classes", message, **VOC, classes=classes)


def test_classes_that_are_left_out_or_merged_are_counted() -> None:
    small_voc()
    manifest = run_prepare(**VOC, classes=["cat"])
    assert manifest["splits"]["train"]["per_class"] == {"cat": 1}
    assert manifest["notes"] == ["objects left out, since data.classes does not name their class: dog 2"]
    assert read("train")["images"][1]["file_name"] == "000002.jpg"  # no objects are left
    manifest = run_prepare(**VOC, classes={"pet": ["dog", "cat"]})
    assert (manifest["categories"], manifest["notes"]) == (
        [{"id": 1, "name": "pet"}],
        ["data.classes: pet is dog, cat"],
    )
    assert manifest["splits"]["test"]["per_class"] == {"pet": 2}


def test_data_without_any_object_are_refused() -> None:
    small_voc(**{"000001": [], "000002": []})
    write(Path("photos/Annotations/000003.xml"), voc_xml([]))
    assert_refused("no class", **VOC)


def test_other_folder_tag_is_listed_not_refused() -> None:
    small_voc()
    write(XML, voc_xml([CAT], folder="elsewhere"))
    assert run_prepare(**VOC)["odd"] == [
        {"split": "train", "image": "000001.jpg", "what": "folder tag `elsewhere`"},
    ]


@pytest.mark.parametrize(
    ("train", "test", "ids"),
    [
        (["000005", "2007_000027"], ["000007"], [5, 2007000027, 7]),  # as in VOC2007 and VOC2012
        (["BloodImage_00338"], ["BloodImage_00002"], [338, 2]),
        (["cat", "1"], ["dog"], [2, 1, 2_000_000_001]),  # a name without digits: by the order of names
        (["a1", "b1"], ["c2"], [1, 2, 2_000_000_001]),  # the digits of train are not unique, and 2 is then taken
        (["a1", "9007199254740993"], ["c3"], [2, 1, 3]),  # 2**53 + 1 is not exact as a float
    ],
)
def test_image_ids_are_the_digits_or_numbers_by_name(train: list[str], test: list[str], ids: list[int]) -> None:
    write_voc(Path("photos"), {"trainval": {stem: [CAT] for stem in train}, "test": {stem: [CAT] for stem in test}})
    run_prepare(**VOC)
    assert [image["id"] for split in ("train", "test") for image in read(split)["images"]] == ids


def test_empty_images_are_kept_and_counted() -> None:
    small_voc(**{"000001": []})
    train = run_prepare(**VOC)["splits"]["train"]
    assert (train["num_images"], train["num_empty_images"], train["num_objects"]) == (2, 1, 1)
    assert [image["id"] for image in read("train")["images"]] == [1, 2]


def test_annotation_ids_count_from_one_in_each_split() -> None:
    small_voc()
    run_prepare(**VOC)
    assert [a["id"] for a in read("train")["annotations"]] == [1, 2]
    assert [a["id"] for a in read("test")["annotations"]] == [1, 2]


# PASCAL VOC: what is refused ------------------------------------------------------------------------------------------


def test_annotation_that_names_a_missing_image_is_refused() -> None:
    small_voc()
    Path("photos/JPEGImages/000001.jpg").unlink()
    assert_refused("000001.xml", "image is missing", "nothing was changed", "JPEGImages", **VOC)


def test_missing_annotation_is_refused() -> None:
    small_voc()
    XML.unlink()
    assert_refused("000001.xml", "no such annotation", "trainval.txt", **VOC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "is not XML"),
        ("", "is not XML"),
        (voc_xml([voc_object("cat", ("a", 1, 2, 3))]), "four numbers"),
        (voc_xml(["<object><name>cat</name></object>"]), "four numbers"),
        (voc_xml([voc_object("cat", ("nan", 1, 20, 30))]), "four numbers"),
        (voc_xml([voc_object("cat", (1, 1, "inf", 30))]), "four numbers"),
        (voc_xml([voc_object("", (1, 1, 20, 30))]), "has no name"),
        (voc_xml([CAT], size=("wide", 40)), "not two numbers"),
    ],
)
@pytest.mark.parametrize("outside", ["error", "clip"])
def test_broken_annotation_is_refused(text: str, message: str, outside: str) -> None:
    small_voc()
    write(XML, text)
    assert_refused("000001.xml", message, **VOC, outside_boxes=outside)


def test_size_of_another_image_is_refused() -> None:
    small_voc()
    write(XML, voc_xml([CAT], size=(HEIGHT, WIDTH)))
    assert_refused("000001.xml", "has a size that differs", "40 x 60", "60 x 40", **VOC)


@pytest.mark.parametrize("size", [None, (0, 0), ("60.0", "40.0")])
def test_size_may_be_absent_or_written_otherwise(size: Any) -> None:
    small_voc()
    write(XML, voc_xml([CAT], size=size))
    run_prepare(**VOC)
    assert (read("train")["images"][0]["width"], read("train")["images"][0]["height"]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image_is_refused(suffix: str) -> None:
    small_voc()
    Path("photos/JPEGImages/000001.jpg").unlink()
    path = save_image(Path(f"photos/JPEGImages/000001{suffix}"))
    path.write_bytes(path.read_bytes()[:-200])
    assert_refused(f"000001{suffix}", "cannot be decoded", "truncated", **VOC)


def test_file_that_is_no_image_is_refused() -> None:
    small_voc()
    write(Path("photos/JPEGImages/000001.jpg"), "<html>Not found</html>")
    assert_refused("000001.jpg", "is not a supported image", **VOC)


def test_something_behind_the_image_does_no_harm() -> None:
    # Phones append a video to the JPEG, so the end marker is far from the end of the file.
    small_voc()
    path = Path("photos/JPEGImages/000001.jpg")
    path.write_bytes(path.read_bytes() + bytes(10_000))
    assert run_prepare(**VOC)["splits"]["train"]["num_images"] == 2


def test_a_name_in_both_lists_is_refused() -> None:
    small_voc()
    write(LISTS / "test.txt", "000003\n000002\n")
    assert_refused("in both splits", "same image id", "1, first: test 000002.jpg = train 000002.jpg", **VOC)


def test_a_image_in_both_splits_under_another_name_is_refused() -> None:
    small_voc()
    shutil.copy("photos/JPEGImages/000002.jpg", "photos/JPEGImages/000003.jpg")
    assert_refused("in both splits", "same content", "test 000003.jpg = train 000002.jpg", **VOC)


def test_same_list_for_both_splits_is_refused() -> None:
    small_voc()
    assert_refused("data.test_split", "overlapping splits", "trainval", **VOC, test_split="trainval")


def test_data_are_replaced_as_a_whole() -> None:
    small_voc()
    write(DATA / "old.json", "left over")
    run_prepare(**VOC)
    of_splits = [
        f"pets/{split}.{end}"
        for split in ("train", "validation", "test")
        for end in ("images.npy", "json", "objects.npy")
    ]
    names = sorted(["pets", "pets/manifest.json", *of_splits])
    assert [name for name in sorted(snapshot(Path("data"))) if not name.startswith(".source")] == names


def test_prepared_data_are_the_same_each_time() -> None:
    small_voc()
    run_prepare(**VOC)
    first = snapshot(DATA)
    run_prepare(**VOC)
    assert snapshot(DATA) == first


# COCO -----------------------------------------------------------------------------------------------------------------


def test_coco_category_ids_keep_their_gaps() -> None:
    small_coco()
    manifest = run_prepare(**COCO)
    assert manifest["categories"] == CATEGORIES
    assert [a["category_id"] for a in read("train")["annotations"]] == [3, 7]
    split = read_split(DATA, "train")
    assert split.label_of == {3: 0, 7: 1}
    assert split.category_ids == [3, 7]


def test_coco_boxes_and_areas_stay_as_they_are() -> None:
    content = coco_content([coco_image(1)], [coco_box(5, 1, [1.25, 2.5, 20.125, 30], area=123.5), coco_box(6, 1)])
    small_coco(train=content)
    run_prepare(**COCO)
    first, second = read("train")["annotations"]
    assert (first["bbox"], first["area"]) == ([1.25, 2.5, 20.125, 30], 123.5)
    assert second["area"] == 750  # `area` is missing: 30 x 25


def test_crowd_is_ignored_and_counted_as_such() -> None:
    small_coco(train=coco_content([coco_image(1)], [coco_box(1, 1), coco_box(2, 1, [0, 0, 60, 40], iscrowd=1)]))
    train = run_prepare(**COCO)["splits"]["train"]
    assert (train["num_objects"], train["num_ignored"]) == (1, 1)
    assert [a["iscrowd"] for a in read("train")["annotations"]] == [0, 1]


def test_annotation_id_zero_is_renumbered() -> None:
    # pycocotools takes a match with annotation id 0 for no match (cocoapi#507).
    small_coco(train=coco_content([coco_image(1)], [coco_box(0, 1), coco_box(17, 1, [0, 0, 9, 9])]))
    run_prepare(**COCO)
    assert [(a["id"], a["bbox"][2]) for a in read("train")["annotations"]] == [(1, 30), (2, 9)]


def test_coco_images_without_objects_are_kept() -> None:
    small_coco(train=coco_content([coco_image(1), coco_image(2)], [coco_box(1, 2)]))
    train = run_prepare(**COCO)["splits"]["train"]
    assert (train["num_images"], train["num_empty_images"]) == (2, 1)
    split = read_split(DATA, "train")
    assert [len(split.annotations_of(image["id"])) for image in split.images] == [0, 1]


def test_images_in_sub_folders_are_found_where_they_lie() -> None:
    small_coco(train=coco_content([coco_image(1, file_name="paris/one.png")], [coco_box(1, 1)]))
    run_prepare(**COCO)
    split = read_split(DATA, "train")
    assert split.path_of(split.images[0]).resolve() == Path("coco/train2017/paris/one.png").resolve()


def test_coco_classes_choose_the_order_and_what_is_left_out() -> None:
    small_coco()
    assert run_prepare(**COCO, classes=["dog", "cat"])["categories"] == [CATEGORIES[1], CATEGORIES[0]]
    assert [a["category_id"] for a in read("train")["annotations"]] == [3, 7]
    manifest = run_prepare(**COCO, classes=["cat"])
    assert manifest["notes"] == ["objects left out, since data.classes does not name their class: dog 1"]
    assert run_prepare(**COCO, classes={"pet": ["dog", "cat"]})["categories"] == [{"id": 7, "name": "pet"}]
    assert_refused("params.yaml: data.classes", "no such category", "bird", **COCO, classes=["cat", "bird"])


ONE = [coco_image(1)]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (coco_content(ONE, [coco_box(4, 1, category_id=5)]), ("annotation 4", "unknown category_id", "[3, 7]")),
        (coco_content(ONE, [coco_box(4, 9)]), ("annotation 4", "unknown image_id", "9")),
        (coco_content(ONE, [coco_box(4, 1, [1, 2, 3])]), ("annotation 4", "four numbers")),
        (coco_content(ONE, [coco_box(4, 1, None)]), ("annotation 4", "four numbers")),
        (coco_content(ONE, [coco_box(4, 1, [float("nan"), 1, 5, 5])]), ("annotation 4", "four numbers", "nan")),
        (coco_content(ONE, [{"id": 4, "image_id": 1, "category_id": 3}]), ("annotations[0]", "no bbox")),
        (coco_content(ONE, [coco_box(4, 1, [50, 5, 12, 5])]), ("outside its image", "60 x 40")),
        (coco_content([*ONE, coco_image(1, file_name="b.jpg")], []), ("duplicate image id",)),
        (coco_content([coco_image(1, width=61)], []), ("has a size that differs", "61 x 40", "60 x 40")),
        (coco_content([coco_image(3)], []), ("in both splits", "same image id")),
        ({"images": ONE, "annotations": []}, ("not COCO JSON", "no categories")),
        (
            {**coco_content(ONE, []), "categories": [CATEGORIES[0], {"id": 7, "name": "cow"}]},
            ("other categories", "cow"),
        ),
        (coco_content([], []), ("the train split has no image",)),
    ],
)
def test_bad_coco_content_is_refused(content: dict[str, Any], parts: tuple[str, ...]) -> None:
    small_coco(train=content)
    assert_refused(*parts, **COCO)


@pytest.mark.parametrize("repeated", [{"id": 7, "name": "wolf"}, {"id": 9, "name": "dog"}])
def test_a_category_twice_is_refused(repeated: dict[str, Any]) -> None:
    content = {**coco_content([coco_image(1)], []), "categories": [*CATEGORIES, repeated]}
    write_coco(Path("coco"), content, {**content, "images": [coco_image(2)]})
    assert_refused("duplicate class", **COCO)


@pytest.mark.parametrize(("text", "message"), [("[1, 2]", "not COCO JSON"), ("{", "is not JSON"), ("5", "COCO JSON")])
def test_another_file_than_coco_json_is_refused(text: str, message: str) -> None:
    small_coco()
    write(Path("coco/annotations/instances_val2017.json"), text)
    assert_refused("instances_val2017.json", message, **COCO)


def test_missing_annotation_file_and_missing_image_are_refused() -> None:
    small_coco()
    Path("coco/val2017/000000000003.jpg").unlink()
    assert_refused("instances_val2017.json", "missing image", "000000000003.jpg", **COCO)
    Path("coco/annotations/instances_val2017.json").unlink()
    assert_refused("instances_val2017.json", "no such file", "data.root", **COCO)


def test_same_image_in_both_coco_folders_is_refused() -> None:
    small_coco()
    shutil.copy("coco/train2017/000000000001.jpg", "coco/val2017/000000000003.jpg")
    assert_refused("same content", "test 000000000003.jpg = train 000000000001.jpg", **COCO)


def test_same_file_name_in_two_folders_is_no_overlap() -> None:
    write_coco(
        Path("coco"),
        coco_content([coco_image(1, file_name="a.jpg")], [coco_box(1, 1)]),
        coco_content([coco_image(2, file_name="a.jpg")], [coco_box(1, 2)]),
    )
    assert run_prepare(**COCO)["splits"]["test"]["num_images"] == 1


def test_zero_area_in_coco_is_dropped_and_listed() -> None:
    small_coco(train=coco_content(ONE, [coco_box(1, 1, [5, 5, 0, 9]), coco_box(2, 1, [5, 5, 9, -1]), coco_box(3, 1)]))
    manifest = run_prepare(**COCO)
    assert [entry["bbox"] for entry in manifest["dropped"]] == [[5, 5, 0, 9], [5, 5, 9, -1]]
    assert [a["id"] for a in read("train")["annotations"]] == [1]


# YOLO -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "bbox"),
    [
        # cx 0.416667 * 60 = 25.00002, less half of 0.5 * 60: 10.00002, to 1/64 of a pixel 10.
        (YOLO_CAT, [10, 5, 30, 25]),
        (YOLO_DOG, [0, 0, WIDTH, HEIGHT]),
        ("0 0.25 0.25 0.1 0.1", [12, 8, 6, 4]),
        # cx - w / 2 = 0.2 - 0.05 = 0.15, which is 9 pixels; the height 0.1234 * 40 = 4.936, to 1/64: corners 2 and
        # 6.9375.
        ("0.0 0.2 0.1117 0.1 0.1234", [9, 2, 6, 4.9375]),
        # Six digits of 2/3 and 1/3 of 60: x2 = 60.00003, which counts as the border.
        ("0 0.833334 0.5 0.333333 0.5", [40, 10, 20, 20]),
        # Polygons: x of 0.1, 0.5, 0.3 and y of 0.2, 0.4, 0.9; four corners of a rotated box.
        ("1 0.1 0.2 0.5 0.4 0.3 0.9", [6, 8, 24, 28]),
        ("1 0.5 0 1 0.5 0.5 1 0 0.5", [0, 0, WIDTH, HEIGHT]),
    ],
)
def test_yolo_line_becomes_a_box_in_pixels(line: str, bbox: list[float]) -> None:
    small_yolo(a=[line])
    manifest = run_prepare(**YOLO)
    assert boxes()[0] == bbox
    assert read("train")["annotations"][0]["area"] == bbox[2] * bbox[3]
    assert manifest["clipped"] == []


def test_yolo_numbers_are_classes_in_the_order_of_the_list() -> None:
    small_yolo()
    manifest = run_prepare(**YOLO)
    assert manifest["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [a["category_id"] for a in read("train")["annotations"]] == [1, 2]
    assert [image["id"] for split in ("train", "test") for image in read(split)["images"]] == [1, 2, 3]
    assert (DATA / manifest["splits"]["test"]["image_dir"]).resolve() == Path("yolo/images/val").resolve()


def test_yolo_image_without_label_file_or_lines_has_no_objects() -> None:
    small_yolo(d=None, e=[], f=["", "  "])
    train = run_prepare(**YOLO)["splits"]["train"]
    assert (train["num_images"], train["num_empty_images"], train["num_objects"]) == (5, 3, 2)


def test_yolo_sub_folders_and_labels_beside_the_images() -> None:
    write_yolo(Path("yolo"), {"train": {"paris/a": [YOLO_CAT]}, "val": {"c": [YOLO_DOG]}}, place="{split}")
    write(Path("yolo/train/classes.txt"), "cat\ndog\n")
    folders = {
        f"{split}_{part}": place
        for split, place in (("train", "train"), ("test", "val"))
        for part in ("images", "labels")
    }
    run_prepare(**YOLO, **folders)
    split = read_split(DATA, "train")
    assert split.path_of(split.images[0]).resolve() == Path("yolo/train/paris/a.jpg").resolve()
    assert boxes() == [[10, 5, 30, 25]]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("0 0.5 0.5 0.5", ("has 4 numbers", "class cx cy width height")),
        ("0", ("has 1 numbers",)),
        ("0 0.5 0.5 0.5 0.5 0.9", ("has 6 numbers",)),  # with a score, so a prediction and not a label
        ("0 0.1 0.1 0.5 0.5 0.9 0.9 0.3", ("has 8 numbers",)),  # the last point has no y
        ("cat 0.5 0.5 0.5 0.5", ("is not numbers", "cat 0.5")),
        ("0,0.5,0.5,0.5,0.5", ("is not numbers",)),
        ("2 0.5 0.5 0.5 0.5", ("no such class", "0 to 1: cat, dog", "data.classes")),
        ("-1 0.5 0.5 0.5 0.5", ("no such class",)),
        ("0.5 0.5 0.5 0.5 0.5", ("no such class",)),
        ("0 30 20 10 10", ("not in 0..1", "fractions")),
        ("0 0.5 -0.1 0.5 0.5", ("not in 0..1",)),
        ("0 0.5 0.5 nan 0.5", ("is not numbers",)),
        ("0 0.5 0.5 0.5 inf", ("is not numbers",)),
    ],
)
def test_bad_yolo_lines_are_refused_with_file_and_line(line: str, parts: tuple[str, ...]) -> None:
    small_yolo(a=[YOLO_CAT, line])
    assert_refused("yolo/labels/train/a.txt:2:", *parts, **YOLO)


def test_yolo_box_over_the_border_is_refused_or_clipped_like_any() -> None:
    # 0.9 + 0.2 / 2 of 60 pixels is the border; 0.95 + 0.1 is 3 pixels outside.
    small_yolo(a=["0 0.95 0.5 0.2 0.5"])
    assert_refused("a.txt", "outside its image", "60 x 40", **YOLO)
    assert len(run_prepare(**YOLO, outside_boxes="clip")["clipped"]) == 1
    assert boxes()[0] == [51, 10, 9, 20]


def test_yolo_box_without_extent_is_dropped() -> None:
    small_yolo(a=[YOLO_CAT, "0 0.5 0.5 0 0.5"])
    assert [entry["why"] for entry in run_prepare(**YOLO)["dropped"]] == ["no area"]


def test_yolo_label_without_image_is_refused() -> None:
    small_yolo()
    Path("yolo/images/train/a.jpg").unlink()
    assert_refused("labels/train/a.txt", "without its image", "no a (.jpg", "leave-out", "nothing was changed", **YOLO)


def test_yolo_folder_without_any_label_is_refused() -> None:
    small_yolo(a=None, b=None)
    Path("yolo/labels/train").mkdir()
    assert_refused("labels/train", "no image has a label file", "2 images", **YOLO)


def test_yolo_label_of_two_images_is_refused() -> None:
    small_yolo()
    save_image(Path("yolo/images/train/a.png"))
    assert_refused("a.txt", "several images", "a.jpg, a.png", **YOLO)


def test_missing_and_empty_yolo_folders_are_refused() -> None:
    small_yolo()
    assert_refused("yolo/images/test", "no such folder", "test split", **YOLO, test_images="images/test")
    Path("yolo/images/none").mkdir()
    folders = {"test_images": "images/none", "test_labels": "images/none"}
    assert_refused("the test split has no image", **YOLO, **folders)


def test_yolo_label_that_is_not_text_is_refused() -> None:
    small_yolo()
    Path("yolo/labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    assert_refused("a.txt", "is not text", **YOLO)


@pytest.mark.parametrize(("orientation", "bbox"), [(1, [0, 0, 30, 10]), (6, [0, 0, 20, 15]), (3, [0, 0, 30, 10])])
def test_yolo_boxes_are_fractions_of_the_image_as_displayed(orientation: int, bbox: list[float]) -> None:
    # Half of the width, a quarter of the height: of 60 x 40 pixels, or of 40 x 60 where EXIF rotates the image.
    small_yolo(a=["0 0.25 0.125 0.5 0.25"])
    Image.fromarray(pixels("a")).save("yolo/images/train/a.jpg", exif=exif(orientation))
    run_prepare(**YOLO)
    entry = read("train")["images"][0]
    assert boxes()[0] == bbox
    assert (entry["width"], entry["height"]) == ((HEIGHT, WIDTH) if orientation == 6 else (WIDTH, HEIGHT))
    split = read_split(DATA, "train")
    assert read_image(split.path_of(entry), (entry["height"], entry["width"])).shape[:2] == (
        entry["height"],
        entry["width"],
    )


def test_yolo_validation_folders() -> None:
    small_yolo()
    write_yolo(Path("yolo"), {"test": {"d": [YOLO_DOG]}})
    folders = {"validation_images": "images/test", "validation_labels": "labels/test"}
    assert list(run_prepare(**YOLO, **folders)["splits"]) == ["train", "validation", "test"]
    assert boxes("validation") == [[0, 0, WIDTH, HEIGHT]]


# Images of other kinds, from the annotation to the decoded pixels ---------------------------------------------------


def replace_image(drawn: Image.Image, *, suffix: str = "png", **image: Any) -> np.ndarray:
    """Prepare COCO data whose first training image is this one; return it as training reads it."""
    name = f"image.{suffix}"
    Path("coco/train2017").mkdir(parents=True, exist_ok=True)
    extra: dict[str, Any] = {"exif": exif(image.pop("orientation"))} if "orientation" in image else {}
    drawn.save(f"coco/train2017/{name}", **extra)
    small_coco(train=coco_content([coco_image(1, file_name=name, **image)], [coco_box(1, 1, [1, 2, 10, 20])]))
    run_prepare(**COCO)
    split = read_split(DATA, "train")
    (entry,) = split.images
    return read_image(split.path_of(entry), (entry["height"], entry["width"]))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16", "1"])
def test_images_of_any_mode_become_rgb_and_are_listed(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(pixels("a")[..., 0].astype(np.uint16) * 256)
    else:
        image = Image.fromarray(pixels("a")).convert(mode)
    decoded = replace_image(image, suffix="tif")
    assert (decoded.shape, decoded.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert len(np.unique(decoded)) > 1
    what = f"colour mode {mode}" + (", transparency is left out" if mode == "RGBA" else "")
    assert read("manifest")["odd"] == [{"split": "train", "image": "image.tif", "what": what}]


def test_pixels_without_a_range_are_refused_by_prepare() -> None:
    with pytest.raises(UserError, match="32 bits"):
        replace_image(Image.fromarray(pixels("a")[..., 0].astype(np.float32)), suffix="tif")
    assert not list(Path("data").iterdir())


@pytest.mark.parametrize(("width", "height", "turned"), [(HEIGHT, WIDTH, True), (WIDTH, HEIGHT, False)])
def test_turned_image_follows_the_size_of_its_annotation(width: int, height: int, turned: bool) -> None:
    # Stored as 60 x 40 and rotated by EXIF, so displayed as 40 x 60. The annotation may refer to either.
    stored = pixels("a")
    decoded = replace_image(Image.fromarray(stored), orientation=6, width=width, height=height)
    clockwise = stored.transpose(1, 0, 2)[:, ::-1]
    assert np.array_equal(decoded, clockwise if turned else stored)
    entry = read("train")["images"][0]
    assert (entry["width"], entry["height"]) == (width, height)
    assert [odd["what"] for odd in read("manifest")["odd"]] == ["rotated by EXIF"]


def test_turned_image_without_a_stated_size_is_taken_as_displayed() -> None:
    replace_image(Image.fromarray(pixels("a")), orientation=6, width=None, height=None)
    entry = read("train")["images"][0]
    assert (entry["width"], entry["height"]) == (HEIGHT, WIDTH)


def test_box_is_held_against_the_annotated_orientation() -> None:
    # x + w = 55 fits the stored width 60, not the displayed width 40.
    save_image(Path("coco/train2017/a.png"))
    Image.fromarray(pixels("a")).save("coco/train2017/a.png", exif=exif(6))
    for width, height, fits in ((WIDTH, HEIGHT, True), (HEIGHT, WIDTH, False)):
        image = coco_image(1, file_name="a.png", width=width, height=height)
        small_coco(train=coco_content([image], [coco_box(1, 1, [45, 5, 10, 10])]))
        if fits:
            run_prepare(**COCO)
        else:
            assert_refused("outside its image", "40 x 60", **COCO)


@pytest.mark.parametrize(
    ("orientation", "width", "height", "frame"),
    [(6, HEIGHT, WIDTH, "displayed"), (6, WIDTH, HEIGHT, "stored"), (3, WIDTH, HEIGHT, "displayed")],
)
def test_the_frame_that_boxes_are_taken_to_be_in_is_said(orientation: int, width: int, height: int, frame: str) -> None:
    replace_image(Image.fromarray(pixels("a")), orientation=orientation, width=width, height=height)
    (sentence,) = read("manifest")["assumed"]
    assert sentence.startswith(f"1 images are rotated by EXIF; their boxes are assumed to refer to the {frame} image")


def deep_yolo(**values: int) -> None:
    """Write a YOLO set of 16-bit grey PNGs, each black with one pixel of this value, by stem."""
    small_yolo(**{stem: [YOLO_DOG] for stem in values})
    for stem, value in values.items():
        image = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        image[5, 7] = value
        Path(f"yolo/images/train/{stem}.jpg").unlink()
        Image.fromarray(image).save(f"yolo/images/train/{stem}.png")


def test_images_of_twelve_bits_are_shown_in_their_range_all_alike() -> None:
    """The brightest pixel of the set is 3600 = 0xe10, so 12 bits are used, of which 8 are shown: 0xe1 and 0x5d."""
    deep_yolo(x=0xE10, y=0x5DC)
    manifest = run_prepare(**YOLO)
    assert "2 images have 16 bits a pixel and values up to 3600: 12 bits are shown" in manifest["notes"]
    split = read_split(DATA, "train")
    shown = {image["file_name"]: Images(split)[index] for index, image in enumerate(split.images)}
    assert (int(shown["x.png"][5, 7, 0]), int(shown["y.png"][5, 7, 0])) == (0xE1, 0x5D)
    assert split.bits == 12 and Identity(run={}, categories=[], data_digest="", bits=12).to_metadata() == {
        "fcos": '{"bits": 12, "categories": [], "data_digest": "", "format": 1, "run": {}}'
    }


def test_images_of_all_sixteen_bits_are_described_as_before() -> None:
    deep_yolo(x=0xE100)
    run_prepare(**YOLO)
    assert all("bits" not in image for image in read("train")["images"]) and read_split(DATA, "train").bits == 16


def png_of_deep_colours(value: int) -> bytes:
    """Return a PNG of WIDTH x HEIGHT pixels with 16 bits per colour, all of this value, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">H", value) * 3 * WIDTH
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * HEIGHT)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_deep_colours_are_read_by_their_high_byte_and_refused_where_that_is_black() -> None:
    small_yolo()
    Path("yolo/images/train/a.jpg").unlink()
    path = Path("yolo/images/train/a.png")
    path.write_bytes(png_of_deep_colours(0x9ABC))
    assert "1 images have 16 bits a colour: the high byte of each is shown" in run_prepare(**YOLO)["notes"]
    path.write_bytes(png_of_deep_colours(0x0ABC))
    assert_refused("a.png", "would be nearly black", "convert the images to 8 bits a colour", **YOLO)


def test_half_turned_image_is_turned_and_listed() -> None:
    # A rotation by 180 degrees keeps the size; annotation tools show images rotated, so boxes are read that way.
    stored = pixels("a")
    assert np.array_equal(replace_image(Image.fromarray(stored), orientation=3), stored[::-1, ::-1])
    assert [odd["what"] for odd in read("manifest")["odd"]] == ["rotated by EXIF"]


# Held-out images ----------------------------------------------------------------------------------------------------

EIGHT = [f"{number:06d}" for number in range(1, 9)]


def eight_voc(stems: list[str] = EIGHT) -> None:
    """Write training images in this order, each with one box, and one test image."""
    write_voc(Path("photos"), {"trainval": {stem: [CAT] for stem in stems}, "test": {"000009": [CAT, DOG]}})


def contents(split: str) -> set[str]:
    return {image["sha256"] for image in read(split)["images"]}


def test_nothing_is_held_out_unless_asked_for() -> None:
    small_coco()
    manifest = run_prepare(**COCO)
    assert list(manifest["splits"]) == ["train", "test"]  # so that reports have no row of zeros
    assert read("validation") == {"images": [], "annotations": [], "categories": CATEGORIES}
    split = read_split(DATA, "validation")
    assert (split.images, split.categories) == ([], CATEGORIES)


def test_held_out_images_come_out_of_training_and_take_their_boxes_along() -> None:
    eight_voc()
    run_prepare(**VOC)
    everything, tested = contents("train"), contents("test")
    manifest = run_prepare(**VOC, validation_fraction=0.25)
    assert list(manifest["splits"]) == ["train", "validation", "test"]
    assert contents("validation") == set(sorted(everything)[:2])  # the first in the order of their sha256
    assert contents("train") == everything - contents("validation")
    assert contents("test") == tested
    for split, count in (("train", 6), ("validation", 2)):
        content = read(split)
        assert [a["id"] for a in content["annotations"]] == list(range(1, count + 1))
        assert [a["image_id"] for a in content["annotations"]] == [image["id"] for image in content["images"]]
        assert manifest["splits"][split]["num_objects"] == count
    held_out = read_split(DATA, "validation")
    assert held_out.digest == manifest["splits"]["validation"]["digest"]
    assert all(held_out.path_of(image).is_file() for image in held_out.images)


def test_order_and_names_of_images_do_not_decide_which_are_held_out() -> None:
    eight_voc()
    run_prepare(**VOC, validation_fraction=0.5)
    held_out, prepared = contents("validation"), snapshot(DATA)
    run_prepare(**VOC, validation_fraction=0.5)
    assert snapshot(DATA) == prepared
    eight_voc(EIGHT[::-1])
    run_prepare(**VOC, validation_fraction=0.5)
    assert contents("validation") == held_out
    renamed = {stem: f"1{9 - int(stem):05d}" for stem in EIGHT}  # the last file gets the first name
    for stem, name in renamed.items():
        for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            Path(f"photos/{folder}/{stem}.{suffix}").rename(f"photos/{folder}/{name}.{suffix}")
    write(LISTS / "trainval.txt", "".join(f"{name}\n" for name in renamed.values()))
    run_prepare(**VOC, validation_fraction=0.5)
    assert contents("validation") == held_out


# Of 8: rounded (0.3 * 8 = 2.4, 0.7 * 8 = 5.6), and at least 1.
@pytest.mark.parametrize(("fraction", "held_out"), [(0.001, 1), (0.3, 2), (0.7, 6), (0.9, 7)])
def test_how_many_are_held_out(fraction: float, held_out: int) -> None:
    eight_voc()
    splits = run_prepare(**VOC, validation_fraction=fraction)["splits"]
    assert (splits["train"]["num_images"], splits["validation"]["num_images"]) == (8 - held_out, held_out)


@pytest.mark.parametrize("fraction", [0.25, 0.4, 0.5, 0.6])
def test_copies_of_a_image_stay_on_one_side(fraction: float) -> None:
    eight_voc()
    for original, copy in (("000001", "000002"), ("000003", "000004"), ("000005", "000006"), ("000007", "000008")):
        shutil.copy(f"photos/JPEGImages/{original}.jpg", f"photos/JPEGImages/{copy}.jpg")
    run_prepare(**VOC, validation_fraction=fraction)
    assert not contents("train") & contents("validation")
    assert len(contents("validation")) == round(len(read("validation")["images"]) / 2) > 0


def test_a_fraction_that_leaves_nothing_to_train_on_is_refused() -> None:
    small_voc()
    assert_refused(
        "params.yaml: data.validation_fraction", "leaves no training image", "0.9 of 2", **VOC, validation_fraction=0.9
    )


# Data with one split --------------------------------------------------------------------------------------------------


def test_test_images_are_held_out_of_data_with_one_split() -> None:
    eight_voc()
    run_prepare(**VOC)
    order = sorted(contents("train"))
    manifest = run_prepare(**VOC, test_split=None, test_fraction=0.25, validation_fraction=0.5)
    assert list(manifest["splits"]) == ["train", "validation", "test"]
    # The first two of eight in the order of their sha256, then the first three of the remaining six.
    assert contents("test") == set(order[:2])
    assert contents("validation") == set(order[2:5])
    assert contents("train") == set(order[5:])
    assert read_split(DATA, "test").image_dir.resolve() == Path("photos/JPEGImages").resolve()


def test_voc_folder_without_lists_is_one_split() -> None:
    small_voc()
    shutil.rmtree("photos/ImageSets")
    splits = run_prepare(**VOC, train_split=None, test_split=None, test_fraction=0.34)["splits"]
    assert [splits[split]["num_images"] for split in ("train", "test")] == [2, 1]


@pytest.mark.parametrize("source", ["coco", "yolo"])
def test_coco_and_yolo_with_one_split(source: str) -> None:
    small_coco()
    small_yolo()
    none = (
        {"test_annotations": None, "test_images": None}
        if source == "coco"
        else {"test_images": None, "test_labels": None}
    )
    data = COCO if source == "coco" else YOLO
    splits = run_prepare(**data, **none, test_fraction=0.5)["splits"]
    assert [splits[split]["num_images"] for split in ("train", "test")] == [1, 1]


def test_a_test_fraction_that_leaves_nothing_is_refused() -> None:
    small_voc()
    one = {"test_split": None, "test_fraction": 0.9}
    assert_refused("params.yaml: data.test_fraction", "leaves no training image", "0.9 of 2", **VOC, **one)


def small_voc_with_val(val: str = "000004") -> None:
    write_voc(Path("photos"), {"val": {val: [DOG]}})
    small_voc()


def test_voc_validation_split() -> None:
    small_voc_with_val()
    manifest = run_prepare(**VOC, validation_split="val")
    assert [(name, split["num_images"]) for name, split in manifest["splits"].items()] == [
        ("train", 2), ("validation", 1), ("test", 1),
    ]  # fmt: skip
    assert [image["file_name"] for image in read_split(DATA, "validation").images] == ["000004.jpg"]


@pytest.mark.parametrize(
    ("val", "found"), [("000002", "validation 000002.jpg = train 000002"), ("000003", "test 000003.jpg = validation")]
)
def test_validation_images_in_another_split_are_refused(val: str, found: str) -> None:
    small_voc_with_val(val)
    assert_refused("in both splits", "same image id", found, **VOC, validation_split="val")


def test_validation_image_with_the_content_of_another_is_refused() -> None:
    small_voc_with_val()
    shutil.copy("photos/JPEGImages/000003.jpg", "photos/JPEGImages/000004.jpg")
    found = "test 000003.jpg = validation 000004.jpg"
    assert_refused("in both splits", "same content", found, **VOC, validation_split="val")


def coco_validation(content: dict[str, Any]) -> dict[str, Any]:
    write(Path("coco/annotations/val.json"), json.dumps(content))
    return {**COCO, "validation_annotations": "annotations/val.json", "validation_images": "train2017"}


def test_coco_validation_file_may_share_the_folder_of_the_training_images() -> None:
    small_coco()
    save_image(Path("coco/train2017/000000000004.jpg"))
    data = coco_validation(coco_content([coco_image(4)], [coco_box(1, 4), coco_box(2, 4, [0, 0, 9, 9])]))
    validation = run_prepare(**data)["splits"]["validation"]
    assert (validation["num_images"], validation["num_objects"]) == (1, 2)


def test_bad_coco_validation_files_are_refused() -> None:
    small_coco()
    assert_refused("in both splits", "validation 0", **coco_validation(coco_content([coco_image(2)], [])))
    assert_refused("the validation split has no image", **coco_validation(coco_content([], [])))
    one = coco_content([coco_image(2)], [])
    other = [CATEGORIES[0], {"id": 7, "name": "cow"}]
    assert_refused("val.json", "other categories", **coco_validation({**one, "categories": other}))


# Drawn images -------------------------------------------------------------------------------------------------------


def draw(**changes: Any) -> dict[str, Any]:
    usual = {"num_train": 6, "num_test": 3, "image_size": 64, "max_objects": 4, "seed": 0}
    return run_prepare(source="shapes", **{**usual, **changes})


def test_same_seed_gives_the_same_bytes_another_seed_others() -> None:
    draw()
    first = snapshot(DATA)
    assert sum(name.endswith(".png") for name in first) == 9
    draw()
    assert snapshot(DATA) == first
    draw(seed=1)
    second = snapshot(DATA)
    assert second.keys() == first.keys()
    assert not {d for name, d in first.items() if name.endswith("png")} & set(second.values())


def test_more_training_images_leave_the_earlier_ones_alone() -> None:
    draw(num_train=3)
    few, few_boxes = snapshot(DATA / "images/train"), boxes()
    draw(num_train=6)
    many = snapshot(DATA / "images/train")
    assert (len(few), len(many)) == (3, 6)
    assert few.items() <= many.items()
    assert boxes()[: len(few_boxes)] == few_boxes


def test_held_out_drawings_are_some_of_the_training_ones() -> None:
    draw()
    drawn, tested = snapshot(DATA / "images"), read("test")
    draw(validation_fraction=0.5)
    assert snapshot(DATA / "images") == drawn
    assert read("test") == tested
    split = read_split(DATA, "validation")
    assert all(split.path_of(image).is_file() for image in split.images)
    trained, held_out = ({image["id"] for image in read(name)["images"]} for name in ("train", "validation"))
    assert (len(trained), len(held_out), trained | held_out) == (3, 3, set(range(1, 7)))


@pytest.mark.slow
def test_the_study_has_objects_of_every_size_and_class_in_both_splits() -> None:
    # As in studies/shapes.yaml: 256 and 96 images of 128 x 128 pixels, up to 6 objects in each.
    manifest = draw(num_train=256, num_test=96, image_size=128, max_objects=6)
    for split, num_images in (("train", 256), ("test", 96)):
        counts = manifest["splits"][split]
        assert counts["num_images"] == num_images
        assert min(counts["per_size"].values()) >= num_images // 10  # small, medium and large
        assert min(counts["per_class"].values()) >= num_images // 10
        assert list(counts["per_class"]) == list(NAMES)
        per_image = Counter(a["image_id"] for a in read(split)["annotations"])
        assert (min(per_image.values()), max(per_image.values())) == (1, 6)
        for x, y, w, h in boxes(split):
            assert min(x, y) >= 0
            assert min(w, h) > 0
            assert max(x + w, y + h) <= 128.005  # rounded to 0.01
    assert manifest["dropped"] == manifest["clipped"] == manifest["odd"] == []


def test_no_drawn_object_hides_another() -> None:
    """Objects are listed in painting order; at most 0.15 of a box lies under each later one."""
    draw(num_train=60, num_test=10, image_size=128, max_objects=6)
    of_image: dict[int, list[list[float]]] = {}
    for annotation in read("train")["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    shares = [
        (min(x + w, other_x + other_w) - max(x, other_x)) * (min(y + h, other_y + other_h) - max(y, other_y)) / (w * h)
        for painted in of_image.values()
        for number, (x, y, w, h) in enumerate(painted)
        for other_x, other_y, other_w, other_h in painted[number + 1 :]
        if min(x + w, other_x + other_w) > max(x, other_x) and min(y + h, other_y + other_h) > max(y, other_y)
    ]
    assert len(shares) > 20 and 0.1 < max(shares) <= 0.151


def test_drawn_images_lie_inside_the_prepared_data() -> None:
    draw()
    Path("data").rename("moved")
    split = read_split(Path("moved/pets"), "test")
    assert all(split.path_of(image).is_file() for image in split.images)
    assert [image["id"] for image in split.images] == [7, 8, 9]  # after the 6 training images


@pytest.mark.parametrize("label", range(len(NAMES)), ids=NAMES)
@pytest.mark.parametrize("side", [9.0, 40.5, 120.0])
def test_box_touches_its_shape_on_every_side(label: int, side: float) -> None:
    # Every shape is visible on white: fills differ from the background by at least 180, edges are at most 127 of 255.
    size = 128
    for seed in range(5):
        image = Image.new("RGB", (size * OVERSAMPLING,) * 2, "white")
        rng = np.random.default_rng(seed)
        outline = _place(rng, label, side, size, [])
        assert outline is not None
        _paint(image, rng, label, outline)
        x, y, w, h = _box_of(outline)
        painted = np.asarray(image).min(axis=2) < 255
        rows, columns = (np.flatnonzero(painted.any(axis=axis)) for axis in (1, 0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / OVERSAMPLING
        assert seen == pytest.approx([x, y, x + w, y + h], abs=0.75)
        assert max(w, h) == pytest.approx(side, abs=0.01)


# Real images --------------------------------------------------------------------------------------------------------


def image_numbers(entries: list[dict[str, Any]]) -> list[int]:
    return sorted(int(re.sub(r"\D", "", entry["image"])) for entry in entries)


@needs_real("bccd")
@pytest.mark.parametrize(
    ("train", "test", "odd", "twins"),
    [
        ("trainval", "test", 3, [13, 20, 100, 104, 251, 284, 331, 403]),
        ("train", "val", 1, [13, 20, 100, 104, 251, 331, 403]),  # 284; test has two unusual tags as well
    ],
)
def test_bccd_defects_are_found(train: str, test: str, odd: int, twins: list[int]) -> None:
    manifest = run_prepare(source="voc", root=str(REAL / "bccd"), train_split=train, test_split=test)
    assert image_numbers(manifest["dropped"]) == [338, 343]
    assert {entry["why"] for entry in manifest["dropped"]} == {"no area"}
    assert image_numbers(manifest["near_duplicates"]) == twins
    assert [entry["what"] for entry in manifest["odd"]] == ["folder tag `RBC`"] * odd
    assert manifest["clipped"] == []


@needs_real("bccd")
def test_bccd_counts() -> None:
    # 205 + 87 and 72 images; RBC 4155 less the two without area, WBC 372, Platelets 361.
    manifest = run_prepare(source="voc", root=str(REAL / "bccd"))
    train, test = manifest["splits"]["train"], manifest["splits"]["test"]
    assert (train["num_images"], test["num_images"]) == (292, 72)
    total = {name: train["per_class"][name] + test["per_class"][name] for name in train["per_class"]}
    assert total == {"Platelets": 361, "RBC": 4155 - 2, "WBC": 372}
    assert read("train")["images"][0]["width"] == 640


@needs_real("voc2012-100")
def test_voc2012_counts() -> None:
    data = {"source": "voc", "root": str(REAL / "voc2012-100"), "train_split": "train", "test_split": "val"}
    splits = run_prepare(**data)["splits"]
    assert [splits[s]["num_images"] for s in ("train", "test")] == [70, 30]
    assert sum(splits[s]["num_objects"] for s in ("train", "test")) == 273
    assert len(splits["train"]["per_class"]) == 20
    difficult = sum(a["difficult"] for s in ("train", "test") for a in read(s)["annotations"])
    splits = run_prepare(**data, difficult="ignore")["splits"]
    assert sum(splits[s]["num_ignored"] for s in ("train", "test")) == difficult > 0
    assert sum(splits[s]["num_objects"] for s in ("train", "test")) == 273 - difficult


@needs_real("coco2017-mini")
def test_coco2017_counts() -> None:
    manifest = run_prepare(source="coco", root=str(REAL / "coco2017-mini"))
    splits = list(manifest["splits"].values())
    assert [split["num_images"] for split in splits] == [80, 80]
    assert sum(split["num_ignored"] for split in splits) == 13
    assert sum(split["num_empty_images"] for split in splits) == 2
    ids = [category["id"] for category in manifest["categories"]]
    assert (len(ids), min(ids), max(ids)) == (80, 1, 90)
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(ids)  # COCO's ten gaps
    for split, name in (("train", "train2017"), ("test", "val2017")):
        original = json.loads((REAL / f"coco2017-mini/annotations/instances_{name}.json").read_text())
        written = {(a["image_id"], a["category_id"], *a["bbox"], a["area"]) for a in read(split)["annotations"]}
        assert written == {(a["image_id"], a["category_id"], *a["bbox"], a["area"]) for a in original["annotations"]}


@needs_real("voc2007-annotations")
@pytest.mark.parametrize(
    ("name", "num_images", "num_objects"), [("train", 2501, 7844), ("val", 2510, 7818), ("test", 4952, 14976)]
)
def test_voc2007_boxes_come_out_as_two_public_conversions_have_them(
    name: str, num_images: int, num_objects: int, tmp_path: Path
) -> None:
    content = json.loads((REAL / f"voc2007-annotations/voc2007_{name}.json").read_text())
    class_of = {category["id"]: category["name"] for category in content["categories"]}
    assert (len(content["images"]), len(content["annotations"])) == (num_images, num_objects)
    for annotation in content["annotations"]:
        text = voc_object(
            class_of[annotation["category_id"]], annotation["bbox_voc_1based"], difficult=annotation["difficult"]
        )
        [box] = _read_object(ElementTree.fromstring(text), tmp_path, True, Seen())
        assert box.bbox == annotation["bbox"]
        assert (box.ignored, box.extra["difficult"]) == (bool(annotation["difficult"]), annotation["difficult"])
