"""Results and ground truth in the forms that toolboxes write: read to the same numbers, or refused with a hint."""

import copy
import csv
import gzip
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coco_oracle import coco_eval_of_files
from conftest import assert_mistake
from data_helpers import REAL, needs_real, save_image, voc_object
from json_helpers import read, write

from fcos.scoring import plain_results
from fcos.scoring.average_precision import METRICS
from fcos.scoring.results import read_results
from fcos.scoring.truth import read_truth

WIDTH, HEIGHT = 640, 480
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Write gt.json and dets.json of 8 images into the current folder; image 5 has neither objects nor detections."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(3)
    images = [{"id": i, "file_name": f"img_{i:04d}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(1, 9)]
    truth = {"images": images, "categories": CATEGORIES, "annotations": []}
    results = []
    for image in images:
        for _ in range(0 if image["id"] == 5 else 4):
            w, h = rng.choice([(20, 24), (60, 70), (150, 120), (200, 170)])  # small, medium and large
            x, y = rng.randint(0, 400), rng.randint(0, 300)
            what = {"image_id": image["id"], "category_id": rng.choice([1, 3])}
            number = len(truth["annotations"]) + 1
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            truth["annotations"].append({"id": number, **what, **box})
            moved = [x + rng.gauss(0, 0.06) * w, y + rng.gauss(0, 0.06) * h, float(w), float(h)]
            results.append({**what, "bbox": moved, "score": rng.random()})
    write("gt.json", truth)
    write("dets.json", results)
    return tmp_path


def scored(run, gt="gt.json", detections="dets.json", *options):
    """Return the metrics, and the diagnosis by kind."""
    done = run(
        "score", "--gt", gt, "--detections", detections, "--out", "n.json", "--replicates", "0", *options
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read("n.json")
    findings = {finding["kind"]: finding for finding in found["diagnosis"]}
    for finding in findings.values():
        assert f"note: {finding['text']}" in done.stdout
    return [found[name] for name in METRICS if name in found], findings


def changed(change, name="other.json", of="dets.json"):
    """Write a copy of a file under another name, with a change."""
    content = copy.deepcopy(read(of))
    result = change(content)
    write(name, content if result is None else result)
    return name


@pytest.fixture
def plain(pair, run):
    """Return the metrics of the plain pair, which equal pycocotools' bit for bit."""
    numbers, findings = scored(run)
    assert numbers == coco_eval_of_files("gt.json", "dets.json").stats.tolist() and 0.1 < numbers[0] < 0.9
    assert set(findings) == {"few_images", "images_without_results"}
    return numbers


# Forms of results ----------------------------------------------------------------------------------------------------


def test_compressed_and_with_a_byte_order_mark(plain, run):
    text = Path("dets.json").read_text()
    Path("dets.json.gz").write_bytes(gzip.compress(text.encode()))
    Path("gt.gz").write_bytes(gzip.compress(Path("gt.json").read_bytes()))
    Path("mark.json").write_text(text, encoding="utf-8-sig")
    Path("wide.json").write_text(text, encoding="utf-16")
    for gt, name in (
        ("gt.json", "dets.json.gz"),
        ("gt.gz", "dets.json"),
        ("gt.json", "mark.json"),
        ("gt.json", "wide.json"),
    ):
        assert scored(run, gt, name)[0] == plain, name


def test_json_lines(plain, run):
    lines = [json.dumps(record) for record in read("dets.json")]
    Path("dets.jsonl").write_text("\n".join(lines) + "\n\n")
    assert scored(run, "gt.json", "dets.jsonl")[0] == plain
    Path("one.jsonl").write_text(lines[0] + "\n")
    assert scored(run, "gt.json", "one.jsonl")[0][0] < plain[0]
    Path("bad.jsonl").write_text("\n".join([*lines[:3], lines[3][:-5], *lines[4:]]))
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "bad.jsonl"), "bad.jsonl: line 4: is not JSON")


@pytest.mark.parametrize("key", ["annotations", "predictions", "results", "detections"])
def test_a_list_under_a_key(plain, run, key):
    assert scored(run, "gt.json", changed(lambda results: {key: results, "info": {}}))[0] == plain


def test_ids_of_the_file_s_own_are_found_by_names(plain, run):
    """Write a file with its own numbering of images and classes, in another order than the ground truth."""
    truth = read("gt.json")

    def own(results):
        for result in results:
            result["image_id"] = 8 - result["image_id"]  # 0..7
            result["category_id"] = {1: 1, 3: 0}[result["category_id"]]
        images = [{"id": 8 - image["id"], "file_name": f"images/{image['file_name']}"} for image in truth["images"]]
        return {
            "images": images,
            "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "person"}],
            "annotations": results,
        }

    numbers, findings = scored(run, "gt.json", changed(own))
    assert numbers == plain
    assert findings["image_by_name"]["text"].endswith("found by last part of the file name")
    assert findings["class_by_name"]["text"].endswith("found by name")


@pytest.mark.parametrize(
    ("id_of", "way"),
    [
        (lambda image: Path(image["file_name"]).stem, "stem of the file name"),
        (lambda image: image["file_name"], "file name"),
        (lambda image: str(image["id"]), "id as text"),
        (lambda image: f"{image['id']:012d}", "number of the id"),
        (lambda image: f"images\\{image['file_name']}", "last part of the file name"),
    ],
)
def test_image_ids_that_are_names(plain, run, id_of, way):
    """Ultralytics' predictions.json has file stems as ids."""
    name_of = {image["id"]: id_of(image) for image in read("gt.json")["images"]}

    def rename(results):
        for result in results:
            result["image_id"] = name_of[result["image_id"]]

    numbers, findings = scored(run, "gt.json", changed(rename))
    assert numbers == plain
    assert findings["image_by_name"]["text"].endswith(f"found by {way}")
    assert findings["image_by_name"]["count"] == len(read("dets.json"))


def test_numbers_in_file_names_are_not_taken_for_ids_where_file_names_are_said(plain, run):
    """Ultralytics turns 000003.jpg into 3, which is also the id of another image; `file_name` resolves this."""

    def name(truth):
        for image in truth["images"]:
            image["file_name"] = f"{9 - image['id']:06d}.jpg"

    def stems(results):
        for result in results:
            number = 9 - result["image_id"]
            result["image_id"], result["file_name"] = number, f"{number:06d}.jpg"

    gt = changed(name, "numbered.json", "gt.json")
    numbers, findings = scored(run, gt, changed(stems))
    assert numbers == plain and findings["image_by_name"]["text"].endswith("found by file name")


def test_numbers_that_are_ids_of_other_images_are_read_as_what_fits_the_boxes(plain, run):
    """Older releases of Ultralytics write no `file_name`; id 3 is also the number in the file name of image 6."""

    def name(truth):
        for image in truth["images"]:
            image["file_name"] = f"{9 - image['id']:06d}.jpg"

    def stems(results):
        for result in results:
            result["image_id"] = 9 - result["image_id"]

    gt = changed(name, "numbered.json", "gt.json")
    numbers, findings = scored(run, gt, changed(stems))
    assert numbers == plain and findings["image_by_name"]["text"].endswith("found by number in the file name")
    numbers, findings = scored(run, gt, "dets.json")
    assert numbers == plain and "image_by_name" not in findings


def test_ids_are_keys(plain, run):
    """Ids may be text, whole floats (as written by pandas), or 0."""
    stem = {image["id"]: Path(image["file_name"]).stem for image in read("gt.json")["images"]}

    def text(content):
        for image in content["images"] if isinstance(content, dict) else []:
            image["id"] = stem[image["id"]]
        for record in content["annotations"] if isinstance(content, dict) else content:
            record["image_id"] = stem[record["image_id"]]

    def floats(results):
        for result in results:
            result |= {"image_id": float(result["image_id"]), "category_id": float(result["category_id"])}

    def from_0(content):
        for image in content["images"] if isinstance(content, dict) else []:
            image["id"] -= 1
        for record in content["annotations"] if isinstance(content, dict) else content:
            record["image_id"] -= 1

    texts = changed(text, "gt_text.json", "gt.json"), changed(text, "dets_text.json")
    zeros = changed(from_0, "gt_0.json", "gt.json"), changed(from_0, "dets_0.json")
    for gt, detections in (texts, ("gt.json", changed(floats)), zeros):
        numbers, findings = scored(run, gt, detections)
        assert numbers == plain and "image_by_name" not in findings


def test_large_files_are_read_by_several_processes_to_the_same_columns(plain, monkeypatch):
    truth = read_truth(Path("gt.json"))
    expected = read_results(Path("dets.json"), truth).table
    calls = []
    monkeypatch.setattr(plain_results, "_SMALLEST", 0)
    monkeypatch.setattr(plain_results.os, "cpu_count", lambda: 5)
    read_plain = plain_results.columns_of
    monkeypatch.setattr(plain_results, "columns_of", lambda piece: calls.append(piece) or read_plain(piece))
    found = read_results(Path("dets.json"), truth).table
    assert len(calls) == 1 and calls[0].count(b"score") < len(found) / 3  # child processes read the rest
    for column in ("image", "label", "boxes_xywh", "score"):
        assert np.array_equal(getattr(found, column), getattr(expected, column))
        assert getattr(found, column).dtype == getattr(expected, column).dtype


KEYS = ["image_id", "category_id", "bbox", "score"]
ALIKE = [
    {"image_id": 7, "category_id": 1, "bbox": [0.1, -2.5, 3, 4.25], "score": 0.1 + 0.2},
    {"image_id": 580197, "category_id": 90.0, "bbox": [1e3, 17, 0.30000000000000004, 5], "score": 1},
]


@pytest.mark.parametrize("order", [KEYS, KEYS[::-1], ["score", "bbox", "image_id", "category_id"]])
@pytest.mark.parametrize("form", [{"indent": 1}, {"separators": (",", ":")}, {}])
def test_records_written_alike_are_read_without_objects_to_the_same_columns(order, form):
    text = json.dumps([{key: record[key] for key in order} for record in 3 * ALIKE], **form).encode()
    piece = text[text.find(b"{") : text.rfind(b"}") + 1]
    found, expected = plain_results._columns_of_alike(piece), plain_results._columns_of_records(piece)
    for column in ("image_id", "category_id", "boxes_xywh", "score"):
        assert np.array_equal(getattr(found, column), getattr(expected, column))
    assert found.boxes_xywh[1].tolist() == [1000.0, 17.0, 0.30000000000000004, 5.0] and len(found.score) == 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"score": 0.5', '"score": 5e-1'),  # a letter in a number
        ('"score": 0.5', '"score": 0.5, "area": 4'),
        ('"score": 0.5', '"score": "0.5"'),
        ('"score": 0.5', '"score": NaN'),
        ('"score": 0.5', '"score": 0.5.5'),
        ('"image_id": 2', '"image_id": 9007199254740993'),  # not a float
        ('"image_id": 2', '"image_id": 2.5'),
        ('"image_id": 2', '"image_id": 02'),
        ("[1, 2, 3, 4]", "[1, 2, 3]"),
        ("[1, 2, 3, 4]", "[1, 2, 3, ]"),
        ("[1, 2, 3, 4]", "[1, 2 , 3, 4]"),
        ("[1, 2, 3, 4]", "[1, [2], 3, 4]"),
        ('"category_id"', '"categoryid"'),
    ],
)
def test_a_record_written_otherwise_is_left_to_the_careful_reader(old, new):
    record = '{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}'
    assert old in record
    assert plain_results._columns_of_alike(f"{record}, {record}".encode()) is not None
    assert plain_results._columns_of_alike(f"{record}, {record.replace(old, new)}".encode()) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"note": "}, {"},  # looks like the border between two records
        {"parts": [{"a": 1}, {"a": 2}]},
        {"image_id": "3"},
        {"score": 1},
        {"file_name": "img_0001.jpg"},
    ],
)
def test_what_is_not_plain_is_read_all_the_same(plain, monkeypatch, odd):
    def put(results):
        for result in results:
            result |= odd

    truth = read_truth(Path("gt.json"))
    name = Path(changed(put))
    expected = read_results(name, truth).table
    monkeypatch.setattr(plain_results, "_SMALLEST", 0)
    monkeypatch.setattr(plain_results.os, "cpu_count", lambda: 4)
    found = read_results(name, truth).table
    for column in ("image", "label", "boxes_xywh", "score"):
        assert np.array_equal(getattr(found, column), getattr(expected, column))


