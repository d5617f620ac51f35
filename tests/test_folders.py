"""Folders as users have them: layouts, texts, values and damage of many tools."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from data_helpers import (
    CAT,
    CATEGORIES,
    DOG,
    HEIGHT,
    REAL,
    WIDTH,
    YOLO_CAT,
    YOLO_DOG,
    coco_box,
    coco_content,
    coco_image,
    needs_real,
    prepare_as_found,
    save_image,
    small_coco,
    small_voc,
    small_yolo,
    voc_object,
    voc_xml,
    write,
    write_voc,
    write_yolo,
)

from fcos.data.sources.discover import discover
from fcos.data.sources.roles import split_in
from fcos.data.sources.text import read_text, read_xml
from fcos.data.sources.tree import Names, walk
from fcos.data.sources.values import flag, identity, number, whole
from fcos.errors import UserError

SET = Path("set")
OUT = Path("out")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    OUT.mkdir()


def prepared(**choices: Any) -> dict[str, Any]:
    return prepare_as_found(SET, OUT, **choices)


def counts(manifest: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the numbers of images and objects of each split."""
    return {name: (split["num_images"], split["num_objects"]) for name, split in manifest["splits"].items()}


def content(split: str = "train") -> dict[str, Any]:
    return dict(json.loads((OUT / f"{split}.json").read_text(encoding="utf-8")))


def refusal(**choices: Any) -> str:
    with pytest.raises(UserError) as raised:
        prepared(**choices)
    return str(raised.value)


def coco_splits(**splits: dict[str, Any]) -> None:
    """Write SPLIT/SPLIT.json beside its images."""
    for split, one in splits.items():
        for image in one["images"]:
            save_image(SET / split / image["file_name"], name=f"{split}-{image['file_name']}")
        write(SET / split / f"{split}.json", json.dumps(one))


def coco_one(box: dict[str, Any] | None = None, image: dict[str, Any] | None = None, **more: Any) -> None:
    """Write a training file with this image and box, and an ordinary test file."""
    one = coco_content([{**coco_image(1), **(image or {})}], [{**coco_box(1, 1), **(box or {})}])
    coco_splits(train={**one, **more}, val=coco_content([coco_image(2)], [coco_box(1, 2)]))


# Layouts --------------------------------------------------------------------------------------------------------------

VOC_PLACES = [
    ("annotations", "images"),
    ("annots", "images"),
    ("mine/Annotations", "mine/JPEGImages"),
    ("xml", "photos"),
    ("annotations/xmls", "images"),
]


@pytest.mark.parametrize("suffix", ["jpg", "BMP", "tif"])
@pytest.mark.parametrize(("labels", "images"), VOC_PLACES)
def test_voc_files_anywhere(labels: str, images: str, suffix: str) -> None:
    for stem in "abc":
        save_image(SET / images / f"{stem}.{suffix}")
        write(SET / labels / f"{stem}.xml", voc_xml([CAT]))
    assert counts(prepared()) == {"train": (2, 2), "test": (1, 1)}


@pytest.mark.parametrize("place", ["{s}", "{s}/{p}", "{p}/{s}"])
def test_voc_splits_by_folders(place: str) -> None:
    for split in ("train", "valid", "test"):
        labels, images = (place.format(s=split, p=part) for part in ("annotations", "images"))
        save_image(SET / images / f"{split}.jpg")
        write(SET / labels / f"{split}.xml", voc_xml([CAT, DOG]))
    assert counts(prepared()) == {"train": (1, 2), "validation": (1, 2), "test": (1, 2)}


def test_voc_sub_folders_and_the_image_that_filename_states() -> None:
    for place, stem, stated in (("a", "1", "x"), ("b", "1", "y"), ("b", "2", "2")):
        save_image(SET / "JPEGImages" / place / f"{stated}.png", name=stated)
        xml = voc_xml([CAT]).replace("<annotation>", f"<annotation><filename>C:\\here\\{stated}.png</filename>")
        write(SET / "Annotations" / place / f"{stem}.xml", xml)
    prepared()
    names = {image["file_name"] for split in ("train", "test") for image in content(split)["images"]}
    assert names == {"a/x.png", "b/y.png", "b/2.png"}


def test_voc_xml_that_states_another_image_than_the_one_of_its_name() -> None:
    small_voc(SET)
    xml = voc_xml([CAT]).replace("<annotation>", "<annotation><filename>000002.jpg</filename>")
    write(SET / "Annotations/000001.xml", xml)
    text = refusal()
    assert "000001.xml: its <filename> and its own name" in text and "000002.jpg" in text


