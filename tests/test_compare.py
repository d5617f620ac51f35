"""`fcos score` and `fcos compare`: complete checks of foreign files; numbers, text and files agree."""

import csv
import hashlib
import importlib.util
import itertools
import math
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from coco_oracle import coco_eval_of_files
from conftest import ROOT, assert_mistake
from json_helpers import read, write
from random_truth import make_results, make_truth

from fcos.comparing.rows import Row, parse_rows
from fcos.errors import UserError
from fcos.scoring.average_precision import METRICS, score
from fcos.scoring.bootstrap import Estimate, draw_weights, holm
from fcos.scoring.comparison import Comparison, Gate
from fcos.scoring.matching import match_table
from fcos.scoring.results import read_results
from fcos.scoring.support import drawn_metrics
from fcos.scoring.truth import read_truth
from fcos.visible import markdown as escape

FEW = ("--replicates", "100")


def load_synthetic():
    spec = importlib.util.spec_from_file_location("synthetic", ROOT / "benchmarks" / "synthetic.py")
    module = sys.modules["synthetic"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write gt.json and dets.json into the current folder, with crowds, ties and results in random order."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(7)
    split = make_truth(rng, images=30)
    write("gt.json", {"images": split.images, "categories": split.categories, "annotations": split.annotations})
    # Without detections, class 9, which has no object, is undefined; with two defined classes there would be no
    # interval.
    write("dets.json", [result for result in make_results(rng, split) if result["category_id"] != 9])
    return tmp_path


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """Write 300 synthetic images, two equally good detectors, a clearly worse one, and three seeds of a good one."""
    synthetic = load_synthetic()
    path = tmp_path_factory.mktemp("detectors")
    truth = synthetic.draw_images(np.random.default_rng(1), 300)
    write(path / "gt.json", truth)
    for seed, (name, jitter) in enumerate(
        {"a": 0.05, "b": 0.05, "worse": 0.09, "s0": 0.05, "s1": 0.051, "s2": 0.052}.items()
    ):
        found = synthetic.detect(np.random.default_rng(seed), truth, synthetic.Detector(jitter=jitter))
        write(path / f"{name}.json", found)
    return path


# score ---------------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_pycocotools_on_the_same_files(folder, run):
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", "--out", "deep/n.json", "--confidence", "0.9")
    assert done.returncode == 0 and "score: 1000/1000 draws" in done.stderr
    expected = coco_eval_of_files("gt.json", "dets.json")
    found = read("deep/n.json")
    # Bit for bit, with tied scores in the order of the file.
    assert list(found)[:12] == list(METRICS)
    assert [found[name] for name in METRICS] == expected.stats.tolist()
    of_class = expected.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))  # (K,)
    assert [row["AP"] for row in found["per_class"][:2]] == pytest.approx(of_class[:2].tolist(), abs=1e-12)
    assert found["per_class"][2]["AP"] is None

    assert found["statistics"] == {"confidence": 0.9, "replicates": 1000, "seed": 0}
    assert found["inputs"]["gt"]["sha256"] == hashlib.sha256(Path("gt.json").read_bytes()).hexdigest()
    assert found["inputs"]["detections"]["file"] == "dets.json"
    truth = read("gt.json")["annotations"]
    crowd = sum(a["iscrowd"] for a in truth)
    counts = {"images": 30, "classes": 3, "objects": len(truth) - crowd, "crowd": crowd}
    assert found["counts"] == {**counts, "detections": len(read("dets.json"))} and crowd > 0

    ap, interval = found["AP"], found["intervals"]["AP"]
    half = (interval["high"] - interval["low"]) / 2
    ends = f"[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
    assert re.search(rf"^AP +{100 * ap:.1f} ± {100 * half:.1f} {re.escape(ends)}$", done.stdout, re.MULTILINE)
    rows = [line for line in done.stdout.splitlines() if line.startswith("class ")]
    assert [row.split()[1] for row in rows] == ["objects", "2", "5", "9"]
    assert rows[3].split()[2:] == ["0", "—", "—", "—"]  # no object of class 9: not 0


