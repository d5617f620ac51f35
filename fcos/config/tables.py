"""`tables`: the tables of the report."""

from typing import Annotated, Literal

from pydantic import Field

from fcos.config.section import Section
from fcos.config.study import Name

# AP, AP50, AP75, APs, APm, APl in percent, as published.
PublishedRow = Annotated[list[float | None], Field(min_length=6, max_length=6)]


class _Table(Section):
    title: str
    published: dict[str, PublishedRow] = {}


class ReferenceTable(_Table):
    """The run with `role: reference`, with its total test time and its time per image."""

    kind: Literal["reference"]


class TrainedTable(_Table):
    """The test metrics of one run."""

    kind: Literal["trained"]
    run: Name


class TtaTable(_Table):
    """One run without and with test-time augmentation."""

    kind: Literal["tta"]
    run: Name


class NmsTable(_Table):
    """One run at each threshold of `nms_sweep`."""

    kind: Literal["nms"]
    run: Name


class RunsTable(_Table):
    """The runs that match `where`, with one row for each value of `vary`."""

    kind: Literal["runs"]
    vary: Literal["backbone", "epochs", "num_convs"]
    where: dict[Literal["backbone", "epochs", "num_convs"], str | int]


class ResultsTable(_Table):
    """The detectors of `results`, which were not trained here, beside some runs."""

    kind: Literal["results"]
    runs: list[Name] = []


Table = Annotated[
    ReferenceTable | TrainedTable | TtaTable | NmsTable | RunsTable | ResultsTable, Field(discriminator="kind")
]
