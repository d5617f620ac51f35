"""A study of results alone: nothing is trained, and nothing needs torch."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REAL_DATA, ROOT, write_params
from data_helpers import small_yolo
from drawn_results import draw_results
from json_helpers import read, write
from PIL import Image
from project_helpers import call, copy_project, repro

from fcos.authoring.results import study_of_results
from fcos.commands.compare import compare
from fcos.commands.prepare import prepare
from fcos.commands.report import report
from fcos.commands.results import results
from fcos.commands.source import source
from fcos.config import params
from fcos.config.section import read_params
from fcos.errors import UserError
from fcos.scoring.average_precision import AP_METRICS

SIDE = 200


def odd_truth(folder, *, images=True):
    """Write ground truth as people have it, in which preparing a training would change something, and its images.

    Its image ids are text and its classes count from 0; it has a crowd, a box without area and one outside its image,
    an image whose size is not known, an area other than width times height, and pairs of images that show one scene.
    """
    dice = random.Random(0)
    shown, objects = [], []
    for number in range(40):
        place = {"id": f"picture {number}", "file_name": f"{number:03d}.png", "width": SIDE, "height": SIDE}
        if number == 7:
            del place["width"]
        boxes = [[dice.uniform(0, 150), dice.uniform(0, 150), *dice.choices(range(8, 120), k=2)] for _ in range(4)]
        if number % 10 == 9:  # the scene of the image before
            boxes = [of["bbox"] for of in objects[-4:]]
        for label, box in enumerate(boxes):
            of = {"image_id": place["id"], "category_id": label % 3, "bbox": box, "iscrowd": int(number == 3)}
            objects.append({**of, "id": len(objects), "area": 0.7 * box[2] * box[3]})
        shown.append(place)
    objects[0]["bbox"][2] = 0
    objects[5]["bbox"][0] = -30.0
    names = ("cat", "dog", "unicorn")
    write(
        folder / "gt.json",
        {"images": shown, "annotations": objects, "categories": [{"id": i, "name": of} for i, of in enumerate(names)]},
    )
    if images:
        for place in shown:
            (folder / "images").mkdir(exist_ok=True)
            Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(folder / "images" / place["file_name"])
    return objects


def made(name, *arguments, **options):
    """Write a study of results, make it the active one and run all its stages in this process."""
    study_of_results(name, *arguments, **options)
    shutil.copy(f"studies/{name}.yaml", "params.yaml")
    source()
    prepare()
    for entry in params.read().results:
        results(entry)
    report()
    return Path("reports") / name


def rows_of(folder):
    (table,) = folder.glob("tables/1-*.csv")
    import pandas as pd

    return pd.read_csv(table).to_dict("records")


def same_as_compare(folder, content):
    """Hold every number of the table and the first difference against what `fcos compare` finds in the same files."""
    for row, other in zip(rows_of(folder), content["rows"], strict=True):
        for metric in AP_METRICS:
            interval, value = other["intervals"][metric], other["metrics"][metric]
            wanted = [value, interval["low"], interval["high"]]
            shown = [row[metric], row[f"{metric} low"], row[f"{metric} high"]]
            assert shown == pytest.approx([np.nan if of is None else 100 * of for of in wanted], abs=1e-9, nan_ok=True)


@pytest.mark.usefixtures("workspace")
def test_its_numbers_are_those_of_compare(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    objects = odd_truth(elsewhere)
    for number in range(3):
        draw_results(objects, elsewhere / f"Yolo_{number}.json", number, found=0.9 - number / 10)
    gt, files = elsewhere / "gt.json", [str(elsewhere / f"Yolo_{number}.json") for number in range(3)]
    folder = made("rivals", gt, [files[0], f"Theirs={files[1]},{files[2]}"])
    content = compare(
        [files[0], f"theirs={files[1]},{files[2]}"], gt, out=Path("out"), replicates=1000, confidence=0.95, seed=0
    )
    assert content["statistics"]["groups"]["scenes"] == 4  # pairs that the bootstrap resamples together
    assert [row["detector"] for row in rows_of(folder)] == ["yolo-0", "theirs"]
    same_as_compare(folder, content)
    (difference,) = content["differences"]
    text = (folder / "tables/differences/1-detectors.csv").read_text().splitlines()
    shown = dict(zip(text[0].split(","), text[1].split(","), strict=True))
    assert float(shown["difference"]) == pytest.approx(100 * difference["metrics"]["AP"]["difference"], abs=1e-9)
    written = read("data/rivals/test.json")
    assert len(written["annotations"]) == len(objects)  # nothing was dropped or clipped
    assert [image["width"] for image in written["images"]].count(None) == 1  # as it was
    page = (folder / "index.html").read_text()
    assert 'id="gallery"' in page and (folder / "figures/runs/yolo-0/detections.png").is_file()
    assert "Accuracy, time and training" not in page and "Settings of every run" not in page  # nothing was trained
    held = Path("params.yaml").read_text() + Path("data/rivals/manifest.json").read_text()
    assert str(elsewhere) not in held and Path("datasets/rivals").is_symlink()  # no path of this machine


@pytest.mark.usefixtures("workspace")
def test_without_images_there_is_no_gallery(run):
    objects = odd_truth(Path(), images=False)
    draw_results(objects, Path("a.json"), 1)
    draw_results(objects, Path("b.json"), 2)
    done = run("study", "new", "rivals", "--gt", "gt.json", "a.json", "b.json")
    assert done.returncode == 0 and "so the report has no gallery: --images FOLDER" in " ".join(done.stdout.split())
    assert "159 objects" not in done.stdout and "156 objects, 4 ignored boxes" in done.stdout
    Path("studies/rivals.yaml").unlink()
    folder = made("rivals", Path("gt.json"), ["a.json", "b.json"])
    content = compare(["a.json", "b.json"], Path("gt.json"), out=Path("out"), replicates=1000, confidence=0.95, seed=0)
    same_as_compare(folder, content)
    page, text = (folder / "index.html").read_text(), (folder / "report.md").read_text()
    assert 'id="gallery"' not in page and "#gallery" not in page and "detections.png" not in text
    for command in (["status", "--quick"], ["study", "show"], ["doctor"], ["study", "plan"], ["labels", "a", "b"]):
        done = run(*command)
        assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, command


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.usefixtures("workspace")
def test_a_folder_in_another_layout_is_ground_truth_too():
    folder = REAL_DATA / "bccd"
    from fcos.comparing.inputs import Choices, open_truth

    truth = open_truth(folder, Choices()).truth
    objects = [
        {"image_id": truth.file_names[image], "category_id": truth.categories[label]["name"], "bbox": box}
        for image, label, box in zip(
            truth.objects.image.tolist(), truth.objects.label.tolist(), truth.objects.boxes_xywh.tolist(), strict=True
        )
    ]
    draw_results(objects, Path("a.json"), 1)
    draw_results(objects, Path("b.json"), 2)
    made_of = made("cells", folder, ["a.json", "b.json"])
    assert read_params()["data"]["split"] == "test"
    same_as_compare(
        made_of, compare(["a.json", "b.json"], folder, out=Path("out"), replicates=1000, confidence=0.95, seed=0)
    )
    assert 'id="gallery"' in (made_of / "index.html").read_text()


@pytest.mark.usefixtures("workspace")
def test_mistakes_are_named(run, tmp_path):
    objects = odd_truth(Path())
    draw_results(objects, Path("a.json"), 1)
    for arguments, said in (
        (["--gt", "gt.json"], "no results"),
        (["a.json"], "needs one of two options"),
        (["--from", ".", "--gt", "gt.json", "a.json"], "needs one of two options"),
        (["--from", ".", "a.json"], "results: can only be used with --gt"),
        (["--gt", "gt.json", "a.json", "--epochs", "3"], "--epochs: can only be used with --from"),
        (["--gt", "gt.json", "b.json"], "b.json: no such file"),
        (["--gt", "none.json", "a.json"], "none.json: no such file or folder"),
        (["--gt", "gt.json", "A=a.json", "a=a.json"], "results a: needs another name"),
        (["--gt", "gt.json", "a.json", "--split", "test"], "--split test: needs a folder"),
        (["--gt", "gt.json", "a.json", "--images", "studies"], "no such image"),
        (["--gt", "a.json", "a.json"], "is not ground truth"),
    ):
        done = run("study", "new", "rivals", *arguments)
        assert done.returncode == 2 and said in done.stderr, (arguments, done.stderr)
        assert not Path("studies/rivals.yaml").exists() and not Path("datasets").exists()
    study_of_results("rivals", Path("gt.json"), ["a.json"])
    own = yaml.safe_load(Path("studies/rivals.yaml").read_text())
    trained = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    parts = {key: trained[key] for key in ("model", "train", "runs")}
    write_params({**own, **parts})
    with pytest.raises(UserError, match="there are no images to train on"):
        params.read()
    write_params({**own, "results": {}})
    with pytest.raises(UserError, match="runs: no run"):
        params.read()
    Path("labels").mkdir()
    write_params({**own, "data": {**own["data"], "annotations": "labels"}})
    source()
    with pytest.raises(UserError, match=r"data\.split: is missing, since labels is a folder"):
        prepare()
    write_params({**own, "data": {**own["data"], "split": "test"}})
    with pytest.raises(UserError, match=r"data\.split: has no effect"):
        prepare()
    write_params(own)
    done = run("demo")
    assert done.returncode == 2 and "there is no network" in done.stderr


@pytest.mark.usefixtures("workspace")
def test_images_in_a_folder_beside_that_of_the_annotations(tmp_path_factory, run):
    """The usual layout of COCO, elsewhere: one link for both, so that `fcos source --at` can name another place."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    objects = odd_truth(elsewhere)
    (elsewhere / "annotations").mkdir()
    gt = Path(shutil.move(elsewhere / "gt.json", elsewhere / "annotations"))
    draw_results(objects, Path("1.json"), 1)
    draw_results(objects, Path("no.json"), 2)
    folder = made("rivals", gt, ["1.json", "no.json"])
    assert Path("datasets/rivals").readlink() == elsewhere and 'id="gallery"' in (folder / "index.html").read_text()
    data = read_params()["data"]
    assert (data["annotations"], data["images"]) == ("annotations/gt.json", "images")
    shutil.copytree(elsewhere / "images", "pictures")
    done = run("study", "new", "others", "--gt", str(gt), "1.json", "--images", "pictures")
    assert done.returncode == 2 and "around this project in common" in done.stderr
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(elsewhere / "images" / "000.png")
    with pytest.raises(UserError, match="has another size than the ground truth says"):
        prepare()
    done = run("study", "new", "unshown", "--gt", str(gt), "1.json")  # they were not asked for
    assert done.returncode == 0 and "has another size than the ground truth says" in " ".join(done.stdout.split())
    assert yaml.safe_load(Path("studies/unshown.yaml").read_text())["data"]["images"] is None
    (elsewhere / "images" / "000.png").unlink()
    with pytest.raises(UserError, match=r"data\.images: 1 of 40 images are not in this folder"):
        prepare()


