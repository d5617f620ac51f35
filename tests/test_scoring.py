"""From outputs to numbers: NMS, views, canonical order, and the COCO numbers against raw pycocotools."""

import json
import random

import numpy as np
import pytest
import torch
from coco_oracle import coco_eval_of_files
from torchvision.ops import nms

from fcos.data.coco import CocoSplit
from fcos.detections import Candidates, detect, merge_views
from fcos.errors import UserError
from fcos.evaluation.candidates import read_candidates, save_candidates
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.postprocess import decode_candidates, detect_rows
from fcos.scoring.average_precision import METRICS
from fcos.structures import HeadOutputs


def candidates(*rows):
    """Return candidates from rows of (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return Candidates(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def make_split(tmp_path, *, seed=0, images=12, with_crowd=True):
    """Return random boxes whose ids have gaps; image 3 has none, and class 9 has none."""
    rng = random.Random(seed)
    categories = [{"id": i, "name": f"class {i}"} for i in (2, 5, 9)]
    annotations = []
    for image_id in range(1, images + 1):
        for _ in range(0 if image_id == 3 else rng.randint(1, 6)):
            w, h = rng.choice([(10, 12), (32, 32), (60, 70), (96, 96), (150, 120)])
            box = [rng.uniform(0, 200 - w), rng.uniform(0, 200 - h), float(w), float(h)]
            crowd = int(with_crowd and rng.random() < 0.15)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": rng.choice([2, 5]), "bbox": box,
                 "area": box[2] * box[3], "iscrowd": crowd}
            )  # fmt: skip
    entries = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(1, images + 1)]
    return CocoSplit(entries, categories, annotations, tmp_path)


def make_detections(split, *, seed=1, per_image=8):
    """Return shifted truth boxes and noise; scores have one decimal, so many are tied."""
    rng = random.Random(seed)
    found = {}
    for image in split.images:
        rows = []
        for annotation in split.annotations_of(image["id"]):
            x, y, w, h = annotation["bbox"]
            dx, dy = rng.uniform(-0.3, 0.3) * w, rng.uniform(-0.3, 0.3) * h
            rows.append((x + dx, y + dy, x + dx + w, y + dy + h, rng.randint(1, 10) / 10, rng.choice([0, 1, 1])))
        for _ in range(per_image):
            x, y = rng.uniform(0, 150), rng.uniform(0, 150)
            rows.append((x, y, x + 40, y + 30, rng.randint(1, 10) / 10, rng.choice([0, 1, 2])))
        found[image["id"]] = candidates(*rows)
    return found


def raw_pycocotools(split, results, tmp_path):
    truth_path, found_path = tmp_path / "truth.json", tmp_path / "found.json"
    truth = {"images": split.images, "categories": split.categories, "annotations": split.annotations}
    truth_path.write_text(json.dumps(truth))
    found_path.write_text(json.dumps(results))
    return coco_eval_of_files(truth_path, found_path)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_raw_pycocotools_bit_for_bit(tmp_path, seed):
    split = make_split(tmp_path, seed=seed)
    results = coco_results(make_detections(split, seed=seed + 100), split)
    expected = raw_pycocotools(split, results, tmp_path)
    numbers = coco_metrics(results, split)
    assert numbers["metrics"] == {n: (None if v == -1 else v) for n, v in zip(METRICS, expected.stats, strict=True)}
    per_class = expected.eval["precision"][..., 0, 2].mean(axis=(0, 1))  # (T, R, K) -> (K,)
    assert [row["AP"] for row in numbers["per_class"][:2]] == pytest.approx(per_class[:2].tolist(), abs=1e-12)
    assert numbers["per_class"][2]["AP"] is None  # no object of that class: not 0
    assert 0.002 < numbers["metrics"]["AP"] < 0.9


def test_perfect_detections_have_ap_one(tmp_path):
    split = make_split(tmp_path, with_crowd=False)
    perfect = {
        image["id"]: candidates(
            *[
                (x, y, x + w, y + h, 0.9, split.label_of[a["category_id"]])
                for a in split.annotations_of(image["id"])
                for x, y, w, h in [a["bbox"]]
            ]
        )
        for image in split.images
    }
    metrics = coco_metrics(coco_results(perfect, split), split)["metrics"]
    assert [metrics[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")] == pytest.approx([1.0] * 6)


def test_no_detection_at_all_is_zero_and_no_error(tmp_path):
    split = make_split(tmp_path)
    metrics = coco_metrics(coco_results({image["id"]: candidates() for image in split.images}, split), split)["metrics"]
    assert metrics["AP"] == metrics["AR100"] == 0.0


def test_scoring_does_not_depend_on_the_order_of_detections(tmp_path):
    split = make_split(tmp_path)
    found = make_detections(split)
    results = coco_results(found, split)
    rng = np.random.default_rng(0)
    shuffled = {i: c[rng.permutation(len(c))] for i, c in reversed(found.items())}
    assert coco_results(shuffled, split) == results


def test_scoring_leaves_its_input_alone(tmp_path):
    split = make_split(tmp_path)
    before = json.dumps([split.images, split.annotations])
    coco_metrics(coco_results(make_detections(split), split), split)
    assert json.dumps([split.images, split.annotations]) == before


def test_results_are_xywh_in_full_precision_with_category_ids(tmp_path):
    split = make_split(tmp_path, images=1)
    third = torch.tensor(1 / 3, dtype=torch.float32).item()
    (result,) = coco_results({1: candidates((third, 2.0, 10.0, 20.0, third, 1))}, split)
    assert result == {"image_id": 1, "category_id": 5, "bbox": [third, 2.0, 10.0 - third, 18.0], "score": third}


def test_nms_is_per_class_and_best_first():
    boxes = candidates(
        (0, 0, 10, 10, 0.5, 0),
        (0, 0, 10, 9, 0.9, 0),  # IoU 0.9 with the first
        (0, 0, 10, 10, 0.7, 1),  # another class
        (20, 20, 30, 30, 0.6, 0),
    )
    kept = detect(boxes, nms_iou_threshold=0.6, max_detections=100)
    assert [(round(s, 1), label) for s, label in zip(kept.scores.tolist(), kept.labels.tolist(), strict=True)] == [
        (0.9, 0),
        (0.7, 1),
        (0.6, 0),
    ]
    assert len(detect(boxes, nms_iou_threshold=0.95, max_detections=100)) == 4
    assert len(detect(boxes, nms_iou_threshold=0.6, max_detections=2)) == 2


@pytest.mark.parametrize(("count", "threshold"), [(80, 0.3), (700, 0.5), (3000, 0.6)])
def test_nms_keeps_what_torchvisions_keeps_in_each_class(count, threshold):
    """Return boxes on a grid of 8 pixels and scores of two digits, with many ties in both and in IoU."""
    rng = np.random.default_rng(count)
    corners = rng.integers(0, 12, (count, 2)) * 8
    boxes = np.concatenate((corners, corners + rng.integers(0, 6, (count, 2)) * 8), axis=1).astype(np.float32)
    found = Candidates(boxes, rng.integers(0, 100, count).astype(np.float32) / 100, rng.integers(0, 3, count))
    kept = detect(found, nms_iou_threshold=threshold, max_detections=count)
    expected = []
    for label in range(3):
        of_class = np.flatnonzero(found.labels == label)
        chosen = nms(torch.from_numpy(boxes[of_class]), torch.from_numpy(found.scores[of_class]), threshold)
        expected += of_class[chosen.numpy()].tolist()
    expected = found[np.array(sorted(expected, key=lambda index: (-found.scores[index], index)))]
    assert 10 < len(kept) < count
    for part in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(kept, part), getattr(expected, part))
    best = detect(found, nms_iou_threshold=threshold, max_detections=7)
    assert np.array_equal(best.boxes, kept.boxes[:7]) and np.array_equal(best.scores, kept.scores[:7])


def test_views_are_merged_by_nms_over_their_union():
    one = candidates((0, 0, 10, 10, 0.5, 0), (50, 50, 60, 60, 0.4, 1))
    two = candidates((0, 0, 10, 9, 0.8, 0))
    merged = merge_views([one, two], nms_iou_threshold=0.6, max_detections=100)
    assert merged.scores.tolist() == pytest.approx([0.8, 0.4])
    assert len(merge_views([one, candidates()], nms_iou_threshold=0.6, max_detections=100)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_nms_on_the_device_is_that_of_the_host(seed):
    """Many boxes, few places: ties of scores, equal boxes, boxes without area, IoUs on the threshold, long chains."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 700))
    corners = rng.integers(0, 12, (count, 2)).astype(np.float32) * rng.choice([1.0, 1.3])
    boxes = np.concatenate((corners, corners + rng.integers(0, 8, (count, 2))), axis=1).astype(np.float32)
    scores = rng.choice([0.0, 0.05, 0.3, 0.31, 0.9], count).astype(np.float32)
    rows = np.column_stack((boxes, scores, rng.integers(0, 3, count))).astype(np.float32).reshape(-1, 6)
    above = rows[rows[:, 4] > 0.05]
    for threshold in (0.0, 0.5, 0.6, 1.0):
        for most in (3, 1000):
            settings = {"nms_iou_threshold": threshold, "max_detections": most}
            expected = detect(Candidates(above[:, :4], above[:, 4], above[:, 5].astype(np.int64)), **settings)
            # A batch of two images: these boxes, and the same the other way round.
            both = torch.from_numpy(np.stack((rows, rows[::-1])))
            found, _ = detect_rows(both, score_threshold=0.05, **settings)
            for name in ("boxes", "scores", "labels"):
                assert np.array_equal(getattr(found, name), getattr(expected, name)), (threshold, most, name)


