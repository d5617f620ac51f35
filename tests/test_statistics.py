"""Matching, weights, intervals: bit for bit against pycocotools, against a data set with repeated images, by hand."""

import contextlib
import io
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from coco_oracle import coco_eval
from pycocotools.coco import COCO
from random_truth import make_results, make_truth

from fcos.data.coco import CocoSplit
from fcos.reporting.report_table import mark_of
from fcos.scoring.average_precision import METRICS, Scores, precision_at_recall, score
from fcos.scoring.bootstrap import Sample, Support, difference, draw_weights, estimate, holm, pooled_spread
from fcos.scoring.comparison import compare_all, interval_text
from fcos.scoring.matching import GroundTruth, match
from fcos.scoring.numbers import coco_metrics, with_intervals
from fcos.scoring.power import needed
from fcos.scoring.support import draws_of, without_interval


def coco_eval_of(split, results):
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = {"images": split.images, "categories": split.categories,
                         "annotations": [dict(a) for a in split.annotations]}  # fmt: skip
        truth.createIndex()
        found.dataset = {**truth.dataset, "annotations": [
            {**r, "id": n, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0} for n, r in enumerate(results, start=1)
        ]}  # fmt: skip
        found.createIndex()
    return coco_eval(truth, found)


def sample_of_many(values, replicates):
    """Return support from so many images that it needs no correction."""
    shape = values.shape[1:]
    return Sample(values, replicates, Support(np.ones(shape), np.full(shape, np.inf)))


def assert_equal_to_coco_eval(split, results):
    """Bit for bit: every precision of every class, area range and threshold, and the twelve numbers."""
    expected = coco_eval_of(split, results)
    matches = match(results, split)
    np.testing.assert_array_equal(precision_at_recall(matches), expected.eval["precision"][..., 2])
    numbers = coco_metrics(matches, split)["metrics"]
    assert numbers == {n: None if v == -1 else v for n, v in zip(METRICS, expected.stats.tolist(), strict=True)}
    # With weights, as for replicates: equal except for the order of additions.
    once = score(matches, np.ones((1, len(split.images)))).metrics()[0]
    assert np.where(np.isnan(once), -1, once) == pytest.approx(expected.stats, abs=1e-12)
    return expected


@pytest.mark.parametrize("seed", range(30))
def test_equal_to_coco_eval_with_ties_crowds_and_edges(seed):
    rng = random.Random(seed)
    split = make_truth(rng, crowd=rng.choice([0, 0.15, 0.5]))
    expected = assert_equal_to_coco_eval(split, make_results(rng, split))
    assert 0.01 < expected.stats[0] < 0.9


def test_equal_to_coco_eval_with_more_than_a_hundred_detections():
    rng = random.Random(0)
    split = make_truth(rng, images=3)
    results = make_results(rng, split, noise=500)
    assert max(sum(r["image_id"] == i and r["category_id"] == 2 for r in results) for i in (3, 5, 7)) > 100
    assert_equal_to_coco_eval(split, results)


def test_equal_to_coco_eval_where_there_is_nothing():
    split = make_truth(random.Random(1))
    assert_equal_to_coco_eval(split, [])
    only_empty = [r for r in make_results(random.Random(2), split) if r["category_id"] == 9]
    assert only_empty
    assert_equal_to_coco_eval(split, only_empty)
    no_objects = CocoSplit(split.images, split.categories, [], Path())
    assert coco_metrics(match(only_empty, no_objects), no_objects)["metrics"] == dict.fromkeys(METRICS)