def test_a_wrong_record_in_a_large_file_is_named(plain, run, monkeypatch):
    monkeypatch.setattr(plain_results, "_SMALLEST", 0)

    def spoil(results):
        results[-2]["score"] = math.nan

    name = changed(spoil)
    place = len(read("dets.json")) - 2
    assert_mistake(run("score", "--gt", "gt.json", "--detections", name), f"[{place}].score: a wrong value", "nan")


def test_files_that_are_no_json_are_called_by_name(pair, run):
    def mistake(name, data, *parts):
        Path(name).write_bytes(data)
        assert_mistake(run("score", "--gt", "gt.json", "--detections", name), f"{name}: ", *parts)

    mistake("results.pkl", b"\x80\x04\x95rest", "is not JSON", "a Python pickle", "*.bbox.json` of mmdetection")
    mistake("instances_predictions.pth", b"PK\x03\x04rest", "a zip archive, or a PyTorch file", "detectron2")
    mistake("cut.json.gz", gzip.compress(b"[]" * 50)[:-9], "is a damaged .gz file")
    mistake("empty.json", b"", "is not JSON", "line 1 column 1")
    mistake("latin.json", b'[{"image_id": "\xe9"}]', "is not JSON")
    mistake("deep.json", b"[" * 100_000, "is not JSON")


