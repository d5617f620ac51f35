"""params.yaml: each mistake gets its own message, before any work."""

from pathlib import Path

import pytest
import yaml
from conftest import READY_MADE, ROOT
from project_helpers import tracked_files

from fcos.commands.study import use_study
from fcos.config import params as config
from fcos.config.model import STRIDES
from fcos.errors import UserError

SEEDS = "voc2007-seeds"


def message(params):
    with pytest.raises(UserError) as raised:
        config.parse(params)
    return str(raised.value)


@pytest.mark.parametrize("name", READY_MADE)
def test_every_ready_made_study_is_valid_and_named_after_its_file(name):
    study = config.read(ROOT / "studies" / f"{name}.yaml")
    assert study.study == name
    assert study.runs and study.tables


def test_the_ready_made_studies_are_there():
    """A user may have more studies."""
    assert set(READY_MADE) <= {Path(name).stem for name in tracked_files() if name.startswith("studies/")}


def test_voc2007_has_the_published_settings():
    study = config.read(ROOT / "studies" / "voc2007.yaml")
    run = study.runs["resnet18-e12-c3"]
    assert run.model.regression_ranges == [[0, 64], [64, 128], [128, 256], [256, 512], [512, 1000]]
    assert (run.train.optimizer, run.train.learning_rate, run.train.batch_size) == ("sgd", 0.005, 4)
    assert run.train.sizes == study.tta.sizes == [288, 320, 352, 384, 416, 448, 480]
    assert (study.test.score_threshold, study.test.nms_iou_threshold, study.test.max_detections) == (0.1, 0.6, 100)
    assert study.data.difficult == "keep" and len(study.data.classes) == 20
    # The study's mistake: its resnet101 was configured as resnet50.
    assert all(name.startswith(run.backbone + "-") for name, run in study.runs.items())


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_studies_say_where_choices_are_made(name):
    """DVC refuses a stage if its parameter is missing in the file, even if it has a default."""
    study = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text())
    assert study["data"]["validation_fraction"] == 0.0
    assert (study["nms_sweep"]["choose_on"], study["tta"]["choose_on"]) == ("test", None)


def test_voc2007_seeds_is_voc2007_with_three_seeds_each():
    one, three = (yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text()) for name in ("voc2007", SEEDS))
    del one["study"], three["study"]
    runs, repeated = one.pop("runs"), three.pop("runs")
    assert three == one
    expected = dict(runs)
    for name, run in runs.items():
        if "role" not in run:
            expected |= {f"{name}-s{seed}": {**run, "seed": seed} for seed in (1, 2)}
    assert repeated == expected and len(repeated) == 1 + 3 * 6


def test_an_unknown_key_names_the_nearest_valid_one(smoke_params):
    smoke_params["train"]["learing_rate"] = 0.0025
    text = message(smoke_params)
    assert "params.yaml: train.learing_rate: unknown key" in text
    assert "did you mean `learning_rate`?" in text


def test_an_unknown_key_of_a_runs_override_is_found_too(smoke_params):
    smoke_params["runs"]["one-epoch"]["train"] = {"lerning_rate": 0.1}
    assert "params.yaml: runs.one-epoch.train.lerning_rate: unknown key" in message(smoke_params)