def test_the_order_of_tied_scores_in_the_file_counts(folder, run):
    """The same results in another order have other metrics, which also equal pycocotools' (cocoapi#650)."""
    seen = set()
    for seed in range(3):
        results = read("dets.json")
        random.Random(seed).shuffle(results)
        write("shuffled.json", results)
        run("score", "--gt", "gt.json", "--detections", "shuffled.json", "--out", "n.json", *FEW)
        found = read("n.json")
        assert [found[name] for name in METRICS] == coco_eval_of_files("gt.json", "shuffled.json").stats.tolist()
        seen.add(found["AP"])
    assert len(seen) > 1


def test_an_annotation_of_id_0_is_scored_and_what_pycocotools_would_lose_is_said(folder, run):
    """The bit-for-bit promise is for files without id 0: numbered from 1 the same file has pycocotools' numbers."""
    truth = read("gt.json")
    for annotation in truth["annotations"]:
        annotation["id"] += 1
    write("from_1.json", truth)
    truth["annotations"][0]["id"] = 0
    write("gt.json", truth)
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", "--out", "n.json", *FEW)
    found = read("n.json")
    right, theirs = (coco_eval_of_files(gt, "dets.json").stats.tolist() for gt in ("from_1.json", "gt.json"))
    assert [found[name] for name in METRICS] == right and theirs[0] < right[0]
    assert f"its AP would be {100 * theirs[0]:.2f} instead of {100 * right[0]:.2f}" in done.stdout
    (finding,) = [finding for finding in found["diagnosis"] if finding["kind"] == "annotation_id_0"]
    assert finding["count"] == 1 and finding["total"] == len(truth["annotations"])


def test_area_and_iscrowd_may_be_missing_and_scores_are_of_any_range(folder, run):
    truth, results = read("gt.json"), read("dets.json")
    for annotation in truth["annotations"]:
        del annotation["iscrowd"]
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    write("full.json", {**truth, "annotations": [{**a, "iscrowd": 0} for a in truth["annotations"]]})
    for annotation in truth["annotations"]:
        del annotation["area"]
    write("gt.json", truth)
    write("dets.json", [{**result, "score": 50 * result["score"] - 20} for result in results])
    assert run("score", "--gt", "gt.json", "--detections", "dets.json", "--out", "n.json", *FEW).returncode == 0
    assert [read("n.json")[name] for name in METRICS] == coco_eval_of_files("full.json", "dets.json").stats.tolist()


def test_no_results_are_an_ap_of_zero(folder, run):
    write("dets.json", [])
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", *FEW)
    assert done.returncode == 0 and "AP    0.0 —" in done.stdout  # nothing found in any draw: no interval


def test_ground_truth_without_objects_has_no_numbers(folder, run):
    write("gt.json", {**read("gt.json"), "annotations": []})
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", "--out", "n.json", *FEW)
    assert done.returncode == 0 and re.search(r"^AP +— —$", done.stdout, re.MULTILINE)
    assert read("n.json")["AP"] is None
    write("other.json", [])
    done = run("compare", "--gt", "gt.json", "dets.json", "other.json", *FEW)
    assert "other against dets: AP is not defined" in done.stdout


def test_confidence_and_seed_are_used(folder, run):
    def interval(*options):
        run("score", "--gt", "gt.json", "--detections", "dets.json", "--out", "n.json", *FEW, *options)
        found = read("n.json")["intervals"]["AP"]
        return found["high"] - found["low"]

    usual = interval()
    assert interval() == usual
    # Normal quantiles at 75 % and 97.5 % are 0.6745 and 1.9600; Student's t with few images differs slightly.
    assert interval("--confidence", "0.5") == pytest.approx(usual * 0.6745 / 1.96, rel=0.05)
    assert interval("--seed", "1") != usual


