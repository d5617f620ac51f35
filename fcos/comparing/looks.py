"""What `fcos compare` can look at besides AP: a score threshold (`--at-score`) and slices of the images (`--slices`).

A look sees the matches of each file while they are scored, and adds what it found to the content of comparison.json.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fcos.comparing.classes import class_differences_json, per_class_json
from fcos.data.groups import group_names
from fcos.errors import UserError
from fcos.scoring.average_precision import score
from fcos.scoring.bootstrap import Drawn, Sample, Support, difference, draw_weights, estimate, holm, pooled_spread
from fcos.scoring.class_comparison import METRICS, compare_classes
from fcos.scoring.matching import Bools, Ints, Matches, ResultTable, match_table
from fcos.scoring.numbers import estimate_json
from fcos.scoring.operating import NAMES, OperatingPoint, operating_point
from fcos.scoring.support import drawn_metrics
from fcos.scoring.truth import Truth

Content = dict[str, Any]
BEST = "best"
SLICE = ("name", "num_images", "num_objects")
_MOST_SLICES = 50
_INTERVAL = ("low", "high", "standard_error")


class Look(Protocol):
    """Sees the matches of each file and adds to the content of a comparison."""

    def see(self, row: str, matches: Matches, weights: Ints, groups: Ints | None) -> None:
        """Look at one file of a row.

        Args:
            weights: (B, I) bootstrap samples of the images.
            groups: (I,) numbers from 0 of the images that are resampled together.
        """

    def add_to(self, content: Content, confidence: float) -> None:
        """Add what was seen to `content` (comparison.json), which has its rows and differences."""


class AtScore:
    """Precision, recall and F1 of each row with a score threshold.

    Args:
        said: `best`, a threshold for all rows, or NAME=THRESHOLD for one row.
        names: the names of the rows.

    Raises:
        UserError: it says no number, names no row, or leaves a row without a threshold or with two.
    """

    def __init__(self, said: Sequence[str], names: Sequence[str]) -> None:
        self.thresholds = _thresholds(said, names)
        self.points: dict[str, list[OperatingPoint]] = defaultdict(list)
        self.iou = 0.0

    def see(self, row: str, matches: Matches, weights: Ints, groups: Ints | None) -> None:
        self.points[row].append(operating_point(matches, weights, self.thresholds[row], groups))
        self.iou = float(matches.protocol.iou_thresholds[0])

    def add_to(self, content: Content, confidence: float) -> None:
        samples = {name: _sample(points) for name, points in self.points.items()}
        spread = pooled_spread(samples.values())
        for row in content["rows"]:
            found = estimate(samples[row["name"]], confidence=confidence, spread=spread)
            row["operating_point"] = {
                **self._said(row["name"], confidence),
                **estimate_json(found, NAMES, ("value", *_INTERVAL)),
            }
        pairs = [(pair["first"], pair["second"]) for pair in content["differences"]]
        differences = [difference(samples[a], samples[b], confidence=confidence, spread=spread) for a, b in pairs]
        f1 = NAMES.index("F1")
        corrected = holm([float(of.p_value[f1]) for of in differences])
        for pair, of, p in zip(content["differences"], differences, corrected, strict=True):
            numbers = estimate_json(of, NAMES, ("value", *_INTERVAL, "p_value"))["F1"]
            p_holm = None if p != p else p
            pair["F1"] = {"difference": numbers.pop("value"), **numbers, "p_holm": p_holm}

    def _said(self, name: str, confidence: float) -> Content:
        points = self.points[name]
        said: Content = {"iou": round(self.iou, 10), "score_thresholds": [point.threshold for point in points]}
        if self.thresholds[name] is not None:
            return {**said, "chosen": "given", "best_threshold": None}
        low, high = (points[0].best_interval(confidence) if len(points) == 1 else None) or (None, None)
        return {**said, "chosen": "highest F1 on these images", "best_threshold": {"low": low, "high": high}}


def _thresholds(said: Sequence[str], names: Sequence[str]) -> dict[str, float | None]:
    """Return the threshold of each row; None: the best one."""
    texts: dict[str, str] = {}
    for text in said:
        name, equals, _ = text.rpartition("=")
        if equals and name not in names:
            raise UserError(f"--at-score {text}", "no such row", found=name, expected=f"one of {', '.join(names)}")
        if name in texts:
            expected = "one threshold for all rows, and one for a row: NAME=SCORE"
            raise UserError(f"--at-score {text}", "is a second threshold", found=texts[name], expected=expected)
        texts[name] = text
    without = [name for name in names if name not in texts and "" not in texts]
    if without:
        hint = f"--at-score {without[0]}=best"
        raise UserError("--at-score", "not all rows have a threshold", found=f"none for {without[0]}", hint=hint)
    return {name: _threshold(texts.get(name, texts.get("", ""))) for name in names}


def _threshold(text: str) -> float | None:
    value = text.rpartition("=")[2]
    if value == BEST:
        return None
    try:
        found = float(value)
    except ValueError:
        found = np.nan
    if not np.isfinite(found):
        expected = "best, a score such as 0.5, or NAME=SCORE"
        raise UserError(f"--at-score {text}", "is no score", found=value, expected=expected)
    return found


def _sample(points: Sequence[OperatingPoint]) -> Sample:
    return Sample.of(np.stack([point.values for point in points]), [point.drawn for point in points])


class Slices:
    """AP and AP50 of each slice of the images, with its differences: what `compare` says of these images alone.

    Args:
        by: as for `--groups`: a key of the images in the ground truth, a number of leading characters of their names, a
            mark in them, or a CSV file.
        replicates, seed: of the bootstrap samples of each slice.

    Raises:
        UserError: an image is in no slice, all are in the same, or there are more than fifty.
    """

    def __init__(self, by: str, truth: Truth, *, replicates: int, seed: int) -> None:
        self.by, self.replicates, self.seed = by, replicates, seed
        self.samples: dict[str, list[tuple[Any, Drawn]]] = defaultdict(list)
        where = f"--slices {self.by}"
        table = Path(by) if Path(by).is_file() else None
        self.of_image: list[str] = group_names(by, truth.members, where, table)
        self.names: list[str] = sorted(set(self.of_image))
        if len(self.names) > _MOST_SLICES:
            expected = f"at most {_MOST_SLICES}"
            hint = "slices are few parts of the images; --groups is for many"
            raise UserError(where, "too many slices", found=len(self.names), expected=expected, hint=hint)
        counted = np.array(self.of_image)[truth.objects.image[~truth.objects.ignored[:, 0]]].tolist()
        self.rows: list[Content] = [
            {"name": name, "num_images": self.of_image.count(name), "num_objects": counted.count(name)}
            for name in self.names
        ]

    def see(self, row: str, matches: Matches, weights: Ints, groups: Ints | None) -> None:  # noqa: ARG002
        found = [self._of_slice(matches, np.array(self.of_image) == name, groups) for name in self.names]
        values = np.stack([values for values, _ in found])
        supports = [drawn.support for _, drawn in found]
        support = Support(np.stack([of.inflation for of in supports]), np.stack([of.freedom for of in supports]))
        self.samples[row].append((values, Drawn(np.stack([of.replicates for _, of in found], axis=1), support)))

    def _of_slice(self, matches: Matches, inside: Bools, groups: Ints | None) -> tuple[Any, Drawn]:
        """Return AP and AP50 (2,) on the images `inside` (I,), and their replicates (B, 2)."""
        part = within(matches, inside)
        own = None if groups is None else np.unique(groups[inside], return_inverse=True)[1]
        samples = draw_weights(part.truth.num_images, replicates=self.replicates, seed=self.seed, groups=own)
        few = len(METRICS)
        value = score(part, np.ones((1, part.truth.num_images))).metrics()[0, :few]
        drawn = drawn_metrics(score(part, samples), part, own)
        support = Support(drawn.support.inflation[:few], drawn.support.freedom[:few])
        return value, Drawn(drawn.replicates[:, :few], support)

    def add_to(self, content: Content, confidence: float) -> None:
        samples = {
            name: Sample.of(np.stack([values for values, _ in of]), [drawn for _, drawn in of])
            for name, of in self.samples.items()
        }
        spread = pooled_spread(samples.values())
        for row in content["rows"]:
            sample = samples[row["name"]]
            row["slices"] = per_class_json(self.rows, sample, confidence=confidence, spread=spread, keys=SLICE)
        pairs = [(pair["first"], pair["second"]) for pair in content["differences"]]
        found = compare_classes(samples, pairs, confidence=confidence, spread=spread)
        for pair, of_pair in zip(content["differences"], found, strict=True):
            pair |= class_differences_json(of_pair, self.rows, confidence, keys=SLICE, what=("slice", "slices"))
        content["slices_by"] = self.by


def within(matches: Matches, inside: Bools) -> Matches:
    """Return the matches on the images `inside` (I,) alone."""
    truth, place = matches.truth, np.cumsum(inside) - 1
    objects, detections = inside[truth.image], inside[matches.image]
    part = type(truth)(
        image_ids=truth.image_ids[inside],
        category_ids=truth.category_ids,
        image=place[truth.image[objects]],
        label=truth.label[objects],
        boxes_xywh=truth.boxes_xywh[objects],
        crowd=truth.crowd[objects],
        ignored=truth.ignored[objects],
    )
    table = ResultTable(
        image=place[matches.image[detections]],
        label=matches.label[detections],
        boxes_xywh=matches.boxes_xywh[detections],
        score=matches.score[detections],
    )
    return match_table(table, part, matches.protocol)
