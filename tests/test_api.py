"""The Python interface: numbers equal to those of the commands, from files, dicts, arrays and frames."""

import builtins
import doctest
import json
import re
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, assert_mistake
from model_helpers import RUN, make_study
from PIL import Image

from fcos import api, extras

NUM_IMAGES = 24


def ground_truth():
    boxes = [[10 * i % 90, 5, 60 + i, 40 + i] for i in range(NUM_IMAGES)]
    return {
        "images": [{"id": i, "width": 200, "height": 100, "file_name": f"{i}.jpg"} for i in range(NUM_IMAGES)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog <b>"}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": (3, 7)[i % 2],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, box in enumerate(boxes)
        ],
    }


def found_by(seed):
    """Detections near the objects; how near depends on the seed."""
    random = np.random.default_rng(seed)
    return [
        {
            "image_id": of["image_id"],
            "category_id": of["category_id"],
            "bbox": [float(side) for side in np.array(of["bbox"]) + random.uniform(-1, 1, 4) * (4 + 4 * seed)],
            "score": float(random.uniform(0.1, 1)),
        }
        for of in ground_truth()["annotations"]
    ]


def columns_of(detections):
    return {name: [of[name] for of in detections] for name in api.COLUMNS}


@pytest.fixture
def files(tmp_path):
    """Paths of the ground truth and of two results."""
    contents = {"gt": ground_truth(), "one": found_by(1), "two": found_by(2)}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return {name: tmp_path / f"{name}.json" for name in contents}


def test_progress_is_shown_if_asked_for(files, capfd):
    api.score(files["gt"], files["one"], replicates=100)
    assert capfd.readouterr() == ("", "")
    api.score(files["gt"], files["one"], replicates=100, progress=True)
    assert capfd.readouterr().err.startswith("score: 100/100 draws")


def test_every_form_of_the_same_detections_has_the_numbers_of_the_command(files, run, tmp_path):
    detections, columns = found_by(1), columns_of(found_by(1))
    done = run("score", "--gt", str(files["gt"]), "--detections", str(files["one"]), "--out", "out.json")
    assert done.returncode == 0, done.stderr
    expected = json.loads((tmp_path / "out.json").read_text())
    forms = [
        str(files["one"]),
        files["one"],
        detections,
        [{**of, "bbox": np.array(of["bbox"]), "image_id": np.int64(of["image_id"])} for of in detections],
        columns,
        {name: np.array(of) for name, of in columns.items()},
        {
            name: torch.tensor(of, dtype=torch.float64 if name in ("bbox", "score") else None)
            for name, of in columns.items()
        },
        pd.DataFrame(columns),
    ]
    for form in forms:
        result = api.score(ground_truth(), form)
        for part in ("intervals", "per_class", "counts", "statistics", "diagnosis"):
            assert result.content[part] == expected[part]
        assert result["AP"] == expected["AP"] and 0.3 < result["AP"] < 0.9


def test_a_result_is_a_table_json_and_html(files, tmp_path):
    result = api.score(files["gt"], found_by(1))
    frame = result.to_frame()
    assert frame.loc["AP", "value"] == result["AP"] and frame.loc["AP", "low"] == result.intervals["AP"]["low"]
    assert list(result.to_frame(per_class=True)["num_objects"]) == [12, 12]
    assert json.loads(result.to_json(tmp_path / "result.json")) == result.content
    assert json.loads((tmp_path / "result.json").read_text()) == result.content
    html = result._repr_html_()
    assert "<b>" not in html and "dog &lt;b&gt;" in html and f"{100 * result['AP']:.1f}" in html
    assert any("objects in 24 images only" in note for note in result.notes) and result.notes[0] in str(result)
    assert result.content["inputs"]["detections"]["file"] == "detections"  # and no temporary file


def test_a_comparison_is_that_of_the_command_with_seeds_and_any_names(files, run, tmp_path):
    names = ["gt", "of/: a <b>"]
    done = run("compare", "one.json", "of=two.json,three.json", "--gt", "gt.json", "--out", "out")
    assert done.returncode == 2 and "three.json" in done.stderr
    (tmp_path / "three.json").write_text(json.dumps(found_by(3)))
    assert run("compare", "one.json", "of=two.json,three.json", "--gt", "gt.json", "--out", "out").returncode == 0
    expected = json.loads((tmp_path / "out" / "comparison.json").read_text())
    found = api.compare(files["gt"], {names[0]: files["one"], names[1]: [found_by(2), columns_of(found_by(3))]})
    assert [row["name"] for row in found.content["rows"]] == names and found.content["rows"][1]["n"] == 2
    for ours, of_command in zip(found.content["rows"], expected["rows"], strict=True):
        assert ours["metrics"] == of_command["metrics"] and ours["intervals"] == of_command["intervals"]
    assert found.content["differences"][0]["metrics"] == expected["differences"][0]["metrics"]
    assert found.sentences[0].replace(names[1], "of").replace("gt", "one") == expected["differences"][0]["sentence"]
    frame = found.to_frame()
    assert frame.loc[(names[1], "gt", "AP"), "difference"] == expected["differences"][0]["metrics"]["AP"]["difference"]
    html = found._repr_html_()
    assert "<b>" not in html and "of/: a &lt;b&gt;" in html and found.sentences[0].partition(":")[0][:3] in html
    assert "fcos-" not in found.to_json()  # no temporary folder