def test_equal_to_coco_eval_at_an_iou_on_the_threshold():
    """A box of 10 x 10 against 10 x 20 has an IoU of exactly 0.5; 19 of 20 rows give 0.95."""
    for height in (5.0, 9.5):
        split = CocoSplit(
            [{"id": 1, "file_name": "1", "width": 50, "height": 50}],
            [{"id": 1, "name": "a"}],
            [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}],
            Path(),
        )
        assert_equal_to_coco_eval(split, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, height], "score": 1.0}])


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_counts_an_image_so_many_times(seed):
    """Weights give the same metrics as a data set that repeats image i weight[i] times."""
    rng = random.Random(seed)
    split = make_truth(rng)
    results = make_results(rng, split)
    for result in results:  # no ties, since ties between copies of an image are ordered differently
        result["score"] = rng.random()
    weights = [rng.choice([0, 1, 1, 2, 3]) for _ in split.images]
    images, annotations, repeated = [], [], []
    for image, weight in zip(split.images, weights, strict=True):
        for copy in range(weight):
            new = {"image_id": image["id"] * 10 + copy}
            images.append({**image, "id": new["image_id"]})
            annotations += [{**a, **new} for a in split.annotations if a["image_id"] == image["id"]]
            repeated += [{**r, **new} for r in results if r["image_id"] == image["id"]]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    expected = coco_eval_of(CocoSplit(images, split.categories, annotations, Path()), repeated).stats
    found = score(match(results, split), [weights]).metrics()[0]
    assert np.where(np.isnan(found), -1, found) == pytest.approx(expected, abs=1e-12)


def test_draws_are_images_with_replacement():
    weights = draw_weights(50, replicates=400, seed=3)
    assert weights.shape == (400, 50) and (weights.sum(axis=1) == 50).all()
    # A bootstrap sample leaves an image out with probability (1 - 1/50)^50 = 0.364; 20,000 cells: s.d. 0.003.
    assert (weights == 0).mean() == pytest.approx(0.364, abs=0.015)
    assert (weights == draw_weights(50, replicates=400, seed=3)).all()
    assert (weights != draw_weights(50, replicates=400, seed=4)).any()


def test_interval_by_hand():
    """Replicates 0.4, 0.5, 0.6 (s.d. 0.1, mean 0.5) of a value of 0.45: bias 0.05, so 0.40 -+ 1.96 * 0.1 as
    a difference.

    Of a number between 0 and 1: 0.45 * 0.55 / 0.1^2 = 24.75 trials, of which the share 0.40 has Wilson's interval
    (24.75 * 0.4 + 1.9208) / 28.5915 = 0.4134 -+ 1.96 / 28.5915 * sqrt(24.75 * 0.24 + 0.9604) = 0.1801.
    """
    number = sample_of_many(np.array([[0.45]]), np.array([[[0.4], [0.5], [0.6]]]))
    nothing = sample_of_many(np.array([[0.0]]), np.zeros((1, 3, 1)))
    apart = difference(number, nothing, confidence=0.95)
    assert (apart.low.item(), apart.high.item()) == pytest.approx((0.204, 0.596), abs=1e-3)
    found = estimate(sample_of_many(np.array([[0.45]]), np.array([[[0.4], [0.5], [0.6]]])), confidence=0.95)
    assert found.value == 0.45
    assert (found.low.item(), found.high.item()) == pytest.approx((0.2333, 0.5935), abs=1e-4)
    # z = 0.40 / 0.1 = 4: two-sided p = 6.33e-5
    assert found.p_value.item() == pytest.approx(6.334e-5, rel=1e-3)


def test_a_paired_difference_is_much_surer_than_its_two_sides():
    common = np.random.default_rng(0).normal(0, 0.02, size=(1, 2000, 1))
    own = np.random.default_rng(1).normal(0, 0.002, size=(1, 2000, 1))
    one, other = (
        sample_of_many(np.array([[0.40]]), 0.40 + common),
        sample_of_many(np.array([[0.39]]), 0.39 + common + own),
    )
    found = difference(one, other, confidence=0.95)
    assert found.value.item() == pytest.approx(0.01)
    assert found.standard_error.item() == pytest.approx(0.002, rel=0.1)
    assert found.p_value.item() < 1e-5


