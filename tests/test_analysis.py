"""The error analysis: hand-made errors of each kind, parts against scores of a smaller data set, figures by pixel."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from random_truth import make_results, make_truth

from fcos.data.coco import CocoSplit
from fcos.palette import COLOURS
from fcos.reporting.figures import draw_run_images
from fcos.reporting.gallery import Gallery, choose_images
from fcos.scoring.analysis import analyse
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.errors import ERROR_KINDS
from fcos.scoring.matching import match
from fcos.scoring.numbers import coco_metrics

A, B, C = 1, 2, 3
SPECIAL = ("false_positives", "false_negatives")


def truth(*objects, images=(1,), classes=(A, B), crowd=()):
    """Return a split of (image, category, bbox); `crowd` has the indices of ignored ones."""
    annotations = [
        {"id": n + 1, "image_id": i, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": int(n in crowd)}
        for n, (i, k, box) in enumerate(objects)
    ]
    entries = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in images]
    return CocoSplit(entries, [{"id": k, "name": f"class {k}"} for k in classes], annotations, Path())


def found(*detections):
    """Return COCO results of (image, category, score, bbox)."""
    return [{"image_id": i, "category_id": k, "score": score, "bbox": box} for i, k, score, box in detections]


def analysed(split, results, *, replicates=0):
    weights = draw_weights(len(split.images), replicates=replicates, seed=0)
    analysis = analyse(match(results, split), split, weights, confidence=0.95)
    json.dumps(analysis, allow_nan=False)  # no NaN, no numpy
    return analysis


def box(x, y, w=10, h=10):
    return [float(x), float(y), float(w), float(h)]


# Four objects of class A and two of class B, and each kind of error once.
EACH_KIND = truth(
    (1, A, box(0, 0)), (1, A, box(50, 0)), (1, A, box(0, 100)), (1, A, box(50, 100)),
    (1, B, box(100, 0)), (1, B, box(150, 0)),
)  # fmt: skip
EACH_KIND_FOUND = found(
    (1, A, 0.95, box(100, 100)),  # touches nothing: background
    (1, A, 0.9, box(0, 0)),  # finds the first A
    (1, A, 0.8, box(50, 0, 10, 25)),  # the second A with IoU 100 / 250 = 0.4: localisation
    (1, A, 0.7, box(100, 0)),  # the first B: classification
    (1, A, 0.6, box(150, 0, 10, 30)),  # the second B with IoU 1/3: both
    (1, A, 0.5, box(0, 0)),  # the first A again: duplicate
    (1, A, 0.3, box(50, 100)),  # finds the fourth A; the third is missed
    (1, B, 0.99, box(150, 0)),  # finds the second B
)


def test_each_kind_of_error_by_hand():
    """S is the sum of a class's precision over the 101 recall steps, so AP50 = (S_A + S_B) / 202.

    As it is: A finds 1 of 4 at precision 1/2, which counts at the 26 steps 0.00 .. 0.25, and 2 of 4 at 2/7, which
    counts at the 25 steps to 0.50: S_A = 13 + 50/7 = 141/7. B finds 1 of 2 at precision 1, 51 steps: S_B = 51.
    """
    errors = analysed(EACH_KIND, EACH_KIND_FOUND)["errors"]
    assert errors["AP50"] == pytest.approx((141 / 7 + 51) / 202, abs=1e-12)
    assert {kind: errors[kind]["count"] for kind in ERROR_KINDS} == dict.fromkeys(ERROR_KINDS, 1)
    assert [errors[kind]["count"] for kind in SPECIAL] == [5, 3]
    gains = {
        # A without it: 2 of 4 at 2/6, S_A = 13 + 25/3 = 64/3, 25/21 more. B finds both: S_B = 101, 50 more.
        "classification": 25 / 21 + 50,
        # 2 of 4 at 2/3, 51 steps; 3 of 4 at 3/7, 25 steps: S_A = 34 + 75/7, 172/7 more.
        "localisation": 172 / 7,
        "both": 25 / 21,
        "duplicate": 25 / 21,
        # 1 of 4 at 1, 26 steps; 2 of 4 at 2/6, 25 steps: S_A = 103/3.
        "background": 103 / 3 - 141 / 7,
        # 1 of 3 at 1/2, 34 steps; 2 of 3 at 2/7, 33 steps: S_A = 17 + 66/7, 44/7 more.
        "missed": 44 / 7,
        # Precision 1 at 51 steps.
        "false_positives": 51 - 141 / 7,
        # 1 of 2 at 1/2, 51 steps; 2 of 2 at 2/7, 50 steps: 51/2 + 100/7. B finds 1 of 1: 50 more.
        "false_negatives": 51 / 2 + 100 / 7 - 141 / 7 + 50,
    }
    assert {kind: errors[kind]["delta_ap50"] * 202 for kind in gains} == pytest.approx(gains, abs=1e-9)


def test_an_error_on_a_found_object_is_removed_and_of_several_the_surest_is_corrected():
    """AP is 1/2 for A, whose only object comes second, 1 for B and 0 for C."""
    split = truth((1, A, box(0, 0)), (1, B, box(50, 0)), (1, C, box(100, 0)), classes=(A, B, C))
    results = found(
        (1, A, 0.8, box(50, 0)),  # on the object of B, which is found: without this detection A has AP 1
        (1, A, 0.5, box(0, 0)),
        (1, B, 0.9, box(50, 0)),
        (1, C, 0.7, box(100, 0, 10, 25)),  # corrected, the AP is 1; one rank lower it would be 1/2
        (1, C, 0.65, box(100, 150)),
        (1, C, 0.6, box(100, 0, 10, 25)),
    )
    errors = analysed(split, results)["errors"]
    assert errors["AP50"] == pytest.approx(1.5 / 3)
    assert errors["classification"] == {"count": 1, "delta_ap50": pytest.approx(0.5 / 3)}
    assert errors["localisation"] == {"count": 2, "delta_ap50": pytest.approx(1 / 3)}
    assert errors["missed"] == {"count": 0, "delta_ap50": 0.0}


def test_each_kind_is_repaired_as_if_the_others_were_not_there():
    """Two errors concern one object: fixing either of them finds it, the lower-scoring one after a false positive."""
    split = truth((1, A, box(0, 0)))
    errors = analysed(split, found((1, A, 0.9, box(0, 0, 10, 25)), (1, B, 0.8, box(0, 0))))["errors"]
    assert errors["localisation"] == {"count": 1, "delta_ap50": pytest.approx(1.0)}
    assert errors["classification"] == {"count": 1, "delta_ap50": pytest.approx(0.5)}


def test_ignored_detections_are_no_errors_and_ignored_objects_are_none_to_be_meant():
    split = truth((1, A, box(0, 0, 50, 50)), (1, A, box(100, 0)), crowd=[0])
    results = found((1, A, 0.9, box(0, 0)), (1, A, 0.8, box(20, 20)), (1, A, 0.7, box(100, 0)))
    errors = analysed(split, results)["errors"]
    assert errors["AP50"] == pytest.approx(1.0)
    assert [errors[kind]["count"] for kind in SPECIAL] == [0, 0]
    other_class = analysed(split, [*results, *found((1, B, 0.9, box(0, 0)))])["errors"]
    assert other_class["background"]["count"] == other_class["false_positives"]["count"] == 1


def test_a_class_that_finds_nothing_counts_with_0_even_where_nothing_is_left_to_find():
    split = truth((1, A, box(0, 0)), (1, B, box(50, 0)))
    errors = analysed(split, found((1, A, 0.9, box(0, 0))))["errors"]
    assert errors["AP50"] == pytest.approx(0.5)
    assert errors["missed"] == {"count": 1, "delta_ap50": 0.0}


@pytest.mark.parametrize("seed", range(8))
def test_repairs_never_cost_and_kinds_add_up(seed):
    rng = random.Random(seed)
    split = make_truth(rng)
    results = make_results(rng, split)
    errors = analysed(split, results)["errors"]
    assert errors["AP50"] == coco_metrics(match(results, split), split)["metrics"]["AP50"]
    assert all(errors[kind]["delta_ap50"] >= -1e-9 for kind in (*ERROR_KINDS, *SPECIAL))
    of_detections = sum(errors[kind]["count"] for kind in ERROR_KINDS if kind != "missed")
    assert of_detections == errors["false_positives"]["count"] > 0
    assert errors["missed"]["count"] <= errors["false_negatives"]["count"]
    assert errors["missed"]["delta_ap50"] <= errors["false_negatives"]["delta_ap50"] + 1e-9


def test_perfect_detections_leave_nothing_to_say():
    split = make_truth(random.Random(0), crowd=0)
    distinct = {(a["image_id"], *a["bbox"]): a for a in split.annotations}  # one object per box
    split = CocoSplit(split.images, split.categories, list(distinct.values()), Path())
    results = found(*((a["image_id"], a["category_id"], 1.0, a["bbox"]) for a in split.annotations))
    analysis = analysed(split, results)
    nothing = {"count": 0, "delta_ap50": 0.0}
    assert analysis["errors"] == {"AP50": pytest.approx(1.0), **dict.fromkeys((*ERROR_KINDS, *SPECIAL), nothing)}
    assert analysis["precision_recall"]["mean"] == {"0.50": [1.0] * 101, "0.75": [1.0] * 101}
    assert analysis["precision_recall"]["per_class"][2] == {"category_id": 9, "name": "class 9", "0.50": None}
    assert analysis["calibration"]["expected_calibration_error"] == 0
    assert analysis["calibration"]["bins"][9]["num"] == len(results)
    assert analysis["by_crowding"]["empty"]["num_detections"] == 0
    assert analysis["worst_images"] == []


def test_nothing_to_find_and_nothing_found():
    split = truth(images=(1, 2))
    analysis = analysed(split, found((1, A, 0.9, box(0, 0)), (2, B, 0.4, box(0, 0))), replicates=5)
    assert analysis["errors"]["AP50"] is None
    assert analysis["errors"]["background"] == {"count": 2, "delta_ap50": None}
    assert analysis["by_crowding"]["empty"] == {"num_images": 2, "num_detections": 1}  # 0.4 is not above 0.5
    assert analysis["by_size"]["small"]["AP"] is None
    silent = analysed(EACH_KIND, [])
    assert silent["errors"]["missed"] == {"count": 6, "delta_ap50": 0.0}
    assert silent["calibration"]["expected_calibration_error"] is None


def test_precision_recall_is_the_curve_behind_ap50():
    """Class A of EACH_KIND: 1/2 at the 26 steps to 0.25, 2/7 at the 25 to 0.50, 0 after them; class B: 1 at 51."""
    curves = analysed(EACH_KIND, EACH_KIND_FOUND)["precision_recall"]
    assert curves["per_class"][0]["0.50"] == [0.5] * 26 + [0.2857] * 25 + [0.0] * 50
    assert curves["mean"]["0.50"] == [0.75] * 26 + [0.6429] * 25 + [0.0] * 50


def test_calibration_by_hand():
    """Bins: 1.0 right; 0.85 wrong and 0.82 right; 0.3, which opens its bin, wrong. The ignored 0.99 is in none.

    |mean score - precision| is 0, |0.835 - 0.5| and 0.3: (0 + 2 * 0.335 + 0.3) / 4 = 0.2425.
    """
    split = truth((1, A, box(0, 0)), (1, A, box(50, 0)), (1, A, box(100, 100, 50, 50)), crowd=[2])
    results = found(
        (1, A, 1.0, box(0, 0)), (1, A, 0.85, box(0, 150)), (1, A, 0.82, box(50, 0)), (1, A, 0.3, box(30, 150)),
        (1, A, 0.99, box(110, 110)),
    )  # fmt: skip
    calibration = analysed(split, results)["calibration"]
    assert [row["num"] for row in calibration["bins"]] == [0, 0, 0, 1, 0, 0, 0, 0, 2, 1]
    assert calibration["bins"][8] == {
        "low": 0.8, "high": 0.9, "num": 2, "mean_score": pytest.approx(0.835), "precision": 0.5
    }  # fmt: skip
    assert calibration["bins"][0] == {"low": 0.0, "high": 0.1, "num": 0, "mean_score": None, "precision": None}
    assert calibration["expected_calibration_error"] == pytest.approx(0.2425)


def test_worst_images_by_hand():
    split = truth(
        (3, A, box(0, 0)), (7, A, box(0, 0)), (9, A, box(0, 0)), (5, A, box(0, 0)), (5, B, box(50, 0)),
        images=(3, 5, 7, 9, 11),
    )  # fmt: skip
    results = found(
        (5, A, 0.2, box(0, 0)),  # correct, but the B of this image is missed: cost 1 + 0.6
        (5, A, 0.6, box(0, 150)),
        (7, A, 0.9, box(0, 0)),
        (7, A, 0.7, box(0, 150)),  # false, like the next one, whose score is too low to count: cost 0.7 + 0.29
        (7, B, 0.29, box(0, 150)),
        (9, A, 0.9, box(0, 0)),  # this image has no error
        (11, A, 0.8, box(0, 0)),
    )
    worst = analysed(split, results)["worst_images"]
    assert [(w["image_id"], w["missed"], w["false_positives"], w["cost"]) for w in worst] == [
        (5, 1, 1, 1.6), (3, 1, 0, 1.0), (7, 0, 1, 0.99), (11, 0, 1, 0.8),
    ]  # fmt: skip
    assert worst[0]["file_name"] == "5.png"
    many = truth(*((i, A, box(0, 0)) for i in range(20, 0, -1)), images=range(20, 0, -1))
    assert [w["image_id"] for w in analysed(many, [])["worst_images"]] == list(range(1, 11))


def test_ap_of_a_group_is_that_of_its_images_alone():
    rng = random.Random(3)
    split = make_truth(rng, images=60)
    results = make_results(rng, split)
    crowding = analysed(split, results)["by_crowding"]
    num_objects = {i["id"]: sum(not a["iscrowd"] for a in split.annotations_of(i["id"])) for i in split.images}
    for group, (least, most) in zip(crowding["groups"], [(1, 1), (2, 3), (4, 7), (8, 99)], strict=True):
        ids = {i for i, number in num_objects.items() if least <= number <= most}
        part = CocoSplit(
            [i for i in split.images if i["id"] in ids],
            split.categories,
            [a for a in split.annotations if a["image_id"] in ids],
            Path(),
        )
        expected = coco_metrics(match([r for r in results if r["image_id"] in ids], part), part)["metrics"]
        assert group["num_images"] == len(ids) > 2
        assert group["num_objects"] == sum(num_objects[i] for i in ids)
        assert (group["AP"], group["AP50"]) == pytest.approx((expected["AP"], expected["AP50"]), abs=1e-12)


def test_sizes_are_those_of_coco_and_intervals_come_from_the_first_draws():
    rng = random.Random(4)
    split = make_truth(rng, images=60)
    results = make_results(rng, split)
    many = analysed(split, results, replicates=300)
    expected = coco_metrics(match(results, split), split)["metrics"]
    for size, metric in (("small", "APs"), ("medium", "APm"), ("large", "APl")):
        row = many["by_size"][size]
        assert row["AP"] == pytest.approx(expected[metric], abs=1e-12)
        assert row["intervals"]["AP"]["low"] < row["intervals"]["AP"]["high"]
    counted = [a["area"] for a in split.annotations if not a["iscrowd"]]
    assert many["by_size"]["small"]["num_objects"] == sum(area <= 32**2 for area in counted)
    weights = draw_weights(60, replicates=300, seed=0)
    assert many == analyse(match(results, split), split, weights[:200], confidence=0.95)
    assert many != analyse(match(results, split), split, weights[:199], confidence=0.95)
    without = analysed(split, results)
    assert without["by_size"]["small"]["intervals"]["AP"] == {"low": None, "high": None}


def test_confusion_by_hand():
    """Of EACH_KIND_FOUND the eight that score 0.3 or more, the surest first.

    B 0.99 finds the second B. A 0.95 touches nothing: background called A. A 0.9 finds the first A. A 0.8 overlaps
    the second A by 0.4 only: background called A. A 0.7 takes the first B. A 0.6: IoU 1/3, background called A. A 0.5
    finds the first A taken: background called A. A 0.3 finds the fourth A. The second and third A are left.
    """
    confusion = analysed(EACH_KIND, EACH_KIND_FOUND)["confusion"]
    assert confusion["labels"] == ["class 1", "class 2", "background"]
    assert confusion["counts"] == [[0, 0, 2], [0, 2, 2], [1, 0, 1], [1, 1, 1], [2, 0, 4]]


def test_confusion_counts_nothing_on_a_crowd_region():
    split = truth((1, A, box(0, 0, 100, 100)), (1, B, box(120, 0)), crowd=(0,))
    results = found((1, B, 0.9, box(10, 10)), (1, B, 0.8, box(120, 0)), (1, A, 0.2, box(150, 150)))
    assert analysed(split, results)["confusion"]["counts"] == [[1, 1, 1]]
    assert analysed(split, [])["confusion"]["counts"] == [[1, 2, 1]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Draw the images of EACH_KIND, which are magenta, with class names that are difficult for matplotlib or a font."""
    folder = tmp_path_factory.mktemp("analysis")
    Image.new("RGB", (200, 200), (255, 0, 255)).save(folder / "1.png")
    categories = [{"id": A, "name": "ca$h_{x} $\\frac"}, {"id": B, "name": "猫 кот"}]
    split = CocoSplit(EACH_KIND.images, categories, EACH_KIND.annotations, folder)
    results = SimpleNamespace(name="run_$1", evaluation={"analysis": analysed(split, EACH_KIND_FOUND)})
    draw_run_images(results, split, EACH_KIND_FOUND, folder / "figures")
    return folder / "figures"


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_colour(pixels, colour):
    """Return where an image (H, W, 3) has a colour, up to the rounding of its 256-colour palette."""
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return np.abs(pixels - rgb).max(axis=2) < 12