def test_voc_lists_with_spaces_endings_and_columns() -> None:
    write_voc(SET, {"train": {"a 1": [CAT], "b": [CAT], "c": [DOG]}, "test": {"d": [DOG]}})
    write(SET / "ImageSets/Main/train.txt", "a 1\nb.jpg\nJPEGImages/c 1 2 -1\n")
    assert counts(prepared()) == {"train": (3, 3), "test": (1, 1)}


def test_xml_files_that_no_list_names_are_said() -> None:
    small_voc(SET)
    save_image(SET / "JPEGImages/new.jpg")
    write(SET / "Annotations/new.xml", voc_xml([CAT]))
    assert "1 XML files that no list in use names (new)" in discover(SET).unused


def test_voc_class_lists_alone_are_lists_of_images() -> None:
    write_voc(SET, {"cat_train": {"a": [CAT]}, "dog_train": {"a": [CAT]}, "cat_val": {"b": [CAT]}})
    assert counts(prepared()) == {"train": (1, 1), "test": (1, 1)}


def test_voc_images_without_xml_are_counted() -> None:
    small_voc(SET)
    save_image(SET / "JPEGImages/new.jpg")
    (SET / "ImageSets/Main/trainval.txt").unlink()
    (SET / "ImageSets/Main/test.txt").unlink()
    assert prepared()["counts"] == {"images without an XML file, left out": 1}


@pytest.mark.parametrize(
    "names", ["train: images/day\nval: images/night\n", "path: /x/y\ntrain: y/images/day\nval: ./images/night/\n"]
)
def test_data_yaml_says_which_split_a_folder_is(names: str) -> None:
    write_yolo(SET, {"day": {"a": [YOLO_CAT], "b": []}, "night": {"c": [YOLO_DOG]}, "noon": {"d": [YOLO_DOG]}})
    write(SET / "data.yaml", f"{names}nc: 2\nnames: [cat, dog]\nroboflow: {{x: 1}}\n")
    assert counts(prepared()) == {"train": (2, 1), "test": (1, 1)}
    unused = discover(SET).unused
    assert "images/noon: data.yaml lists it for no split" in unused
    assert any("roboflow" in sentence for sentence in unused)


def test_data_yaml_with_a_folder_that_is_not_there() -> None:
    write_yolo(SET, {"train": {"a": [YOLO_CAT]}, "validate": {"b": [YOLO_CAT]}, "test": {"c": []}}, "{split}/{part}")
    write(SET / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]\n")
    found = discover(SET)
    assert (found.data["test_images"], "validate/images is taken for validation" in found.assumed[0]) == (
        "validate/images",
        True,
    )
    assert any("'../valid/images' for validation does not exist" in sentence for sentence in found.unused)
    assert any("test/images for test has images, but no labels" in sentence for sentence in found.unused)


def test_lists_of_images_are_splits() -> None:
    write_yolo(SET, {"all": {stem: [YOLO_CAT] for stem in "abcd"}}, place="pool/{part}")
    write(SET / "obj.names", "cat\n")
    write(SET / "train.txt", "data/pool/images/a.jpg\nC:\\x\\b.jpg\n")
    write(SET / "val.txt", "c.jpg\n")
    manifest = prepared()
    assert counts(manifest) == {"train": (2, 2), "test": (1, 1)}
    assert manifest["counts"]["images that val.txt does not name, left out"] == 3


@pytest.mark.parametrize("place", ["{split}/{part}/cam1", "{part}/{split}/cam1", "mine/{split}/{part}"])
def test_yolo_one_level_up_or_down(place: str) -> None:
    write_yolo(SET, {"train": {"a": [YOLO_CAT], "b": []}, "valid": {"a": [YOLO_DOG]}}, place)
    save_image(SET / place.format(part="images", split="valid") / "a.jpg", name="other")
    write(SET / "_darknet.labels", "cat\ndog\n")
    assert counts(prepared()) == {"train": (2, 1), "test": (1, 1)}


def test_labels_of_a_split_called_otherwise_are_its_own() -> None:
    write_yolo(SET, {"train": {"a": [YOLO_CAT]}, "val": {"a": [YOLO_DOG]}})
    save_image(SET / "images/val/a.jpg", name="other")
    write(SET / "classes.txt", "cat\ndog\n")
    (SET / "labels/val").rename(SET / "labels/valid")
    assert discover(SET).data["test_labels"] == "labels/valid"
    assert prepared()["splits"]["test"]["per_class"] == {"cat": 0, "dog": 1}


