"""All pairs of the rows of a table: paired differences, corrected for their number, and what they support in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fcos.scoring.bootstrap import Estimate, Sample, difference, holm
from fcos.scoring.matching import Floats


@dataclass(frozen=True)
class Comparison:
    """`row` minus `other`; arrays have one entry for each metric."""

    row: str
    other: str
    found: Estimate
    corrected_p: Floats  # Holm's, over the pairs of the table, for each metric
    confidence: float

    def is_significant(self, metric: int) -> bool:
        return bool(self.corrected_p[metric] < 1 - self.confidence)

    def sentence(self) -> str:
        """What the data support, in percent, such as "a against b: +1.3 AP [0.8, 1.8], significant (Holm p 0.0004)"."""
        value, low, high = (100 * part[0] for part in (self.found.value, self.found.low, self.found.high))
        pair = f"{self.row} against {self.other}"
        if np.isnan(value):
            return f"{pair}: AP is not defined, there are no objects"
        if np.isnan(low):
            difference = "no difference" if value == 0 else f"{value:+.1f} AP"
            return f"{pair}: {difference}, which cannot be judged: it is the same under every draw of the images"
        if not self.is_significant(0):
            return f"{pair}: no difference shown; at most {max(abs(low), abs(high)):.1f} AP either way"
        p = p_text(self.corrected_p[0])
        return f"{pair}: {value:+.1f} AP [{low:.1f}, {high:.1f}], significant (Holm p {p})"


def compare_all(rows: Mapping[str, Sample], *, confidence: float) -> list[Comparison]:
    """Every later row against every earlier one; their samples hold the same metrics under the same draws."""
    pairs = [(later, earlier) for earlier, later in combinations(rows, 2)]
    found = [difference(rows[row], rows[other], confidence=confidence) for row, other in pairs]
    corrected = _holm_by_column([estimate.p_value for estimate in found])
    return [Comparison(*pair, e, p, confidence) for pair, e, p in zip(pairs, found, corrected, strict=True)]


def p_text(p: float) -> str:
    """A dash for what is not defined."""
    if np.isnan(p):
        return "—"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _holm_by_column(p_values: Sequence[Floats]) -> list[Floats]:
    if not p_values:
        return []
    columns = [holm(column.tolist()) for column in np.stack(p_values, axis=1)]
    return list(np.array(columns).T)
