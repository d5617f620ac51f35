"""`fcos compare --html` and the differences of single classes: numbers, images, names with scripts, refusals."""

import copy
import csv
import random
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import assert_mistake
from json_helpers import read, write
from PIL import Image
from playwright.sync_api import expect

NAMES = ["</script><img src=x onerror=alert(1)>", "dog", "cat"]
ARGUMENTS = ("compare", "--gt", "annotations/gt.json", "one=one.json", "other=s0.json,s1.json", "--replicates", "200")


@pytest.fixture
def results():
    """Write 40 images with their boxes, a detector that finds few dogs, and two seeds of one that finds nearly all."""
    rng = random.Random(3)
    images, annotations = [], []
    for image_id in range(1, 41):
        images.append({"id": image_id, "file_name": f"{image_id:03}.png", "width": 96, "height": 64})
        for place in range(3):
            box = [30 * place + rng.randrange(4), rng.randrange(20), 20 + rng.randrange(6), 24 + rng.randrange(10)]
            of = {"image_id": image_id, "category_id": 1 + place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **of})
    categories = [{"id": place, "name": name} for place, name in enumerate(NAMES, start=1)]
    write("annotations/gt.json", {"images": images, "annotations": annotations, "categories": categories})
    for name, missed in (("one", 0.1), ("s0", 0.1), ("s1", 0.15)):
        found = []
        for of in annotations:
            jitter = [rng.gauss(0, 1) for _ in range(4)]
            bbox = [round(side + by, 2) for side, by in zip(of["bbox"], jitter, strict=True)]
            if rng.random() > (0.7 if (name, of["category_id"]) == ("one", 2) else missed):
                found.append({"image_id": of["image_id"], "category_id": of["category_id"], "bbox": bbox, "score": 0.9})
            if rng.random() < 0.2:
                found.append({**of, "bbox": [0, 0, 20, 20], "score": round(rng.uniform(0.3, 0.8), 3)})
        keys = ("image_id", "category_id", "bbox", "score")
        write(f"{name}.json", [{key: of[key] for key in keys} for of in found])


def draw(folder="images", size=(96, 64)):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for image_id in range(1, 41):
        Image.fromarray(np.full((size[1], size[0], 3), 6 * image_id, np.uint8)).save(f"{folder}/{image_id:03}.png")