# A file for each image -----------------------------------------------------------------------------------------------


def yolo_line(result, number):
    x, y, w, h = result["bbox"]
    numbers = (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT, result["score"]
    return " ".join(map(repr, (number, *numbers)))


def write_labels(folder, number_of):
    """Write label files of dets.json in its order; `number_of` maps a category id."""
    stem = {image["id"]: Path(image["file_name"]).stem for image in read("gt.json")["images"]}
    lines = {}
    for result in read("dets.json"):
        lines.setdefault(stem[result["image_id"]], []).append(yolo_line(result, number_of[result["category_id"]]))
    Path(folder).mkdir(parents=True)
    for name, of_image in lines.items():
        (Path(folder) / f"{name}.txt").write_text("\n".join(of_image) + "\n")


def test_a_folder_of_yolo_labels(plain, run):
    write_labels("labels", {1: 0, 3: 1})
    numbers, findings = scored(run, "gt.json", "labels")
    assert numbers == pytest.approx(plain, abs=1e-12)
    assert "class numbers 0, 1, ... are person, car" in findings["classes_by_number"]["text"]
    # By the names in the folder's own classes.txt.
    write_labels("named/labels", {1: 1, 3: 0})
    Path("named/labels/classes.txt").write_text("car\nperson\n")
    assert scored(run, "gt.json", "named/labels")[0] == pytest.approx(plain, abs=1e-12)
    Path("named/labels/classes.txt").unlink()
    Path("named/data.yaml").write_text("names: {0: car, 1: person}\n")
    assert scored(run, "gt.json", "named/labels")[0] == pytest.approx(plain, abs=1e-12)
    # Roboflow's unused root class has no number.
    root = {"id": 0, "name": "things", "supercategory": "none"}

    def grouped(truth):
        truth["categories"] = [root, *({**category, "supercategory": "things"} for category in CATEGORIES)]

    assert scored(run, changed(grouped, "root.json", "gt.json"), "labels")[0] == pytest.approx(plain, abs=1e-12)


def test_polygons_with_a_confidence_are_the_boxes_around_them(pair, run):
    write("gt.json", {**read("gt.json"), "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [64, 48, 128, 96], "area": 128 * 96, "iscrowd": 0}
    ]})  # fmt: skip
    Path("labels").mkdir()
    Path("labels/img_0001.txt").write_text("0 0.1 0.2 0.2 0.1 0.3 0.25 0.15 0.3 0.9\n")
    assert scored(run, "gt.json", "labels")[0][0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("0 0.5 0.5 0.1 0.1", ["img_0002.txt:2: has no confidence", "save_conf=True"]),
        ("0 0.5 0.5 0.1 0.1 0.9 7", ["img_0002.txt:2: has 7 numbers"]),
        ("person 0.5 0.5 0.1 0.1 0.9", ["img_0002.txt:2: is not numbers", "person"]),
        ("0 0.5 nan 0.1 0.1 0.9", ["img_0002.txt:2: is not numbers"]),
        ("0.5 0.5 0.5 0.1 0.1 0.9", ["img_0002.txt:2: its class is not a whole number"]),
        ("0 320 240 64 48 0.9", ["img_0002.txt:2: is in pixels"]),
        ("2 0.5 0.5 0.1 0.1 0.9", ["img_0002.txt:2.category_id: 1 of 3 category ids"]),
    ],
)
def test_bad_label_files(pair, run, line, parts):
    write_labels("labels", {1: 0, 3: 1})
    lines = Path("labels/img_0002.txt").read_text().splitlines()
    Path("labels/img_0002.txt").write_text("\n".join([lines[0], line, *lines[1:]]))
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "labels"), *parts)


