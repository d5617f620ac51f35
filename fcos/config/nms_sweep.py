"""`nms_sweep`: the NMS thresholds to compare on stored candidates."""

from typing import Annotated

from pydantic import Field

from fcos.config.section import Section
from fcos.config.study import Name
from fcos.config.test import Fraction


class NmsSweepConfig(Section):
    thresholds: Annotated[list[Fraction], Field(min_length=1)] = [0.5, 0.6, 0.7]
    runs: list[Name] = []
