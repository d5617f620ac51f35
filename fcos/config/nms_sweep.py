"""`nms_sweep`: the NMS thresholds to compare on stored candidates."""

from typing import Annotated, Literal

from pydantic import Field

from fcos.config.section import Section
from fcos.config.study import Name
from fcos.config.test import Fraction


class NmsSweepConfig(Section):
    """`nms_sweep`: the IoU thresholds of NMS that are compared."""

    thresholds: Annotated[list[Fraction], Field(min_length=1)] = [0.5, 0.6, 0.7]
    # The split on which the threshold is chosen. With `test`, as in the published study, the best score is optimistic.
    choose_on: Literal["test", "validation"] = "test"
    runs: list[Name] = []
