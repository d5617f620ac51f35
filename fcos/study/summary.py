"""train.json, which says what a run's weights are and where they come from."""

from typing import Any

from fcos.config.runs import Run
from fcos.formats import write_record
from fcos.study.layout import Layout


def write_summary(layout: Layout, run: Run, *, key: str, digest: str, **more: Any) -> None:
    """Write train.json of `run`, whose weights have the sha256 `digest`."""
    summary = {"training_key": key, "weights_sha256": digest, "params": run.identity(), "role": run.role, **more}
    write_record(layout.run(run.name) / "train.json", summary)