def test_what_does_not_vary_cannot_be_judged():
    """Replicates that differ only by rounding have no interval and no p, however large the difference."""
    rounding = np.array([[[0.3], [0.3 + 1e-16], [0.3 - 1e-16]]])
    found = difference(
        sample_of_many(np.array([[0.6]]), 2 * rounding), sample_of_many(np.array([[0.3]]), rounding), confidence=0.95
    )
    assert found.value.item() == pytest.approx(0.3)
    assert all(np.isnan(part.item()) for part in (found.low, found.high, found.p_value))


def test_seeds_add_their_variance_and_students_t():
    """Three seeds of 0.30, 0.32, 0.34 (s.d. 0.02) and images that add nothing: 0.32 -+ t(2) * 0.02 / sqrt(3).

    t(2) at 97.5 % is 4.3027: 0.32 * 0.68 * 3 / 0.02^2 = 1632 trials, of which Wilson's interval with 4.3027 for 1.96 is
    (1632 * 0.32 + 9.257) / 1650.5 = 0.3220 -+ 4.3027 / 1650.5 * sqrt(1632 * 0.2176 + 4.628) = 0.0494.
    """
    values = np.array([[0.30], [0.32], [0.34]])
    found = estimate(sample_of_many(values, np.repeat(values[:, None], 10, axis=1)), confidence=0.95)
    assert (found.low.item(), found.high.item()) == pytest.approx((0.2726, 0.3715), abs=1e-4)
    # Images with s.d. 0.1 dominate the seeds, so this is again the normal quantile, of sqrt(0.1^2 + 0.02^2 / 3).
    noise = np.random.default_rng(0).normal(size=(1, 4000, 1))
    noise = 0.1 * (noise - noise.mean()) / noise.std(ddof=1)
    nothing = sample_of_many(np.array([[0.0]]), np.zeros((1, 4000, 1)))
    wide = difference(sample_of_many(values, values[:, None] + noise), nothing, confidence=0.95)
    assert wide.half_width.item() == pytest.approx(1.96 * math.sqrt(0.01 + 0.0004 / 3), rel=1e-3)


def draws_with(images, *, means, looked_for=()):
    """Three draws of classes on so many images each; draws vary by 0.02, the last of several images the other way."""
    sign = np.array([0.02 * (count > 1) for count in images])
    sign[np.flatnonzero(sign)[-1]] *= -1
    values = np.array(means) + np.array([[-1.0], [0.0], [1.0]]) * sign
    values[:, np.array(images) == 0] = np.nan
    image = np.concatenate([np.arange(count) for count in images])
    truth = GroundTruth(
        image_ids=np.arange(max(images)),
        category_ids=np.arange(len(images)),
        image=image,
        label=np.repeat(np.arange(len(images)), images),
        boxes_xywh=np.ones((len(image), 4)),
        crowd=np.zeros(len(image), dtype=bool),
        ignored=np.zeros((len(image), 4), dtype=bool),
    )
    ap = np.broadcast_to(values[:, :, None, None], (*values.shape, 4, 10))
    scores = Scores(ap=ap, recall=ap, recall_1=ap[:, :, 0], recall_10=ap[:, :, 0])
    labels = np.array([*np.flatnonzero(images), *looked_for])
    return draws_of(scores, SimpleNamespace(truth=truth, label=labels))