def test_score_loads_no_torch(folder):
    code = (
        "import sys\n"
        "heavy = {'torch', 'dvc', 'mlflow', 'pandas', 'matplotlib', 'yaml'}\n"
        "sys.argv = ['fcos', 'score', '--gt', 'gt.json', '--detections', 'dets.json', '--replicates', '100']\n"
        "from fcos.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print('ended', end.code, heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ended 0 set()" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("option", [("--confidence", "95"), ("--replicates", "1"), ("--seed", "-1")])
def test_options_out_of_range(folder, run, option):
    done = run("score", "--gt", "gt.json", "--detections", "dets.json", *option)
    assert done.returncode == 2 and option[0] in done.stderr


def test_an_input_is_never_overwritten(folder, run):
    before = Path("dets.json").read_bytes()
    arguments = "score", "--gt", "gt.json", "--detections", "dets.json", "--out"
    assert_mistake(run(*arguments, "dets.json"), "--out dets.json", "is also an input file")
    assert Path("dets.json").read_bytes() == before
    Path("out").mkdir()
    assert_mistake(run(*arguments, "out"), "--out out", "is a folder")


# What is wrong with a file -------------------------------------------------------------------------------------------


def put(*keys):
    """Return a change that puts the last of `keys` where the others lead."""
    *path, last, value = keys

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


def drop(*keys):
    *path, last = keys

    def change(content):
        for key in path:
            content = content[key]
        del content[last]

    return change


BAD_TRUTH = [
    (drop("images"), ["gt.json: images: is missing", "'categories', 'annotations'"]),
    (drop("categories"), ["gt.json: categories: is missing"]),
    (drop("annotations"), ["gt.json: annotations: is missing"]),
    (put("images", {}), ["gt.json: images: is not a list", "no keys"]),
    (put("images", []), ["gt.json: images: is empty"]),
    (put("images", 2, 5), ["gt.json: images[2]: is not an object", "5"]),
    (put("images", 2, "id", 3), ["gt.json: images: duplicate id", "id 3, 2 times"]),
    (put("images", 2, "id", None), ["images[2].id: a wrong value", "None", "a whole number or text"]),
    (put("images", 2, "id", True), ["images[2].id: a wrong value", "a boolean, True"]),
    (put("images", 2, "id", 7.5), ["images[2].id: a wrong value", "7.5"]),
    (put("images", 2, "id", 2**63), ["images[2].id: a wrong value", "9223372036854775808"]),
    (drop("images", 2, "id"), ["images[2].id: is missing", "file_name"]),
    (put("categories", 1, "id", 2), ["gt.json: categories: duplicate id"]),
    (put("categories", 1, "name", 5), ["categories[1].name: a wrong value", "5", "text"]),
    (put("images", 2, "neg_category_ids", []), ["gt.json: is ground truth of LVIS", "neg_category_ids"]),
    (put("categories", 1, "frequency", "r"), ["gt.json: is ground truth of LVIS", "frequency"]),
    (put("annotations", 4, "id", 1), ["gt.json: annotations: duplicate id", "id 1, 2 times"]),
    (put("annotations", 4, "image_id", 4), ["annotations[4].image_id: an unknown image", "4", "image ids 3, 5, 7,"]),
    (put("annotations", 4, "category_id", 1), ["annotations[4].category_id: an unknown category", "ids 2, 5, 9"]),
    (put("annotations", 4, "bbox", [1, 2, 3]), ["annotations[4].bbox: a wrong value", "[1, 2, 3]", "four finite"]),
    (put("annotations", 4, "bbox", [1, 2, 3, math.nan]), ["annotations[4].bbox: a wrong value", "nan"]),
    (put("annotations", 4, "bbox", [1, 2, 3, 10**400]), ["annotations[4].bbox: a wrong value"]),
    (put("annotations", 4, "bbox", [1, 2, 3, True]), ["annotations[4].bbox: a wrong value"]),
    (put("annotations", 4, "bbox", [1, 2, -3, 4]), ["annotations[4].bbox: a negative width", "[1, 2, -3, 4]"]),
    (put("annotations", 4, "area", -1), ["annotations[4].area: a wrong value", "0 or more"]),
    (put("annotations", 4, "iscrowd", 2), ["annotations[4].iscrowd: a wrong value", "0 or 1"]),
]  # fmt: skip

BAD_RESULTS = [
    (drop(17, "image_id"), ["dets.json: [17].image_id: is missing", "category_id, bbox, score"]),
    (drop(17, "category_id"), ["[17].category_id: is missing"]),
    (drop(17, "bbox"), ["[17].bbox: is missing"]),
    (drop(17, "score"), ["[17].score: is missing"]),
    (put(17, [1, 2]), ["dets.json: [17]: is not an object", "[1, 2]"]),
    (put(17, "image_id", "no"), ["[17].image_id: 1 of ", "no (the first)"]),
    (put(17, "image_id", 7.5), ["[17].image_id: a wrong value", "7.5", "a whole number or text"]),
    (put(17, "image_id", True), ["[17].image_id: a wrong value", "a boolean, True"]),
    (put(17, "image_id", [7]), ["[17].image_id: a wrong value", "[7]"]),
    (put(17, "image_id", 4), ["[17].image_id: 1 of ", "4 (the first)", "another split", "--ignore-unknown-images"]),
    (put(17, "category_id", 0), ["[17].category_id: 1 of 3 ", "ids 0, 2, 5", "ids 2, 5, 9", "--ignore-unk"]),
    (put(17, "bbox", [1, 2, 3, math.inf]), ["[17].bbox: a wrong value", "inf", "four finite numbers"]),
    (put(17, "bbox", "1 2 3 4"), ["[17].bbox: a wrong value", "text '1 2 3 4'"]),
    (put(17, "score", math.nan), ["[17].score: a wrong value", "nan", "a finite number"]),
    (put(17, "score", True), ["[17].score: a wrong value", "a boolean, True"]),
    (put(17, "score", "0.5"), ["[17].score: a wrong value", "text '0.5'"]),
    (put(17, "score", None), ["[17].score: a wrong value", "None"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "parts"), BAD_TRUTH)
def test_bad_ground_truth(folder, run, change, parts):
    truth = read("gt.json")
    change(truth)
    write("gt.json", truth)
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "dets.json", "--out", "n.json"), *parts)
    assert not Path("n.json").exists()


