"""The tables beside the JSON of a split: they say what the JSON says, and a training needs nothing else."""

import hashlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from data_helpers import (
    DATA,
    coco_box,
    coco_content,
    coco_image,
    read,
    run_prepare,
    save_image,
    small_coco,
    small_yolo,
    snapshot,
    voc_object,
    write,
    write_coco,
    write_voc,
)
from PIL import Image

from fcos import progress
from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.data import split_files
from fcos.data.coco import CocoSplit, TabledSplit, read_split
from fcos.data.dataset import DetectionDataset
from fcos.data.sources import assemble, checks, fitting
from fcos.data.sources.description import Boxes, SourceBox
from fcos.data.sources.yolo import YoloSplit, read_yolo
from fcos.data.split_files import Rows
from fcos.errors import UserError
from fcos.files import sha256_json

COCO = {"source": "coco", "root": "coco", "classes": None}
HARD_NAME = 'a"},{"id": 7, é\u2028.jpg'  # what would mislead a reader that looks for brackets


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def hard_coco():
    """Difficult names, no objects, 12 of 16 bits, crowds, areas of their own, ids out of order."""
    images = [coco_image(40), coco_image(2, file_name=HARD_NAME), coco_image(3), coco_image(9, file_name="deep.png")]
    boxes = [
        coco_box(1, 3, (1.1, 2.3, 20.7, 11.9)),
        coco_box(2, 40, area=77),
        coco_box(3, 2, category_id=7),
        coco_box(4, 40, (0, 0, 60, 40), iscrowd=1),
        coco_box(5, 3, (7, 8, 9, 10), ignore=1),
    ]
    save_image(Path("coco/train2017/deep.png"))
    Image.fromarray((np.arange(2400).reshape(40, 60) % 4096).astype(np.uint16)).save("coco/train2017/deep.png")
    write_coco(Path("coco"), coco_content(images, boxes), coco_content([coco_image(50)], [coco_box(1, 50)]))


def as_read_whole(split="train"):
    content = read(split)
    return CocoSplit(content["images"], content["categories"], content["annotations"], None)


@pytest.mark.parametrize("together", [1, 2, 4096])
def test_a_split_with_tables_says_what_its_json_says(monkeypatch, together):
    monkeypatch.setattr(split_files, "TOGETHER", together)
    hard_coco()
    run_prepare(**COCO)
    split, whole = read_split(DATA, "train"), as_read_whole()
    assert isinstance(split, TabledSplit) and not isinstance(whole, TabledSplit)
    assert list(split.images) == whole.images and list(split.annotations) == whole.annotations
    assert split.images[1:3] == whole.images[1:3] and split.images[-1] == whole.images[-1]
    assert [split.annotations_of(image["id"]) for image in whole.images] == [
        [a for a in whole.annotations if a["image_id"] == image["id"]] for image in whole.images
    ]
    assert (split.digest, split.bits, split.groups, split.category_ids) == (whole.digest, 12, None, [3, 7])
    assert whole.bits == 12 and split.image_sizes == whole.image_sizes
    for name in ("image", "label", "boxes_xywh", "areas", "crowd", "first"):
        assert np.array_equal(getattr(split.objects, name), getattr(whole.objects, name)), name
    for index in range(4):
        ours, theirs = DetectionDataset(split).ground_truth(index), DetectionDataset(whole).ground_truth(index)
        assert all((getattr(ours, name) == getattr(theirs, name)).all() for name in ("boxes", "labels", "ignored"))


def test_the_json_is_written_as_one_would_write_it_whole():
    hard_coco()
    manifest = run_prepare(**COCO)
    for name in ("train", "validation", "test"):
        content, text = read(name), (DATA / f"{name}.json").read_bytes()
        assert text == (json.dumps(content, separators=(",", ":")) + "\n").encode()
        if content["images"]:
            parts = [content["images"], content["categories"], content["annotations"]]
            assert manifest["splits"][name]["digest"] == sha256_json(parts)
            assert manifest["splits"][name]["sha256"]["json"] == hashlib.sha256(text).hexdigest()


def test_equal_data_make_equal_files():
    """A row of the table of annotations has three bytes that no column uses."""
    hard_coco()
    run_prepare(**COCO)
    before = snapshot(DATA)
    np.full(10_000_000, 255, np.uint8)  # which the next table might find in its memory
    run_prepare(**COCO)
    assert snapshot(DATA) == before
    padding = np.load(DATA / "train.objects.npy").view(np.uint8).reshape(-1, 64)[:, 61:]
    assert not padding.any()