def test_support_by_hand():
    """Four classes on five images, one on a single one, one on none, AP 0.4, 0.5, 0.6, 0.7, 0.3 and unknown.

    The mean's draws vary by (0.02 (3 - 1) / 5)^2 = 6.4e-5. Variances of the classes: 0.0004 * 5/4 = 5e-4 each, so
    2e-5 of the mean of five; of an image, 5 * 5e-4 = 2.5e-3, which the single one takes: 1e-4. The five AP vary by
    0.025: that of the sixth is worth (1/6)^2 * 0.025 * (1 + 1/5) = 8.333e-4. In all 1.01333e-3 where the draws of the
    classes show 4 * 0.0004 / 25 = 6.4e-5: 1 + 9.4933e-4 / 6.4e-5 = 15.833 times. Satterthwaite, each with four degrees:
    1.01333e-3^2 / ((4 * 2e-5^2 + 1e-4^2 + 8.333e-4^2) / 4) = 5.817.
    """
    means = [0.4, 0.5, 0.6, 0.7, 0.3, 0]
    drawn, classes = draws_with([5, 5, 5, 5, 1, 0], means=means, looked_for=[5])
    assert drawn.support.inflation == pytest.approx(15.833, rel=1e-3)
    assert drawn.support.freedom == pytest.approx(5.817, rel=1e-3)
    assert classes.support.inflation[:4] == pytest.approx(1.25) and np.isnan(classes.support.inflation[4:]).all()
    # The sixth has no detections: 1 + (1.8e-4 - 6.4e-5) / 6.4e-5.
    assert draws_with([5, 5, 5, 5, 1, 0], means=means)[0].support.inflation == pytest.approx(2.8125)
    # One class on ten images: 10/9, nine degrees of freedom.
    one, _ = draws_with([10], means=[0.5])
    assert (one.support.inflation, one.support.freedom) == (pytest.approx(10 / 9), pytest.approx(9))
    found = estimate(Sample.of(np.full((1, 12), 0.5), [one]), confidence=0.95)
    assert found.standard_error == pytest.approx(0.02 * math.sqrt(10 / 9)) and found.freedom == pytest.approx(9)


@pytest.mark.parametrize(
    ("images", "means", "reasons"),
    [
        ([9, 9, 4], [0.5, 0.6, 0.4], {"no_interval_few_images": 12}),
        ([9, 9, 9, 9, 4], [0.5] * 5, {}),
        ([9, 9, 9], [0.95, 0.95, 0.95], {"no_interval_near_100": 6}),  # only AP metrics; a recall may be near 1
    ],
)
def test_numbers_without_an_interval_say_why(images, means, reasons):
    drawn, _ = draws_with(images, means=means)
    assert {finding.kind: finding.count for finding in without_interval(drawn, METRICS)} == reasons
    sample = Sample.of(np.array(means[:1] * 12)[None], [drawn])
    assert np.isnan(estimate(sample, confidence=0.95).low).sum() == sum(reasons.values())