@pytest.mark.parametrize(("change", "parts"), BAD_RESULTS)
def test_bad_results(folder, run, change, parts):
    results = read("dets.json")
    change(results)
    write("dets.json", results)
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "dets.json"), *parts)


def test_files_that_are_no_results(folder, run):
    def mistake(content, *parts):
        write("dets.json", content)
        assert_mistake(run("score", "--gt", "gt.json", "--detections", "dets.json"), "dets.json: is not a list", *parts)

    mistake(read("gt.json"), "'images', 'categories', 'annotations'", "this is ground truth: give it with --gt")
    mistake({"boxes": read("dets.json")}, "'boxes'", "as one list")
    mistake(3, "3", "as one list")


def test_files_that_are_no_ground_truth(folder, run):
    done = run("score", "--gt", "dets.json", "--detections", "gt.json")
    assert_mistake(done, "dets.json: is not ground truth", "a list of", "looks like a detector's results")
    assert_mistake(run("score", "--gt", "no.json", "--detections", "dets.json"), "no.json: no such file")
    Path("empty").mkdir()
    assert_mistake(run("score", "--gt", "empty", "--detections", "dets.json"), "empty: ")
    Path("bad.json").write_text("[1, 2")
    assert_mistake(run("score", "--gt", "gt.json", "--detections", "bad.json"), "bad.json: is not JSON", "line 1")


def test_long_lists_of_ids_are_shortened(tmp_path):
    """COCO's ids 1..90 with gaps against labels 0..79: both are shown, each in one short line."""
    ids = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    categories = [{"id": i, "name": str(i)} for i in ids]
    write(tmp_path / "gt.json", {"images": [{"id": 1}], "categories": categories, "annotations": []})
    results = [{"image_id": 1, "category_id": i, "bbox": [0, 0, 1, 1], "score": 1} for i in range(80)]
    write(tmp_path / "dets.json", results)
    with pytest.raises(UserError) as mistake:
        read_results(tmp_path / "dets.json", read_truth(tmp_path / "gt.json"))
    text = str(mistake.value)
    assert "[0].category_id: 10 of 80 category ids are not in the ground truth" in text  # 0 and nine unused ids
    assert "category ids 0, 1, 2, 3, 4, 5, 6, 7, 8, ..., 79 (80 of them)" in text
    assert "category ids 1, 2, 3, 4, 5, 6, 7, 8, 9, ..., 90 (80 of them)" in text


# compare -------------------------------------------------------------------------------------------------------------


