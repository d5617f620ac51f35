"""`test`: how a trained network is run and scored; every metrics file contains these settings."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from fcos.config.section import Section
from fcos.config.train import Device, Devices, Precision

Fraction = Annotated[float, Field(ge=0, le=1)]


class TestConfig(Section):
    """Settings of prediction and scoring; the defaults are those of the published study."""

    __test__ = False  # pytest: not a test class

    size: PositiveInt = 480
    max_size: PositiveInt = 640
    score_threshold: Fraction = 0.1
    max_candidates: PositiveInt = 1000
    nms_iou_threshold: Fraction = 0.6
    max_detections: PositiveInt = 100
    batch_size: PositiveInt = 8
    precision: Precision = "auto"
    device: Device = "auto"
    devices: Devices = 1
    cuda_graphs: bool = True
    nms_on_device: bool = False
    workers: Annotated[int, Field(ge=0)] = 2

    # These keys decide where and how fast the network runs. The dtype that was used is stored with the candidates.
    _MACHINE: ClassVar = frozenset(
        {"device", "devices", "cuda_graphs", "nms_on_device", "workers", "batch_size", "precision"}
    )

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the metrics, as stored in every metrics file."""
        return self.model_dump(exclude=set(self._MACHINE))