def test_labels_beside_the_images_give_way_to_a_folder_of_labels() -> None:
    small_yolo(SET)
    write(SET / "classes.txt", "cat\ndog\n")
    write(SET / "images/train/a.txt", YOLO_DOG)
    assert prepared()["splits"]["train"]["per_class"] == {"cat": 1, "dog": 1}
    assert any("are taken from labels/train" in sentence for sentence in discover(SET).unused)


def test_coco_val_file_belongs_to_the_images_of_its_own_name() -> None:
    for split in ("train", "val"):
        for number_ in range(1, 5):
            save_image(SET / f"images/{split}/{number_}.jpg", name=f"{split}{number_}")
    for split, numbers in (("train", (2, 4)), ("val", (1, 3))):
        images = [coco_image(n, file_name=f"{n}.jpg") for n in numbers]
        write(SET / f"{split}.json", json.dumps(coco_content(images, [coco_box(n, n) for n in numbers])))
    assert (discover(SET).data["train_images"], discover(SET).data["test_images"]) == ("images/train", "images/val")


def test_coco_file_without_instances_in_its_name_is_not_passed_over() -> None:
    small_coco(SET)
    (SET / "annotations/instances_train2017.json").rename(SET / "annotations/train.json")
    write(SET / "all.json", (SET / "annotations/train.json").read_text())
    write(SET / "results.json", '[{"image_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}]')
    found = discover(SET)
    assert found.data["train_annotations"] == "annotations/train.json"
    assert found.data["test_annotations"] == "annotations/instances_val2017.json"
    assert {"all.json: its name contains no split", "results.json: the results of a detector"} <= set(found.unused)


@pytest.mark.parametrize(
    "name", ["images\\a.jpg", "/home/x/set/images/a.jpg", "https://x.org/images/a.jpg?k=1", "./A.JPG"]
)
def test_names_of_another_machine_are_found_by_their_last_part(name: str) -> None:
    save_image(SET / "images/a.jpg")
    save_image(SET / "images/b.jpg")
    images = [coco_image(1, file_name=name), coco_image(2, file_name="b.jpg")]
    write(SET / "result.json", json.dumps(coco_content(images, [coco_box(1, 1), coco_box(2, 2)])))
    manifest = prepared()
    assert manifest["counts"]["images found by the last part of their name"] == 1
    names = {image["file_name"] for split in ("train", "test") for image in content(split)["images"]}
    assert names == {"a.jpg", "b.jpg"}


def test_a_name_in_an_annotation_never_leaves_the_root() -> None:
    save_image(Path("secret.jpg"))
    coco_one(image={"file_name": "000000000001.jpg"})
    one = coco_content([coco_image(1), coco_image(5, file_name="../../secret.jpg")], [coco_box(1, 1)])
    write(SET / "train/train.json", json.dumps(one))
    assert "names a missing image" in refusal()


def test_links_are_followed_and_counted() -> None:
    small_yolo(Path("disk"))
    SET.mkdir()
    write(SET / "classes.txt", "cat\ndog\n")
    (SET / "images").symlink_to(Path("../disk/images"))
    (SET / "labels").symlink_to(Path("../disk/labels"))
    (SET / "again").symlink_to(Path())  # a loop
    manifest = prepared()
    assert counts(manifest) == {"train": (2, 2), "test": (1, 2)}
    assert manifest["counts"] == {"folders or files of data that are links out of data.root, followed": 4}
    assert "1 links to a folder above themselves" in discover(SET).unused


@pytest.mark.parametrize("what", ["link", "fifo"])
def test_what_is_no_file_is_refused_by_name(what: str) -> None:
    small_voc(SET)
    odd = SET / "JPEGImages/odd.jpg"
    os.mkfifo(odd) if what == "fifo" else odd.symlink_to("gone.jpg")
    assert f"set/JPEGImages/odd.jpg: is {'neither a file' if what == 'fifo' else 'a broken link'}" in refusal()


def test_litter_of_a_mac_is_left_out_and_said() -> None:
    small_voc(SET)
    for name in ("Annotations/._000001.xml", "JPEGImages/._000001.jpg", "__MACOSX/Annotations/._000001.xml"):
        write(SET / name, "\5\26\7")
    assert counts(prepared())["train"] == (2, 2)
    assert any(sentence.startswith("3 hidden files") for sentence in discover(SET).unused)


def test_an_archive_gets_a_hint() -> None:
    Path("mine.zip").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match="unpack it first"):
        discover(Path("mine.zip"))
    SET.mkdir()
    Path("mine.zip").rename(SET / "mine.zip")
    assert "unpack the archives first" in refusal()


# Contradictions -------------------------------------------------------------------------------------------------------


