"""Build the assigner of a run; this is separate from `build`, since `fcos predict` does not depend on it."""

from fcos.config.model import ModelConfig
from fcos.study.build import build_grid
from fcos.training.step import Assigner


def build_assigner(config: ModelConfig) -> Assigner:
    """Return the assignment of boxes to locations that `model` in params.yaml describes."""
    return Assigner(
        grid=build_grid(config),
        regression_ranges=config.regression_ranges,
        center_sampling_radius=config.center_sampling_radius,
        inclusive=config.center_bounds == "inclusive",
    )
