"""The bootstrap of a study: the samples that params.yaml describes, and replicates saved with their identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.config.section import parse_section, read_params
from fcos.config.statistics import StatisticsConfig
from fcos.data.coco import CocoSplit
from fcos.scoring.bootstrap import Drawn, Resamples, draw_weights
from fcos.scoring.replicates import numbers_digest, save_replicates
from fcos.scoring.scenes import groups_of


@dataclass(frozen=True)
class Bootstrap:
    """The section `statistics` of params.yaml and the bootstrap samples that it describes."""

    config: StatisticsConfig

    @staticmethod
    def read() -> "Bootstrap":
        """Read the section `statistics` of params.yaml."""
        return Bootstrap(parse_section(read_params(), "statistics", StatisticsConfig))

    def of(self, split: CocoSplit) -> Resamples:
        """Return the bootstrap samples of the images of `split`; groups and scenes are resampled whole."""
        config, groups = self.config, groups_of(split)
        weights = draw_weights(len(split.images), replicates=config.replicates, seed=config.seed, groups=groups)
        return Resamples(weights, groups)

    def save(
        self, path: Path, replicates: Mapping[str, Drawn], *, numbers: Mapping[str, Any], identity: Mapping[str, Any]
    ) -> None:
        """Write the replicates of each step with the digest of the `numbers` (metrics) of these steps."""
        header = {**identity, "statistics": self.config.model_dump(), "numbers": numbers_digest(numbers)}
        save_replicates(path, replicates, header)