def test_two_layouts_in_one_folder_are_both_named() -> None:
    small_yolo(SET)
    write(SET / "classes.txt", "cat\ndog\n")
    one = coco_content([coco_image(1, file_name="a.jpg")], [coco_box(1, 1)])
    write(SET / "backup/old.json", json.dumps(one))
    text = refusal()
    assert "annotations in several layouts" in text and "backup/old.json" in text and "labels/train" in text


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("data.yaml", "names: [cat, dog]"), ("classes.txt", "dog\ncat\n")),
        (("labels/train/classes.txt", "cat\ndog\n"), ("labels/val/classes.txt", "dog\ncat\n")),
        (("obj.names", "cat\ndog\n"), ("mine.yaml", "names: [cat, dog, cow]")),
    ],
)
def test_files_of_class_names_that_contradict_each_other_are_both_named(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    small_yolo(SET)
    for name, lines in (first, second):
        write(SET / name, lines)
    text = refusal()
    assert first[0] in text and second[0] in text and "other class names" in text


@pytest.mark.parametrize(
    ("name", "lines", "parts"),
    [
        ("data.yaml", "nc: 3\nnames: [cat, dog]\n", ("data.yaml: nc", "nc: 3, and 2 names")),
        ("data.yaml", "names:\n\t- cat\n", ("data.yaml:2:1", "is not YAML")),
        ("classes.txt", "cat\n\ndog\n", ("classes.txt:2", "a blank line")),
        ("classes.txt", "\n", ("classes.txt", "no names")),
        ("data.yaml", "train: [images/a, images/b]\nnames: [cat, dog]\n", ("data.yaml: train", "is not one folder")),
    ],
)
def test_bad_class_files_are_refused(name: str, lines: str, parts: tuple[str, ...]) -> None:
    small_yolo(SET)
    write(SET / name, lines)
    text = refusal()
    assert all(part in text for part in parts), text


def test_a_split_of_several_folders_is_the_folder_above_them() -> None:
    """If that folder has other images too, their purpose is unknown."""
    for place, stem in (("day", "a"), ("night", "b"), ("val", "c")):
        write_yolo(SET, {place: {stem: [YOLO_CAT]}}, "{part}/all/{split}" if place != "val" else "{part}/{split}")
    text = "train: [./images/all/day, ../set/images/all/night]\nval: images/val\nnames: [cat]\n"
    write(SET / "data.yaml", text)
    data = discover(SET).data
    assert (data["train_images"], data["train_labels"], data["test_images"]) == (
        "images/all", "labels/all", "images/val",
    )  # fmt: skip
    save_image(SET / "images/all/dawn/d.jpg")
    said = refusal()
    assert "data.yaml: train: lists 2 folders" in said and "images/all/dawn" in said


def test_a_split_whose_file_cannot_be_read_is_not_no_split() -> None:
    small_coco(SET)
    write(SET / "annotations/instances_val2017.json", '{"images": [')
    assert "instances_val2017.json: is not JSON" in refusal()


def test_a_split_without_annotations_is_named() -> None:
    small_coco(SET)
    save_image(SET / "test/t.jpg")
    one = coco_content([coco_image(9, file_name="t.jpg")], [])
    write(SET / "annotations/test.json", json.dumps(one))
    found = discover(SET)
    assert any("annotations/test.json: names 1 images, but has no annotations" in sentence for sentence in found.unused)


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({"a.json": '{"shapes": [], "imagePath": "a.jpg"}'}, "Labelme"),
        ({"a.json": '{"images": [{"file_name": "a.jpg"}], "annotations": [{"id": 1}], "categories": [1]}'}, "no bbox"),
        ({"a.json": "{"}, "a.json: is not JSON"),
        ({"a.jpg.txt": YOLO_CAT}, "named like an image with .txt appended (a.jpg.txt)"),
        ({"a.txt": "10 12 40 12 40 36 10 36 cat 0"}, "'10 12 40 12 40 36 10 36 cat 0'"),
        ({"a.xml": "<svg/>"}, "1 files, not VOC"),
        ({"b.xml": voc_xml([CAT])}, "1 VOC XML files (b.xml); no image has"),
    ],
)
def test_an_unknown_folder_says_what_was_seen(files: dict[str, str], part: str) -> None:
    save_image(SET / "a.jpg")
    for name, text in files.items():
        write(SET / name, text)
    assert part in refusal()


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_with_and_without_marks(encoding: str) -> None:
    Path("a.txt").write_bytes("cat\nK\u00e4tzchen".encode(encoding))
    assert read_text(Path("a.txt")) == "cat\nK\u00e4tzchen"


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "shift_jis", "gb18030", "utf-16", "euc-jp"])
def test_xml_in_the_encoding_that_it_declares(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<n:Annotation xmlns:n="u"><Name>\u732b</Name></n:Annotation>'
    Path("a.xml").write_bytes(text.encode(encoding))
    root = read_xml(Path("a.xml"))
    assert (root.tag, root.findtext("name")) == ("annotation", "\u732b")


@pytest.mark.parametrize("data", [b"\xff\xfe\0", b"caf\xe9", b"a\0\0\0", b"<?xml version='1.0' encoding='moon'?><a/>"])
def test_bytes_that_are_no_text_are_refused_with_the_file(data: bytes) -> None:
    Path("a.xml").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.xml: is not text"):
        read_xml(Path("a.xml"))


def test_a_fifo_is_not_waited_for() -> None:
    os.mkfifo("a.txt")
    with pytest.raises(UserError, match="is not a regular file"):
        read_text(Path("a.txt"))


def test_yaml_names_keep_their_spelling() -> None:
    small_yolo(SET)
    write(SET / "data.yaml", "names: {'0': no, 1: 007, 2: 1.50, 3: null}\n")
    assert discover(SET).data["classes"] == ["no", "007", "1.50", "null"]


@pytest.mark.parametrize("name", [None, 7, "", "cat ", "a\nb", "a\u0000b", "\ud800"])
def test_names_in_json_that_are_none_are_refused_with_their_id(name: Any) -> None:
    coco_one(categories=[{"id": 3, "name": name}, CATEGORIES[1]])
    assert "train.json: category 3" in refusal()


# Values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "as_number", "as_whole", "as_flag", "as_id"),
    [
        (1, 1.0, 1, True, 1),
        ("1", 1.0, 1, True, 1),
        (0.0, 0.0, 0, False, 0),
        ("01", 1.0, 1, None, "01"),
        ("1.50", 1.5, None, None, "1.50"),
        (" 2 ", 2.0, 2, None, " 2 "),
        ("1e3", 1000.0, 1000, None, "1e3"),
        (True, None, None, True, None),
        ("True", None, None, True, "True"),
        ("Unspecified", None, None, False, "Unspecified"),
        (None, None, None, False, None),
        ("1,5", None, None, None, "1,5"),
        ("1_0", None, None, None, "1_0"),
        ("nan", None, None, None, "nan"),
        (float("nan"), None, None, None, None),
        (10**400, None, None, None, 10**400),
        (2**53 + 2, float(2**53 + 2), None, None, 2**53 + 2),
        ([1], None, None, None, None),
    ],
)
def test_plain_values(value: Any, as_number: Any, as_whole: Any, as_flag: Any, as_id: Any) -> None:
    assert [number(value), whole(value), flag(value), identity(value)] == [as_number, as_whole, as_flag, as_id]


