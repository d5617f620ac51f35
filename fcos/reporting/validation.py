"""Summarise trainings that were validated while they ran."""

from typing import Any

from fcos.errors import names_of
from fcos.records import ValidationSummary
from fcos.reporting.intervals import percent
from fcos.reporting.results import RunResults, StudyResults

HEADER = [
    "run",
    "weights of epoch",
    "epochs trained",
    "AP, training images",
    "AP, validation images",
    "AP, test images",
    "highest AP, validation images",
]
READING = (
    "A training AP far above that on the test images is over-fitting; where both are low, more epochs or another "
    "learning rate may help. Training and validation images are shown as those of the test are."
)


def validation(study: StudyResults) -> dict[str, Any] | None:
    """Return sentences and a table of AP on the three splits for the page, or None if no run was validated."""
    runs = {
        name: (results, results.train["validation"])
        for name, results in study.runs.items()
        if "validation" in results.train
    }
    if not runs:
        return None
    of_run = {name: found for name, (_, found) in runs.items()}
    rows = [_row(name, results, found) for name, (results, found) in runs.items()]
    return {"sentences": [*_picked(of_run), *_ended(study, of_run), READING], "grid": (HEADER, rows)}


def _row(name: str, results: RunResults, found: ValidationSummary) -> list[str]:
    return [
        name,
        str(found["epoch"]),
        str(found["epochs"]),
        f"{percent(found['training_AP'])} ({found['num_training_images']} images)",
        f"{percent(found['AP'])} ({found['num_images']} images)",
        percent(results.metrics["AP"]),
        f"{percent(found['best_AP'])} (epoch {found['best_epoch']})",
    ]


def _picked(runs: dict[str, ValidationSummary]) -> list[str]:
    picked = [name for name, found in runs.items() if found["keep"] == "best"]
    if not picked:
        return []
    return [
        f"The weights of {names_of(picked)} are those of the epoch with the highest AP on the validation images, which "
        "makes that number optimistic; the test images were not looked at for it."
    ]


def _ended(study: StudyResults, runs: dict[str, ValidationSummary]) -> list[str]:
    ended = {
        name: (found, study.params.runs[name].train.warmup_epochs + (study.params.runs[name].epochs or 0))
        for name, found in runs.items()
    }
    return [
        f"{name} ended after epoch {found['epochs']} of {planned}: its AP on the validation images had not risen for "
        f"{found['epochs'] - found['best_epoch']} epochs."
        for name, (found, planned) in ended.items()
        if found["epochs"] < planned
    ]
