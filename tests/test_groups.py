"""`--groups`: images that belong together are resampled together."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_mistake
from data_helpers import (
    DATA,
    YOLO_CAT,
    YOLO_DOG,
    assert_refused,
    coco_box,
    coco_content,
    coco_image,
    read,
    run_prepare,
    save_image,
    small_coco,
    write,
    write_yolo,
)
from PIL import Image

from fcos.comparing.groups import find_groups
from fcos.config.data import DataConfig
from fcos.config.section import parse_section
from fcos.config.statistics import StatisticsConfig
from fcos.data.coco import read_split
from fcos.errors import UserError
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.truth import truth_of
from fcos.study.bootstrap import Bootstrap
from fcos.study.places import find_places

SCENES, COPIES = 20, 10


def truth_content():
    """Return 20 scenes of 10 images with an object each; `scene` is a key of the images, and file names contain it."""
    images = [
        {"id": SCENES * copy + scene + 1, "file_name": f"films/s{scene:02d}_{copy}.jpg", "scene": f"film {scene}"}
        for copy in range(COPIES)
        for scene in range(SCENES)
    ]
    annotations = [
        {
            "id": image["id"],
            "image_id": image["id"],
            "category_id": 1,
            "bbox": [10, 10, 20, 20],
            "area": 400,
            "iscrowd": 0,
        }
        for image in images
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}


def results_content(found):
    """Return a correct box in every image of the scenes in `found`."""
    return [
        {"image_id": image["id"], "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9}
        for image in truth_content()["images"]
        if int(image["file_name"].split("/s")[1][:2]) in found
    ]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps(truth_content()))
    (tmp_path / "a.json").write_text(json.dumps(results_content(range(12))))
    (tmp_path / "b.json").write_text(json.dumps(results_content(range(9))))


def test_images_of_a_group_are_drawn_together():
    groups = np.array([0, 1, 1, 2, 0])
    weights = draw_weights(5, replicates=50, seed=0, groups=groups)
    assert (weights[:, [0, 1]] == weights[:, [4, 2]]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    alone = draw_weights(5, replicates=50, seed=0, groups=np.arange(5))
    assert (alone == draw_weights(5, replicates=50, seed=0)).all()


def write_table(path, rows):
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_a_group_is_known_by_key_table_number_or_mark(tmp_path):
    truth = truth_of(truth_content(), "gt.json")
    images = sorted(truth_content()["images"], key=lambda image: image["id"])
    by_name = write_table(
        tmp_path / "names.csv", ["image,group", *(f"{image['file_name']},{image['scene']}" for image in images)]
    )
    by_id = write_table(tmp_path / "ids.csv", [f"{image['id']}, {image['scene']}" for image in images])
    by_stem = write_table(tmp_path / "stems.csv", [f"{i['file_name'][6:-4]},{i['scene']}" for i in images])
    expected = find_groups(truth, "scene")
    assert expected.count == SCENES and expected.json() == {"by": "scene", "count": SCENES}
    assert [int(number) for number in expected.of_image[:SCENES]] == list(range(SCENES))
    for by in (by_name, by_id, by_stem, "3", "_"):
        assert (find_groups(truth, by).of_image == expected.of_image).all()
    assert find_groups(truth, "2").count == 2  # s0 and s1
    assert [finding.kind for finding in find_groups(truth, "2").findings()] == ["few_groups"]


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("film", "200 of 200 images without `film`; keys of images are file_name, id, scene"),
        ("1", "all images are in one group"),
        ("some.csv", "199 of 200 images are not in it"),
        ("bad.csv", "bad.csv:2: has one column"),
    ],
)
def test_groups_that_cannot_be_found(tmp_path, by, message):
    write_table(tmp_path / "some.csv", ["films/s00_0.jpg,a"])
    write_table(tmp_path / "bad.csv", ["films/s00_0.jpg,a", "films/s00_1.jpg"])
    with pytest.raises(UserError) as refused:
        find_groups(truth_of(truth_content(), "gt.json"), by)
    assert message in str(refused.value)


def test_intervals_by_scene_are_as_wide_as_scenes_are_few(files, run):
    """Scenes are found completely or not at all, so the standard error of recall is that of 20 scenes, not of 200
    images. Recall at every IoU is 0.6: sqrt(0.6 * 0.4 / 20) = 0.11; by image it would be sqrt(0.24 / 200) = 0.035.
    """
    widths = []
    for groups in ((), ("--groups", "scene")):
        done = run("score", "--gt", "gt.json", "--detections", "a.json", "--out", "n.json", *groups)
        assert done.returncode == 0
        with Path("n.json").open() as stream:
            content = json.load(stream)
        interval = content["intervals"]["AR100"]
        widths.append((interval["high"] - interval["low"]) / 2 / 1.96)
    assert widths == pytest.approx([math.sqrt(0.24 / 200), math.sqrt(0.24 / 20)], rel=0.1)
    assert content["statistics"]["groups"] == {"by": "scene", "count": 20}
    assert "bootstrap samples of the 20 groups of images (by scene)" in done.stdout


def test_a_difference_of_three_scenes_is_no_difference_of_thirty_images(files, run):
    found = {}
    for groups in ((), ("--groups", "_")):
        done = run("compare", "--gt", "gt.json", "a.json", "b.json", "--out", "c", *groups)
        assert done.returncode == 0, done.stderr
        with Path("c/comparison.json").open() as stream:
            found[groups] = json.load(stream)["differences"][0]["metrics"]["AP"]["p_value"]
    # 3 of 20 scenes differ: 0.15 with an error of sqrt(0.15 * 0.85 / 20) = 0.08; of 200 images, 0.025.
    assert found[()] < 1e-6 and 0.02 < found["--groups", "_"] < 0.2


def test_a_wrong_key_is_the_user_s_mistake(files, run):
    done = run("score", "--gt", "gt.json", "--detections", "a.json", "--groups", "film")
    assert_mistake(done, "--groups film: some images lack it", "a CSV FILE of image,group")


def film_study(root=Path("yolo"), scenes=6):
    """Write three frames of each scene, named SCENE_FRAME.jpg, and one test image of another scene."""
    frames = {f"film{scene}_{frame}": [YOLO_CAT] for scene in range(scenes) for frame in range(3)}
    return write_yolo(root, {"train": frames, "val": {"other_0": [YOLO_CAT], "other2_0": [YOLO_DOG]}})


FILM = {"source": "yolo", "root": "yolo", "classes": ["cat", "dog"]}


def groups_in(split):
    return {image["group"] for image in read(split)["images"]}


def test_images_of_a_group_are_held_out_together():
    film_study()
    manifest = run_prepare(**FILM, groups="_", validation_fraction=0.2)
    train, validation = groups_in("train"), groups_in("validation")
    assert train | validation == {f"film{scene}" for scene in range(6)} and not train & validation
    # A fifth of 18 images is 3.6: the first scene in the order of their digests has 3, so a second one comes along.
    assert manifest["splits"]["validation"]["num_images"] == 6
    run_prepare(**FILM, validation_fraction=0.2)
    names = {split: {image["file_name"][:5] for image in read(split)["images"]} for split in ("train", "validation")}
    assert names["train"] & names["validation"]  # without groups, scenes are split


def test_a_study_draws_groups():
    film_study()
    run_prepare(**FILM, groups="5", test_images="images/train", test_labels="labels/train", train_images="images/val",
                train_labels="labels/val")  # fmt: skip
    split = read_split(DATA, "test")
    weights = Bootstrap(StatisticsConfig(replicates=100)).of(split).weights
    assert weights.shape == (100, 18)
    for scene in range(6):
        of_scene = weights[:, [group == f"film{scene}" for group in split.groups or []]]
        assert of_scene.shape == (100, 3) and (of_scene == of_scene[:, :1]).all()
    assert (weights.sum(axis=1) == 18).all()


def test_groups_that_splits_share_are_counted():
    root = film_study()
    save_image(root / "images/val/film1_9.jpg")
    write(root / "labels/val/film1_9.txt", YOLO_CAT)
    notes = run_prepare(**FILM, groups="_")["notes"]
    said = "1 groups (data.groups) are in both train and test (1 of 3 test images)"
    assert any(said in note for note in notes)


def test_a_table_of_groups_is_a_part_of_the_source():
    root = film_study()
    names = [path.name for path in sorted(root.glob("images/*/*.jpg"))]
    write(root / "scenes.csv", "".join(f"{name},{'night' if '0_' in name else 'day'}\n" for name in names))
    run_prepare(**FILM, groups="scenes.csv")
    assert groups_in("train") == {"night", "day"}
    data = parse_section({"data": {**FILM, "groups": "scenes.csv"}}, "data", DataConfig)
    assert find_places(data)["groups"] == root / "scenes.csv"
    write(root / "scenes.csv", "".join(f"{name},x\n" for name in names[1:]))
    assert_refused("scenes.csv: does not have every image", "1 of 20 images are not in it", **FILM, groups="scenes.csv")
    assert_refused("gone.csv: no such file", **FILM, groups="gone.csv")


def test_a_key_of_coco_images_is_their_group():
    small_coco(train=coco_content([coco_image(1, scene="a"), coco_image(2, scene="b")], [coco_box(1, 1)]))
    assert_refused("data.groups: some images lack it", "1 of 3 images without `scene`", source="coco", root="coco",
                   groups="scene")  # fmt: skip
    path = Path("coco/annotations/instances_val2017.json")
    content = json.loads(path.read_text())
    content["images"][0]["scene"] = 5
    path.write_text(json.dumps(content))
    run_prepare(source="coco", root="coco", groups="scene")
    assert (groups_in("train"), groups_in("test")) == ({"a", "b"}, {"5"})


def test_near_copies_among_test_images_are_said():
    root = write_yolo(Path("yolo"), {"train": {"t": [YOLO_DOG]}, "val": {name: [YOLO_CAT] for name in "abcdef"}})
    assert run_prepare(**FILM)["near_copies"]["images"] == 0
    with Image.open(root / "images/val/a.jpg") as image:  # like the next frame: shifted and recompressed
        image.crop((1, 0, 60, 40)).resize((60, 40)).save(root / "images/val/next.jpg", quality=60)
    write(root / "labels/val/next.txt", YOLO_CAT)
    Image.new("RGB", (60, 40), "white").save(root / "images/val/white.jpg")  # uniform images are not compared
    Image.new("RGB", (60, 40), "grey").save(root / "images/val/grey.jpg")
    manifest = run_prepare(**FILM)
    assert manifest["near_copies"] == {"images": 2, "compared": 7, "pairs": [["a.jpg", "next.jpg"]]}
    assert any("2 of 7 test images are near copies of another one, such as a.jpg and next.jpg" in note
               for note in manifest["notes"])  # fmt: skip
    assert run_prepare(**FILM, groups="1")["near_copies"] is None
