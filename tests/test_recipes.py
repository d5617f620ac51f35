"""Blocks of docs/how-to/recipes.md and cells of its notebook, run on files in the form of each toolbox.

The commands of other toolboxes are not run: these are not installed.
"""

import os
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from json_helpers import read, write
from PIL import Image
from torchvision.models.detection import fcos_resnet50_fpn

RECIPES = ROOT / "docs" / "how-to" / "recipes.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", RECIPES.read_text(), re.DOTALL)


@pytest.fixture
def truth():
    """Write val.json and 24 images with two boxes each, and return the content."""
    rng = random.Random(5)
    Path("images").mkdir()
    images, annotations = [], []
    for image_id in range(1, 25):
        name = f"photo {image_id:03}.png"
        images.append({"id": image_id, "file_name": name, "width": 96, "height": 64})
        pixels = np.random.default_rng(image_id).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{name}")
        for place in range(2):
            box = [50 * place + rng.randrange(8), rng.randrange(20), 24 + rng.randrange(8), 30 + rng.randrange(8)]
            of = {"image_id": image_id, "category_id": 1 + place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **of})
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write("val.json", content)
    return content


def found(truth, seed, jitter=1.0):
    """Return COCO results of a detector that knows the truth."""
    rng = random.Random(seed)
    return [
        {
            "image_id": of["image_id"],
            "category_id": of["category_id"],
            "bbox": [round(side + rng.gauss(0, jitter), 3) for side in of["bbox"]],
            "score": round(rng.uniform(0.1, 1), 5),
        }
        for of in truth["annotations"]
        if rng.random() < 0.9
    ]


def call(command, code=0, **environment):
    done = subprocess.run(
        ["bash", "-ec", command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.slow
def test_results_of_every_toolbox_join_one_comparison(truth):
    stem = {image["id"]: Path(image["file_name"]).stem for image in truth["images"]}
    write("predictions.json", [{**of, "image_id": stem[of["image_id"]]} for of in found(truth, 0)])
    write("coco_instances_results.json", found(truth, 1))
    write("ours.bbox.json", found(truth, 2))
    for_torchvision, for_hugging_face = blocks("python")
    torch.manual_seed(0)
    small = {"min_size": 64, "max_size": 96, "score_thresh": 0.0, "detections_per_img": 7}
    model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, **small)
    names = {"model": model}
    exec(for_torchvision, names)
    with torch.inference_mode():
        image = torch.from_numpy(np.array(Image.open("images/photo 001.png"))).permute(2, 0, 1) / 255
        (expected,) = model([image])
    rows = [of for of in read("torchvision.json") if of["image_id"] == 1]
    assert len(rows) == len(expected["boxes"]) > 0
    right = [of["bbox"][0] + of["bbox"][2] for of in rows]
    assert right == pytest.approx(expected["boxes"][:, 2].tolist(), abs=1e-4)
    assert [of["score"] for of in rows] == pytest.approx(expected["scores"].tolist())
    # Boxes of label 0 are of no class here: a network with random weights finds them too.
    write("torchvision.json", [of for of in read("torchvision.json") if of["category_id"] > 0])

    (command,) = blocks("bash")
    call(command)
    content = read("comparison/comparison.json")
    assert [row["name"] for row in content["rows"]] == ["ultralytics", "detectron2", "mmdetection", "torchvision"]
    ap = [row["metrics"]["AP"] for row in content["rows"]]
    assert min(ap[:3]) > 0.4 > 0.05 > ap[3]
    assert Path("comparison/comparison.html").exists()

    exec(for_hugging_face, names)
    result = {key: expected[key] for key in ("boxes", "scores", "labels")}
    assert [of["bbox"] for of in names["rows_of"](1, result)] == [pytest.approx(of["bbox"], abs=1e-4) for of in rows]


@pytest.mark.parametrize(("jitter", "code"), [(0.9, 0), (6.0, 1)])
def test_the_workflow_is_a_gate(truth, jitter, code):
    write("main.json", found(truth, 0))
    write("new.json", found(truth, 0, jitter))
    (workflow,) = blocks("yaml")
    steps = yaml.safe_load(workflow)["jobs"]["compare"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0] == "pip install fcos-study"
    call(commands[1], code)
    call(commands[2], GITHUB_STEP_SUMMARY="summary.md")
    assert ("**failed: " if code else "**passed: ") in Path("summary.md").read_text()
    kept = next(step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    assert (Path(kept) / "comparison.html").exists()


def test_every_cell_of_the_notebook_runs(truth):
    write("ours.json", found(truth, 0))
    write("theirs.json", found(truth, 1, 3.0))
    names = {}
    notebook = read(RECIPES.with_name("compare.ipynb"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    shown = []
    for cell in cells:
        *statements, last = re.split(r"\n(?=\S)(?![\])])", cell)
        exec("\n".join(statements), names)
        try:
            shown.append(eval(last, names))
        except SyntaxError:
            exec(last, names)
    result, of_classes, comparison, lines, classes = shown
    assert "<table" in result._repr_html_() and "theirs against ours" in comparison._repr_html_()
    assert list(of_classes.index) == ["left", "right"]
    assert set(lines.index.get_level_values("metric")) >= {"AP", "AP50"}
    assert len(classes) == 2 and classes[0][1] <= classes[1][1]