@pytest.mark.parametrize(
    ("ids", "written"),
    [
        ((5, 9), [(5, None), (9, None)]),
        (("5", 9.0), [(5, None), (9, None)]),
        ((0, 1), [(1, 0), (2, 1)]),
        (("x", "007"), [(1, "x"), (2, "007")]),
        ((-3, 2.5), [(1, -3), (2, 2.5)]),
    ],
)
def test_image_ids_of_any_kind(ids: tuple[Any, Any], written: list[tuple[int, Any]]) -> None:
    images = [coco_image(n, file_name=f"{n}.jpg") | {"id": i} for n, i in enumerate(ids)]
    coco_splits(
        train=coco_content(images, [coco_box(1, ids[1])]), val=coco_content([coco_image(70)], [coco_box(1, 70)])
    )
    prepared()
    assert [(image["id"], image.get("original_id")) for image in content()["images"]] == written
    assert content()["annotations"][0]["image_id"] == written[1][0]


def test_category_ids_of_any_kind() -> None:
    names = [{"id": "c", "name": "cat"}, {"id": 0, "name": "dog"}]
    coco_splits(
        train=coco_content([coco_image(1)], [coco_box(1, 1, category_id="0")]) | {"categories": names},
        val=coco_content([coco_image(2)], [coco_box(1, 2, category_id="c")]) | {"categories": names[::-1]},
    )
    manifest = prepared()
    assert [(c["id"], c["original_id"]) for c in manifest["categories"]] == [(1, "c"), (2, 0)]
    assert (content()["annotations"][0]["category_id"], content("test")["annotations"][0]["category_id"]) == (2, 1)


def test_test_images_do_not_number_the_training_images() -> None:
    one = coco_content([coco_image(1), coco_image(2)], [coco_box(1, 1), coco_box(2, 2)])
    for last in ([], [coco_image(3, file_name="c.jpg"), coco_image(2, file_name="b.jpg")]):
        images = [coco_image(1, file_name="a.jpg"), *last]
        coco_splits(train=one, val=coco_content(images, [coco_box(1, 1)]))
        prepared()
        assert [image["id"] for image in content()["images"]] == [1, 2]
    assert [image["id"] for image in content("test")["images"]] == [2_000_000_001, 2_000_000_003, 2_000_000_002]


