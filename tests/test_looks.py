"""`fcos compare --at-score` and `--slices`: F1 at a score threshold, and AP of parts of the images."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from conftest import assert_mistake
from json_helpers import read, write
from random_truth import make_results, make_truth

from fcos.comparing.looks import within
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.errors import Outcome
from fcos.scoring.matching import GroundTruth, ResultTable, match_table
from fcos.scoring.operating import Counts, operating_point
from fcos.scoring.protocol import COCO


@pytest.fixture
def scored():
    """Random results with crowds, ties and classes without objects: the truth, the table and its matches."""
    dice = random.Random(3)
    split = make_truth(dice, images=40)
    truth = GroundTruth.of(split)
    table = ResultTable.of(make_results(dice, split), truth)
    return truth, table, match_table(table, truth, COCO)


def by_hand(truth, table, threshold):
    """Throw away what is below the threshold, match what is left, and count."""
    outcome = Outcome.of(match_table(table[table.score >= threshold], truth, COCO))
    right, wrong, missed = outcome.true_positive.sum(), outcome.false_positive.sum(), outcome.missed.sum()
    return right / (right + wrong), right / (right + missed), 2 * right / (2 * right + wrong + missed)


def test_counts_are_those_of_the_results_above_the_threshold(scored):
    truth, table, matches = scored
    levels = np.quantile(np.unique(table.score), [0.1, 0.5, 0.8])
    counts = Counts.of(matches, levels)
    found = counts.shares(np.ones((1, truth.num_images)))[0]
    for values, threshold in zip(found, levels, strict=True):
        assert values == pytest.approx(by_hand(truth, table, threshold), abs=1e-12)
    assert len(set(found[:, 2])) == 3


def test_the_best_threshold_has_the_highest_f1_of_all_scores(scored):
    truth, table, matches = scored
    point = operating_point(matches, draw_weights(truth.num_images, replicates=50, seed=0), None)
    of_score = {score: by_hand(truth, table, score)[2] for score in np.unique(table.score)}  # also those of wrong ones
    assert point.values[2] == pytest.approx(max(of_score.values()), abs=1e-12)
    assert of_score[point.threshold] == pytest.approx(point.values[2], abs=1e-12)
    assert len(set(point.best_thresholds)) > 1  # it depends on the images


def test_a_bootstrap_sample_is_scored_like_its_images(scored):
    truth, table, matches = scored
    weights = draw_weights(truth.num_images, replicates=3, seed=0)
    found = operating_point(matches, weights, 0.4).drawn.replicates
    for of_sample, values in zip(weights, found, strict=True):
        copies = np.repeat(np.arange(truth.num_images), of_sample)  # each image as often as it was drawn
        objects = [np.flatnonzero(truth.image == image) for image in copies]
        results = [np.flatnonzero(table.image == image) for image in copies]
        drawn = GroundTruth(
            image_ids=np.arange(len(copies)),
            category_ids=truth.category_ids,
            image=np.repeat(np.arange(len(copies)), [len(of) for of in objects]),
            **{
                name: getattr(truth, name)[np.concatenate(objects)]
                for name in ("label", "boxes_xywh", "crowd", "ignored")
            },
        )
        detected = replace(
            table[np.concatenate(results)], image=np.repeat(np.arange(len(copies)), [len(of) for of in results])
        )
        assert values == pytest.approx(by_hand(drawn, detected, 0.4), abs=1e-12)


def test_nothing_found_is_no_precision(scored):
    truth, table, _ = scored
    nothing = match_table(table[np.zeros(len(table), dtype=bool)], truth, COCO)
    point = operating_point(nothing, draw_weights(truth.num_images, replicates=5, seed=0), None)
    assert np.isnan(point.values[0]) and point.values[1:].tolist() == [0.0, 0.0]


def test_part_of_the_images_is_matched_as_if_it_were_all(scored):
    truth, _, matches = scored
    inside = np.arange(truth.num_images) % 3 == 0
    part = within(matches, inside)
    assert part.truth.num_images == inside.sum() and set(part.image) <= set(range(inside.sum()))
    counted = Counts.of(part, [0.4]).right.sum(), Counts.of(matches, [0.4]).right[inside].sum()
    assert counted[0] == counted[1] > 0


@pytest.fixture
def detectors(tmp_path, monkeypatch):
    """Write 80 images by day and by night, two detectors and two seeds of a third, into the current folder."""
    monkeypatch.chdir(tmp_path)
    dice = random.Random(7)
    split = make_truth(dice, images=80)
    weathers = {image["id"]: ("night" if number % 3 == 0 else "day") for number, image in enumerate(split.images)}
    images = [{**image, "weather": weathers[image["id"]]} for image in split.images]
    write("gt.json", {"images": images, "categories": split.categories, "annotations": split.annotations})
    for name in ("a", "b", "c1", "c2"):
        # With detections of class 9, which has no object, two classes would be too few for an interval.
        write(f"{name}.json", [of for of in make_results(dice, split) if of["category_id"] != 9])
    for weather in ("day", "night"):
        inside = {image for image, of in weathers.items() if of == weather}
        part = [image for image in images if image["id"] in inside]
        objects = [a for a in split.annotations if a["image_id"] in inside]
        write(f"{weather}-gt.json", {"images": part, "categories": split.categories, "annotations": objects})
        for name in ("a", "b", "c1", "c2"):
            write(f"{weather}-{name}.json", [of for of in read(f"{name}.json") if of["image_id"] in inside])
    return tmp_path


ROWS = ("a=a.json", "b=b.json", "c=c1.json,c2.json")


def test_a_slice_is_what_compare_says_of_its_images_alone(detectors, run):
    done = run("compare", *ROWS, "--gt", "gt.json", "--slices", "weather", "--groups", "id", "--out", "all")
    assert done.returncode == 0, done.stderr
    found = read("all/comparison.json")
    assert [of["name"] for of in found["rows"][0]["slices"]] == ["day", "night"]
    for place, weather in enumerate(("day", "night")):
        rows = [f"{name}={weather}-{name}.json" for name in ("a", "b")]
        rows.append(f"c={weather}-c1.json,{weather}-c2.json")
        alone = ("compare", *rows, "--gt", f"{weather}-gt.json", "--groups", "id", "--out", weather)
        assert run(*alone).returncode == 0
        own = read(f"{weather}/comparison.json")
        for row, of_part in zip(found["rows"], own["rows"], strict=True):
            of_slice = row["slices"][place]
            assert (of_slice["num_images"], of_slice["num_objects"]) == tuple(
                own["counts"][k] for k in ("images", "objects")
            )
            for metric in ("AP", "AP50"):
                assert of_slice[metric] == pytest.approx(of_part["metrics"][metric], abs=1e-12)
        for pair, of_part in zip(found["differences"], own["differences"], strict=True):
            of_slice = next(of for of in pair["slices"] if of["name"] == weather)
            for key in ("difference", "low", "high", "p_value"):
                assert of_slice[key] == pytest.approx(of_part["metrics"]["AP"][key], abs=1e-9)
    assert all(of["low"] < of["difference"] < of["high"] for pair in found["differences"] for of in pair["slices"])
    p_values = [of["p_value"] for pair in found["differences"] for of in pair["slices"]]
    p_holm = [of["p_holm"] for pair in found["differences"] for of in pair["slices"]]
    assert min(p_holm) == pytest.approx(min(1.0, 6 * min(p_values)))  # over 2 slices of 3 pairs
    lines = (detectors / "all" / "slices.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2 and lines[0].startswith("row,slice,images,objects,AP,AP low,AP high,AP50")
    assert len((detectors / "all" / "slice_differences.csv").read_text().splitlines()) == 1 + 3 * 2
    assert run("compare", *ROWS, "--gt", "gt.json", "--replicates", "0", "--out", "all").returncode == 0
    assert not (detectors / "all" / "slices.csv").exists()  # no older numbers beside new ones


def test_thresholds_of_rows_and_what_is_said_of_them(detectors, run):
    said = ("--at-score", "0.5", "--at-score", "b=best", "--html")
    done = run("compare", *ROWS, "--gt", "gt.json", *said, "--out", "out")
    assert done.returncode == 0, done.stderr
    found = read("out/comparison.json")
    points = {row["name"]: row["operating_point"] for row in found["rows"]}
    assert [points[name]["score_thresholds"] for name in "ac"] == [[0.5], [0.5, 0.5]]
    assert (points["a"]["chosen"], points["b"]["chosen"]) == ("given", "highest F1 on these images")
    best = points["b"]["best_threshold"]
    assert best["low"] <= points["b"]["score_thresholds"][0] <= best["high"]
    for name, other in itertools.combinations("abc", 2):
        pair = next(pair for pair in found["differences"] if {pair["first"], pair["second"]} == {name, other})
        one, two = (points[of]["F1"]["value"] for of in (pair["first"], pair["second"]))
        assert pair["F1"]["difference"] == pytest.approx(one - two, abs=1e-12)
        assert pair["F1"]["low"] < pair["F1"]["difference"] < pair["F1"]["high"] and pair["F1"]["p_holm"] is not None
    files = [detectors / "out" / f"comparison.{ending}" for ending in ("md", "html")]
    for text in (done.stdout, *(path.read_text() for path in files)):
        assert "At a score threshold, IoU 0.5" in text and "makes F1 optimistic" in text
    point = run("compare", *ROWS, "--gt", "gt.json", "--at-score", "0.5", "--out", "out")
    assert "optimistic" not in point.stdout


@pytest.mark.parametrize(
    ("options", "where", "what"),
    [
        (("--at-score", "d=0.5"), "--at-score d=0.5: no such row", "one of a, b, c"),
        (("--at-score", "a=0.5"), "--at-score: not all rows have a threshold", "--at-score b=best"),
        (("--at-score", "0.5", "--at-score", "0.6"), "--at-score 0.6: is a second threshold", "one threshold for all"),
        (("--at-score", "half"), "--at-score half: is no score", "best, a score such as 0.5"),
        (("--at-score", "nan"), "--at-score nan: is no score", "best, a score such as 0.5"),
        (("--slices", "wether"), "--slices wether", "weather"),
        (("--slices", "id"), "--slices id: too many slices", "at most 50"),
    ],
)
def test_mistakes(detectors, run, options, where, what):
    assert_mistake(run("compare", *ROWS, "--gt", "gt.json", *options, "--out", "out"), where, what)
    assert not (detectors / "out").exists()