@pytest.mark.usefixtures("workspace")
def test_other_pixels_change_the_manifest_and_no_number():
    objects = odd_truth(Path())
    draw_results(objects, Path("a.json"), 1)
    study_of_results("rivals", Path("gt.json"), ["a.json"])
    shutil.copy("studies/rivals.yaml", "params.yaml")
    source()
    prepare()
    before = [Path(f"data/rivals/{name}.json").read_bytes() for name in ("test", "manifest")]
    Image.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8)).save("images/001.png")
    prepare()
    after = [Path(f"data/rivals/{name}.json").read_bytes() for name in ("test", "manifest")]
    assert before[0] == after[0] and before[1] != after[1]  # so that DVC writes the report again, and scores nothing


@pytest.mark.usefixtures("workspace")
def test_a_root_class_with_the_name_of_a_class():
    """As Roboflow writes it: a class above those of the objects, with the name of one of them."""
    odd_truth(Path(), images=False)
    content = read("gt.json")
    content["categories"] = [{"id": 0, "name": "dog"}, *({**of, "id": of["id"] + 1} for of in content["categories"])]
    for annotation in content["annotations"]:
        annotation["category_id"] += 1
    write("gt.json", content)
    for name in "ab":
        draw_results(content["annotations"], Path(f"{name}.json"), name)
    folder = made("rivals", Path("gt.json"), ["a.json", "b.json"])
    settings = {"replicates": 1000, "confidence": 0.95, "seed": 0}
    same_as_compare(folder, compare(["a.json", "b.json"], Path("gt.json"), out=Path("out"), **settings))