def test_annotations_in_any_order_are_found_by_image():
    images = [{"id": 9, "height": 4, "width": 5}, {"id": 4, "height": 4, "width": 5}]
    boxes = [{"image_id": key, "category_id": 1, "bbox": [key, 0, 1, 2]} for key in (4, 9, 4)]
    split = CocoSplit(images, [{"id": 1, "name": "a"}], boxes, None)
    assert split.annotations_of(4) == [boxes[0], boxes[2]] and split.annotations_of(9) == [boxes[1]]
    assert split.objects.image.tolist() == [1, 0, 1] and split.objects.areas.tolist() == [2, 2, 2]


def test_json_that_was_changed_by_hand_is_read_and_its_tables_are_not():
    small_coco()
    run_prepare(**COCO)
    before = read_split(DATA, "train").digest
    content = read("train")
    content["annotations"][0]["bbox"][0] += 1
    write(DATA / "train.json", json.dumps(content))
    changed = read_split(DATA, "train")
    assert changed.annotations[0]["bbox"][0] == content["annotations"][0]["bbox"][0]
    assert changed.objects.boxes_xywh[0, 0] == content["annotations"][0]["bbox"][0] and changed.digest != before


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def other(path):
    np.save(path, np.zeros(3))


def pickled(path):
    np.save(path, np.array([{}]), allow_pickle=True)


def spoilt(path):
    """One bit, which is no number that a check of types could find."""
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["train.images.npy", "train.objects.npy"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""), cut, other, pickled, spoilt])
def test_a_damaged_table_is_named(name, damage):
    small_coco()
    run_prepare(**COCO)
    damage(DATA / name)
    with pytest.raises(UserError, match=rf"{name}[\s\S]*hint: +fcos prepare"):
        read_split(DATA, "train")


def by_hand(**changes):
    """Change the JSON of small_coco's training split."""
    content = read("train")
    for part, change in changes.items():
        content[part] = change(content[part])
    write(DATA / "train.json", json.dumps(content))


@pytest.mark.parametrize(
    ("part", "change", "found"),
    [
        ("images", lambda of: of[:1], "an annotation of image 2, which is not among the images"),
        ("images", lambda _: [], "an annotation of image 1, which is not among the images"),
        ("annotations", lambda _: [{"image_id": 1, "category_id": 3}], "no key 'bbox'"),
        ("images", lambda of: [of[0], of[0]], "several images have one id"),
        ("images", lambda of: [of[0], {**of[1], "id": 2**70}], "too large"),
        ("annotations", lambda of: [{**of[0], "image_id": 77}], "an annotation of image 77"),
        ("annotations", lambda of: [{**of[0], "category_id": 77}], "no category 77"),
        ("annotations", lambda of: [{**of[0], "bbox": [1, 2, 3]}, of[1]], "inhomogeneous"),
    ],
)
def test_a_mistake_in_json_that_was_changed_by_hand_is_named(capsys, part, change, found):
    small_coco()
    run_prepare(**COCO)
    by_hand(**{part: change})
    with pytest.raises(UserError, match=rf"train\.json: is not what `fcos prepare` wrote[\s\S]*{found}"):
        read_split(DATA, "train")
    assert "its tables are not used" in capsys.readouterr().err


def test_a_training_without_images_is_refused(workspace):
    prepare()
    content = json.loads(Path("data/smoke/train.json").read_text())
    write(Path("data/smoke/train.json"), json.dumps({**content, "images": [], "annotations": []}))
    with pytest.raises(UserError, match=r"train\.json: there are no training images"):
        train("one-epoch", None)


def test_an_area_that_is_null_is_that_of_the_box():
    small_coco()
    run_prepare(**COCO)
    by_hand(annotations=lambda of: [{**one, "area": None} for one in of])
    assert read_split(DATA, "train").objects.areas.tolist() == [750, 750]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: content.pop("categories"), "no key categories"),
        (lambda content: content["splits"]["train"].pop("num_images"), "no key train.num_images"),
        (lambda content: content["splits"]["train"].update(sha256={}), "no key train.sha256.json"),
        (lambda content: content["splits"]["train"].update(sha256="ab"), "sha256 is a str"),
        (lambda content: content["splits"]["train"].update(shards={"url": "file:///a"}), "no key train.shards.files"),
        (lambda content: content["splits"]["test"].update(shards=5), "shards is a int"),
    ],
)
def test_a_damaged_manifest_is_named_and_prepared_again(change, found):
    small_coco()
    run_prepare(**COCO)
    content = read("manifest")
    change(content)
    write(DATA / "manifest.json", json.dumps(content))
    with pytest.raises(UserError, match=rf"manifest\.json: is damaged[\s\S]*{found}"):
        read_split(DATA, "train")
    run_prepare(**COCO)
    assert len(read_split(DATA, "train").images) == 2


