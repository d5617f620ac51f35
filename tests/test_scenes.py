"""Images of one scene are recognised by their annotated objects, and resampled together unless `--groups` is given."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from conftest import REAL_DATA
from data_helpers import DATA, run_prepare, write_yolo

from fcos.config.statistics import StatisticsConfig
from fcos.data.coco import CocoSplit, read_split
from fcos.reporting.page_data import _belonging_together
from fcos.reporting.results import StudyResults
from fcos.scoring.bootstrap import numbered
from fcos.scoring.scenes import Scenes, find_scenes, groups_of
from fcos.scoring.truth import read_truth, truth_of
from fcos.study.bootstrap import Bootstrap

SCENES, COPIES = 20, 10
W, H = 640, 480
Record = dict[str, Any]


def film(
    *,
    counts: tuple[int, ...] = (3, 4, 6),
    scenes: int = SCENES,
    copies: int = COPIES,
    seed: int = 0,
    moved: float = 4.0,
) -> Record:
    """Frames of one scene differ by up to `moved` pixels in all edges, and list their objects in another order."""
    rng = np.random.default_rng(seed)
    images: list[Record] = []
    annotations: list[Record] = []
    for scene in range(scenes):
        count = counts[scene % len(counts)]
        corner, side = rng.uniform(20, 300, size=(count, 2)), rng.uniform(12, 140, size=(count, 2))
        labels = rng.integers(1, 3, size=count)
        for _ in range(copies):
            images.append(
                {"id": len(images) + 1, "file_name": f"{len(images)}.jpg", "width": W, "height": H, "scene": scene}
            )
            for place in rng.permutation(count):
                box = np.concatenate((corner[place], side[place])) + rng.uniform(-moved / 2, moved / 2, size=4)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": len(images), "category_id": int(labels[place]),
                     "bbox": box.tolist(), "iscrowd": 0}
                )  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def results_of(content: Record, found: float, seed: int = 0) -> list[Record]:
    """All objects of a share of the scenes, and nothing else."""
    chosen = np.random.default_rng(seed).permutation(SCENES)[: int(found * SCENES)]
    images = {image["id"] for image in content["images"] if image["scene"] in chosen}
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in content["annotations"]
        if a["image_id"] in images
    ]


def scenes_in(content: Record) -> Scenes | None:
    truth = truth_of(content, "gt.json")
    return find_scenes(truth.objects, truth.sizes)


def same(content: Record) -> bool:
    """Whether the first two images, of 30, are found to show one scene."""
    found = scenes_in(content)
    return found is not None and bool(found.of_image[0] == found.of_image[1])


def test_frames_of_a_scene_are_found():
    found = scenes_in(film())
    assert found is not None and found.of_image.tolist() == [scene for scene in range(20) for _ in range(10)]
    assert found.shared.tolist() == [10] * 20


def with_others(others: Record) -> Record:
    """Two frames of a scene with three objects, and other images."""
    content = film(scenes=1, copies=2, counts=(3,))
    content["images"] += [{**image, "id": image["id"] + 2} for image in others["images"]]
    content["annotations"] += [{**a, "image_id": a["image_id"] + 2, "id": a["id"] + 6} for a in others["annotations"]]
    return content


def pair() -> Record:
    """Two frames of a scene with three objects, and 28 images that are alone."""
    return with_others(film(scenes=28, copies=1, seed=1))


def first_of_second(content: Record) -> Record:
    return cast(Record, next(a for a in content["annotations"] if a["image_id"] == 2))


def test_a_copy_of_another_size_is_the_same_scene():
    content = pair()
    content["images"][1] |= {"width": 2 * W, "height": 2 * H}
    assert not same(content)
    for annotation in content["annotations"]:
        if annotation["image_id"] == 2:
            annotation["bbox"] = [2 * number for number in annotation["bbox"]]
    assert same(content)


@pytest.mark.parametrize(
    "change",
    [
        {"category_id": 3},
        {"bbox": [500, 400, 50, 50]},
        {"iscrowd": 1},
        {"image_id": 3},  # one object fewer
    ],
)
def test_an_object_that_differs_makes_another_scene(change):
    content = pair()
    content["categories"].append({"id": 3, "name": "cow"})
    assert same(content)
    first_of_second(content).update(change)
    assert not same(content)


def test_each_object_needs_one_at_its_place_in_either_image():
    """Two objects on each other in one image are not one there and one elsewhere in the other."""
    for elsewhere in (20, 80):
        content = pair()
        for image_id, corners in ((1, [50, 50, 200]), (2, [50, elsewhere, 200])):
            of_image = [a for a in content["annotations"] if a["image_id"] == image_id]
            for annotation, corner in zip(of_image, corners, strict=True):
                annotation |= {"bbox": [corner, 50, 50, 50], "category_id": 1}
        assert not same(content)


def test_small_objects_may_move_and_large_ones_may_not_lie_elsewhere():
    """12 of 640 pixels are 1.9 %: a box of 20 pixels then has an IoU of 0.25 with itself; 40 of 300 pixels are 0.76."""
    for shift, expected in ((12, True), (40, False)):
        content = pair()
        boxes = [[100, 100, 20, 20], [300, 200, 20, 20], [250, 100, 300, 300]]
        for image_id in (1, 2):
            of_image = [a for a in content["annotations"] if a["image_id"] == image_id]
            for annotation, (x, *others) in zip(of_image, boxes, strict=True):
                annotation |= {"bbox": [x + (image_id == 2) * shift, *others], "category_id": 1}
        assert same(content) == expected


def test_images_with_equal_counts_are_no_scenes():
    """1,000 images of one class with three objects each, in the middle as photographers place them."""
    rng = np.random.default_rng(0)
    content = film(scenes=1000, copies=1, counts=(3,))
    for annotation in content["annotations"]:
        side = rng.uniform(100, 300, size=2)
        corner = rng.normal([W / 2, H / 2], 80) - side / 2
        annotation |= {"category_id": 1, "bbox": [*corner.tolist(), *side.tolist()]}
    assert scenes_in(content) is None


def test_one_or_two_objects_are_no_evidence_by_themselves():
    assert scenes_in(film(counts=(1, 2), moved=0)) is None
    # Two frames among 30 images do not make a film.
    found = scenes_in(with_others(film(scenes=14, copies=2, counts=(1, 2), moved=0, seed=1)))
    assert found is not None and found.shared.tolist() == [2]


def test_in_a_film_one_or_two_objects_that_stay_are_a_scene():
    found = scenes_in(film(counts=(1, 2, 3, 5), moved=1))
    assert found is not None and found.of_image.tolist() == [scene for scene in range(20) for _ in range(10)]
    moved = scenes_in(film(counts=(1, 2, 3, 5), moved=8))  # up to 1.7 % of the height
    assert moved is not None and 100 <= moved.shared.sum() < 200


def test_images_without_objects_or_size_are_alone():
    content = film(scenes=3)
    content["images"] += [{"id": 31 + n, "file_name": f"empty{n}.jpg", "width": W, "height": H} for n in range(2)]
    found = scenes_in(content)
    assert found is not None and found.of_image.tolist() == [*[0] * 10, *[1] * 10, *[2] * 10, 3, 4]
    for image in content["images"]:
        del image["width"]
    assert scenes_in(content) is None
    assert scenes_in({**content, "annotations": []}) is None
    assert groups_of(CocoSplit([], content["categories"], [], Path())) is None


@pytest.mark.parametrize("blocks", [1, 50])
def test_scenes_do_not_depend_on_the_size_of_a_block(blocks, monkeypatch):
    monkeypatch.setattr("fcos.scoring.scenes._BLOCK", blocks)
    found = scenes_in(film(scenes=5))
    assert found is not None and found.shared.tolist() == [10] * 5


@pytest.fixture
def files(tmp_path: Path) -> Path:
    content = film()
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (tmp_path / "a.json").write_text(json.dumps(results_of(content, 0.5)))
    (tmp_path / "b.json").write_text(json.dumps(results_of(content, 0.6)))
    return tmp_path


def scored(run: Any, *more: str) -> tuple[Record, str]:
    done = run("score", "--gt", "gt.json", "--detections", "a.json", "--out", "n.json", "--seed", "0", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(Path("n.json").read_text()), done.stdout


def test_score_resamples_scenes_and_says_so(files, run):
    found, text = scored(run)
    by_scene, _ = scored(run, "--groups", "scene")
    by_image, _ = scored(run, "--groups", "id")
    assert found["AP"] == by_scene["AP"] == by_image["AP"]
    assert found["intervals"] == by_scene["intervals"]
    wide, narrow = (of["intervals"]["AP"]["high"] - of["intervals"]["AP"]["low"] for of in (found, by_image))
    assert wide > 2.5 * narrow  # about the root of 10 images a scene
    assert found["statistics"]["groups"] == {"by": "annotated objects", "count": 20, "scenes": 20, "images": 200}
    said = [finding for finding in found["diagnosis"] if finding["kind"] == "scenes"]
    assert [(finding["count"], finding["total"]) for finding in said] == [(200, 200)]
    assert (
        "200 of 200 images show 20 scenes (their annotated objects coincide): the bootstrap resamples a scene" in text
    )
    assert "bootstrap samples of the 20 groups of images (by annotated objects)" in text


def test_given_groups_win(files, run):
    by_image, text = scored(run, "--groups", "id")
    assert by_image["statistics"]["groups"] == {"by": "id", "count": 200}
    assert "scenes" not in {finding["kind"] for finding in by_image["diagnosis"]} and "coincide" not in text


def test_compare_tests_a_difference_by_scenes(files, run):
    found = {}
    for groups in ((), ("--groups", "scene"), ("--groups", "id")):
        done = run("compare", "--gt", "gt.json", "a.json", "b.json", "--out", "c", "--power", *groups)
        assert done.returncode == 0, done.stderr
        content = json.loads(Path("c/comparison.json").read_text())
        found[groups] = content["differences"][0]["metrics"]["AP"]["p_value"], content["power"]
        assert ("show 20 scenes" in done.stdout) == (not groups)
        assert ("show 20 scenes" in Path("c/comparison.md").read_text()) == (not groups)
    assert found[()] == found["--groups", "scene"]
    assert found[()][0] > 0.05 > 1e-3 > found["--groups", "id"][0]
    assert found[()][1] != found["--groups", "id"][1]


def test_where_no_scene_is_found_no_number_moves(files, run):
    content = film(scenes=60, copies=1)
    Path("gt.json").write_text(json.dumps(content))
    Path("a.json").write_text(json.dumps(results_of(content, 0.9)))
    found, text = scored(run)
    by_image, _ = scored(run, "--groups", "id")
    assert "groups" not in found["statistics"] and "coincide" not in text
    assert (found["AP"], found["intervals"], found["per_class"]) == (
        by_image["AP"], by_image["intervals"], by_image["per_class"]
    )  # fmt: skip


def test_a_single_scene_has_no_interval(files, run):
    content = film(scenes=1)
    Path("gt.json").write_text(json.dumps(content))
    Path("a.json").write_text(json.dumps(results_of({**content, "images": content["images"][:5]}, 1)))
    found, text = scored(run)
    assert found["AP"] is not None and found["intervals"]["AP"]["low"] is None
    assert "10 of 10 images show 1 scene (" in text and "no interval for AP" in text


FILM = {"source": "yolo", "root": "yolo", "classes": ["cat", "dog"]}


def film_study(**data: Any) -> CocoSplit:
    """Six test images of two scenes of three objects, and one that is alone."""
    scenes = {"a": ["0 0.2 0.2 0.1 0.1", "0 0.5 0.5 0.2 0.3", "1 0.8 0.3 0.2 0.2"],
              "b": ["0 0.3 0.7 0.4 0.3", "0 0.6 0.2 0.2 0.3", "1 0.7 0.7 0.2 0.2"]}  # fmt: skip
    frames = {f"{name}{frame}": boxes for name, boxes in scenes.items() for frame in range(3)}
    write_yolo(Path("yolo"), {"train": {"t": scenes["a"]}, "val": {**frames, "c": scenes["a"][:1]}})
    run_prepare(**FILM, **data)
    return read_split(DATA, "test")


def test_a_study_resamples_scenes_unless_it_has_groups():
    split = film_study()
    samples = Bootstrap(StatisticsConfig(replicates=100)).of(split)
    assert samples.groups is not None and samples.groups.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert (samples.weights[:, [0, 3]] == samples.weights[:, [2, 5]]).all()
    assert (samples.weights[:, 0] != samples.weights[:, 3]).any()
    by_name = groups_of(film_study(groups="255"))
    assert by_name is not None and by_name.tolist() == list(range(7))


def test_the_report_says_that_scenes_are_resampled():
    split = film_study()
    study = cast(StudyResults, SimpleNamespace(split=split, manifest={}))
    (said,) = _belonging_together(study)
    assert said.startswith("6 of 7 images show 2 scenes (their annotated objects coincide): the bootstrap resamples")
    assert said.endswith("data.groups says otherwise.")


REAL = (
    "coco2017-mini/annotations/instances_train2017.json",
    "coco2017-mini/annotations/instances_val2017.json",
    "traffic/train/_annotations.coco.json",
    "voc2007-annotations/voc2007_test.json",
    "voc2007-annotations/voc2007_val.json",
    "results/cars_detectron2/gt.json",
    "results/voc2007_100/gt.json",
)


@pytest.mark.parametrize("name", REAL)
def test_real_images_are_no_scenes(name):
    if not (REAL_DATA / name).is_file():
        pytest.skip(f"real data are absent: {REAL_DATA / name}")
    truth = read_truth(REAL_DATA / name)
    assert find_scenes(truth.objects, truth.sizes) is None


def test_altered_copies_of_real_photographs_are_found():
    """A Roboflow export names a copy PHOTOGRAPH.rf.DIGEST: 107 of 195 photographs have two or three copies."""
    files = sorted((REAL_DATA / "ships/train/labels").glob("*.txt"))
    if not files:
        pytest.skip(f"real data are absent: {REAL_DATA / 'ships'}")
    images, annotations = [], []
    for number, file in enumerate(files):
        images.append({"id": number, "file_name": file.stem, "width": 1, "height": 1})
        for label, *numbers in (line.split() for line in file.read_text().splitlines() if line.strip()):
            a, b, *others = map(float, numbers)
            xs, ys = [a, *others[::2]], [b, *others[1::2]]  # a polygon, or the centre and the sides of a box
            box = [a - xs[1] / 2, b - ys[1] / 2, xs[1], ys[1]]
            if len(xs) > 2:
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            annotations.append({"image_id": number, "category_id": int(label), "bbox": box})
    categories = [{"id": number, "name": str(number)} for number in range(60)]
    found = scenes_in({"images": images, "annotations": annotations, "categories": categories})
    assert found is not None and len(found.shared) == 107
    assert found.of_image.tolist() == numbered([file.stem.split(".rf.")[0] for file in files]).tolist()
