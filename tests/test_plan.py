"""`fcos study plan`: its arithmetic on the smoke study, from a measured training, from trial steps, and its texts."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import assert_mistake

from fcos.commands.prepare import prepare
from fcos.config import params
from fcos.files import write_json
from fcos.running import plan as plans
from fcos.running.plan import plan_json, plan_study, plan_text
from fcos.study.layout import Layout
from fcos.training.loop import Plan

WHERE = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def study(workspace, smoke_params, monkeypatch):
    monkeypatch.setattr(plans, "find_dtype", lambda *_: "torch.float32")  # whatever the machine computes in
    prepare()
    return params.read()


def measure(name, **provenance):
    """Write the training of the run as recorded in train.json."""
    speed = {"images": 32, "images_per_s": 8.0, "mean_pixels": 4096.0}
    write_json(Layout("smoke").run(name) / "train.json", {"provenance": {**WHERE, **speed, **provenance}})


def test_a_study_takes_what_its_images_take(study):
    """1 / (8 * 4,096) s a pixel. A training: 2 epochs of 16 images, which all are 64 x 64 with their padding: 4 s.

    Predictions at a third of that: 8 images of 64 x 64 take 1/3 s; with the views of TTA (64, 64 and 96) 1.75 s. Each
    stage starts in 5 s: four of each run, and three that run alone.
    """
    measure("one-epoch")
    plan = plan_study(study, jobs=1)
    assert {of.run.name: round(of.seconds, 4) for of in plan.runs} == {"one-epoch": 24.3333, "reference": 25.75}
    assert [of.images for of in plan.runs] == [32, 32] and [of.is_done for of in plan.runs] == [False, True]
    assert plan.seconds() == pytest.approx(15 + 24.3333 + 25.75, abs=1e-3)
    assert plan.seconds(machines=2) == plan_study(study, jobs=2).seconds() == pytest.approx(15 + 25.75)
    # Both runs have the same settings: one more seed is one more training.
    assert plan.seconds(more_seeds=1) == pytest.approx(15 + 2 * 24.3333 + 25.75, abs=1e-3)
    assert plan.factors == plans.MEASURED


def test_networks_without_a_training_of_this_kind_are_tried(study):
    measure("one-epoch", dtype="bfloat16")
    plan = plan_study(study, jobs=1)
    (speed,) = plan.speeds.values()
    assert speed.source == "three trial steps" and speed.seconds_per_pixel > 0 and plan.factors == plans.TRIED


@pytest.fixture
def four_gpus(study, monkeypatch):
    """The study as it would be planned on a machine with four GPUs; nothing is computed on them."""
    monkeypatch.setattr(plans, "find_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(plans, "device_name", lambda _: "H200")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def study_on(devices):
        runs = {
            name: run.model_copy(update={"train": run.train.model_copy(update={"devices": devices})})
            for name, run in study.runs.items()
        }
        return replace(study, runs=runs)

    return study_on


def test_devices_of_a_training_divide_its_time(four_gpus):
    """A training takes 4 s of one device, see above; on two or four it is divided, on all of four at once."""
    measure("one-epoch", device="H200")
    alone = plan_study(four_gpus(1), jobs=4)
    assert [round(of.training_s, 4) for of in alone.runs] == [4.0, 4.0] and alone.factors == plans.MEASURED
    assert alone.seconds() == pytest.approx(15 + 25.75)  # both at a time
    for count in (2, 4):  # one after the other: 24.3333 and 25.75 s, of which 4 s each are divided
        assert alone.seconds(devices=count) == pytest.approx(15 + 50.0833 - 8 + 8 / count, abs=1e-3)
    for devices, count in ((2, 2), ("all", 4)):
        plan = plan_study(four_gpus(devices), jobs=1)
        assert [of.training_s for of in plan.runs] == [4.0 / count] * 2 and plan.seconds() == alone.seconds(
            devices=count
        )
        assert plan.factors == plans.TRIED  # so many devices were not measured
    # 61.1 s on two of the four GPUs of a machine that costs 3,600 an hour: 30.5, in a range of 0.6 to 1.7.
    row = next(line for line in plan_text(alone, price=3600.0).splitlines() if line.startswith("on 2 such devices"))
    assert row.split()[-3:] == ["18.32", "to", "51.92"]
    text = plan_text(alone, price=None)
    assert "on 2 such devices, each training on all" in text and "scales perfectly" in text
    assert plan_json(alone, None)["seconds_on_devices"] == {"2": 61.1, "4": 59.1}


def test_a_training_that_was_measured_on_two_devices(four_gpus):
    """8 images a second on two devices are 4 on one; of several trainings, one on as many devices counts."""
    measure("one-epoch", device="H200", devices=2)
    on_two, on_one = (plan_study(four_gpus(devices), jobs=1) for devices in (2, 1))
    assert [of.training_s for of in on_two.runs] == [4.0, 4.0] and [of.training_s for of in on_one.runs] == [8.0, 8.0]
    assert on_two.factors == plans.MEASURED and on_one.factors == plans.TRIED
    assert next(iter(on_two.speeds.values())).source == "measured in one-epoch on 2 devices"
    measure("reference", device="H200", images_per_s=5.0)
    assert plan_study(four_gpus(1), jobs=1).runs[0].training_s == pytest.approx(32 / 5)


def test_ranks_on_a_cpu_share_its_cores(study):
    measure("one-epoch", devices=2)
    plan = plan_study(study, jobs=1)
    assert [of.training_s for of in plan.runs] == [4.0, 4.0] and plan.factors == plans.MEASURED
    assert "train.devices does not change the time" in plan_text(plan, price=None)
    assert plan_json(plan, None)["seconds_on_devices"] is None


def test_the_texts_of_a_plan(study):
    measure("one-epoch")
    text = plan_text(plan_study(study, jobs=1), price=2.0)
    assert text.startswith("study smoke: 2 trainings, 1 done; 64 images shown to networks; 1 at a time on cpu, float32")
    # 65.1 s are 52 to 85 s, and 0.036 at 2 an hour; two machines take 40.75 s each.
    rows = {line.split("  ")[0]: line.split("  ")[1:] for line in text.splitlines()}
    assert [cell.strip() for cell in rows["on this machine"] if cell] == ["52 s to 85 s", "0.03 to 0.05"]
    assert [cell.strip() for cell in rows["on 2 such machines"] if cell] == ["33 s to 53 s", "0.04 to 0.06"]
    assert "measured in one-epoch" in text and "The time on a GPU is unknown" in text


def test_the_command(workspace, run):
    assert_mistake(run("study", "plan"), "fcos prepare")
    prepare()
    measure("one-epoch")
    found = json.loads(run("study", "plan", "--json", "--jobs", "1", "--price", "2").stdout)
    assert found["trainings"] == 2 and found["images"] == 64
    assert set(found["runs"]) == {"reference", "one-epoch"} and found["price"]["per_hour"] == 2.0


def test_mean_pixels_are_those_of_the_batches(study):
    """Sides of 48 and 64 are both padded to 64; batches of larger images have their own size."""
    run = study.runs["one-epoch"]
    of = Plan(image_sizes={1: (64, 64), 2: (64, 128)}, epochs=1, seed=0, config=run.train)
    # One batch of both: as high as 64, as wide as the second, which is at most 96.
    assert of.mean_pixels() == 64 * 96