def compare(run, detectors, monkeypatch, *arguments):
    monkeypatch.chdir(detectors)
    done = run("compare", "--gt", "gt.json", "--replicates", "200", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_clear_difference_is_found_and_chance_is_not(run, detectors, monkeypatch, tmp_path):
    out = tmp_path / "out"
    said = compare(run, detectors, monkeypatch, "a.json", "b.json", "bad=worse.json", "--out", str(out))
    found = read(out / "comparison.json")
    a, b, bad = found["rows"]
    assert [row["name"] for row in found["rows"]] == ["a", "b", "bad"]
    assert a["metrics"] == a["files"][0]["metrics"] and a["n"] == 1 and a["spread"]["AP"] is None
    assert list(a["metrics"].values()) == coco_eval_of_files("gt.json", "a.json").stats.tolist()
    assert a["metrics"]["AP"] - bad["metrics"]["AP"] > 0.1

    pairs = {(pair["first"], pair["second"]): pair for pair in found["differences"]}
    assert list(pairs) == [("b", "a"), ("bad", "a"), ("bad", "b")]
    for (first, second), pair in pairs.items():
        rows = {row["name"]: row for row in found["rows"]}
        for metric, numbers in pair["metrics"].items():
            expected = rows[first]["metrics"][metric] - rows[second]["metrics"][metric]
            assert numbers["difference"] == pytest.approx(expected, abs=1e-12)
        assert pair["sentence"] in said
    assert not pairs["b", "a"]["significant"] and "b against a: no difference shown, " in said
    assert all(pair["about"] == "these networks, over images" for pair in pairs.values())
    worse = pairs["bad", "a"]
    assert worse["significant"] and worse["metrics"]["AP"]["high"] < 0 and worse["metrics"]["AP"]["p_holm"] < 1e-4
    assert re.search(
        r"^bad against a: -\d+\.\d AP \[-\d+\.\d, -\d+\.\d\], significant \(Holm p < 0\.001\); these networks",
        said,
        re.MULTILINE,
    )
    assert "Rows of one file (a, b, bad) say nothing certain about settings" in said
    # A paired difference has a smaller standard error than its two rows, since they share their images.
    alone = math.hypot(a["intervals"]["AP"]["standard_error"], b["intervals"]["AP"]["standard_error"])
    assert pairs["b", "a"]["metrics"]["AP"]["standard_error"] < 0.8 * alone

    # Holm within the family of each metric, over all pairs.
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        family = [pair["metrics"][metric] for pair in found["differences"]]
        assert [of["p_holm"] for of in family] == holm([of["p_value"] for of in family])

    with (out / "comparison.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 3 * 6
    for line in lines:
        numbers = pairs[line["first"], line["second"]]["metrics"][line["metric"]]
        assert {name: float(line[name]) for name in numbers} == numbers

    page = (out / "comparison.md").read_text()
    assert "| b against a " in page and "(comparison.svg)" in page
    assert re.search(rf"^\| a +\| {100 * a['metrics']['AP']:.1f} ± ", page, re.MULTILINE)
    chart = (out / "comparison.svg").read_bytes()
    drawn = ElementTree.fromstring(chart)
    assert len(drawn.findall("{*}circle")) == 3 + 3  # a point for each row and each pair
    assert {"a", "b", "bad", "b against a"} <= {text.text for text in drawn.findall("{*}text")}
    of_all = [f"comparison.{end}" for end in ("csv", "json", "md", "svg")]
    assert sorted(path.name for path in out.iterdir()) == ["class_differences.csv", *of_all, "per_class.csv"]

    compare(run, detectors, monkeypatch, "a.json", "b.json", "bad=worse.json", "--out", str(out))
    assert (out / "comparison.svg").read_bytes() == chart and read(out / "comparison.json") == found


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.json", "b.json"),
        ("a.json", "seeds=s0.json,s1.json,s2.json", "--baseline", "a", "--fail-if-worse", "50"),
        ("a.json", "b.json", "--replicates", "0", "--iou", "0.5"),
        ("a.json", "b.json", "--at-score", "best", "--slices", "1"),
    ],
)
def test_the_json_of_a_comparison_follows_its_schema(run, detectors, monkeypatch, tmp_path, arguments):
    schema = read(ROOT / "docs" / "schema" / "comparison-1.json")
    compare(run, detectors, monkeypatch, *arguments, "--out", str(tmp_path))
    found = read(tmp_path / "comparison.json")
    jsonschema.validate(found, schema)
    assert found.keys() | {"baseline", "gate", "slices_by"} == schema["properties"].keys()
    del found["differences"][0]["sentence"]
    with pytest.raises(jsonschema.ValidationError, match="sentence"):
        jsonschema.validate(found, schema)


