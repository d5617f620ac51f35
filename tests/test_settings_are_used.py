"""Settings, seeds and conventions affect the results: each test fails if one of them is not used."""

import dataclasses
import json
import math

import pytest
import torch
from conftest import ROOT, write_params
from data_helpers import coco_box, coco_content, coco_image, exif, pixels, prepare_as_found, write_coco
from PIL import Image
from torch import nn

from fcos.boxes import areas
from fcos.config import params
from fcos.config.train import TrainConfig
from fcos.data.images import resized_size
from fcos.data.transforms import draw_view, show
from fcos.losses import detection_losses
from fcos.model.head import Head
from fcos.postprocess import decode_candidates
from fcos.structures import HeadOutputs, LocationTargets
from fcos.study.build import build_model
from fcos.training.key import training_key
from fcos.training.loop import History, Plan, _resume
from fcos.training.optimizer import make_optimizer
from fcos.training.resume import Scratch
from fcos.training.step import train_step
from fcos.training.validation import Validation

CPU = torch.device("cpu")


# The seed -------------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_views():
    def views(seed):
        settings = {"sizes": [32, 48, 64], "longest": 100, "horizontal_flip": 0.5}
        return [draw_view((60, 80), seed=seed, epoch=0, image_id=image, **settings) for image in range(50)]

    assert views(1) == views(1) != views(2)


def test_the_seed_decides_the_order():
    plan = Plan(image_sizes=dict.fromkeys(range(50), (60, 80)), epochs=1, seed=1, config=TrainConfig())
    assert list(plan.batches(0)) != list(dataclasses.replace(plan, seed=2).batches(0))


def test_the_seed_decides_the_weights(workspace, smoke_params):
    def tensors(seed):
        smoke_params["runs"]["one-epoch"]["seed"] = seed
        write_params(smoke_params)
        return build_model(params.read().runs["one-epoch"], 3, pretrained=False).state_dict()

    one, again, other = tensors(1), tensors(1), tensors(2)
    for name in ("backbone.conv1.weight", "head.class_tower.0.weight"):
        assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])


# A step of the optimizer ----------------------------------------------------------------------------------------------


def stepped(config, gradients, *, start=1.0):
    """Return a single weight after steps with these gradients."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    optimizer = make_optimizer(model, config)
    for gradient in gradients:
        model.weight.grad = torch.full_like(model.weight, gradient)
        optimizer.step()
    return model.weight.item()


def test_sgd_has_momentum():
    """v = 0.5 v + g and w = w - 0.1 v: with g = 1 twice v is 1 and 1.5, so w is 1 - 0.1 - 0.15."""
    config = TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.0)
    assert stepped(config, [1.0, 1.0]) == pytest.approx(0.75)


class Ten(nn.Module):
    """A network whose losses have a gradient of 10 in its only weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(("limit", "weight"), [(None, -10.0), (2.0, -2.0)])
def test_gradients_are_clipped_where_asked_for(monkeypatch, limit, weight):
    model = Ten()
    losses = lambda model, *_: ({"classification": 10 * model.weight.sum()}, torch.tensor(1))  # noqa: E731
    monkeypatch.setattr("fcos.training.step.compute_losses", losses)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    train_step(model, "a batch", None, optimizer, dtype=torch.float32, clip_grad_norm=limit)
    assert model.weight.item() == pytest.approx(weight, rel=1e-5)


# The losses -----------------------------------------------------------------------------------------------------------


def test_locations_in_ignored_regions_give_no_loss():
    """Three locations: an object, background, and one in a crowd whose logits would have the highest loss."""
    outputs = HeadOutputs(
        class_logits=torch.tensor([[[0.3], [-1.0], [9.0]]]),
        pred_ltrb=torch.ones(1, 3, 4),
        centerness_logits=torch.zeros(1, 3),
        feature_sizes=((1, 3),),
    )
    targets = LocationTargets(
        labels=torch.tensor([[0, -1, -1]]),
        target_ltrb=torch.ones(1, 3, 4),
        matched_gt_index=torch.tensor([[0, -1, -1]]),
        counted_mask=torch.tensor([[True, True, False]]),
    )
    losses, _ = detection_losses(outputs, targets)

    def focal(logit, positive):
        p = 1 / (1 + math.exp(-logit))
        p, alpha = (p, 0.25) if positive else (1 - p, 0.75)
        return -alpha * (1 - p) ** 2 * math.log(p)

    assert losses["classification"].item() == pytest.approx(focal(0.3, True) + focal(-1.0, False), rel=1e-5)


# The network at the start ---------------------------------------------------------------------------------------------


def head(**changes):
    torch.manual_seed(0)
    settings = {"prior_probability": 0.01, "initial_ltrb": 0.0, "normal_class_tower": False, **changes}
    return Head(channels=64, num_classes=3, num_convs=1, group_norm_groups=16, **settings)


def test_the_prior_probability_is_that_of_each_class_at_the_start():
    assert torch.sigmoid(head(prior_probability=0.2).class_logits.bias).tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("asked", [False, True])
