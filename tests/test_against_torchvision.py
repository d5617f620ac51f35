"""Compare with torchvision's FCOS of the same weights: outputs, losses, assignment, detections, converters."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import write_params
from oracle import (
    ASSIGNER,
    GRID,
    ORACLE_RANGES,
    STRIDES,
    oracle_anchors,
    oracle_and_ours,
    oracle_assignment,
    published_oracle,
)
from torchvision.models import get_model
from torchvision.models.detection.image_list import ImageList

from fcos.assignment import assign_targets
from fcos.commands.import_checkpoint import import_checkpoint
from fcos.config.model import ModelConfig
from fcos.config.runs import find_run, parse_runs
from fcos.detections import detect
from fcos.losses import detection_losses
from fcos.model.backbone import Backbone, folded
from fcos.model.checkpoint import read_identity
from fcos.model.convert import from_torchvision, to_torchvision
from fcos.postprocess import decode_candidates
from fcos.structures import Batch
from fcos.study.build import build_grid, load_model


@pytest.fixture(scope="module")
def networks():
    oracle, ours = oracle_and_ours()
    return oracle.eval(), ours.eval()


def make_truth(generator, *, images, height, width, num_classes):
    """Return random boxes with whole corners and a positive area; the last image has none."""
    truth = []
    for index in range(images):
        count = 0 if index == images - 1 else int(torch.randint(1, 8, (1,), generator=generator))
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width - 70.0, height - 70.0])
        side = 8 + torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 60.0])
        boxes = torch.cat((corner, corner + side), dim=1).round()
        truth.append({"boxes": boxes, "labels": torch.randint(num_classes, (count,), generator=generator)})
    return truth


def as_batch(images, truth):
    most = max(len(t["labels"]) for t in truth)
    boxes, labels = torch.zeros(len(truth), most, 4), torch.full((len(truth), most), -1)
    for index, t in enumerate(truth):
        boxes[index, : len(t["labels"])] = t["boxes"]
        labels[index, : len(t["labels"])] = t["labels"]
    sizes = torch.tensor([images.shape[2:]] * len(images), dtype=torch.float32)
    return Batch(images, list(range(len(images))), sizes, boxes, labels, torch.zeros_like(labels, dtype=torch.bool))


def oracle_losses(oracle, images, truth):
    features = list(oracle.backbone(images).values())
    anchors = oracle.anchor_generator(ImageList(images, [tuple(images.shape[2:])] * len(images)), features)
    return oracle.compute_loss(truth, oracle.head(features), anchors, [f.shape[2] * f.shape[3] for f in features])


@pytest.mark.parametrize("size", [(128, 160), (96, 224)])
def test_losses_and_their_gradients_equal_torchvisions(networks, size):
    oracle, ours = networks
    generator = torch.Generator().manual_seed(size[0])
    images = torch.rand(3, 3, *size, generator=generator)
    truth = make_truth(generator, images=3, height=size[0], width=size[1], num_classes=5)

    expected = oracle_losses(oracle, images, truth)
    batch = as_batch(images, truth)
    outputs = ours(images)
    losses, num_positives = detection_losses(outputs, ASSIGNER(outputs, batch))

    assert num_positives > 20
    names = {"classification": "classification", "regression": "bbox_regression", "centerness": "bbox_ctrness"}
    for name, theirs in names.items():
        assert losses[name].item() == pytest.approx(expected[theirs].item(), rel=1e-5, abs=1e-5)
    our_gradient = torch.autograd.grad(sum(losses.values()), ours.head.box_regression.weight)[0]
    theirs = torch.autograd.grad(sum(expected.values()), oracle.head.regression_head.bbox_reg.weight)[0]
    torch.testing.assert_close(our_gradient, theirs, rtol=1e-3, atol=1e-5)


def random_backbone(name, *, frozen):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Backbone(name, pretrained=False, frozen_statistics=frozen)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("frozen", [True, False])
def test_features_and_their_gradients_equal_torchvisions_with_any_statistics(name, frozen):
    generator = torch.Generator().manual_seed(0)
    ours = random_backbone(name, frozen=frozen).double().train()
    for values in (
        v for n, v in ours.state_dict().items() if n.endswith(("running_mean", "running_var", "bn1.weight"))
    ):
        values.uniform_(0.5, 1.5, generator=generator)
    theirs = get_model(name).double().train(not frozen)
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()})
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=generator)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    c3 = theirs.layer2(theirs.layer1(x))
    c4 = theirs.layer3(c3)
    expected = [c3, c4, theirs.layer4(c4)]
    for network, features in ((theirs, expected), (ours, ours(images))):
        sum(feature.sin().sum() for feature in features).backward()
        network.features = features
    gradients = {n: parameter.grad for n, parameter in theirs.named_parameters() if not n.startswith("fc")}
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    torch.testing.assert_close(ours.features, expected)
    torch.testing.assert_close({n: parameter.grad for n, parameter in ours.named_parameters()}, gradients)
    if not frozen:
        torch.testing.assert_close(ours.bn1.running_var, theirs.bn1.running_var)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_batch_norm_folded_into_its_convolution_changes_nothing(stride):
    generator = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv2d(4, 6, 3, stride=stride, padding=1, bias=False).double()
    torch.nn.init.uniform_(conv.weight, -0.2, 0.2, generator=generator)
    norm = torch.nn.BatchNorm2d(6).double().eval()
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        torch.nn.init.uniform_(values, 0.5, 1.5, generator=generator)
    x = torch.rand(2, 4, 9, 11, dtype=torch.float64, generator=generator).requires_grad_()
    results = []
    for y in (folded(conv, norm, x), norm(conv(x))):
        results.append((y, *torch.autograd.grad(y.sin().sum(), [x, conv.weight, norm.weight, norm.bias])))
    torch.testing.assert_close(*results)


def test_bfloat16_features_are_as_close_to_float32_as_without_folding():
    """Rounding to 8 bits: measured 0.64, 0.79 and 0.82 % of a map's length folded, 0.64, 0.79 and 0.84 % not."""
    ours = random_backbone("resnet18", frozen=True).eval()
    images = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    exact = ours(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = ours(images)
    for expected, found in zip(exact, rounded, strict=True):
        assert found.dtype == torch.bfloat16
        assert 1e-4 < (found.float() - expected).norm() / expected.norm() < 0.012


@pytest.mark.parametrize("seed", range(50))
def test_detections_equal_torchvisions_on_odd_sizes(networks, seed):
    oracle, ours = networks
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(40, 150, (2,), generator=generator).tolist()
    image = torch.rand(3, height, width, generator=generator)
    # Images are not resized, so rounded sizes do not matter. All candidates are compared: torchvision's include boxes
    # without area, of locations in the padding, which we leave out.
    oracle.transform.min_size, oracle.transform.max_size = (min(height, width),), max(height, width)
    oracle.topk_candidates = oracle.detections_per_img = 10_000
    with torch.no_grad():
        expected = oracle([image])[0]
        has_area = (expected["boxes"][:, 2:] > expected["boxes"][:, :2]).all(dim=1)
        expected = {name: values[has_area][:100] for name, values in expected.items()}
        padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)
        padded[0, :, :height, :width] = image
        outputs = ours(padded)
        locations = GRID(outputs.feature_sizes, tuple(padded.shape[2:]), padded.device)
        size = torch.tensor([[height, width]], dtype=torch.float32)
        candidates = decode_candidates(
            outputs, locations.xy, locations.strides, size, size, score_threshold=0.2, max_candidates=10_000
        )[0]
        found = detect(candidates, nms_iou_threshold=0.6, max_detections=100)

    assert len(found) == len(expected["scores"]) > 10
    np.testing.assert_allclose(found.scores, expected["scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected["boxes"], rtol=0, atol=1e-3)
    assert found.labels.tolist() == expected["labels"].tolist()


@pytest.mark.parametrize("padded", [(480, 640), (96, 224), (32, 1312)])
def test_locations_are_the_centers_of_torchvisions_anchors(padded):
    """480 rows have 4 cells at P7: the distance between them is 120 pixels in torchvision and 128 in the study."""
    sizes = feature_sizes_of(padded)
    locations = GRID(sizes, padded, torch.device("cpu"))
    anchors = oracle_anchors(sizes, padded)
    assert torch.equal(locations.xy, (anchors[:, :2] + anchors[:, 2:]) / 2)
    assert torch.equal(locations.strides, anchors[:, 2] - anchors[:, 0])


def test_the_studys_locations_are_half_a_stride_from_torchvisions_and_step_by_strides():
    sizes, cpu = feature_sizes_of((480, 640)), torch.device("cpu")
    study = build_grid(ModelConfig())(sizes, (480, 640), cpu)
    torchvisions = GRID(sizes, (480, 640), cpu)
    assert torch.equal(study.xy[:4800], torchvisions.xy[:4800] + 4)  # P3: 60 x 80 cells, 8 pixels each
    p7 = study.level_of == 4  # 4 rows
    assert study.xy[p7, 1].unique().tolist() == [64.0, 192.0, 320.0, 448.0]
    assert torchvisions.xy[p7, 1].unique().tolist() == [0.0, 120.0, 240.0, 360.0]


def feature_sizes_of(padded):
    """P3, P4, P5 are an eighth, a sixteenth, a 32nd of the image; P6 and P7 halve that, rounded up."""
    sizes = [(padded[0] // stride, padded[1] // stride) for stride in (8, 16, 32)]
    for _ in range(2):
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return tuple(sizes)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_state_dicts_convert_both_ways(backbone):
    oracle, ours = oracle_and_ours(backbone=backbone)
    theirs, own = oracle.state_dict(), ours.state_dict()
    assert_same_tensors(to_torchvision(from_torchvision(theirs)), theirs)
    assert_same_tensors(from_torchvision(to_torchvision(own)), own)
    assert_same_tensors(to_torchvision(own), theirs)
    oracle.load_state_dict(to_torchvision(own))  # strict, so every name must be known


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


def test_a_published_coco_checkpoint_says_the_same_here_of_the_classes_that_are_kept(workspace):
    """Weights as torchvision publishes them: frozen BatchNorms, 91 outputs, one for each COCO id from 0."""
    oracle = published_oracle().eval()
    theirs = oracle.state_dict()
    assert not any(name.endswith("num_batches_tracked") for name in theirs)
    oracle.load_state_dict(to_torchvision(from_torchvision(theirs)))  # missing counters are accepted
    assert_same_tensors(oracle.state_dict(), theirs)

    params = yaml.safe_load(Path("studies/coco2017.yaml").read_text())
    write_params(params)
    kept = [1, 18, 90]  # person, dog, toothbrush
    prepare_nothing(Path("data/coco2017"), kept)
    torch.save(theirs, "published.pth")
    weights = import_checkpoint(Path("published.pth"), "resnet50-torchvision")
    run = find_run(parse_runs(params), "resnet50-torchvision")
    ours = load_model(run, read_identity(weights, hint=""), weights).eval()

    image = torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = oracle.head(list(oracle.backbone(image).values()))
        outputs = ours(image)
    assert expected["cls_logits"].shape[2] == 91
    # Frozen BatchNorm multiplies and adds in another order: 3e-5 after 50 layers on a processor with AVX2 alone.
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(outputs.class_logits, expected["cls_logits"][..., kept], **close)
    torch.testing.assert_close(outputs.pred_ltrb, expected["bbox_regression"], **close)
    torch.testing.assert_close(outputs.centerness_logits, expected["bbox_ctrness"][..., 0], **close)
    assert outputs.class_logits.std() > 0.1  # the outputs depend on the image, and another class would differ by more


def prepare_nothing(folder, category_ids):
    """Write prepared data with these classes and no image, which is all that an import reads."""
    categories = [{"id": number, "name": str(number)} for number in category_ids]
    (folder / "images").mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps({"images": [], "categories": categories, "annotations": []}))
    (folder / "manifest.json").write_text(json.dumps({"splits": {"train": {"image_dir": "images"}}}))


def slow_assignment(locations, strides, level_of, boxes, labels, ranges, radius, inclusive):
    """Assign one location and one box at a time, as described in the paper."""
    chosen = []
    for (x, y), stride, level in zip(locations.tolist(), strides.tolist(), level_of.tolist(), strict=True):
        best, best_area = -1, float("inf")
        for index, ((x1, y1, x2, y2), label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
            if label < 0:
                continue
            distances = (x - x1, y - y1, x2 - x, y2 - y)
            off_center = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
            if inclusive:
                inside = min(distances) >= 0 and off_center <= radius * stride
            else:
                inside = min(distances) > 0 and off_center < radius * stride
            low, high = ranges[level]
            in_range = low < max(distances) < (float("inf") if high is None else high)
            area = (x2 - x1) * (y2 - y1)
            if inside and in_range and area < best_area:
                best, best_area = index, area
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_assignment_equals_the_slow_obvious_version(seed, inclusive):
    generator = torch.Generator().manual_seed(seed)
    locations = GRID(((12, 16), (6, 8), (3, 4), (2, 2), (1, 1)), (96, 128), torch.device("cpu"))
    count = 12
    # Corners on multiples of 4 put many locations exactly on borders and make equal areas.
    corner = torch.randint(0, 20, (2, count, 2), generator=generator).float() * 4
    side = torch.randint(1, 25, (2, count, 2), generator=generator).float() * 4
    boxes = torch.cat((corner, corner + side), dim=2)
    labels = torch.randint(-1, 3, (2, count), generator=generator)
    ranges = [[0, 24], [24, 48], [48, 96], [96, 192], [192, None]]
    targets = assign_targets(
        locations.xy, locations.strides, locations.level_of, boxes, labels, torch.zeros_like(labels, dtype=torch.bool),
        regression_ranges=ranges, center_sampling_radius=1.5, inclusive=inclusive,
    )  # fmt: skip
    for image in range(2):
        expected = slow_assignment(
            locations.xy, locations.strides, locations.level_of, boxes[image], labels[image], ranges, 1.5, inclusive
        )
        assert targets.matched_gt_index[image].tolist() == expected
        assert any(index >= 0 for index in expected)


def assigned(boxes, padded, *, inclusive):
    """Return the index of the box (M, 4) that we assign to each of torchvision's locations: (R,)."""
    locations = GRID(feature_sizes_of(padded), padded, torch.device("cpu"))
    labels = torch.zeros(1, len(boxes), dtype=torch.int64)
    return assign_targets(
        locations.xy, locations.strides, locations.level_of, boxes[None], labels, labels.bool(),
        regression_ranges=ORACLE_RANGES, center_sampling_radius=1.5, inclusive=inclusive,
    ).matched_gt_index[0]  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_assignment_equals_torchvisions(seed):
    generator = torch.Generator().manual_seed(seed)
    padded = (192, 736)
    # Multiples of 4: many locations lie exactly on borders, and areas are equal or at least 16 apart.
    corner = torch.stack([torch.randint(-10, most, (25,), generator=generator) for most in (170, 40)], dim=1) * 4.0
    boxes = torch.cat((corner, corner + torch.randint(1, 100, (25, 2), generator=generator) * 4), dim=1)
    expected = oracle_assignment(boxes, feature_sizes_of(padded), padded)
    assert assigned(boxes, padded, inclusive=False).tolist() == expected.tolist()
    assert len(expected.unique()) > 8


@pytest.mark.parametrize(
    ("box", "inclusive", "strict"),
    [
        # Center 24: the locations 16, 24, 32 lie within 12 pixels of it on each axis, 16 and 32 on the box's border.
        ([16.0, 16.0, 32.0, 32.0], 3 * 3, 1),
        # Center 28: the locations 16, 24, 32, 40 lie inside, 16 and 40 on the border of the center square, 12 away.
        ([8.0, 8.0, 48.0, 48.0], 4 * 4, 2 * 2),
    ],
)
def test_the_study_counts_borders_as_inside_and_torchvision_does_not(box, inclusive, strict):
    boxes, padded = torch.tensor([box]), (64, 64)
    assert (assigned(boxes, padded, inclusive=True) == 0).sum() == inclusive
    assert (assigned(boxes, padded, inclusive=False) == 0).sum() == strict
    assert (oracle_assignment(boxes, feature_sizes_of(padded), padded) == 0).sum() == strict
    assert ModelConfig().center_bounds == "inclusive"


@pytest.mark.parametrize(
    ("boxes", "ours", "torchvisions"),
    [
        ([[12.0, 12.0, 36.0, 36.0], [14.0, 14.0, 38.0, 38.0]], 0, 0),  # 576 each: the first
        # 17 x 59 = 1003 and 20 x 50 = 1000: in float32, 1e8 - 1003 and 1e8 - 1000 are one number (spacing 8).
        ([[16.0, 0.0, 33.0, 59.0], [14.0, 0.0, 34.0, 50.0]], 1, 0),
        ([[14.0, 0.0, 34.0, 50.0], [16.0, 0.0, 33.0, 59.0]], 0, 0),
    ],
)
def test_the_smallest_area_wins_where_torchvision_cannot_tell_areas_apart(boxes, ours, torchvisions):
    boxes, padded = torch.tensor(boxes), (64, 64)
    here = 3 * 8 + 3  # the location (24, 24) of P3
    assert assigned(boxes, padded, inclusive=False)[here] == ours
    assert oracle_assignment(boxes, feature_sizes_of(padded), padded)[here] == torchvisions


def test_both_divide_by_the_positives_of_the_whole_batch(networks):
    """The loss is normalised over the batch: images with more positive locations weigh more, and empty ones count."""
    oracle, ours = networks
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = [[[4.0, 4.0, 60.0, 60.0], [30.0, 2.0, 62.0, 30.0]], [[20.0, 20.0, 32.0, 32.0]], []]
    truth = [
        {"boxes": torch.tensor(of_image).reshape(-1, 4), "labels": torch.arange(len(of_image))} for of_image in boxes
    ]

    def ours_of(pixels):
        outputs = ours(images[pixels])
        losses, count = detection_losses(outputs, ASSIGNER(outputs, as_batch(images[pixels], truth[pixels])))
        return losses, int(count)

    whole, num_positives = ours_of(slice(None))
    singles = [ours_of(slice(index, index + 1)) for index in range(3)]
    counts = [count for _, count in singles]
    assert counts[0] > counts[1] > counts[2] == 0 and sum(counts) == num_positives
    names = {"classification": "classification", "regression": "bbox_regression", "centerness": "bbox_ctrness"}
    expected = oracle_losses(oracle, images, truth)
    for name, theirs in names.items():
        total = sum(losses[name].item() * max(1, count) for losses, count in singles)
        assert whole[name].item() == pytest.approx(total / sum(counts), rel=1e-5)
        assert expected[theirs].item() == pytest.approx(total / sum(counts), rel=1e-5)


def test_ignored_boxes_give_no_loss_where_they_lie():
    locations = GRID(((4, 4),) + ((1, 1),) * 4, (32, 32), torch.device("cpu"))
    boxes = torch.tensor([[[0.0, 0.0, 32.0, 32.0], [7.0, 7.0, 17.0, 17.0]]])
    targets = assign_targets(
        locations.xy, locations.strides, locations.level_of, boxes, torch.tensor([[0, 1]]),
        torch.tensor([[True, False]]), regression_ranges=ORACLE_RANGES, center_sampling_radius=1.5, inclusive=True,
    )  # fmt: skip
    positive = targets.positive_mask[0]
    assert set(targets.labels[0][positive].tolist()) == {1}
    # Every location lies in the ignored box, so only the positive ones are counted.
    assert torch.equal(targets.counted_mask[0], positive)


def test_a_batch_without_boxes_is_all_background(networks):
    _, ours = networks
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    outputs = ours(images)
    losses, num_positives = detection_losses(outputs, ASSIGNER(outputs, as_batch(images, nothing)))
    assert num_positives == 0
    assert losses["regression"] == 0 and losses["centerness"] == 0 and losses["classification"] > 0
    gradients = torch.autograd.grad(sum(losses.values()), ours.parameters(), allow_unused=True)
    assert all(of is None or of.isfinite().all() for of in gradients)
    assert len(STRIDES) == len(outputs.feature_sizes)