@pytest.mark.parametrize("options", [(), ("--replicates", "0"), ("--max-detections", "10", "--areas", "10,50")])
def test_the_json_of_a_score_follows_its_schema(run, detectors, tmp_path, options):
    schema = read(ROOT / "docs" / "schema" / "score-1.json")
    files = ["--gt", str(detectors / "gt.json"), "--detections", str(detectors / "a.json")]
    assert run("score", *files, "--replicates", "200", *options, "--out", str(tmp_path / "out.json")).returncode == 0
    found = read(tmp_path / "out.json")
    jsonschema.validate(found, schema)
    assert found.keys() == schema["properties"].keys() or "--max-detections" in options  # which names the recalls


def test_the_same_file_twice_is_no_difference(run, detectors, monkeypatch, tmp_path):
    said = compare(run, detectors, monkeypatch, "one=a.json", "two=a.json", "--out", str(tmp_path))
    assert "two against one: the two results are the same\n" in said
    assert "one and two: the same file (sha256)." in said
    (pair,) = read(tmp_path / "comparison.json")["differences"]
    for numbers in pair["metrics"].values():
        unknown = dict.fromkeys(("low", "high", "standard_error", "p_value", "p_holm"))
        assert numbers == {"difference": 0.0, **unknown}


def test_repeats_are_one_row(run, detectors, monkeypatch, tmp_path):
    said = compare(
        run, detectors, monkeypatch, "good=s0.json,s1.json,s2.json", "worse.json", "--out", str(tmp_path)
    )  # fmt: skip
    good, _ = read(tmp_path / "comparison.json")["rows"]
    of_seed = [file["metrics"]["AP"] for file in good["files"]]
    assert good["n"] == 3 and good["metrics"]["AP"] == pytest.approx(np.mean(of_seed))
    assert good["spread"]["AP"] == pytest.approx(np.std(of_seed, ddof=1))
    first = said.splitlines()
    header = next(line for line in first if " AP50 " in line)
    assert header.split()[:2] == ["n", "AP"] and header.endswith("s.d. of AP")
    row = next(line for line in first if line.startswith("good "))
    assert row.split()[1] == "3" and row.endswith(f"{100 * np.std(of_seed, ddof=1):.2f}")
    assert "Rows of one file (worse) use the standard deviation between seeds of the rows with several files." in said
    assert "three" not in header and "worse against good: " in said
    (pair,) = read(tmp_path / "comparison.json")["differences"]
    assert pair["about"] == "one training against three trainings, with the spread between seeds of other rows"
    # Over images: the mean covariance, which the three seeds share. Added to it: the variance of a mean of three.
    truth, weights = read_truth(detectors / "gt.json"), draw_weights(300, replicates=200, seed=0)
    matches = [match_table(read_results(detectors / f"s{n}.json", truth).table, truth.objects) for n in range(3)]
    drawn = [drawn_metrics(score(of_seed, weights), of_seed) for of_seed in matches]
    covariances = np.cov([of_seed.replicates[:, 0] for of_seed in drawn])
    shared = np.mean([covariances[i, j] for i in range(3) for j in range(3) if i != j])
    shared *= np.mean([of_seed.support.inflation[0] for of_seed in drawn])
    variance = shared + np.var(of_seed, ddof=1) / 3
    assert good["intervals"]["AP"]["standard_error"] == pytest.approx(math.sqrt(variance))


def test_bars_are_as_long_as_the_numbers(run, detectors, monkeypatch, tmp_path):
    said = compare(run, detectors, monkeypatch, "a.json", "worse.json", "--out", str(tmp_path))
    rows = read(tmp_path / "comparison.json")["rows"]
    top = max(row["intervals"]["AP"]["high"] for row in rows)
    bars = [line for line in said.splitlines() if "█" in line]
    for line, row in zip(bars, rows, strict=True):
        low, high = (row["intervals"]["AP"][end] / top * 40 for end in ("low", "high"))
        assert line.startswith(row["name"]) and line.endswith(f"{100 * row['metrics']['AP']:.1f}")
        assert abs(line.count("█") - low) <= 0.5 and abs(line.count("█") + line.count("▒") - high) <= 0.5


NAN = float("nan")