@pytest.mark.usefixtures("workspace")
def test_what_is_not_as_in_the_folder_is_said(run):
    """A box outside its image is cut at the border, one without area is left out; a linked folder is refused."""
    small_yolo(Path("pets"))
    label = Path("pets/labels/train/a.txt")
    label.write_text("0 0.5 0.5 0.4 0.4\n1 0.95 0.5 0.4 0.4\n0 0.5 0.5 0 0.2\n")
    Path("pets/data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    write("a.json", [{"image_id": "a", "category_id": "cat", "bbox": [1, 1, 9, 9], "score": 0.5}])
    for command in (["score", "--detections"], ["study", "new", "rivals"]):
        done = run(*command, "a.json", "--gt", "pets", "--split", "train")
        said = " ".join((done.stdout + done.stderr).split())
        assert "1 of 4 boxes are left out, since they have no area" in said and "1 of 4 boxes are cut at" in said, said
    assert "pets/images/train/" in said and "ground truth is the train split of pets" in said
    shutil.move("pets/labels/train", "labels")
    Path("pets/labels/train").symlink_to(Path("labels").absolute())
    done = run("study", "new", "others", "--gt", "pets", "a.json")
    assert done.returncode == 2 and "is a link to a folder, in which DVC would see no change" in done.stderr
    write("a.json", [{"image_id": 1}])
    Path("pets/labels/train").unlink()
    shutil.move("labels", "pets/labels/train")
    done = run("study", "new", "others", "--gt", "pets", "a.json")
    assert done.returncode == 2 and "a.json" in done.stderr and "category_id" in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_dvc_runs_it_without_torch(tmp_path, page):
    """Also in an environment in which torch and torchvision cannot be imported."""
    folder = copy_project(tmp_path / "project", (ROOT / "studies" / "smoke.yaml").read_text())
    objects = odd_truth(folder)
    for name in ("yolo", "detr"):
        draw_results(objects, folder / f"{name}.json", name)
    (tmp_path / "without").mkdir()
    blocked = "import sys\nfor name in ('torch', 'torchvision'):\n    sys.modules[name] = None\n"
    (tmp_path / "without" / "sitecustomize.py").write_text(blocked)
    without = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "without"), str(ROOT)])}

    def fcos(*command):
        return call(folder, sys.executable, "-m", "fcos", *command, **without)

    call(folder, sys.executable, "-c", "import torch", code=1, **without)
    said = fcos("study", "new", "rivals", "--gt", "gt.json", "yolo.json", "detr.json")
    assert "fcos study use rivals" in said
    fcos("study", "use", "rivals")
    fcos("study", "run")
    assert "5 of 5 stages done" in fcos("status") and repro(folder) == []
    page.goto((folder / "reports/rivals/index.html").as_uri())
    assert page.locator("#images img, #images canvas").count() and "detr" in page.locator("#table-1").inner_text()
    content = json.loads((folder / "gt.json").read_text())
    content["annotations"][20]["bbox"][0] += 1
    write(folder / "gt.json", content)
    assert repro(folder) == ["prepare", "report", "results@detr", "results@yolo", "source"]
