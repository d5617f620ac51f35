"""`nms_sweep`: the NMS thresholds to compare on stored candidates."""

from typing import Annotated, Literal

from pydantic import Field

from fcos.config.section import Section
from fcos.config.study import Name
from fcos.config.test import Fraction


class NmsSweepConfig(Section):
    thresholds: Annotated[list[Fraction], Field(min_length=1)] = [0.5, 0.6, 0.7]
    # The split that says which threshold is best. On `test`, as the study did, the best score is optimistic.
    choose_on: Literal["test", "validation"] = "test"
    runs: list[Name] = []
