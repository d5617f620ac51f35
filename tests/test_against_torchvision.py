"""Ours against torchvision's FCOS with the same weights: outputs, losses, assignment, detections, converters."""

import pytest
import torch
from oracle import ASSIGNER, GRID, ORACLE_RANGES, STRIDES, oracle_and_ours

from fcos.assignment import assign_targets
from fcos.losses import detection_losses
from fcos.model.convert import from_torchvision, to_torchvision
from fcos.postprocess import decode_candidates, detect
from fcos.structures import Batch


@pytest.fixture(scope="module")
def networks():
    oracle, ours = oracle_and_ours()
    return oracle.eval(), ours.eval()


def make_truth(generator, *, images, height, width, num_classes):
    """Random boxes with whole corners, none of them empty; the last picture has none."""
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


@pytest.mark.parametrize("size", [(128, 160), (96, 224)])
def test_losses_and_their_gradients_equal_torchvisions(networks, size):
    oracle, ours = networks
    generator = torch.Generator().manual_seed(size[0])
    images = torch.rand(3, 3, *size, generator=generator)
    truth = make_truth(generator, images=3, height=size[0], width=size[1], num_classes=5)

    features = list(oracle.backbone(images).values())
    from torchvision.models.detection.image_list import ImageList

    anchors = oracle.anchor_generator(ImageList(images, [size] * 3), features)
    heads = oracle.head(features)
    expected = oracle.compute_loss(truth, heads, anchors, [f.shape[2] * f.shape[3] for f in features])
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


@pytest.mark.parametrize("seed", range(8))
def test_detections_equal_torchvisions_on_odd_sizes(networks, seed):
    oracle, ours = networks
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(65, 200, (2,), generator=generator).tolist()
    image = torch.rand(3, height, width, generator=generator)
    # No resizing, so that rounding of sizes has no part in it.
    oracle.transform.min_size, oracle.transform.max_size = (min(height, width),), max(height, width)
    with torch.no_grad():
        expected = oracle([image])[0]
        padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)
        padded[0, :, :height, :width] = image
        outputs = ours(padded)
        locations = GRID(outputs.feature_sizes, tuple(padded.shape[2:]), padded.device)
        size = torch.tensor([[height, width]], dtype=torch.float32)
        candidates = decode_candidates(
            outputs, locations.xy, locations.strides, size, size, score_threshold=0.2, max_candidates=1000
        )[0]
        found = detect(candidates, nms_iou_threshold=0.6, max_detections=100)

    assert len(found) == len(expected["scores"]) > 10
    torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=0, atol=1e-3)
    assert found.labels.tolist() == expected["labels"].tolist()


def test_a_nominal_step_instead_of_the_padded_one_would_be_seen(networks):
    """480 rows have 4 cells at P7: torchvision steps 120 pixels there, the study 128."""
    padded = GRID(((60, 80), (30, 40), (15, 20), (8, 10), (4, 5)), (480, 640), torch.device("cpu"))
    p7 = padded.xy[padded.level_of == 4]
    assert p7[:, 1].unique().tolist() == [0.0, 120.0, 240.0, 360.0]
    assert padded.strides[padded.level_of == 4].unique().tolist() == [128.0]


def test_state_dicts_convert_both_ways(networks):
    oracle, ours = networks
    theirs = oracle.state_dict()
    assert to_torchvision(from_torchvision(theirs)).keys() == theirs.keys()
    assert from_torchvision(to_torchvision(ours.state_dict())).keys() == ours.state_dict().keys()
    oracle.load_state_dict(to_torchvision(ours.state_dict()))  # strict: every name is known there


def slow_assignment(locations, strides, level_of, boxes, labels, ranges, radius, inclusive):
    """One location and one box at a time, as the paper says it."""
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


def test_equal_areas_go_to_the_first_box_and_close_areas_are_told_apart():
    """In float32, 1e8 - 1000 and 1e8 - 1003 are the same number (spacing 8): torchvision takes the wrong box there."""
    locations, strides, level_of = torch.tensor([[50.0, 50.0]]), torch.tensor([64.0]), torch.tensor([0])
    kwargs = {"regression_ranges": [[0, None]], "center_sampling_radius": 1.5, "inclusive": True}

    def winner(*boxes):
        labels = torch.arange(len(boxes))[None]
        ignored = torch.zeros(1, len(boxes), dtype=torch.bool)
        targets = assign_targets(locations, strides, level_of, torch.tensor([boxes]), labels, ignored, **kwargs)
        return targets.matched_gt_index.item()

    assert winner((40.0, 0.0, 57.0, 59.0), (45.0, 0.0, 65.0, 50.0)) == 1  # 1003 against 1000
    assert winner((40.0, 40.0, 60.0, 60.0), (41.0, 41.0, 61.0, 61.0)) == 0  # 400 each


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
    images = torch.rand(2, 3, 64, 64)
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    outputs = ours(images)
    losses, num_positives = detection_losses(outputs, ASSIGNER(outputs, as_batch(images, nothing)))
    assert num_positives == 0
    assert losses["regression"] == 0 and losses["centerness"] == 0 and losses["classification"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())
    assert len(STRIDES) == len(outputs.feature_sizes)