@pytest.mark.parametrize(
    ("change", "ignored"),
    [
        ({"iscrowd": "0"}, 0),
        ({"iscrowd": "1"}, 1),
        ({"iscrowd": False}, 0),
        ({"iscrowd": None}, 0),
        ({"ignore": 1}, 1),
        ({"ignore": "true"}, 1),
        ({"difficult": 1}, 0),
    ],
)
def test_flags_in_any_plain_spelling(change: dict[str, Any], ignored: int) -> None:
    coco_one(change)
    assert prepared()["splits"]["train"]["num_ignored"] == ignored


def test_difficult_objects_of_coco_are_ignored_on_demand() -> None:
    coco_one({"difficult": "1"})
    assert sum("difficult" in what for what in prepared()["counts"]) == 1
    assert prepared(difficult="ignore")["splits"]["train"]["num_ignored"] == 1


@pytest.mark.parametrize(
    ("area", "written"), [(-720, 750), (0, 750), (float("nan"), 750), ("720", 720), (1.0, 1), (None, 750)]
)
def test_areas_that_cannot_be(area: Any, written: float) -> None:
    coco_one({"area": area})
    manifest = prepared()
    assert content()["annotations"][0]["area"] == written  # 30 x 25 pixels
    assert manifest["counts"]["areas that were missing or not positive, now width x height"] == 1 + (written == 750)


@pytest.mark.parametrize(
    ("box", "image", "parts"),
    [
        ({"iscrowd": "perhaps"}, {}, ("annotation 1", "iscrowd is neither", "'perhaps'")),
        ({"area": "large"}, {}, ("annotation 1", "area is not a number")),
        ({"bbox": [1, 2, "3", "x"]}, {}, ("annotation 1", "four numbers")),
        ({"category_id": "3 "}, {}, ("annotation 1", "unknown category_id", "'3 '")),
        ({}, {"width": "60.5"}, ("image 1", "not two whole numbers")),
        ({}, {"width": HEIGHT, "height": WIDTH}, ("has a size that differs", "look swapped", "40 x 60")),
    ],
)
def test_values_that_are_not_plain_are_refused_with_their_place(
    box: dict[str, Any], image: dict[str, Any], parts: tuple[str, ...]
) -> None:
    coco_one(box, image)
    text = refusal()
    assert all(part in text for part in (*parts, "train/train.json", "data.damaged: leave-out")), text


def test_numbers_as_text_are_numbers() -> None:
    coco_one({"bbox": ["10", "5.0", "3e1", 25], "category_id": "3", "image_id": "1"}, {"width": "60", "height": 40.0})
    prepared()
    assert content()["annotations"][0]["bbox"] == [10, 5, 30, 25]


@pytest.mark.parametrize("root", ["animals", "cat"])
def test_a_group_of_categories_without_an_object_is_left_out(root: str) -> None:
    names = [{"id": 0, "name": root, "supercategory": "none"}]
    names += [{**category, "supercategory": root} for category in CATEGORIES]
    coco_splits(
        train=coco_content([coco_image(1)], [coco_box(1, 1)]) | {"categories": names},
        val=coco_content([coco_image(2)], [coco_box(1, 2)]) | {"categories": names[1:]},
    )
    manifest = prepared()
    assert manifest["categories"] == CATEGORIES
    assert manifest["notes"] == [f"category 0 `{root}` is only a supercategory and has no objects: left out"]


def test_categories_that_disagree_are_refused() -> None:
    coco_one(categories=[{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}])
    text = refusal()
    assert "val.json: has other categories than" in text and "3: cat" in text and "3: dog" in text


SIDES = "<xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax>"


@pytest.mark.parametrize(
    ("xml", "objects"),
    [
        (CAT.replace("object>", "Object>").replace("bndbox>", "BndBox>"), 1),
        (
            CAT.replace(
                "</bndbox>", "</bndbox><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
            ),
            2,
        ),
        (CAT.replace("<difficult>0", "<difficult>Unspecified"), 1),
    ],
)
def test_voc_objects_are_read_whoever_wrote_them(xml: str, objects: int) -> None:
    small_voc(SET, **{"000001": [xml]})
    assert counts(prepared())["train"] == (2, 1 + objects)