def test_a_chain_of_boxes_that_suppress_each_other_is_decided_from_its_start():
    """Each box overlaps the next one: the first stays, so the second goes, so the third stays ..."""
    chain = [[2 * k, 0, 2 * k + 10, 10, 0.9 - k / 1000, 0] for k in range(101)]
    (found,) = detect_rows(torch.tensor([chain]), score_threshold=0.0, nms_iou_threshold=0.6, max_detections=100)
    # 8 of 12 columns are common to neighbours (0.67), 6 of 14 to the next but one (0.43).
    assert found.boxes[:, 0].tolist() == [4.0 * k for k in range(51)]


def test_decoding_by_hand():
    """Decode one level of 1 x 2 cells with stride 8 and two classes, for an image resized from 20 x 32 to 10 x 16."""
    locations = torch.tensor([[4.0, 4.0], [12.0, 4.0]])
    outputs = HeadOutputs(
        class_logits=torch.tensor([[[0.0, -20.0], [2.0, 0.0]]]),
        pred_ltrb=torch.tensor([[[0.25, 0.25, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]]]),
        centerness_logits=torch.tensor([[0.0, 20.0]]),
        feature_sizes=((1, 2),),
    )
    found = decode_candidates(
        outputs, locations, torch.tensor([8.0, 8.0]), torch.tensor([[10.0, 16.0]]), torch.tensor([[20.0, 32.0]]),
        score_threshold=0.4, max_candidates=10,
    )[0]  # fmt: skip
    # sigmoid(2) = 0.8808 and sigmoid(0) = 0.5, centerness 1: sqrt gives 0.9385 and 0.7071; the first cell
    # sqrt(0.5 * 0.5) = 0.5 for class 0 and about 0 for class 1.
    assert found.scores.tolist() == pytest.approx([0.9385, 0.7071, 0.5], abs=1e-4)
    assert found.labels.tolist() == [0, 1, 0]
    # Second cell: (12 - 8, 4 - 8, 12 + 8, 4 + 8), clipped to 16 x 10, doubled: (8, 0, 32, 20).
    assert found.boxes[0].tolist() == [8.0, 0.0, 32.0, 20.0]
    # First cell: (4 - 2, 4 - 2, 4 + 4, 4 + 4), doubled.
    assert found.boxes[2].tolist() == [4.0, 4.0, 16.0, 16.0]