def test_a_folder_above_the_labels_is_read_too(plain, run):
    """Ultralytics writes runs/detect/predict/labels/*.txt."""
    write_labels("predict/labels", {1: 0, 3: 1})
    assert scored(run, "gt.json", "predict")[0] == pytest.approx(plain, abs=1e-12)


def test_label_files_need_sizes_and_known_images(pair, run):
    write_labels("labels", {1: 0, 3: 1})

    def without(truth):
        del truth["images"][1]["width"]

    gt = changed(without, "no_size.json", "gt.json")
    assert_mistake(run("score", "--gt", gt, "--detections", "labels"), "an image without width and height", "img_0002")
    Path("labels/stranger.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    said = "stranger.txt:1.image_id: 1 of 8 image ids", "stranger", "--ignore-unknown-images"
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "labels"), *said)
    _, findings = scored(run, "gt.json", "labels", "--ignore-unknown-images")
    assert findings["unknown_images"]["count"] == 1
    Path("nothing").mkdir()
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "nothing"), "nothing: a folder without results")


def test_a_folder_of_mmdetection_predictions(plain, run):
    stem = {image["id"]: Path(image["file_name"]).stem for image in read("gt.json")["images"]}
    of_image = {}
    for result in read("dets.json"):
        content = of_image.setdefault(stem[result["image_id"]], {"labels": [], "scores": [], "bboxes": []})
        x, y, w, h = result["bbox"]
        content["labels"].append({1: 0, 3: 1}[result["category_id"]])
        content["scores"].append(result["score"])
        content["bboxes"].append([x, y, x + w, y + h])
    for name, content in of_image.items():
        write(f"preds/{name}.json", content)
    assert scored(run, "gt.json", "preds")[0] == pytest.approx(plain, abs=1e-12)
    of_image["img_0001"]["scores"].pop()
    write("preds/img_0001.json", of_image["img_0001"])
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "preds"), "img_0001.json", "differ in length")


