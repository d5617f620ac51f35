"""`train`: how the network is trained."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fcos.config.section import Section

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
Sizes = Annotated[list[PositiveInt], Field(min_length=1)]


class TrainConfig(Section):
    """Defaults are those of the published study; sizes are the shorter side in pixels, drawn per picture.

    `batches: by_shape` lets pictures of like shape share a batch, so that less of it is padding.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 0.005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    batch_size: PositiveInt = 4
    batches: Literal["random", "by_shape"] = "random"
    warmup_epochs: NonNegativeInt = 1
    sizes: Sizes = [288, 320, 352, 384, 416, 448, 480]
    max_size: PositiveInt = 640
    horizontal_flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    clip_grad_norm: PositiveFloat | None = None
    precision: Precision = "auto"
    device: Device = "auto"
    workers: NonNegativeInt = 2
    checkpoint_every_s: NonNegativeFloat = 60.0
