"""Paired differences class by class, corrected for the number of classes and pairs.

A difference between two detectors may be one class's; with many classes, some differ by chance, so p-values have
Holm's correction over all classes of all pairs.

Shapes: S seeds, B replicates, K classes, 2 metrics: AP and AP50.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcos.scoring.average_precision import CLASS_METRICS
from fcos.scoring.bootstrap import Drawn, Estimate, Sample, Spread, Support, difference, holm
from fcos.scoring.matching import Floats

METRICS = CLASS_METRICS[:2]


@dataclass(frozen=True, kw_only=True)
class ClassDifferences:
    """`row` minus `other` for each class."""

    row: str
    other: str
    found: Estimate  # (K, 2); the interval holds for this class and pair alone
    corrected_p: Floats  # (K,) of AP, Holm's correction over all classes of all pairs

    def worst_first(self) -> list[int]:
        """Return the labels by the difference in AP, the largest regression first, undefined differences last."""
        order: list[int] = np.argsort(self.found.value[:, 0], kind="stable").tolist()
        return order


def class_sample(of_seeds: Iterable[Sequence[Mapping[str, Any]]], drawn: Sequence[Drawn]) -> Sample:
    """Return the Sample of a row: AP and AP50 of each class, (S, K, 2).

    Args:
        of_seeds: "per_class" of `fcos.scoring.numbers.coco_metrics` for each of S seeds.
        drawn: the replicates (B, K, 4) of each seed.
    """
    values = [
        [[np.nan if of_class[name] is None else of_class[name] for name in METRICS] for of_class in per_class]
        for per_class in of_seeds
    ]
    few = len(METRICS)
    parts = [
        Drawn(of.replicates[..., :few], Support(of.support.inflation[:, :few], of.support.freedom[:, :few]))
        for of in drawn
    ]
    return Sample.of(np.array(values, dtype=float), parts)


def compare_classes(
    rows: Mapping[str, Sample], pairs: Sequence[tuple[str, str]], *, confidence: float, spread: Spread | None
) -> list[ClassDifferences]:
    """Return the differences of each class for each of the `pairs` of rows, the first minus the second.

    All samples must have the same classes and bootstrap samples. Rows of one seed use the `spread` between seeds of
    other rows.
    """
    found = [difference(rows[row], rows[other], confidence=confidence, spread=spread) for row, other in pairs]
    corrected = holm([p for of_pair in found for p in of_pair.p_value[:, 0].tolist()])
    of_pairs = np.array(corrected).reshape(len(pairs), -1)
    return [
        ClassDifferences(row=row, other=other, found=of_pair, corrected_p=p)
        for (row, other), of_pair, p in zip(pairs, found, of_pairs, strict=True)
    ]