@pytest.mark.parametrize("name", ["detections", "worst"])
def test_images_are_drawn_with_the_boxes_of_each_class(drawn, name):
    pixels = pixels_of(drawn / f"{name}.png")
    assert (pixels[0, 0] == 255).all()
    assert is_colour(pixels, "#ff00ff").mean() > 0.05
    for category in (A, B):
        assert is_colour(pixels, COLOURS[category]).sum() > 50


def test_gallery_says_what_became_of_each_box(tmp_path):
    """Check the kinds of EACH_KIND_FOUND against its comments."""
    Image.new("RGB", (200, 200)).save(tmp_path / "1.png")
    split = CocoSplit(EACH_KIND.images, EACH_KIND.categories, EACH_KIND.annotations, tmp_path)
    gallery = Gallery(split, [[{"image_id": 1}]])
    gallery.add("run", EACH_KIND_FOUND)
    (image,) = gallery.content()["images"]
    assert [(row[0], *row[5:]) for row in image["found"]["run"]] == [
        (1, 0.99, "right", 5),
        (0, 0.95, "background", None),
        (0, 0.9, "right", 0),
        (0, 0.8, "localisation", None),
        (0, 0.7, "classification", None),
        (0, 0.6, "both", None),
        (0, 0.5, "duplicate", None),
        (0, 0.3, "right", 3),
    ]
    assert image["objects"][2] == [0, 0.0, 100.0, 10.0, 10.0, 0]


def test_gallery_has_the_worst_images_of_each_run_and_others():
    split = truth(images=range(1, 101))
    worst = [[{"image_id": image_id} for image_id in ids] for ids in ((90, 91, 92), (95, 90, 96))]
    chosen = choose_images(split, worst, count=8)
    assert chosen[:4] == [90, 95, 91, 92]  # in turns, each once
    # The 96 others are 1..89, 93, 94, 96..100; of these the places 0, 24, 48, 72.
    assert chosen[4:] == [1, 25, 49, 73]
    assert choose_images(truth(images=(1, 2)), [], count=8) == [1, 2]