@pytest.mark.usefixtures("results")
def test_a_class_differs_as_the_ground_truth_of_that_class_alone_says(run):
    """The difference of a class, its interval and its p are those of AP where no other class is scored."""
    assert run(*ARGUMENTS[:4], "other=s0.json", *ARGUMENTS[5:]).returncode == 0
    content = read("comparison/comparison.json")
    (pair,) = content["differences"]
    alone = {}
    truth = read("annotations/gt.json")
    for category in truth["categories"]:
        kept = [a for a in truth["annotations"] if a["category_id"] == category["id"]]
        write("alone/gt.json", {**truth, "annotations": kept, "categories": [category]})
        for name in ("one", "s0"):
            found = [of for of in read(f"{name}.json") if of["category_id"] == category["id"]]
            write(f"alone/{name}.json", found)
        rows = ("one=alone/one.json", "other=alone/s0.json")
        options = ("--replicates", "200", "--out", "alone/out")
        assert run("compare", "--gt", "alone/gt.json", *rows, *options).returncode == 0
        alone[category["name"]] = read("alone/out/comparison.json")["differences"][0]["metrics"]["AP"]
    keys = ("difference", "low", "high", "standard_error", "p_value")
    for of_class in pair["classes"]:
        assert [of_class[key] for key in keys] == pytest.approx(
            [alone[of_class["name"]][key] for key in keys], abs=1e-9
        )
    # `other` minus `one`, which finds few dogs: the dog's gain comes last.
    assert [of["difference"] for of in pair["classes"]] == sorted(of["difference"] for of in pair["classes"])
    assert pair["classes"][-1]["name"] == "dog" and pair["classes"][-1]["difference"] > 0.3
    # Holm over three classes of one pair: the smallest p times three, and so on.
    p = sorted(of["p_value"] for of in pair["classes"])
    expected = np.maximum.accumulate(np.minimum(1, [3 * p[0], 2 * p[1], p[2]]))
    assert sorted(of["p_holm"] for of in pair["classes"]) == pytest.approx(expected.tolist())
    said = "other against one: of 3 classes, 1 higher (dog +"
    assert pair["classes_sentence"].startswith(said) and said in Path("comparison/comparison.md").read_text()
    with Path("comparison/class_differences.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["class"] for line in lines] == [of["name"] for of in pair["classes"]]
    assert [float(line["difference"]) for line in lines] == [of["difference"] for of in pair["classes"]]
    with Path("comparison/per_class.csv").open(newline="") as stream:
        of_one = {line["class"]: line for line in csv.DictReader(stream) if line["row"] == "one"}
    assert run(*ARGUMENTS[:5], "--replicates", "0", "--out", "none").returncode == 0
    assert "no class has an interval" in read("none/comparison.json")["differences"][0]["classes_sentence"]
    assert float(of_one["dog"]["AP"]) == content["rows"][0]["per_class"][1]["AP"] and of_one["dog"]["objects"] == "40"


@pytest.mark.usefixtures("results")
def test_the_page_shows_classes_errors_and_images(run, page):
    draw()  # images/ one level above the ground truth's folder
    done = run(*ARGUMENTS, "--html")
    assert done.returncode == 0, done.stderr
    assert "the page is comparison/comparison.html" in done.stdout
    page.goto(Path("comparison/comparison.html").absolute().as_uri())
    page.wait_for_selector('html[data-charts="1"]')  # of the errors; the others are folded
    page.locator("details.more > summary").click()
    page.wait_for_selector('html[data-charts="6"]')
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    content = read("comparison/comparison.json")
    expect(page.locator("#rows")).to_contain_text(content["differences"][0]["sentence"])
    expect(page.locator("#classes")).to_contain_text(content["differences"][0]["classes_sentence"])
    expect(page.locator("#classes tbody th").first).to_have_text(content["differences"][0]["classes"][0]["name"])
    expect(page.locator("#gallery-count")).to_have_text("24 images of 24, 3 runs side by side.")
    # Each detector's count of right boxes in an image is that of its boxes, counted here from the files.
    strip = page.locator(".strip").first
    image_id = int(strip.get_attribute("aria-label").removesuffix(".png"))
    sure = [of for of in read("one.json") if of["image_id"] == image_id and of["score"] == 0.9]
    expect(strip.locator("figure").nth(1)).to_contain_text(f"{len(sure)} right")
    page.get_by_label("one", exact=True).uncheck()
    expect(page.locator("#gallery-count")).to_have_text("24 images of 24, 2 runs side by side.")


@pytest.mark.usefixtures("results")
def test_without_images_the_page_says_where_to_get_them(run, page):
    assert run(*ARGUMENTS, "--html").returncode == 0
    page.goto(Path("comparison/comparison.html").absolute().as_uri())
    page.wait_for_selector('html[data-charts="1"]')
    expect(page.locator("#gallery")).to_contain_text("--images")
    draw("elsewhere", size=(64, 96))
    assert run(*ARGUMENTS, "--html", "--images", "elsewhere").returncode == 0
    page.reload()
    expect(page.locator("#gallery")).to_contain_text("differs in size from its annotation")


@pytest.mark.usefixtures("results")
def test_no_name_leads_out_of_the_folder_of_images(run):
    draw("secret")
    truth = read("annotations/gt.json")
    for image in truth["images"]:
        image["file_name"] = f"../secret/{image['file_name']}"
    write("annotations/gt.json", truth)
    Path("images").mkdir()
    assert_mistake(run(*ARGUMENTS, "--html", "--images", "images"), "no such image", "secret")
    assert run(*ARGUMENTS, "--html").returncode == 0
    assert '"gallery":null' in Path("comparison/comparison.html").read_text()


@pytest.mark.usefixtures("results")
def test_what_the_page_cannot_show_is_refused_first(run):
    for option in (("--iou", "0.5"), ("--areas", "10,50")):
        assert_mistake(run(*ARGUMENTS, "--html", *option), "--html", "--iou and --areas")
    rows = [*ARGUMENTS[:3], "a=s0.json,s1.json", "a #1=one.json", "--html"]
    assert_mistake(run(*rows), "two results have the same name", "a #1")
    assert_mistake(run(*ARGUMENTS, "--html", "--images", "nowhere"), "--images nowhere", "no such folder")
    assert not Path("comparison").exists()


@pytest.mark.usefixtures("results")
def test_sizes_come_from_the_images_and_scores_may_have_any_range(run, page):
    draw()
    truth = read("annotations/gt.json")
    truth["images"] = [{key: of[key] for key in ("id", "file_name")} for of in truth["images"]]
    write("annotations/gt.json", truth)
    for name in ("one", "s0", "s1"):
        write(f"{name}.json", [{**of, "score": 100 * of["score"]} for of in read(f"{name}.json")])
    assert run(*ARGUMENTS, "--html").returncode == 0
    page.goto(Path("comparison/comparison.html").absolute().as_uri())
    page.wait_for_selector('html[data-charts="1"]')
    expect(page.locator("#gallery-count")).to_have_text("24 images of 24, 3 runs side by side.")
    expect(page.locator("#errors tbody tr").first.locator("td").last).to_have_text("\u2014")  # no calibration error
    assert run(*ARGUMENTS).returncode == 0
    assert not Path("comparison/comparison.html").exists()  # it would be older than the numbers


@pytest.mark.usefixtures("results")
def test_equal_files_give_an_equal_page(run):
    draw("annotations")  # beside the ground truth
    pages = []
    for _ in range(2):
        assert run(*ARGUMENTS, "--html").returncode == 0
        pages.append(Path("comparison/comparison.html").read_bytes())
    assert pages[0] == pages[1]
    before = copy.deepcopy(read("comparison/comparison.json"))
    assert run(*ARGUMENTS).returncode == 0
    assert read("comparison/comparison.json") == before  # looking at the matches changes no number
