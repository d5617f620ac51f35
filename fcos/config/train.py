"""`train`: how the network is trained."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from fcos.config.section import Section, Wrong

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
Devices = PositiveInt | Literal["all"]
Sizes = Annotated[list[PositiveInt], Field(min_length=1)]


class TrainConfig(Section):
    """Training settings; the defaults are those of the published study.

    `sizes` are lengths of the shorter side in pixels, one of which is chosen at random for each image.
    `batches: by_shape` puts images of similar shape into one batch to reduce padding. `validate_every: N` scores the
    validation split every N epochs; `keep: best` keeps the weights with the highest validation AP, and `patience: P`
    ends a training whose validation AP has not improved for P epochs. `devices: N` or `all` trains on several devices;
    `batch_size` is that of all of them. With a larger `pad_multiple`, batches have fewer shapes and more padding.
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
    devices: Devices = 1
    cuda_graphs: bool = True
    pad_multiple: Annotated[int, Field(gt=0, multiple_of=32)] = 32
    workers: NonNegativeInt = 2
    checkpoint_every_s: NonNegativeFloat = 60.0
    validate_every: PositiveInt | None = None
    keep: Literal["last", "best"] = "last"
    patience: PositiveInt | None = None

    # These keys decide where and how fast a training runs, but not its weights.
    _MACHINE: ClassVar = frozenset({"device", "devices", "cuda_graphs", "workers", "checkpoint_every_s"})
    _VALIDATION: ClassVar = frozenset({"validate_every", "keep", "patience"})

    @property
    def selects(self) -> bool:
        """Whether the validation split determines which weights are kept."""
        return self.keep == "best" or self.patience is not None

    def identity(self) -> dict[str, Any]:
        """Return the settings that determine the weights."""
        decides_nothing = self._MACHINE if self.selects else self._MACHINE | self._VALIDATION
        if self.pad_multiple == 32:  # trainings before there was this key
            decides_nothing = decides_nothing | {"pad_multiple"}
        return self.model_dump(mode="json", exclude=set(decides_nothing))

    @model_validator(mode="after")
    def _validates_what_it_selects_by(self) -> "TrainConfig":
        if self.selects and self.validate_every is None:
            key = "keep" if self.keep == "best" else "patience"
            raise Wrong(
                key,
                "needs validation during training",
                found=getattr(self, key),
                expected="`validate_every` too, a number of epochs",
                hint="add validate_every: 1",
            )
        return self
