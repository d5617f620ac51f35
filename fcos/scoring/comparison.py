"""Compare all pairs of rows of a table: paired differences, corrected for their number, and sentences about them.

A row with one training supports a claim about that network, but not about its settings, since another seed may give a
better or worse network. With several trainings per row, the interval includes the spread between them, and the claim
is about the settings (Bouthillier et al., arXiv 2103.03098; Jordan, arXiv 2304.01910).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fcos.scoring.bootstrap import Estimate, Sample, difference, holm, pooled_spread
from fcos.scoring.matching import Floats

LOWEST_P = 1e-3  # 1,000 replicates do not resolve smaller p-values
NETWORKS, ONE_NETWORK = "these networks, over images", "this network, over images"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`row` minus `other`; arrays have one entry for each metric."""

    row: str
    other: str
    trainings: tuple[int, int]  # number of trainings of `row` and `other`
    found: Estimate  # the interval holds for this pair alone
    joint: Estimate  # the intervals hold for all pairs of the table together (Bonferroni)
    corrected_p: Floats  # Holm's correction over the pairs of the table, for each metric
    confidence: float
    identical: bool  # whether all values and replicates are equal
    is_supported: bool  # whether AP has an interval in both rows
    one_network: bool  # whether the rows use the same weights in different ways
    spread_of_others: bool  # whether rows with one training use the spread between seeds of other rows

    def is_significant(self, metric: int) -> bool:
        """Return whether the difference in a metric is significant after Holm's correction."""
        return bool(self.corrected_p[metric] < 1 - self.confidence)

    @property
    def scope(self) -> str:
        """What the difference is a claim about: this network, these networks or their settings."""
        row, other = self.trainings
        if self.one_network:
            return ONE_NETWORK
        if (row, other) == (1, 1) and not self.spread_of_others:
            return NETWORKS
        which = f"{num_trainings(row)} each" if row == other else f"{num_trainings(row)} against {num_trainings(other)}"
        return f"{which}, with the spread between seeds of other rows" if 1 in (row, other) else which

    def sentence(self) -> str:
        """Return the finding and its scope: "a against b: +1.3 AP [0.8, 1.8], significant (Holm p 0.004); ..."."""
        return f"{self.finding()}; {self.scope}" if self.is_judged else self.finding()

    @property
    def is_judged(self) -> bool:
        """Whether the difference has an interval."""
        return not (self.identical or np.isnan(self.joint.low[0]))

    def finding(self) -> str:
        """Return a sentence with the difference in percent, without its scope."""
        value, low, high = (100 * float(part[0]) for part in (self.joint.value, self.joint.low, self.joint.high))
        pair = f"{self.row} against {self.other}"
        if np.isnan(value):
            return f"{pair}: AP is not defined, there are no objects"
        if self.identical:
            return f"{pair}: the two results are the same"
        if np.isnan(low):
            difference = "no difference" if value == 0 else f"{value:+.1f} AP"
            why = "it is the same in every bootstrap sample" if self.is_supported else "an AP has no interval"
            return f"{pair}: {difference}, which cannot be judged: {why}"
        numbers = f"{round(value, 1) + 0.0:+.1f} AP {interval_text(low, high)}"  # + 0.0: no -0.0
        if not self.is_significant(0):
            return f"{pair}: no difference shown, {numbers}"
        return f"{pair}: {numbers}, significant (Holm p {p_text(self.corrected_p[0])})"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition on the AP of each row against the baseline, judged by the lower bound of the interval.

    `margin` is how much lower an AP may be (non-inferiority), as a fraction; None sets no such condition. `better`
    demands that AP is higher.
    """

    margin: float | None
    better: bool

    def failure(self, pair: "Comparison") -> str | None:
        """Return why a row does not pass, or None if it does."""
        low = 0.0 if pair.identical else float(pair.joint.low[0])
        if np.isnan(low):
            return f"{pair.row}: the difference to {pair.other} has no interval"
        if self.margin is not None and low < -self.margin:
            lower = f"{-100 * low:.1f} lower than that of {pair.other}"
            return f"{pair.row}: AP may be {lower}, which exceeds the margin of {100 * self.margin:g}"
        if self.better and low <= 0:
            return f"{pair.row}: an AP higher than that of {pair.other} is not shown"
        return None


def compare_all(
    rows: Mapping[str, Sample],
    *,
    confidence: float,
    one_network: bool = False,
    baseline: str | None = None,
    apart: Collection[str] = (),
) -> list[Comparison]:
    """Return the comparisons of every row with every earlier one, or with the `baseline` only.

    All samples must have the same metrics and bootstrap samples.

    Rows with one training use the spread between seeds of the rows with several trainings, if there are any.

    Args:
        one_network: whether all rows use the same weights.
        apart: rows that are compared with all others, but not with each other.
    """
    if baseline is None:
        pairs = [(b, a) for a, b in combinations(rows, 2) if not (a in apart and b in apart)]
    else:
        pairs = [(row, baseline) for row in rows if row != baseline]
    spread = pooled_spread(rows.values())
    jointly = 1 - (1 - confidence) / max(1, len(pairs))
    found = [difference(rows[row], rows[other], confidence=confidence, spread=spread) for row, other in pairs]
    corrected = _holm_by_column([estimate.p_value for estimate in found])
    return [
        Comparison(
            row=row,
            other=other,
            trainings=(len(rows[row].values), len(rows[other].values)),
            found=of_pair,
            joint=of_pair.at(jointly),
            corrected_p=p,
            confidence=confidence,
            identical=_are_identical(rows[row], rows[other]),
            is_supported=not any(np.isnan(rows[name].support.inflation[0]) for name in (row, other)),
            one_network=one_network,
            spread_of_others=spread is not None,
        )
        for (row, other), of_pair, p in zip(pairs, found, corrected, strict=True)
    ]


def interval_text(low: float, high: float) -> str:
    """Return an interval in percent as "[0.8, 1.8]", or "[0.03, 0.9]" where one decimal would show 0."""
    return "[" + ", ".join(f"{end:.1g}" if 0 < abs(end) < 0.05 else f"{end:.1f}" for end in (low, high)) + "]"


def num_trainings(count: int) -> str:
    """Return the count in words: one training, two trainings, 12 trainings."""
    words = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
    return f"{words.get(count, str(count))} training{'' if count == 1 else 's'}"


def p_text(p: float) -> str:
    """Format a p-value; NaN becomes a dash."""
    if np.isnan(p):
        return "—"
    return f"< {LOWEST_P:g}" if p < LOWEST_P else f"{p:.2g}"


def _are_identical(one: Sample, other: Sample) -> bool:
    return all(
        np.array_equal(getattr(one, part), getattr(other, part), equal_nan=True) for part in ("values", "replicates")
    )


def _holm_by_column(p_values: Sequence[Floats]) -> list[Floats]:
    if not p_values:
        return []
    columns = [holm(column.tolist()) for column in np.stack(p_values, axis=1)]
    return list(np.array(columns).T)
