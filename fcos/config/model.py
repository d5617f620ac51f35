"""`model`: the network and the assignment of boxes to its locations."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, WithJsonSchema, model_validator

from fcos.config.section import Section, Wrong

STRIDES = (8, 16, 32, 64, 128)
_WEIGHTS = {"anyOf": [{"enum": ["imagenet", "none"]}, {"type": "string"}]}


class ModelConfig(Section):
    """The network and its assignment; the defaults are those of the published study."""

    weights: Annotated[str, WithJsonSchema(_WEIGHTS)] = "imagenet"
    batch_norm: Literal["frozen", "trained"] = "frozen"
    zero_init_residual: bool = False
    fpn_channels: PositiveInt = 128
    p6_from: Literal["p5", "c5"] = "p5"
    group_norm_groups: PositiveInt = 16
    class_tower_init: Literal["default", "normal"] = "default"
    prior_probability: Annotated[float, Field(gt=0, lt=1)] = 0.01
    initial_ltrb: Annotated[float, Field(ge=0, le=8)] = 0.0
    location_offset: Annotated[float, Field(ge=0, le=1)] = 0.5
    location_step: Literal["stride", "padded"] = "stride"
    center_sampling_radius: PositiveFloat = 1.5
    center_bounds: Literal["inclusive", "strict"] = "inclusive"
    regression_ranges: list[list[float | None]] = [[0, 64], [64, 128], [128, 256], [256, 512], [512, 1000]]

    @property
    def weights_file(self) -> str | None:
        """Path of the file with the backbone's initial weights, as written in params.yaml, or None."""
        return None if self.weights in ("imagenet", "none") else self.weights

    @model_validator(mode="after")
    def _weights_are_known_or_a_file(self) -> "ModelConfig":
        if self.weights_file is not None and not {".", "/"} & set(self.weights):
            expected = "imagenet, none, or a file such as weights/resnet18.pth"
            raise Wrong("weights", "wrong value", found=repr(self.weights), expected=expected)
        return self

    @model_validator(mode="after")
    def _ranges_fit(self) -> "ModelConfig":
        ranges = self.regression_ranges
        if len(ranges) != len(STRIDES):
            raise Wrong(
                "regression_ranges",
                "one range is needed for each stride",
                found=f"{len(ranges)} ranges",
                expected=f"{len(STRIDES)} ranges, for strides {', '.join(map(str, STRIDES))}",
            )
        for index, pair in enumerate(ranges):
            is_open = index == len(ranges) - 1 and len(pair) == 2 and pair[1] is None
            if len(pair) != 2 or pair[0] is None or not (is_open or (pair[1] or 0) > pair[0] >= 0):
                expected = "[low, high] with 0 <= low < high; the last may be [low, null]"
                raise Wrong(f"regression_ranges.{index}", "not a range", found=pair, expected=expected)
        if self.fpn_channels % self.group_norm_groups:
            raise Wrong(
                "group_norm_groups",
                "does not divide fpn_channels",
                found=self.group_norm_groups,
                expected=f"a divisor of {self.fpn_channels}",
            )
        return self