def test_a_training_parses_no_row_but_those_of_its_images(workspace, monkeypatch):
    prepare()
    parsed = []
    monkeypatch.setattr(Rows, "__iter__", lambda _: pytest.fail("all rows were parsed"))
    item = Rows.__getitem__
    monkeypatch.setattr(Rows, "__getitem__", lambda self, at: parsed.append(self) or item(self, at))
    train("one-epoch", None)
    assert {rows._table.dtype for rows in parsed} == {split_files.IMAGES}  # for their file names


def test_boxes_are_kept_as_they_were_given():
    given = [
        SourceBox("cat", [0.1, 0.2, 0.3, 0.4]),
        SourceBox("dog", [1.0, 2.0, 3.0, 4.0], area=7, ignored=True, extra={"crowd": 1}),
        SourceBox("cow", [-1.0, 0.0, 1e9, 1e-9], extra={"difficult": 0}),
    ]
    boxes = Boxes(given[:2])
    boxes.append(given[2])
    assert list(boxes) == given and boxes[1] == given[1] and len(boxes) == 3
    assert [box.category for box in boxes.renamed({"cow": "animal", "cat": "animal"})] == ["animal", "animal"]
    assert boxes.renamed({"cow": "animal"})[0].extra == {"difficult": 0}
    assert [box.category for box in boxes] == ["cat", "dog", "cow"]
    assert boxes[-1] == given[2]
    with pytest.raises(IndexError):
        boxes[3]
    moved = boxes.moved(2 * boxes.xywh)
    moved.append(given[0])
    assert [box.bbox for box in moved][1:] == [[2.0, 4.0, 6.0, 8.0], [-2.0, 0.0, 2e9, 2e-9], given[0].bbox]
    assert moved[1].ignored and len(boxes) == 3 and list(Boxes()) == [] and Boxes().xywh.shape == (0, 4)


def memory_of(action):
    """Return the peak of the memory that Python and numpy allocate in `action`, in bytes."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def prepare_stubbed(folder, count):
    """Prepare `count` images of 15 boxes, whose pixels are not read."""
    lines = "".join(f"0 0.{k + 10} 0.5 0.1 0.{k + 10}\n" for k in range(15))
    for number in range(count):
        write(folder / "images" / f"{number}.jpg", "")
        write(folder / "labels" / f"{number}.txt", lines)
    image = assemble._File((48, 64), "", "RGB", 1, None)

    def inspect(of):
        return replace(image, sha256=hashlib.sha256(of.file_name.encode()).hexdigest())

    with mock.patch.object(assemble, "_inspect", inspect):
        source = read_yolo({"train": YoloSplit(folder / "images", folder / "labels")}, names=["a"])
        assemble.assemble(source, folder / "data", clip_outside=False)


def test_memory_of_an_image_with_15_boxes(monkeypatch):
    """4 GB for a million images, and 1 GB for what does not grow: so many bytes an image at most.

    On 2026-11-28: 1,770 in prepare, where objects took 18,000, and 84 in a training, where they took 13,000.
    """
    monkeypatch.setattr(progress, "AT_ONCE", 64)  # those that wait for a thread are at most so many
    monkeypatch.setattr(split_files, "TOGETHER", 64)
    monkeypatch.setattr(checks, "TOGETHER", 64)
    few, many = 500, 2500
    prepared = [memory_of(lambda size=size: prepare_stubbed(Path(str(size)), size)) for size in (few, many)]
    assert (prepared[1] - prepared[0]) / (many - few) < 3000

    def use(size):
        split = read_split(Path(str(size)) / "data", "train")
        dataset = DetectionDataset(split)
        assert sum(len(dataset.ground_truth(index).labels) for index in range(len(dataset))) == 15 * size
        assert len(split.image_sizes) == size

    trained = [memory_of(lambda size=size: use(size)) for size in (few, many)]
    assert (trained[1] - trained[0]) / (many - few) < 400


def test_near_duplicates_among_many_boxes_of_an_image(monkeypatch):
    """They are compared in parts; 30 boxes, of which the first and the last are one object."""
    corners = [(2 * k + 1, 1, 2 * k + 2, 40) for k in range(29)]
    write_voc(Path("photos"), {
        "trainval": {"000001": [voc_object("cat", box) for box in [*corners, corners[0]]], "000002": []},
        "test": {"000003": []},
    })  # fmt: skip
    monkeypatch.setattr(fitting, "ROWS", 7)
    manifest = run_prepare(source="voc", root="photos", classes=["cat"])
    expected = {"split": "train", "image": "000001.jpg", "class": "cat", "iou": 1.0}
    assert manifest["near_duplicates"] == [expected]


def test_a_missing_json_is_told_before_its_tables():
    small_yolo()
    run_prepare(source="yolo", root="yolo", classes=["cat", "dog"])
    (DATA / "train.json").unlink()
    with pytest.raises(UserError, match=r"train\.json: no such file"):
        read_split(DATA, "train")
