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
    "A training AP far above the test AP indicates overfitting; if both are low, more epochs or another "
    "learning rate may help. Training and validation images are resized as in the test."
)


def validation(study: StudyResults) -> dict[str, Any] | None:
    """Return sentences and a table of AP on the three splits for the page, or None if no run was validated."""
    of_run = {
        name: results.train["validation"] for name, results in study.runs.items() if "validation" in results.train
    }
    if not of_run:
        return None
    rows = [_row(name, study.runs[name], found) for name, found in of_run.items()]
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
        "makes that number optimistic; the test images were not used for it."
    ]


def _ended(study: StudyResults, runs: dict[str, ValidationSummary]) -> list[str]:
    sentences = []
    for name, found in runs.items():
        run = study.params.runs[name]
        planned = run.train.warmup_epochs + (run.epochs or 0)
        if found["epochs"] < planned:
            since = found["epochs"] - found["best_epoch"]
            sentences.append(
                f"{name} ended after epoch {found['epochs']} of {planned}: its AP on the validation images had not "
                f"risen for {since} epochs."
            )
    return sentences
