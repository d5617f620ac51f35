"""Judge from the losses whether each training has converged."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fcos.errors import names_of
from fcos.reporting.results import StudyResults

MANY_ERRORS = 2.0  # a difference of more standard errors than this is not attributed to chance


@dataclass(frozen=True)
class LastEpochs:
    """The mean loss of the last epoch and of the one before, and the standard error of their difference."""

    last: float
    before: float
    error: float

    @property
    def falling(self) -> bool:
        """Whether the loss was still falling by more than its noise."""
        return self.before - self.last > MANY_ERRORS * self.error


def last_epochs(history: pd.DataFrame) -> LastEpochs | None:
    """Return the last two epochs of a history, or None without two epochs of at least two steps each."""
    epochs = [epoch["loss"].to_numpy(float) for _, epoch in history.groupby("epoch")][-2:]
    if len(epochs) < 2 or min(map(len, epochs)) < 2:
        return None
    before, last = epochs
    variances = [float(losses.var(ddof=1)) / len(losses) for losses in epochs]
    return LastEpochs(float(last.mean()), float(before.mean()), math.sqrt(sum(variances)))


def convergence(study: StudyResults) -> dict[str, Any] | None:
    """Return a sentence and a table of the last two epochs of each run for the page, or None if no run has two."""
    ends = {name: last_epochs(results.history) for name, results in study.runs.items()}
    known = {name: end for name, end in ends.items() if end is not None}
    if not known:
        return None
    rows = [
        [
            name,
            f"{end.before:.3f}",
            f"{end.last:.3f}",
            f"{100 * (end.last / end.before - 1):+.1f}",
            "yes" if end.falling else "no",
        ]
        for name, end in known.items()
    ]
    header = ["run", "loss, last epoch but one", "loss, last epoch", "change (%)", "still falling"]
    return {"sentence": _sentence(known), "grid": (header, rows)}


def _sentence(ends: dict[str, LastEpochs]) -> str:
    falling = [name for name, end in ends.items() if end.falling]
    below = f"more than {MANY_ERRORS:g} standard errors below that of the epoch before"
    if falling:
        return (
            f"In {len(falling)} of {len(ends)} runs the mean loss of the last epoch was {below}: {names_of(falling)}. "
            "More epochs would lower it further."
        )
    return (
        f"In none of {len(ends)} runs was the mean loss of the last epoch {below}. But the learning rate falls to 0, "
        "which flattens every loss curve, so a longer training may still reach a lower loss."
    )