def pair_of(value, low, high, p, *, trainings=(1, 1), **more):
    found = Estimate(*(np.array([number]) for number in (value, low, high, 0.0, p, np.inf)))
    settings = {
        "identical": False,
        "one_network": False,
        "is_supported": True,
        "spread_of_others": 1 not in trainings,
        **more,
    }
    return Comparison(
        row="b", other="a", trainings=trainings, found=found, joint=found, corrected_p=np.array([p]),
        confidence=0.95, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        (
            pair_of(0.013, 0.008, 0.018, 0.0004),
            "b against a: +1.3 AP [0.8, 1.8], significant (Holm p < 0.001); these networks, over images",
        ),
        (
            pair_of(0.066, -0.027, 0.165, 0.4),  # not "at most 16.5 AP either way", since a is at most 2.7 better
            "b against a: no difference shown, +6.6 AP [-2.7, 16.5]; these networks, over images",
        ),
        (
            pair_of(0.013, 0.008, 0.018, 0.004, trainings=(2, 2)),
            "b against a: +1.3 AP [0.8, 1.8], significant (Holm p 0.004); two trainings each",
        ),
        (
            pair_of(0.013, 0.008, 0.018, 0.004, trainings=(3, 2)),
            "b against a: +1.3 AP [0.8, 1.8], significant (Holm p 0.004); three trainings against two trainings",
        ),
        (
            pair_of(0.013, 0.008, 0.018, 0.004, spread_of_others=True),  # a third row has several trainings
            "b against a: +1.3 AP [0.8, 1.8], significant (Holm p 0.004); one training each, with the spread between "
            "seeds of other rows",
        ),
        (
            pair_of(0.013, 0.008, 0.018, 0.004, trainings=(1, 3)),
            "b against a: +1.3 AP [0.8, 1.8], significant (Holm p 0.004); one training against three trainings, "
            "with the spread between seeds of other rows",
        ),
        (
            pair_of(0.013, 0.008, 0.018, 0.004, one_network=True),
            "b against a: +1.3 AP [0.8, 1.8], significant (Holm p 0.004); this network, over images",
        ),
        (pair_of(0.0, NAN, NAN, NAN, identical=True), "b against a: the two results are the same"),
        (
            pair_of(0.5, NAN, NAN, NAN),
            "b against a: +50.0 AP, which cannot be judged: it is the same in every bootstrap sample",
        ),
        (pair_of(NAN, NAN, NAN, NAN), "b against a: AP is not defined, there are no objects"),
    ],
)
def test_words_for_a_difference(pair, sentence):
    assert pair.sentence() == sentence


def test_names_of_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def names(*arguments):
        return [row.name for row in parse_rows(arguments)]

    assert names("a.json", "x/b.json", "c=a.json") == ["a", "b", "c"]
    assert names("r50/dets.json", "r18/dets.json", "other.json") == ["r50/dets", "r18/dets", "other"]
    assert names("1/r/d.json", "2/r/d.json") == ["1/r/d", "2/r/d"]
    assert parse_rows(["n=a.json,b.json"]) == [Row("n", [Path("a.json"), Path("b.json")])]
    # If the file or folder exists, = and , are part of its name.
    write("lr=0.1,x.json", [])
    assert parse_rows(["lr=0.1,x.json"]) == [Row("lr=0.1,x", [Path("lr=0.1,x.json")])]
    assert parse_rows(["runs/lr=1/a.json"]) == [Row("a", [Path("runs/lr=1/a.json")])]


def test_mistakes_in_what_to_compare(folder, run):
    def call(*arguments):
        return run("compare", "--gt", "gt.json", *arguments)

    assert_mistake(call("dets.json"), "nothing to compare with", "two results or more")
    assert_mistake(call("dets.json", "dets.json"), "two rows have the same name", "NAME=FILE")
    assert_mistake(call("a=dets.json", "a=gt.json"), "two rows have the same name", "found:    a")
    assert_mistake(call("a=dets.json", "b="), "argument b=: a file name is empty")
    assert_mistake(call("dets.json", "b=no.json"), "no.json: no such file")
    assert_mistake(call("dets.json", "b=gt.json"), "gt.json: is not a list of results")
    write("copy.json", read("dets.json"))
    repeated = call("a=dets.json,copy.json", "b=dets.json", *FEW)
    assert_mistake(repeated, "row a: files with the same content", "dets.json, copy.json")
    assert_mistake(call("dets.json", "b=copy.json", "--out", "gt.json"), "--out gt.json: is a file")
    write("one.json", {**read("gt.json"), "images": read("gt.json")["images"][:1], "annotations": []})
    assert_mistake(run("compare", "--gt", "one.json", "dets.json", "copy.json"), "one image cannot show a difference")
    assert not Path("comparison").exists()


