"""`--groups`: images that belong together are drawn together."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_mistake

from fcos.comparing.groups import find_groups
from fcos.errors import UserError
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.truth import truth_of

SCENES, COPIES = 20, 10


def truth_content():
    """20 scenes of 10 images with an object each; `scene` is a key of the images and a part of their file names."""
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
    """A right box in every image of the scenes in `found`, and nothing else."""
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
    """Scenes are found as a whole or not at all: the error of recall is that of 20 scenes, not of 200 images.

    Recall at every IoU is 0.6, sqrt(0.6 * 0.4 / 20) = 0.11; by image it would be sqrt(0.24 / 200) = 0.035.
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
    assert "draws of the 20 groups of images (by scene)" in done.stdout


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
    assert_mistake(done, "--groups film: is no key of all images", "a table FILE of image and group")