# Ground truth from a folder ------------------------------------------------------------------------------------------


def make_images(folder):
    for image in read("gt.json")["images"]:
        save_image(Path(folder) / image["file_name"], width=WIDTH, height=HEIGHT, name=image["file_name"])


def by_stem(results):
    for result in results:
        result["image_id"] = f"img_{result['image_id']:04d}"


def test_ground_truth_in_a_coco_folder(plain, run):
    make_images("data/images")
    write("data/annotations.json", read("gt.json"))
    numbers, findings = scored(run, "data", "dets.json")
    assert numbers == plain and "only split of data" in findings["split"]["text"]
    assert read("n.json")["inputs"]["gt"]["file"] == "data/annotations.json"


def test_ground_truth_in_a_yolo_folder_with_splits(plain, run):
    truth = read("gt.json")
    for split in ("train", "val"):
        make_images(f"data/images/{split}")
    lines = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        lines[annotation["image_id"]].append(
            yolo_line({**annotation, "score": ""}, {1: 0, 3: 1}[annotation["category_id"]])
        )
    for image_id, of_image in lines.items():
        label = Path(f"data/labels/val/img_{image_id:04d}.txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(line.replace(" ''", "") + "\n" for line in of_image))
    Path("data/labels/train").mkdir()
    Path("data/labels/train/img_0001.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    Path("data/data.yaml").write_text("names: [person, car]\n")
    write_labels("found", {1: 0, 3: 1})
    numbers, findings = scored(run, "data", "found")
    # Boxes of label files are rounded to 1/64 pixel.
    assert numbers == pytest.approx(plain, abs=0.02)
    assert "also available: --split train" in findings["split"]["text"]
    # Names take precedence over numbers that were assigned here.
    names = changed(lambda results: [{**r, "category_id": {1: 1, 3: 2}[r["category_id"]]} for r in results])
    assert scored(run, "data", changed(by_stem, "stems.json", names))[0] == pytest.approx(plain, abs=0.02)
    assert read("n.json")["counts"]["images"] == 8
    scored(run, "data", "found", "--split", "train")
    assert read("n.json")["counts"]["objects"] == 1
    assert_mistake(run("score", "--gt", "data", "--detections", "found", "--split", "validation"), "no such split")
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "found", "--split", "test"), "needs a folder")