def test_names_are_data(folder, run):
    """Characters with a meaning in Markdown, HTML or TeX are literal in names."""
    write("other.json", read("dets.json")[:-5])
    assert run("compare", "--gt", "gt.json", "a|<b>$x$=dets.json", "other.json", *FEW).returncode == 0
    page = Path("comparison/comparison.md").read_text()
    assert "a\\|&lt;b&gt;\\$x\\$" in page and "<b>" not in page
    tables = [
        list(lines) for table, lines in itertools.groupby(page.splitlines(), lambda x: x.startswith("|")) if table
    ]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("num_convs 3", "num_convs 3"),
        ("__a__", r"\_\_a\_\_"),
        ("a|b *c*", r"a\|b \*c\*"),
        ("<b>\n&", "&lt;b&gt; &amp;"),
    ],
)
def test_names_mean_nothing_in_markdown(text, escaped):
    assert escape(text) == escaped


# a gate --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "margin", "better", "why"),
    [
        (-0.004, 0.02, 0.005, False, None),  # at most 0.4 lower, 0.5 is allowed
        (-0.006, 0.02, 0.005, False, "b: AP may be 0.6 lower than that of a, which exceeds the margin of 0.5"),
        (0.001, 0.02, None, True, None),
        (-0.001, 0.02, None, True, "b: an AP higher than that of a is not shown"),
        (0.0, 0.02, 0.0, False, None),
        (-0.02, -0.01, None, True, "b: an AP higher than that of a is not shown"),
        (math.nan, math.nan, 0.01, False, "b: the difference to a has no interval"),
    ],
)
def test_a_gate_judges_by_the_lower_end_of_the_interval(low, high, margin, better, why):
    assert Gate(margin=margin, better=better).failure(pair_of(0.0, low, high, 0.5)) == why


def test_equal_results_pass_a_gate_on_worse_and_not_one_on_better():
    pair = pair_of(0.0, math.nan, math.nan, math.nan, identical=True)
    assert Gate(margin=0.0, better=False).failure(pair) is None
    assert "not shown" in Gate(margin=None, better=True).failure(pair)


def test_a_baseline_is_in_every_pair_and_a_failed_gate_ends_with_1(run, detectors, monkeypatch, tmp_path):
    monkeypatch.chdir(detectors)

    def done(*arguments):
        return run("compare", "--gt", "gt.json", "--replicates", "200", "--out", str(tmp_path / "out"), *arguments)

    passed = done("a.json", "b.json", "worse.json", "--baseline", "worse", "--fail-unless-better")
    assert passed.returncode == 0 and "passed: each row is higher in AP against worse" in passed.stdout
    found = read(tmp_path / "out" / "comparison.json")
    assert [(pair["first"], pair["second"]) for pair in found["differences"]] == [("a", "worse"), ("b", "worse")]
    assert found["baseline"] == "worse" and found["gate"]["passed"] and found["gate"]["failures"] == []
    # Holm over two pairs, not over three.
    p_values = [pair["metrics"]["AP50"]["p_value"] for pair in found["differences"]]
    assert [pair["metrics"]["AP50"]["p_holm"] for pair in found["differences"]] == holm(p_values)

    failed = done("a.json", "worse.json", "--fail-if-worse", "2")
    assert failed.returncode == 1 and re.search(
        r"failed: worse: AP may be [\d.]+ lower than that of a, which exceeds the margin of 2", failed.stdout
    )
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert page.startswith("# Comparison\n\n**failed: worse: AP may be ")
    assert done("a.json", "worse.json", "--fail-if-worse", "40").returncode == 0


def test_a_gate_that_cannot_be_judged_is_a_mistake(run, detectors, monkeypatch):
    monkeypatch.chdir(detectors)
    asked = ("compare", "--gt", "gt.json", "a.json", "b.json")
    assert_mistake(run(*asked, "--baseline", "c"), "--baseline c: no such row", "one of a, b")
    assert_mistake(run(*asked, "--fail-if-worse", "1", "--replicates", "0"), "need intervals", "--replicates 0")
