"""`fcos labels`: planted errors come first, with what the detectors found there; files and page."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, assert_mistake
from json_helpers import read, write
from PIL import Image

from fcos.scoring.label_errors import rank
from fcos.scoring.results import read_results
from fcos.scoring.truth import read_truth

SIDE = 30


def draw_truth(rng, *, images=60):
    """Return COCO ground truth with six boxes an image, of three classes, that do not touch."""
    annotations = []
    for image_id in range(1, images + 1):
        for place in range(6):
            box = [10 + 60 * (place % 3), 10 + 60 * (place // 3), SIDE + rng.randrange(10), SIDE + rng.randrange(10)]
            of = {"image_id": image_id, "category_id": rng.choice((1, 2, 3)), "bbox": box, "area": box[2] * box[3]}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **of})
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 140} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(("ant", "bee", "cow"), start=1)],
    }


def detect(truth, seed, *, missed=0.1, confused=0.05, clutter=0.3):
    """Return the results of a detector that knows the truth: boxes a little off, some missed, some of another class."""
    rng = random.Random(seed)
    found = []
    for of in truth["annotations"]:
        if rng.random() < missed:
            continue
        x, y, w, h = (side + rng.gauss(0, 1.2) for side in of["bbox"])
        other = rng.choice([category for category in (1, 2, 3) if category != of["category_id"]])
        named = other if rng.random() < confused else of["category_id"]
        score = rng.uniform(0.3, 0.6) if named == other else rng.uniform(0.5, 1)
        row = {"image_id": of["image_id"], "category_id": named, "bbox": [x, y, w, h], "score": score}
        found.append(row)
    for image in truth["images"]:
        if rng.random() < clutter:
            box = [rng.randrange(150), rng.randrange(100), 25, 25]
            of = {"image_id": image["id"], "category_id": rng.choice((1, 2, 3)), "bbox": box}
            found.append({**of, "score": rng.uniform(0.05, 0.5)})
    return found


def plant(truth, rng, each=5):
    """Return labels with `each` boxes removed, added, renamed and moved, and by kind where that was."""
    labels = json.loads(json.dumps(truth))
    chosen = rng.sample(range(len(labels["annotations"])), 3 * each)
    planted = {"unlabelled": [], "nothing there": [], "class": [], "box": []}
    for place in chosen[:each]:
        of = labels["annotations"][place]
        planted["unlabelled"].append((of["image_id"], tuple(of["bbox"])))
    for place in chosen[each : 2 * each]:
        of = labels["annotations"][place]
        of["category_id"] = of["category_id"] % 3 + 1
        planted["class"].append((of["image_id"], tuple(of["bbox"])))
    for place in chosen[2 * each :]:
        of = labels["annotations"][place]
        of["bbox"] = [of["bbox"][0] + 12, *of["bbox"][1:]]
        planted["box"].append((of["image_id"], tuple(of["bbox"])))
    removed = set(chosen[:each])
    labels["annotations"] = [of for place, of in enumerate(labels["annotations"]) if place not in removed]
    for image in rng.sample(labels["images"], each):
        box = [160, 100, SIDE, SIDE]
        of = {"id": 10_000 + image["id"], "image_id": image["id"], "category_id": 1, "bbox": box, "area": SIDE * SIDE}
        labels["annotations"].append({**of, "iscrowd": 0})
        planted["nothing there"].append((image["id"], tuple(box)))
    return labels, planted


def suspects_of(labels, *results):
    write("gt.json", labels)
    truth = read_truth(Path("gt.json"))
    tables = []
    for number, found in enumerate(results):
        write(f"{number}.json", found)
        tables.append(read_results(Path(f"{number}.json"), truth).table)
    return rank(tables, truth.objects)


def where(suspect):
    """Return the image id and the box of the label, or of the object without one."""
    return suspect.image + 1, suspect.box or suspect.suggested_box


def near(box, other):
    return all(abs(one - two) < 6 for one, two in zip(box, other, strict=True))


@pytest.mark.parametrize(("detectors", "noise", "first"), [(1, 0.01, 10), (3, 0.1, 13)])
def test_planted_errors_come_first(detectors, noise, first):
    """The more errors detectors make, the more of them are needed to tell their errors from those of the labels."""
    truth = draw_truth(random.Random(1))
    labels, planted = plant(truth, random.Random(2))
    results = [detect(truth, seed, missed=noise, confused=noise / 2, clutter=3 * noise) for seed in range(detectors)]
    suspects = suspects_of(labels, *results)
    every = [(kind, *of) for kind, places in planted.items() for of in places]
    right = [
        of
        for of in suspects[: len(every)]
        for kind, image_id, box in every
        if (of.kind, where(of)[0]) == (kind, image_id) and near(where(of)[1], box)
    ]
    assert right[:first] == suspects[:first]
    assert {of.kind for of in right} >= {"class", "unlabelled", "box"}
    if detectors > 1:  # one detector misses real objects as often as there are labels of nothing
        of_nothing = {where(of) for of in suspects if of.kind == "nothing there"}
        assert of_nothing == set(planted["nothing there"])
    assert [of.suspicion for of in suspects] == sorted((of.suspicion for of in suspects), reverse=True)
    assert all(0 < of.suspicion <= 1 for of in suspects)
    of_objects = [of.gt for of in suspects if of.gt is not None]
    assert len(of_objects) == len(set(of_objects))
    for of in right:  # what was there before
        if of.kind == "class":
            assert of.suggested_label == (of.label - 1) % 3
        if of.kind == "box":
            assert abs(of.suggested_box[0] - (of.box[0] - 12)) < 4


def test_detectors_that_disagree_raise_less_suspicion():
    truth = draw_truth(random.Random(1))
    labels, planted = plant(truth, random.Random(2))
    agree = suspects_of(labels, detect(truth, 0), detect(truth, 1))
    # The second one learned the labels as they are, errors included.
    differ = suspects_of(labels, detect(truth, 0), detect(labels, 1))
    wanted = {of for places in planted.values() for of in places}

    def total(suspects):
        of_planted = [of for of in suspects if any(where(of)[0] == i and near(where(of)[1], box) for i, box in wanted)]
        return sum(of.suspicion for of in of_planted)

    assert total(differ) < 0.6 * total(agree)


def test_crowd_regions_and_what_is_never_found_are_no_suspects():
    truth = draw_truth(random.Random(1))
    found = [of for of in detect(truth, 0, confused=0, clutter=0) if of["category_id"] != 3]  # no cow is found at all
    for of in truth["annotations"][::7]:
        of["iscrowd"] = 1
    suspects = suspects_of(truth, found)
    crowd = {place for place, of in enumerate(truth["annotations"]) if of["iscrowd"]}
    assert suspects and not crowd & {of.gt for of in suspects}
    assert not [of for of in suspects if of.kind == "unlabelled"]  # boxes on crowd regions are none
    assert not [of for of in suspects if of.label == 2]  # where no cow is found, a missing one says nothing


def test_a_box_that_fits_another_label_says_nothing_of_this_one():
    """Two objects overlap by an IoU of 0.25; in one image only the second one is found."""
    images = [{"id": number, "width": 100, "height": 80} for number in range(1, 11)]
    boxes = [(image["id"], [left, 10, 40, 40]) for image in images for left in (10, 34)]
    annotations = [
        {"id": place, "image_id": image_id, "category_id": 1, "bbox": box, "area": 1600, "iscrowd": 0}
        for place, (image_id, box) in enumerate(boxes, start=1)
    ]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    found = [{"image_id": image_id, "category_id": 1, "bbox": box, "score": 0.9} for image_id, box in boxes[1:]]
    (suspect,) = suspects_of(truth, found)
    assert (suspect.kind, suspect.gt) == ("nothing there", 0)

    # The same for two classes, which overlap by more than half.
    truth["categories"].append({"id": 2, "name": "nucleus"})
    for of in annotations[1::2]:
        of |= {"category_id": 2, "bbox": [18, 10, 40, 40]}
    found = [{key: of[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for of in annotations[1:]]
    (suspect,) = suspects_of(truth, found)
    assert (suspect.kind, suspect.gt) == ("nothing there", 0)


def test_the_order_of_detectors_does_not_matter():
    truth = draw_truth(random.Random(1))
    labels, _ = plant(truth, random.Random(2))
    one, other = detect(truth, 0), detect(truth, 1)[::2]  # what the second finds at all, and what it alone finds
    ranked = [
        [(of.image, of.suggested_label, round(of.suspicion, 9)) for of in suspects if of.kind == "unlabelled"]
        for suspects in (suspects_of(labels, one, other), suspects_of(labels, other, one))
    ]
    assert sorted(ranked[0]) == sorted(ranked[1]) and ranked[0]


def test_boxes_out_of_their_image_or_without_area_break_nothing(run):
    truth = draw_truth(random.Random(1), images=3)
    draw_images("images", 3)
    write("gt.json", {**truth, "images": [{key: of[key] for key in ("id", "file_name")} for of in truth["images"]]})
    odd = [[500, 500, 20, 20], [-90, -90, 20, 20], [60, 20, -30, 20], [60, 20, 0, 0], [150, 100, 300, 300]]
    found = detect(truth, 0, clutter=0)
    found += [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.95} for box in odd]
    write("0.json", found)
    assert run("labels", "--gt", "gt.json", "0.json").returncode == 0
    marked = read("labels/labels-coco.json")
    assert all(min(of["bbox"][2:]) > 0 for of in marked["annotations"])
    assert "images are not shown" in Path("labels/labels.html").read_text()


@pytest.mark.parametrize("found", [[], [{"image_id": 1, "category_id": 1, "bbox": [5, 5, 9, 9], "score": 0.9}]])
def test_hardly_any_detection_is_no_error(found):
    assert all(0 < of.suspicion <= 1 for of in suspects_of(draw_truth(random.Random(1), images=3), found))


def draw_images(folder, count):
    Path(folder).mkdir(parents=True)
    for number in range(1, count + 1):
        Image.fromarray(np.full((140, 200, 3), 2 * number, np.uint8)).save(f"{folder}/{number}.png")


def test_page_and_files(run, page):
    truth = draw_truth(random.Random(1), images=20)
    truth["categories"][0]["name"] = "<b>ant"
    labels, _ = plant(truth, random.Random(2), each=2)
    write("annotations/gt.json", labels)
    for seed in range(2):
        write(f"{seed}.json", detect(truth, seed))
    draw_images("images", 20)
    done = run("labels", "--gt", "annotations/gt.json", "0.json", "1.json", "--top", "8")
    assert done.returncode == 0, done.stderr
    content = read("labels/labels.json")
    counts = content["counts"]["suspects"]
    assert "suspects: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) in done.stdout
    assert sum(counts.values()) == len(content["suspects"])
    with Path("labels/labels.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["suspicion"]) for line in lines] == [of["suspicion"] for of in content["suspects"]]
    page.goto(Path("labels/labels.html").absolute().as_uri())
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.locator("ol.cards img").count() == 8
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 40)")

    marked = read("labels/labels-coco.json")
    assert len([of for of in marked["annotations"] if "attributes" in of]) == 8
    kept = {image["id"] for image in marked["images"]}
    names = {image["id"]: image["file_name"] for image in labels["images"]}
    before = [of for of in labels["annotations"] if names[of["image_id"]] in {i["file_name"] for i in marked["images"]}]
    assert len([of for of in marked["annotations"] if "attributes" not in of]) == len(before)
    assert {of["image_id"] for of in marked["annotations"]} == kept
    read_truth(Path("labels/labels-coco.json"))  # checks every id and box

    done = run("labels", "--gt", "annotations/gt.json", "0.json", "--images", "nowhere")
    assert_mistake(done, "nowhere", "no such folder")
    assert run("labels", "--gt", "annotations/gt.json", "0.json", "--out", "again").returncode == 0
    Path("images").rename("elsewhere")
    done = run("labels", "--gt", "annotations/gt.json", "0.json", "--out", "without")
    assert done.returncode == 0 and "--images DIR" in done.stdout


def test_runs_of_a_study(workspace, run):
    assert run("prepare").returncode == 0
    assert_mistake(run("labels", "one-epoch"), "detections.json", "fcos evaluate one-epoch")
    assert_mistake(run("labels", "none-such"), "no such run", "one-epoch")
    truth = read("data/smoke/test.json")
    found = [
        {"image_id": of["image_id"], "category_id": of["category_id"], "bbox": of["bbox"], "score": 0.9}
        for of in truth["annotations"]
    ]
    gone = truth["annotations"].pop(0)
    write("data/smoke/test.json", truth)
    write("runs/smoke/one-epoch/detections.json", found)
    assert run("labels", "one-epoch").returncode == 0
    (suspect,) = read("labels/labels.json")["suspects"]
    assert (suspect["kind"], suspect["suggested_bbox"]) == ("unlabelled", pytest.approx(gone["bbox"]))
    assert "data:image/jpeg" in Path("labels/labels.html").read_text()
    assert str(ROOT) not in Path("labels/labels.json").read_text()