def test_boxes_of_the_padding_take_no_places_and_others_end_in_the_image():
    """Decode one level of 1 x 3 cells for images of 7 x 10 in 8 x 24; the highest score lies in the padding."""
    locations, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]]), torch.full((3,), 8.0)
    outputs = HeadOutputs(
        torch.tensor([[[0.0], [1.0], [2.0]]]), torch.ones(1, 3, 4), torch.full((1, 3), 20.0), ((1, 3),)
    )
    shown = torch.tensor([[7.0, 10.0]])
    for height, width in ((331, 479), (333, 500), (999, 1427)):
        found = decode_candidates(
            outputs, locations, strides, shown, torch.tensor([[height, width]]).float(),
            score_threshold=0.0, max_candidates=2,
        )[0]  # fmt: skip
        # (12 - 8, 4 - 8, 12 + 8, 4 + 8) and (4 - 8, 4 - 8, 4 + 8, 4 + 8): both reach over the right and the lower
        # border, which 10 pixels times (width / 10) in float32 need not hit.
        assert found.scores.tolist() == pytest.approx([0.731**0.5, 0.5**0.5], abs=1e-3)
        assert found.boxes[:, 2:].tolist() == [[width, height]] * 2 and found.boxes.min() == 0


def test_at_most_so_many_candidates_of_a_level():
    generator = torch.Generator().manual_seed(0)
    logits, ltrb = (torch.randn(2, 20, last, generator=generator) for last in (3 + 1, 4))
    outputs = HeadOutputs(logits[..., :3], ltrb.abs(), logits[..., 3], ((4, 4), (2, 2)))
    locations = 32 * torch.rand(20, 2, generator=generator)
    size = torch.tensor([[32.0, 32.0]] * 2)
    found = decode_candidates(
        outputs, locations, torch.full((20,), 8.0), size, size, score_threshold=0.0, max_candidates=5
    )
    assert [len(c) for c in found] == [10, 10]  # 5 of each of the two levels
    best = detect_all(dict(enumerate(found)), nms_iou_threshold=1.0, max_detections=3)
    assert [len(c) for c in best.values()] == [3, 3]


def test_candidates_survive_the_disk_and_say_what_they_are(tmp_path):
    path = tmp_path / "test.safetensors"
    of_image = {7: candidates((0, 1, 2, 3, 0.3, 1)), 3: candidates(), 9: candidates((4, 5, 6, 7, 0.1, 79))}
    save_candidates(path, of_image, {"weights_sha256": "ab"})
    file = read_candidates(path, hint="fcos predict RUN")
    assert file.header == {"weights_sha256": "ab"} and list(file.of_image) == [7, 3, 9]
    for image_id, expected in of_image.items():
        found = file.of_image[image_id]
        assert np.array_equal(found.boxes, expected.boxes) and np.array_equal(found.scores, expected.scores)
        assert np.array_equal(found.labels, expected.labels)


def test_missing_and_broken_candidates_say_what_to_type(tmp_path):
    with pytest.raises(UserError, match="fcos predict RUN"):
        read_candidates(tmp_path / "test.safetensors", hint="fcos predict RUN")
    (tmp_path / "test.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage")
    with pytest.raises(UserError, match="not a whole candidates file"):
        read_candidates(tmp_path / "test.safetensors", hint="fcos predict RUN")
