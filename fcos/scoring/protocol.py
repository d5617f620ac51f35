"""The settings of a COCO evaluation: IoU thresholds, area ranges and the number of detections that are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Computed as in COCOeval, since equal floats decide an IoU at a threshold in the same way.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MAX_DETECTIONS = 100
_SAME = 1e-9  # thresholds that differ by less are equal


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The settings of an evaluation; the defaults are COCO's."""

    iou_thresholds: NDArray[np.float64] = field(default_factory=lambda: IOU_THRESHOLDS)  # (T,), ascending
    area_ranges: Mapping[str, tuple[float, float]] = field(default_factory=lambda: AREA_RANGES)  # pixels squared
    max_detections: int = MAX_DETECTIONS  # per image and class

    @property
    def num_areas(self) -> int:
        return len(self.area_ranges)

    @property
    def num_thresholds(self) -> int:
        return len(self.iou_thresholds)

    def places_of(self, iou: float) -> list[int]:
        """Return the place of `iou` among the thresholds as a list of one place, or an empty list."""
        places: list[int] = np.flatnonzero(np.abs(self.iou_thresholds - iou) < _SAME).tolist()
        return places

    def outside(self, area: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (N, A): whether an area is outside of each range; a range includes both ends."""
        low, high = np.array(list(self.area_ranges.values())).T
        outside: NDArray[np.bool_] = (area[:, None] < low) | (area[:, None] > high)
        return outside


COCO = Protocol()


def areas_between(small: float, large: float) -> dict[str, tuple[float, float]]:
    """Return COCO's area ranges with other limits, given as the sides of squares in pixels."""
    return {"all": (0.0, 1e10), "small": (0.0, small**2), "medium": (small**2, large**2), "large": (large**2, 1e10)}


def thresholds_between(low: float, high: float, step: float) -> NDArray[np.float64]:
    """Return thresholds (T,) from `low` to `high`, both included; 0.5, 0.95 and 0.05 give COCO's, bit for bit."""
    return np.linspace(low, high, round((high - low) / step) + 1)


def thresholds_of(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the thresholds (T,), ascending and without duplicates."""
    return np.unique(np.array(values, dtype=float))