def test_ground_truth_in_a_voc_folder(plain, run):
    truth = read("gt.json")
    make_images("VOC/JPEGImages")
    name_of = {category["id"]: category["name"] for category in CATEGORIES}
    for image in truth["images"]:
        objects = ""
        for annotation in truth["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, w, h = annotation["bbox"]
                objects += voc_object(name_of[annotation["category_id"]], (x + 1, y + 1, x + w, y + h))
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        path = Path(f"VOC/Annotations/img_{image['id']:04d}.xml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation><filename>{image['file_name']}</filename>{size}{objects}</annotation>")

    def names(results):
        by_stem(results)
        for result in results:
            result["category_id"] = name_of[result["category_id"]]

    assert scored(run, "VOC", changed(names))[0] == pytest.approx(plain, abs=1e-12)


# What is unknown -----------------------------------------------------------------------------------------------------


def test_unknown_images_and_classes_are_left_out_by_a_switch_and_counted(plain, run):
    def more(results):
        results.insert(3, {"image_id": 999, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.9})
        results.append({"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5], "score": 0.9})

    name = changed(more)
    total = len(read("dets.json")) + 2
    both = "--ignore-unknown-images", "--ignore-unknown-classes"
    numbers, findings = scored(run, "gt.json", name, *both)
    assert numbers == plain
    for kind in ("unknown_images", "unknown_classes"):
        assert (findings[kind]["count"], findings[kind]["total"]) == (1, total)
    assert read("n.json")["counts"]["detections"] == total - 2
    for switch, other in (both, both[::-1]):
        assert_mistake(run("score", "--gt", "gt.json", "--detections", name, switch), other)


def test_a_hint_where_classes_are_counted_otherwise(pair, run):
    def as_labels(results):
        for result in results:
            result["category_id"] = {1: 0, 3: 1}[result["category_id"]]

    done = run("score", "--gt", "gt.json", "--detections", changed(as_labels))
    assert_mistake(done, "the id of the class at that place (counted from 0)", "boxes lie on an object of their class")

    def less(results):
        for result in results:
            result["category_id"] -= 1

    assert_mistake(run("score", "--gt", "gt.json", "--detections", changed(less)), "write category_id + 1")


# What is odd ---------------------------------------------------------------------------------------------------------


def shift_by_one(results):
    for result in results:
        result["category_id"] = {1: 0, 3: 1}[result["category_id"]]


def as_corners(results):
    for result in results:
        x, y, w, h = result["bbox"]
        result["bbox"] = [x, y, x + w, y + h]


def as_centres(results):
    for result in results:
        x, y, w, h = result["bbox"]
        result["bbox"] = [x + w / 2, y + h / 2, w, h]


def flatten(results):
    results[0]["bbox"][2] = 0


def normalise(results):
    for result in results:
        x, y, w, h = result["bbox"]
        result["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def make_negative(results):
    results[0]["bbox"][2] = -30.0
    results[1]["bbox"][3] = -1


def tie(results):
    for result in results:
        result["score"] = 1


@pytest.mark.parametrize(
    ("change", "kind", "count", "words"),
    [
        (lambda results: results + results[:5], "exact_copies", 5, "5 of 33 detections are exact copies"),
        (as_corners, "boxes_outside", None, "read as corners (x1, y1, x2, y2) all would fit"),
        (as_corners, "box_format", None, "boxes fit better read as corners"),
        (as_centres, "box_format", None, "boxes fit better read as centres"),
        (flatten, "empty_boxes", 1, "1 of 28 boxes have no area"),
        (normalise, "normalised_boxes", 28, "they look normalised"),
        (make_negative, "negative_sizes", 2, "2 of 28 boxes have a negative width or height"),
        (tie, "tied_scores", 28, "(1 different scores): their order in the file decides"),
        (lambda results: [r for r in results if r["image_id"] != 2], "images_without_results", 2, "the 4 objects in"),
    ],
)
def test_odd_results(plain, run, change, kind, count, words):
    name = changed(change)
    numbers, findings = scored(run, "gt.json", name)
    assert numbers == coco_eval_of_files("gt.json", name).stats.tolist()  # reported, but scored as COCO does
    assert words in findings[kind]["text"]
    if count is not None:
        assert findings[kind]["count"] == count


def test_classes_that_fit_better_shifted(plain, run):
    def with_root(truth):
        truth["categories"] = [{"id": 0, "name": "first"}, {"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
        for annotation in truth["annotations"]:
            annotation["category_id"] = {1: 1, 3: 2}[annotation["category_id"]]

    gt = changed(with_root, "rooted.json", "gt.json")
    numbers, findings = scored(run, gt, changed(shift_by_one))
    shifted = findings["shifted_classes"]
    assert "shifted by +1" in shifted["text"] and shifted["count"] > 14 and numbers[0] < plain[0] / 2
    right = changed(lambda results: [{**r, "category_id": {1: 1, 3: 2}[r["category_id"]]} for r in results])
    assert "shifted_classes" not in scored(run, gt, right)[1]


def test_odd_ground_truth(plain, run):
    def twice(truth):
        truth["images"] += [{**image, "id": image["id"] + 100} for image in truth["images"]]

    _, findings = scored(run, changed(twice, "twice.json", "gt.json"))
    assert (findings["repeated_images"]["count"], findings["repeated_images"]["total"]) == (8, 16)
    assert "16 image entries are 8 images" in findings["repeated_images"]["text"]

    def no_areas(truth):
        for annotation in truth["annotations"]:
            annotation["area"] = 0

    gt = changed(no_areas, "flat.json", "gt.json")
    numbers, findings = scored(run, gt)
    assert numbers == [None if v == -1 else v for v in coco_eval_of_files(gt, "dets.json").stats.tolist()]
    assert findings["areas_of_zero"]["count"] == 28 and "--area-from-box" in findings["areas_of_zero"]["text"]
    numbers, findings = scored(run, gt, "dets.json", "--area-from-box")
    assert numbers == plain and "areas_of_zero" not in findings and findings["area_from_box"]["count"] == 28

    def classes(truth):
        truth["categories"] = [*CATEGORIES, {"id": 9, "name": "never"}, {"id": 10, "name": "once"}]
        truth["annotations"].append({**truth["annotations"][0], "id": 99, "category_id": 10})

    _, findings = scored(run, changed(classes, "more.json", "gt.json"))
    assert findings["classes_without_objects"]["text"].endswith("AP is the mean over 3 of 4 classes (never)")
    assert (
        findings["few_images"]["text"]
        == "objects in 7 images only: intervals from fewer than 50 are a little too narrow"
    )
    assert "(once)" in findings["classes_with_few_objects"]["text"]


def test_classes_without_names_are_called_by_their_ids(plain, run):
    def nameless(truth):
        truth["categories"] = [{"id": 1}, {"id": 3, "name": None}]

    gt = changed(nameless, "nameless.json", "gt.json")
    assert scored(run, gt)[0] == plain
    assert [row["name"] for row in read("n.json")["per_class"]] == ["1", "3"]


# Choices -------------------------------------------------------------------------------------------------------------


def dense(num=120):
    boxes = [[20.0 * (k % 20), 20.0 * (k // 20), 18.0, 18.0] for k in range(num)]
    annotations = [{"id": k + 1, "image_id": 1, "category_id": 1, "bbox": box} for k, box in enumerate(boxes)]
    write("gt.json", {"images": [{"id": 1}, {"id": 2}], "categories": CATEGORIES[:1], "annotations": annotations})
    results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 / (k + 2)} for k, box in enumerate(boxes)]
    write("dets.json", results)


def test_max_detections(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    dense()
    numbers, findings = scored(run)
    assert numbers[0] < 0.85 and findings["detections_beyond_the_limit"]["count"] == 20
    assert findings["objects_beyond_the_limit"]["count"] == 20
    numbers, findings = scored(run, "gt.json", "dets.json", "--max-detections", "120")
    content = read("n.json")
    assert numbers[0] == 1.0 and not findings.keys() & {"detections_beyond_the_limit", "objects_beyond_the_limit"}
    assert content["AR120"] == 1.0 and "AR100" not in content and content["protocol"]["max_detections"] == 120


def coco_eval_with(change):
    """Run pycocotools with other parameters, which `summarize` does not support."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO("gt.json")
    evaluation = COCOeval(truth, truth.loadRes("dets.json"), "bbox")
    change(evaluation.params)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]  # (T, R, K, A)


def mean(values):
    return float(np.mean(values[values > -1]))


def test_iou_and_areas_are_pycocotools_with_other_parameters(pair, run):
    def change(params):
        params.iouThrs = np.array([0.3, 0.5, 0.8])
        params.areaRng = [[0, 1e10], [0, 60**2], [60**2, 120**2], [120**2, 1e10]]

    precision = coco_eval_with(change)
    scored(run, "gt.json", "dets.json", "--iou", "0.8,0.3,0.5", "--areas", "60,120")
    found = read("n.json")
    for area, name in enumerate(("AP", "APs", "APm", "APl")):
        assert found[name] == mean(precision[..., area])
    assert found["AP50"] == mean(precision[1, ..., 0]) and found["AP75"] is None
    assert found["protocol"]["iou_thresholds"] == [0.3, 0.5, 0.8]
    assert found["protocol"]["areas"]["medium"] == [3600.0, 14400.0]


def test_thresholds_as_a_range_are_coco_s(plain, run):
    assert scored(run, "gt.json", "dets.json", "--iou", "0.5:0.95:0.05", "--areas", "32,96")[0] == plain


@pytest.mark.parametrize(
    "option",
    [
        ("--iou", "high"), ("--iou", "0"), ("--iou", "1.5"), ("--iou", "0.5:0.9"), ("--iou", "0.5:0.9:0"),
        ("--iou", "0.9:0.5:0.1"), ("--iou", "0.5:0.9:0.3"), ("--areas", "32"), ("--areas", "96,32"),
        ("--areas", "small"), ("--areas", "0,inf"),
    ],
)  # fmt: skip
def test_choices_that_cannot_be(pair, run, option):
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", *option)
    assert_mistake(done, " ".join(option), "expected:")


def test_no_replicates_no_intervals(pair, run):
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", "--replicates", "0", "--out", "n.json")
    assert "no intervals (--replicates 0)" in done.stdout and "±" not in done.stdout
    assert read("n.json")["intervals"]["AP"] == {"low": None, "high": None, "standard_error": None}
    changed(lambda results: results[3:])
    done = run("compare", "--gt", "gt.json", "dets.json", "other.json", "--replicates", "0")
    assert done.returncode == 0 and "AP; no interval (--replicates 0)" in done.stdout and "±" not in done.stdout


def test_a_table_of_the_classes(pair, run):
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", "--per-class", "out/c.csv", "--out", "n.json",
               "--replicates", "100")  # fmt: skip
    assert "wrote n.json, out/c.csv" in done.stdout
    with Path("out/c.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, expected in zip(rows, read("n.json")["per_class"], strict=True):
        assert row["name"] == expected["name"] and int(row["num_objects"]) == expected["num_objects"]
        assert float(row["AP"]) == expected["AP"] and float(row["AP_low"]) == expected["intervals"]["AP"]["low"]
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", "--per-class", "dets.json")
    assert_mistake(done, "--per-class dets.json: is also an input file")


# compare -------------------------------------------------------------------------------------------------------------


def test_compare_reads_the_same_and_says_what_is_odd_in_each_file(plain, run):
    Path("run.json.gz").write_bytes(gzip.compress(Path("dets.json").read_bytes()))
    write_labels("labels.v2", {1: 0, 3: 1})
    changed(lambda results: results + results[:5], "copies.json")
    done = run("compare", "--gt", "gt.json", "run.json.gz", "labels.v2", "copies.json", "--replicates", "100")
    assert done.returncode == 0, done.stderr
    rows = read("comparison/comparison.json")["rows"]
    assert [row["name"] for row in rows] == ["run", "labels.v2", "copies"]
    assert list(rows[0]["metrics"].values()) == plain
    kinds = [{finding["kind"] for finding in row["files"][0]["diagnosis"]} for row in rows]
    assert "exact_copies" in kinds[2] and "exact_copies" not in kinds[0] and "classes_by_number" in kinds[1]
    assert "note: copies: 5 of 33 detections are exact copies" in done.stdout
    assert "copies: 5 of 33 detections" in Path("comparison/comparison.md").read_text()


def test_compare_and_its_chart_load_no_heavy_package(pair):
    changed(lambda results: results[3:])
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fcos.commands import compare\n"
        "compare.compare(['dets.json', 'other.json'], Path('gt.json'), out=Path('out'), replicates=100,"
        " confidence=0.95, seed=0)\n"
        "print(Path('out/comparison.svg').is_file())\n"
        "print('loaded', {'torch', 'dvc', 'mlflow', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\nloaded set()\n"


# Real files ----------------------------------------------------------------------------------------------------------


@needs_real("results")
@pytest.mark.parametrize(
    ("gt", "detections", "ap"),
    [
        ("cars_detectron2/gt.json", "cars_detectron2/car_v5.json", 37.12),
        ("cars_detectron2/gt.json", "cars_detectron2/car_v7.json", 39.93),
        ("cars_detectron2/gt.json", "cars_detectron2/car_v10.json", 32.45),
        ("voc2007_100/gt.json", "voc2007_100/dets_list.json", 34.70),
        ("voc2007_100/gt.json", "voc2007_100/dets_as_shipped.json", 34.70),
        ("small/gt_dataset.json", "small/dt_dataset.json", 69.47),
    ],
)
def test_real_files(tmp_path, monkeypatch, run, gt, detections, ap):
    monkeypatch.chdir(tmp_path)
    numbers, findings = scored(run, str(REAL / "results" / gt), str(REAL / "results" / detections))
    assert round(100 * numbers[0], 2) == ap
    if "cars" in gt:
        assert "559 image entries are 355 images" in findings["repeated_images"]["text"]