def test_blocks_begin_as_the_identity_where_asked_for(workspace, smoke_params, asked):
    """The last BatchNorm of each of the 8 blocks of ResNet-18, and no other, has the weight 0; nothing else changes."""
    states = {}
    for zero in (False, asked):
        smoke_params["model"]["zero_init_residual"] = zero
        write_params(smoke_params)
        states[zero] = build_model(params.read().runs["one-epoch"], 3, pretrained=False).state_dict()
    other = {name for name, tensor in states[asked].items() if not torch.equal(tensor, states[False][name])}
    last = {f"backbone.layer{layer}.{block}.bn2.weight" for layer in (1, 2, 3, 4) for block in (0, 1)}
    assert other == (last if asked else set()) and all(not states[True][name].any() for name in other)


def test_boxes_begin_with_the_distances_asked_for():
    assert head(initial_ltrb=1.5).box_regression.bias.tolist() == [1.5] * 4


def test_the_class_tower_is_drawn_as_asked_for():
    """PyTorch's default is uniform within 1 / sqrt(64 * 9) = 0.042 of 0, with an s.d. of 0.024."""
    deviation = {normal: head(normal_class_tower=normal).class_tower[0].weight.std().item() for normal in (True, False)}
    assert deviation[True] == pytest.approx(0.01, rel=0.05) and deviation[False] == pytest.approx(0.024, rel=0.05)


# Images and boxes ---------------------------------------------------------------------------------------------------


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    shown = show(torch.tensor([[[[255, 255, 255]]]], dtype=torch.uint8), (1, 1)).flatten().tolist()
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]  # R, G, B of ImageNet
    assert shown == pytest.approx(expected, rel=1e-6)


def test_no_side_is_shown_at_nothing():
    assert resized_size((3, 4000), 480, 640) == (1, 640)


def test_areas_are_told_apart_beyond_float32():
    """8000 x 8002 is 1 less than 8001 x 8001; float32 has steps of 4 there."""
    boxes = torch.tensor([[0.0, 0.0, 8000.0, 8002.0], [0.0, 0.0, 8001.0, 8001.0]])
    assert areas(boxes).tolist() == [64016000, 64016001]
    assert (boxes[:, 2] * boxes[:, 3]).tolist() == [64016000, 64016000]


def test_a_score_at_the_threshold_is_not_kept():
    """As torchvision has it. sigmoid(0) is exactly 0.5, and so is sqrt(0.5 * 0.5)."""
    outputs = HeadOutputs(
        class_logits=torch.zeros(1, 1, 1),
        pred_ltrb=torch.ones(1, 1, 4),
        centerness_logits=torch.zeros(1, 1),
        feature_sizes=((1, 1),),
    )
    size = torch.tensor([[32.0, 32.0]])
    for threshold, count in ((0.5, 0), (0.4999, 1)):
        (found,) = decode_candidates(
            outputs, torch.tensor([[16.0, 16.0]]), torch.tensor([8.0]), size, size,
            score_threshold=threshold, max_candidates=10,
        )  # fmt: skip
        assert len(found.scores) == count


# Resuming -------------------------------------------------------------------------------------------------------------


def test_the_time_before_an_interruption_counts(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scratch = Scratch(tmp_path / "run")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": [], "step": 3}
    validation = Validation(None, TrainConfig(), num_epochs=1)
    scratch.save({**state, "seconds": 1000.0, "validation": validation.state()})
    step, history = _resume(scratch, model, optimizer, validation, CPU)
    assert step == 3 and history.seconds >= 1000.0 and History([]).seconds < 1000.0


def test_a_saved_state_belongs_to_everything_that_decides_the_result():
    common = {"torch_version": "2", "device_type": "cpu", "dtype": "float32"}
    common |= {"start_digest": None, "validation": None}
    keys = {
        training_key({"run": 1}, "data", **common),
        training_key({"run": 2}, "data", **common),
        training_key({"run": 1}, "other data", **common),
        *(training_key({"run": 1}, "data", **{**common, name: "other"}) for name in common),
    }
    assert len(keys) == 7  # the last two names may both come last in the key


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_swaps_the_sides_of_mirrored_images_too(tmp_path, orientation):
    """If the annotation has the stored size, its boxes refer to the stored image."""
    train, test = (
        coco_content([coco_image(number, file_name=f"{number}.png")], [coco_box(number, number)]) for number in (1, 2)
    )
    root = write_coco(tmp_path / "coco", train, test)
    Image.fromarray(pixels("a")).save(root / "train2017/1.png", exif=exif(orientation))
    Image.fromarray(pixels("b")).save(root / "val2017/2.png")
    manifest = prepare_as_found(root, tmp_path / "prepared")
    (sentence,) = manifest["assumed"]
    assert sentence.startswith("1 images are rotated by EXIF") and "stored image" in sentence


def test_an_object_of_exactly_32_by_32_is_counted_as_medium(tmp_path):
    """The manifest counts each object in one range; COCO's metrics count border cases in two."""
    box = coco_box(1, 1, [1, 2, 32, 32], area=1024)
    root = write_coco(
        tmp_path / "coco", coco_content([coco_image(1)], [box]), coco_content([coco_image(2)], [coco_box(2, 2)])
    )
    manifest = prepare_as_found(root, tmp_path / "prepared")
    assert manifest["splits"]["train"]["per_size"] == {"small": 0, "medium": 1, "large": 0}


def test_every_mutation_has_its_line():
    """`make mutations` takes hours, so this test notices at once if a listed line has changed."""
    mutations = json.loads((ROOT / "tests" / "mutations.json").read_text())
    assert [one["what"] for one in mutations if (ROOT / one["file"]).read_text().count(one["old"]) != 1] == []
