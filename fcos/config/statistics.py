"""`statistics`: how intervals and tests are computed."""

from typing import Annotated

from pydantic import Field, NonNegativeInt

from fcos.config.section import Section


class StatisticsConfig(Section):
    """The bootstrap over the test images; all runs of the study share the bootstrap samples that `seed` determines."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    replicates: Annotated[int, Field(ge=100, le=10_000)] = 1000
    seed: NonNegativeInt = 0