def test_an_unknown_section_names_the_nearest_valid_one(smoke_params):
    smoke_params["nms_swep"] = {}
    assert "did you mean `nms_sweep`?" in message(smoke_params)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("train", "batch_size", 0, "greater than 0"),
        ("train", "batch_size", "4", "valid integer"),
        ("train", "learning_rate", "1e-4", "as in 1.0e-4"),
        ("train", "optimizer", "adam", "'sgd' or 'adamw'"),
        ("train", "sizes", [], "at least 1 item"),
        ("test", "score_threshold", 1.5, "less than or equal to 1"),
        ("model", "group_norm_groups", 5, "a divisor of 32"),
        ("data", "source", "vok", "'shapes', 'voc', 'coco'"),
        ("data", "num_trian", 3, "did you mean `num_train`?"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_found_and_expected(smoke_params, section, key, value, expected):
    smoke_params[section][key] = value
    text = message(smoke_params)
    assert text.startswith(f"params.yaml: {section}")
    assert expected in text


def test_more_ranges_than_strides(smoke_params):
    smoke_params["model"]["regression_ranges"].append([256, 512])
    text = message(smoke_params)
    assert "6 ranges" in text and f"{len(STRIDES)} ranges, for strides 8, 16, 32, 64, 128" in text


def test_a_range_that_ends_before_it_begins(smoke_params):
    smoke_params["model"]["regression_ranges"][1] = [32, 16]
    assert "params.yaml: model.regression_ranges.1: not a range" in message(smoke_params)


@pytest.mark.parametrize("section", ["tta", "nms_sweep"])
def test_a_name_that_is_no_run(smoke_params, section):
    smoke_params[section]["runs"] = ["reference", "resnet19"]
    text = message(smoke_params)
    assert f"params.yaml: {section}.runs: no such run" in text and "one of reference, one-epoch" in text


def test_a_table_of_no_run(smoke_params):
    smoke_params["tables"][4]["where"]["backbone"] = "resnet50"
    assert "params.yaml: tables.4.where: matches no run" in message(smoke_params)


def test_a_run_name_that_dvc_cannot_address(smoke_params):
    smoke_params["runs"]["a.b"] = smoke_params["runs"]["one-epoch"]
    assert "params.yaml: runs.a.b" in message(smoke_params)


def test_overlapping_splits(smoke_params):
    smoke_params["data"] = {"source": "voc", "root": "x", "train_split": "train", "test_split": "train"}
    assert "params.yaml: data.test_split: overlapping splits" in message(smoke_params)


VOC = {"source": "voc", "root": "x"}
COCO = {"source": "coco", "root": "x"}
YOLO = {"source": "yolo", "root": "x", "classes": ["cat"]}
PAIR = {"validation_annotations": "val.json", "validation_images": "val"}


@pytest.mark.parametrize(
    ("data", "where", "problem"),
    [
        ({**VOC, "validation_split": "test"}, "test_split", "another split than validation_split"),
        ({**VOC, "validation_split": "trainval"}, "validation_split", "another split than train_split"),
        ({**COCO, **PAIR, "test_annotations": "val.json"}, "test_annotations", "another file than validation_ann"),
        ({**VOC, "validation_split": "val", "validation_fraction": 0.1}, "validation_fraction", "`validation_split`"),
        ({**COCO, **PAIR, "validation_fraction": 0.1}, "validation_fraction", "`validation_annotations` is set too"),
        ({**COCO, "validation_annotations": "val.json"}, "validation_images", "missing key"),
        ({**COCO, "validation_images": "val"}, "validation_annotations", "missing key"),
        ({**YOLO, "test_images": "images/train"}, "test_images", "another folder than train_images"),
        ({**YOLO, "validation_images": "images/test"}, "validation_labels", "missing key"),
        ({**YOLO, "test_labels": None}, "test_labels", "missing key"),
        ({**VOC, "test_split": None}, "test_split", "there is no test split"),
        ({**COCO, "test_annotations": None, "test_images": None}, "test_annotations", "set test_fraction: 0.2"),
        ({**VOC, "test_fraction": 0.2}, "test_fraction", "`test_split` is set too"),
        ({**VOC, "test_split": None, "test_fraction": 1.0}, "test_fraction", "less than 1"),
        ({"source": "shapes", "validation_fraction": 1.0}, "validation_fraction", "less than 1"),
        ({"source": "shapes", "validation_fraction": -0.1}, "validation_fraction", "greater than or equal to 0"),
    ],
)
def test_impossible_splits(smoke_params, data, where, problem):
    smoke_params["data"] = data
    text = message(smoke_params)
    assert text.startswith(f"params.yaml: data.{where}: ") and problem in text


HOLD_OUT = [
    {"source": "shapes", "validation_fraction": 0.1},
    {**VOC, "validation_split": "val"},
    {**COCO, **PAIR},
]


@pytest.mark.parametrize(("section", "otherwise"), [("nms_sweep", "test"), ("tta", "null")])
def test_choosing_on_validation_needs_held_out_images(smoke_params, section, otherwise):
    smoke_params[section]["choose_on"] = "validation"
    text = message(smoke_params)
    assert f"params.yaml: {section}.choose_on: there is no validation split" in text
    assert f"set data.validation_fraction: 0.1, or {section}.choose_on: {otherwise}" in text
    for data in HOLD_OUT:
        smoke_params["data"] = data
        assert getattr(config.parse(smoke_params), section).choose_on == "validation"


def test_tta_is_never_chosen_on_test(smoke_params):
    smoke_params["tta"]["choose_on"] = "test"
    assert "params.yaml: tta.choose_on: wrong value" in message(smoke_params)


def test_a_run_without_epochs_and_without_checkpoint(smoke_params):
    del smoke_params["runs"]["one-epoch"]["epochs"]
    assert "params.yaml: runs.one-epoch.epochs: missing key" in message(smoke_params)


def test_several_mistakes_are_all_named(smoke_params):
    smoke_params["train"] |= {"batch_size": 0, "momentum": 2}
    text = message(smoke_params)
    assert "2 mistakes" in text and "train.batch_size" in text and "train.momentum" in text


def test_a_file_that_is_not_yaml(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("study: [smoke\nruns: {}")
    with pytest.raises(UserError, match=r"params.yaml:2:\d+: is not YAML"):
        config.read(path)


def test_overrides_make_a_run_and_machine_settings_do_not(smoke_params):
    smoke_params["runs"]["one-epoch"] |= {"train": {"learning_rate": 0.5}, "model": {"prior_probability": 0.1}}
    run = config.parse(smoke_params).runs["one-epoch"]
    assert run.train.learning_rate == 0.5 and run.model.prior_probability == 0.1
    identity = run.identity()
    smoke_params["train"]["workers"] = 7
    assert config.parse(smoke_params).runs["one-epoch"].identity() == identity


def test_study_use_keeps_local_edits_unless_forced(workspace, smoke_params):
    use_study("shapes", force=False)
    assert config.read(Path("params.yaml")).study == "shapes"
    use_study("smoke", force=False)
    smoke_params["train"]["learning_rate"] = 0.5
    Path("params.yaml").write_text(yaml.safe_dump(smoke_params))
    with pytest.raises(UserError, match="has changes that are not saved"):
        use_study("shapes", force=False)
    assert yaml.safe_load(Path("params.yaml").read_text()) == smoke_params
    kept = use_study("shapes", force=True)
    assert yaml.safe_load(kept.read_text()) == smoke_params


def test_a_study_that_does_not_exist(workspace):
    with pytest.raises(UserError, match="one of coco2017, shapes, smoke, voc2007"):
        use_study("voc2012", force=False)