@pytest.mark.parametrize(
    ("xml", "part"),
    [
        (CAT.replace("bndbox>", "robndbox>"), "cat with <name>, <difficult>, <robndbox>"),
        (CAT.replace("<difficult>0", "<difficult>perhaps"), "difficult is neither 0 nor 1"),
    ],
)
def test_voc_objects_that_are_not_plain_are_refused(xml: str, part: str) -> None:
    small_voc(SET, **{"000001": [xml]})
    assert "000001.xml" in (text := refusal()) and part in text


def test_voc_boxes_counted_from_zero_are_said() -> None:
    small_voc(SET, **{"000001": [voc_object("cat", (0, 0, 30, 24))]})
    (note,) = prepared()["notes"]
    assert note.startswith("1 of 4 boxes begin at pixel 0")


def test_key_points_behind_the_box_are_not_a_polygon() -> None:
    small_yolo(SET, a=[YOLO_CAT + " 0.1 0.2 2 0.9 0.9 1"], b=[])
    write_yolo(SET, {"val": {"c": [YOLO_CAT + " 0.1 0.2 2 0.9 0.9 1"]}})
    write(SET / "data.yaml", "kpt_shape: [2, 3]\nnames: [cat, dog]\n")
    prepared()
    assert content()["annotations"][0]["bbox"] == [10, 5, 30, 25]


# What it looks like ---------------------------------------------------------------------------------------------------


def many(*boxes: Any, **box: Any) -> None:
    entries = [coco_box(number_, 1, one, **box) for number_, one in enumerate(boxes, start=1)]
    coco_splits(
        train=coco_content([coco_image(1)], entries), val=coco_content([coco_image(2)], [coco_box(1, 2, boxes[0])])
    )


@pytest.mark.parametrize("outside_boxes", ["error", "clip"])
def test_corners_for_boxes_are_refused(outside_boxes: str) -> None:
    many(*[[30, 20, 50 + extra, 35] for extra in range(4)])
    text = refusal(outside_boxes=outside_boxes)
    assert "5 of 5 boxes exceed their image, but all are inside if read as corners" in text


def test_fractions_for_pixels_are_refused() -> None:
    many([0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.9, 0.5])
    assert "all 3 boxes are smaller than a pixel" in refusal()


def test_many_boxes_outside_are_counted() -> None:
    many([1, 1, 5, 5], [50, 5, 20, 20], [50, 6, 20, 20], [50, 7, 20, 20], [5, 2, 3, 3])
    assert "3 of 6 boxes lie outside their image" in refusal()
    assert len(prepared(outside_boxes="clip")["clipped"]) == 3


def test_one_image_under_several_ids_is_merged() -> None:
    images = [coco_image(1), coco_image(2, file_name=coco_image(1)["file_name"])]
    one = coco_content(images, [coco_box(1, 1), coco_box(2, 2, [1, 1, 5, 5])])
    coco_splits(train=one, val=coco_content([coco_image(3)], [coco_box(1, 3)]))
    manifest = prepared()
    assert counts(manifest)["train"] == (1, 2)
    assert manifest["counts"]["entries of one image under several ids, merged"] == 1


def test_copies_with_other_boxes_are_merged_and_counted() -> None:
    small_yolo(SET, a=[YOLO_CAT], b=["0 0.416667 0.4375 0.5 0.6", YOLO_DOG], d=[])
    write(SET / "classes.txt", "cat\ndog\n")
    for copy in "bd":
        (SET / f"images/train/{copy}.jpg").write_bytes((SET / "images/train/a.jpg").read_bytes())
    manifest = prepared()
    assert counts(manifest)["train"] == (1, 2)  # the cats of `a` and `b` overlap
    assert manifest["counts"]["copies of an image with other boxes, merged into the first"] == 2


def test_near_duplicates_of_one_image_are_listed_up_to_twenty() -> None:
    many(*[[5, 5, 20, 20]] * 400)
    manifest = prepared()
    assert (len(manifest["near_duplicates"]), manifest["near_duplicates_cut"]) == (20, 1)  # of 79,800 pairs


def test_what_most_images_have_is_not_odd() -> None:
    write_voc(SET, {"train": {f"t{n}": [CAT] for n in range(6)}, "test": {"x": [CAT]}})
    for n in range(5):
        write(SET / f"Annotations/t{n}.xml", voc_xml([CAT], folder="elsewhere"))
    write(SET / "Annotations/t5.xml", voc_xml([CAT], folder="here"))
    manifest = prepared()
    assert [entry["what"] for entry in manifest["odd"]] == ["folder tag `here`"]
    assert manifest["notes"] == ["train: folder tag `elsewhere` in 5 of 6 images"]


# One bad item ---------------------------------------------------------------------------------------------------------