def test_holm_by_hand():
    """Four p-values: the smallest times 4, the next times 3 ..., never falling; what is not defined does not count."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.01, float("nan"), 0.5])
    assert corrected[0] == 0.02 and math.isnan(corrected[1]) and corrected[2] == 0.5


def test_intervals_stand_beside_the_numbers():
    rng = random.Random(0)
    split = make_truth(rng, images=40)
    # Class 9 has neither objects nor detections, so the mean excludes it.
    matches = match([result for result in make_results(rng, split) if result["category_id"] != 9], split)
    numbers = coco_metrics(matches, split)
    drawn, classes = draws_of(score(matches, draw_weights(40, replicates=300, seed=0)), matches)
    found = with_intervals(numbers, drawn, classes, confidence=0.95)
    assert found["metrics"] == numbers["metrics"]
    interval = found["intervals"]["AP"]
    assert interval["low"] < numbers["metrics"]["AP"] < interval["high"]
    assert interval["high"] - interval["low"] == pytest.approx(2 * 1.96 * interval["standard_error"], rel=0.1)
    assert found["per_class"][2]["intervals"]["AP"] == {"low": None, "high": None, "standard_error": None}
    narrow = with_intervals(numbers, drawn, classes, confidence=0.5)["intervals"]["AP"]
    assert narrow["high"] - narrow["low"] < 0.4 * (interval["high"] - interval["low"])


def test_intervals_of_three_seeds_cover_the_truth():
    """2,000 rows of three trainings: their mean lies within its interval of the truth 95 % of the time.

    Seeds spread by 0.4 (s.d.), images by 0.6, replicates are biased by 0.5 and so is what is measured. 2,000 rows tell
    95 % to +-1 % (two standard errors); Satterthwaite's approximation is allowed another one.
    """
    generator = np.random.default_rng(0)
    rows, bias = 2000, 0.5
    of_images = generator.normal(bias, 0.6, size=rows)
    values = of_images + generator.normal(0, 0.4, size=(3, rows))
    replicates = values[:, None] + generator.normal(bias, 0.6, size=(1, 400, rows))
    values, replicates = (0.5 + 0.01 * part for part in (values, replicates))  # a number between 0 and 1
    found = estimate(sample_of_many(values, replicates), confidence=0.95)
    covered = ((found.low <= 0.5) & (found.high >= 0.5)).mean()
    assert 0.93 <= covered <= 0.97
    # Without the seeds the interval would be too narrow: sqrt(0.36) instead of sqrt(0.36 + 0.16 / 3).
    naive = estimate(sample_of_many(values.mean(axis=0, keepdims=True), replicates.mean(axis=0)[None]), confidence=0.95)
    assert ((naive.low <= 0.5) & (naive.high >= 0.5)).mean() < covered - 0.01


def test_a_paired_test_of_two_rows_of_three_seeds_keeps_its_level():
    """Without a difference except that of seeds, at most about one test in twenty is significant."""
    generator = np.random.default_rng(1)
    rows = 2000
    common = generator.normal(0, 0.6, size=(1, 300, rows))
    samples = []
    for _ in range(2):
        values = generator.normal(0, 0.4, size=(3, rows))
        samples.append(sample_of_many(values, values[:, None] + common))
    p = difference(*samples, confidence=0.95).p_value
    assert 0.03 <= (p < 0.05).mean() <= 0.065


def test_what_seeds_do_not_share_is_counted_once():
    """Two rows of three trainings, no difference: as in test sets, each training errs in its own way on the images.

    Shared by all, s.d. 0.6; a training's own over images, 0.5; of seeds, 0 or 0.4. The true standard error of the
    difference is sqrt(2 (0.25 + 0.16) / 3) = 0.52 with seeds that matter, and 0.41 without. Counting a training's own
    part twice gives 0.66 and 0.58; 5 % of 2,000 rows are told to +-1 %.
    """
    generator = np.random.default_rng(2)
    rows, draws = 2000, 300
    for of_seeds, expected in ((0.4, math.sqrt(2 * (0.25 + 0.16) / 3)), (0.0, math.sqrt(2 * 0.25 / 3))):
        common = generator.normal(0, 0.6, size=(1, draws, rows))
        samples = []
        for _ in range(2):
            values = generator.normal(0, of_seeds, size=(3, rows)) + generator.normal(0, 0.5, size=(3, rows))
            own = generator.normal(0, 0.5, size=(3, draws, rows))
            samples.append(sample_of_many(values, values[:, None] + common + own))
        found = difference(*samples, confidence=0.95)
        assert np.sqrt((found.standard_error**2).mean()) == pytest.approx(expected, rel=0.05)
        assert (found.p_value < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_an_interval_of_ap_stays_between_0_and_1():
    """79.2 AP with an error of 17.9 would reach to 114.3; a difference may reach beyond 1.

    0.792 * 0.208 / 0.179^2 = 5.14 trials; Wilson: (5.14 * 0.792 + 1.921) / 8.983 = 0.667 -+ 0.2938.
    """
    noise = np.random.default_rng(0).normal(size=500)
    replicates = (0.792 + 0.179 * (noise - noise.mean()) / noise.std(ddof=1))[None, :, None]
    sample = sample_of_many(np.array([[0.792]]), replicates)
    found = estimate(sample, confidence=0.95)
    assert (found.low[0], found.high[0]) == pytest.approx((0.3733, 0.9609), abs=1e-3)
    zero = sample_of_many(np.array([[0.0]]), np.zeros((1, 500, 1)))
    assert difference(sample, zero, confidence=0.95).high[0] == pytest.approx(1.143, abs=1e-3)


def test_a_row_of_one_training_takes_the_spread_of_the_others():
    """s.d. 1 of three trainings: of one, 1; of the mean of three, 1 / sqrt(3)."""
    several, one = (
        sample_of_many(values, np.repeat(values[:, None], 50, axis=1))
        for values in (np.array([[1.0], [2], [3]]), np.array([[5.0]]))
    )
    spread = pooled_spread([several, one])
    assert spread is not None and spread.variance.tolist() == [1.0] and spread.freedom == 2
    assert estimate(one, confidence=0.95, spread=spread).standard_error[0] == pytest.approx(1)
    found = difference(one, several, confidence=0.95, spread=spread)
    assert found.standard_error[0] == pytest.approx(math.sqrt(1 + 1 / 3))
    # Satterthwaite: (4/3)^2 / (1/2 + (1/9)/2) = 3.2 degrees of freedom, for which t is 3.07.
    assert found.high[0] - 3 == pytest.approx(3.07 * math.sqrt(4 / 3), rel=0.005)
    assert pooled_spread([one]) is None


def rows_for_power(of_images, of_seeds):
    """Return two rows of `len(of_seeds)` trainings whose difference has this s.d. over images, in AP."""
    noise = np.random.default_rng(0).normal(size=400)
    noise = 0.01 * of_images * (noise - noise.mean()) / noise.std(ddof=1)
    values = 0.4 + 0.01 * np.array(of_seeds)[:, None]
    flat = np.full((len(of_seeds), 400, 1), 0.4)
    return {"a": sample_of_many(values, flat + noise[None, :, None]), "b": sample_of_many(values, flat)}


def test_how_much_would_show_one_ap():
    # (1.96 + 0.84)^2 = 7.85 times the variance of 4 AP^2 over 100 images.
    one = needed(rows_for_power(2.0, [0.0]), 100, confidence=0.95)
    assert one.images == 3140 and one.trainings is None and "no row has several" in one.sentence()
    # Seeds of s.d. 1 and images of 0.1: t(0.975) + t(0.8) of 2 (n - 1) degrees, squared, times 0.01 + 2 / n. For n = 18
    # (2.03 + 0.85)^2 * 0.121 = 1.01, for n = 19 (2.03 + 0.85)^2 * 0.115 = 0.96.
    several = needed(rows_for_power(0.1, [-1.0, 0.0, 1.0]), 100, confidence=0.95)
    assert several.images == 8 and several.trainings == 19
    assert "comparing two settings takes 19 trainings per row on the present test images" in several.sentence()
    never = needed(rows_for_power(2.0, [-1.0, 0.0, 1.0]), 100, confidence=0.95)
    assert never.trainings is None and "no number of trainings is enough" in never.sentence()
    same = needed(rows_for_power(0.0, [0.0]), 100, confidence=0.95)
    assert same.images is None and "is unknown" in same.sentence()


def test_an_end_of_an_interval_that_is_not_0_does_not_look_like_it():
    assert interval_text(0.03, 0.94) == "[0.03, 0.9]" and interval_text(-0.004, 0.0) == "[-0.004, 0.0]"
    assert interval_text(-12.34, 0.05) == "[-12.3, 0.1]"


def test_a_difference_without_an_interval_is_not_called_not_significant():
    noise = 0.01 * np.random.default_rng(0).normal(size=(1, 400, 1))
    low = sample_of_many(np.array([[0.5]]), 0.5 + noise)
    same = sample_of_many(np.array([[0.502]]), 0.502 + noise[:, ::-1])
    support = replace(low.support, inflation=np.full_like(low.support.inflation, np.nan))  # as for an AP above 90
    rows = {"low": low, "same": same, "unknown": replace(same, support=support)}
    marks = {(pair.other, pair.row): mark_of(pair, 0) for pair in compare_all(rows, confidence=0.95)}
    assert marks["low", "same"] == "(n.s.)" and marks["low", "unknown"] == "(not tested)"
