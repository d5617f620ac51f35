"""Write train.json, which identifies a run's weights and their origin."""

from fcos.config.runs import Run
from fcos.formats import write_record
from fcos.records import Provenance, TrainSummary, ValidationSummary
from fcos.study.layout import Layout


def write_summary(
    layout: Layout,
    run: Run,
    *,
    key: str,
    digest: str,
    imported_from: str | None,
    provenance: Provenance,
    start_digest: str | None = None,
    validation: ValidationSummary | None = None,
) -> None:
    """Write train.json of `run`, whose weights have the sha256 `digest`."""
    summary: TrainSummary = {
        "training_key": key,
        "weights_sha256": digest,
        "params": run.identity(),
        "role": run.role,
        "imported_from": imported_from,
        "provenance": provenance,
    }
    if start_digest is not None:
        summary["start_sha256"] = start_digest
    if validation is not None:
        summary["validation"] = validation
    write_record(layout.run(run.name) / "train.json", summary)