@pytest.mark.parametrize(
    ("detections", "parts"),
    [
        ([{"image_id": 1}], ["detections: [0].category_id: is missing"]),
        ({"image_id": [1], "score": [1.0]}, ["detections: has no column category_id", "image_id, score"]),
        ({**columns_of(found_by(1)), "score": [0.5]}, ["columns of different lengths", "score: 1"]),
        ({**columns_of(found_by(1)), "score": [None] * NUM_IMAGES}, ["detections: [0].score"]),
        ([object()], ["detections: cannot be written as JSON"]),
        (5, ["detections: is not a list of results"]),
        ([{**found_by(1)[0], "score": float("nan")}], ["detections: [0].score"]),
        ("none.json", ["none.json: no such file"]),
    ],
)
def test_wrong_detections_are_named_without_a_temporary_path(detections, parts):
    with pytest.raises(api.UserError) as error:
        api.score(ground_truth(), detections, replicates=0)
    for part in parts:
        assert part in str(error.value)
    assert "/tmp" not in str(error.value)


def test_a_wrong_record_is_no_table():
    with pytest.raises(api.UserError, match=r"^b: \[0\].category_id: is missing"):
        api.compare(ground_truth(), {"a": found_by(1), "b": [{"image_id": 1, "score": 0.5}]})


def test_one_detector_is_no_comparison():
    with pytest.raises(api.UserError, match="nothing to compare with"):
        api.compare(ground_truth(), {"one": found_by(1)})


def test_weights_find_objects_whose_form_score_reads(tmp_path):
    weights = make_study(tmp_path) / "runs" / "smoke" / RUN / "model.safetensors"
    pixels = np.asarray(Image.effect_noise((96, 64), 80).convert("RGB"))
    Image.fromarray(pixels).save("noise.png")
    detector = api.load(weights)
    of_array, of_file = detector.predict([pixels, "noise.png"])
    assert of_array == of_file
    for found in of_array:
        assert set(found) == {"category_id", "category", "bbox", "score"}
    ids = {category["id"] for category in detector.categories}
    assert ids >= {found["category_id"] for found in of_array}
    with pytest.raises(api.UserError, match=r"images\[0\]: is no RGB image\n.*float64 \(96, 64\)"):
        detector.predict([np.zeros((96, 64))])
    with pytest.raises(api.UserError, match="no run and no file called 'other'"):
        api.load("other")


def test_the_examples_of_the_docstrings():
    failed, tried = doctest.testmod(api)
    assert failed == 0 and tried > 8


def test_the_examples_of_the_page(files, monkeypatch):
    """The page's Python blocks run one after the other, except those that load weights."""
    text = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    monkeypatch.setattr(builtins, "print", lambda *_, **__: None)
    for block in blocks:
        if "load(" not in block:
            exec(block, names)


def dependencies(extra):
    """The names of the packages of an extra in pyproject.toml."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    return {re.match(r"[\w.-]+(\[\w+\])?", line)[0] for line in listed}


def test_a_command_without_its_packages_says_which_extra_to_install(run, monkeypatch):
    imported = builtins.__import__

    def without(name, *more):
        if name.partition(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *more)

    for name in [name for name in sys.modules if name.startswith("fcos.commands.doctor")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    done = run("doctor")
    assert_mistake(done, "fcos doctor: needs torch", "pip install 'fcos-study[study]'")


def test_each_package_of_an_extra_is_known_by_its_module():
    of_package = {"vl-convert-python": "vl_convert", "dvc[s3]": "dvc_s3"}
    for extra, modules in extras.MODULES.items():
        expected = {of_package.get(name, name) for name in dependencies(extra)} - {"ruamel.yaml.clib"}
        assert expected - {"fcos-study[report]"} <= set(modules)


def test_score_and_compare_need_nothing_of_a_study_or_of_posix():
    """They run where the extra `study` is not installed, and import nothing that Windows lacks."""
    block = [
        *extras.MODULES["report"],
        *extras.MODULES["study"],
        *extras.MODULES["export"],
        "fcntl",
        "resource",
        "termios",
        "pwd",
        "grp",
    ]
    code = f"""
import sys
for name in {block!r}:
    sys.modules[name] = None
import fcos.cli, fcos.api, fcos.study.truth_folder, fcos.reporting.comparison_chart
from fcos.commands import compare, score
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
