"""Real images through all commands: prepare, train, predict, evaluate, report."""

import json
from pathlib import Path

import pytest
from conftest import REAL_DATA, Watcher, write_params

from fcos.commands.evaluate import evaluate
from fcos.commands.nms_sweep import nms_sweep
from fcos.commands.predict import predict
from fcos.commands.prepare import prepare
from fcos.commands.report import report
from fcos.commands.train import train
from fcos.commands.tta import tta

SOURCES = {
    "bccd": {"source": "voc", "root": "bccd", "train_split": "val", "test_split": "test"},
    "voc2012-100": {
        "source": "voc", "root": "voc2012-100/VOCdevkit/VOC2012", "train_split": "train", "test_split": "val",
        "difficult": "ignore",
    },
    "coco2017-mini": {"source": "coco", "root": "coco2017-mini"},
}  # fmt: skip
# (training images, test images, classes), from the data's own README
EXPECTED = {"bccd": (87, 72, 3), "voc2012-100": (70, 30, 20), "coco2017-mini": (80, 80, 80)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_real_images_go_through_every_command(workspace, smoke_params, name):
    data = dict(SOURCES[name])
    if not (REAL_DATA / data["root"]).is_dir():
        pytest.skip(f"real data are absent: {REAL_DATA / data['root']}")
    data["root"] = str(REAL_DATA / data["root"])
    smoke_params |= {"study": name, "data": data}
    smoke_params["tta"] |= {"sizes": [64, 96], "runs": ["reference"]}
    smoke_params["nms_sweep"]["runs"] = ["reference"]
    smoke_params["runs"].pop("one-epoch")
    smoke_params["train"] |= {"max_size": 128, "batch_size": 8}
    smoke_params["test"] |= {"max_size": 128}
    smoke_params["tables"] = [
        {"kind": "reference", "title": "Reference"},
        {"kind": "tta", "title": "Views", "run": "reference"},
        {"kind": "nms", "title": "NMS", "run": "reference"},
    ]
    write_params(smoke_params)

    splits = prepare()["splits"]
    num_train, num_test, num_classes = EXPECTED[name]
    assert (splits["train"]["num_images"], splits["test"]["num_images"]) == (num_train, num_test)
    watcher = Watcher()
    train("reference", watcher)
    assert len(watcher.seen) == 2 * -(-num_train // 8)
    assert watcher.seen[-1]["loss"] < watcher.seen[0]["loss"]
    predict("reference", "test")
    predict("reference", "tta")
    metrics = evaluate("reference")["metrics"]
    assert 0 <= metrics["AP"] <= 1
    evaluation = json.loads((Path("runs") / name / "reference" / "evaluation.json").read_text())
    assert len(evaluation["per_class"]) == num_classes
    tta("reference")
    nms_sweep("reference")
    page = report().read_text()
    assert page.count("<table") >= 3