def test_bad_items_of_all_kinds_are_one_message_or_left_out() -> None:
    small_yolo(SET, a=[YOLO_CAT, "7 0.5 0.5 0.1 0.1", "0 1 2"], b=[YOLO_DOG])
    write(SET / "classes.txt", "cat\ndog\n")
    write(SET / "labels/train/gone.txt", YOLO_CAT)
    save_image(SET / "images/train/cut.png")
    cut = SET / "images/train/cut.png"
    cut.write_bytes(cut.read_bytes()[:100])
    text = refusal()
    assert "4 images, annotations or lines cannot be used; nothing was changed" in text
    for part in ("1 x no such class", "labels/train/a.txt:3: has 3 numbers", "gone.txt", "cut.png", "leave-out"):
        assert part in text
    manifest = prepared(damaged="leave-out")
    assert counts(manifest)["train"] == (2, 2)
    places = sorted(Path(entry["where"]).name for entry in manifest["damaged"])
    assert places == ["a.txt:2", "a.txt:3", "cut.png", "gone.txt"]


def test_ten_items_are_listed_of_each_kind_some() -> None:
    small_yolo(SET, a=["9 0.5 0.5 0.1 0.1"] * 40 + ["x 0.5 0.5 0.1 0.1"])
    write(SET / "classes.txt", "cat\ndog\n")
    text = refusal()
    assert "40 x no such class" in text and "a.txt:41: is not numbers" in text and "... and 31 more" in text


def test_damaged_items_of_coco() -> None:
    one = coco_content([coco_image(1)], [coco_box(1, 1), coco_box(2, 777), coco_box(3, 1, category_id=99)])
    coco_splits(train=one, val=coco_content([coco_image(2)], [coco_box(1, 2)]))
    one["images"].append(coco_image(4, file_name="gone.jpg"))
    write(SET / "train/train.json", json.dumps(one))
    manifest = prepared(damaged="leave-out")
    assert counts(manifest)["train"] == (1, 1)
    problems = [entry["problem"].split(";")[0] for entry in manifest["damaged"]]
    assert problems == ["names a missing image", "unknown image_id", "unknown category_id"]


# Parts ----------------------------------------------------------------------------------------------------------------


def test_walk_lists_files_in_the_order_of_their_parts() -> None:
    for name in ("b/1", "a.x/1", "a/2", "a/1", "c"):
        write(SET / name, "")
    (SET / "a/up").symlink_to("..")
    tree = walk(SET)
    assert (tree.files, tree.num_loops) == (["a/1", "a/2", "a.x/1", "b/1", "c"], 1)


def test_names_are_found_by_the_parts_that_tell_them_apart() -> None:
    names = Names(["train/a.jpg", "val/a.jpg", "val/b.jpg", "cafe\u0301.jpg"])
    assert names.find("val/a.jpg") == ("val/a.jpg", True)
    assert names.find("D:\\data\\VAL\\a.jpg") == ("val/a.jpg", False)
    assert names.find("caf\u00e9.jpg") == ("cafe\u0301.jpg", False)
    assert names.find("b.jpg") == ("val/b.jpg", False)
    assert names.find("a.jpg") == names.find("x/a.jpg") == names.find("") == names.find("../..") == (None, False)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/instances_val2017.json", "validation"),
        ("train/_annotations.coco.json", "train"),
        ("images/test/x", "test"),
        ("trained/x", None),
        ("test/train.json", "train"),
    ],
)
def test_the_split_that_a_name_speaks_of(name: str, split: str | None) -> None:
    assert split_in(name) == split


# Real folders ---------------------------------------------------------------------------------------------------------


@needs_real("raccoon")
@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        # 200 images of which 4 are copies of others; 217 boxes less those 4.
        ("raccoon", {}, {"train": (157, 171), "test": (39, 42)}),
        ("traffic", {}, {"train": (91, 426), "test": (6, 8)}),
        ("voc2007-105", {}, {"train": (66, 195), "test": (39, 85)}),
        ("ships", {"damaged": "leave-out", "outside_boxes": "clip"}, {"train": 405, "validation": 99, "test": 63}),
    ],
)
def test_real_folders_as_they_come(name: str, choices: dict[str, str], expected: dict[str, Any]) -> None:
    found = counts(prepare_as_found(REAL / name, OUT, **choices))
    assert found == expected or {split: images for split, (images, _) in found.items()} == expected


@needs_real("ships")
def test_ships_are_one_message() -> None:
    with pytest.raises(UserError, match="184 images, annotations or lines cannot be used") as raised:
        prepare_as_found(REAL / "ships", OUT)
    assert "150 x no such class" in str(raised.value) and "34 x a label file without its image" in str(raised.value)
