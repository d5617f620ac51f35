"""Format the steps of test-time augmentation and of the NMS sweep for the output of their commands."""

from collections.abc import Mapping
from typing import Any

from fcos.reporting.intervals import percent


def tta_text(tta: Mapping[str, Any]) -> str:
    """Return AP and seconds of each number of views, and of the chosen one."""
    lines = [
        f"{tta['split']}, {step['num_views']} views: AP {percent(step['metrics']['AP'])}, {step['seconds']:.1f} s"
        for step in tta["steps"]
    ]
    return "\n".join([*lines, f"chosen: {tta['chosen']} views, test AP {percent(tta['metrics']['AP'])}"])


def sweep_text(sweep: Mapping[str, Any]) -> str:
    """Return AP of each NMS threshold, and of the chosen one."""
    lines = [
        f"{sweep['split']}, NMS IoU {step['nms_iou_threshold']}: AP {percent(step['metrics']['AP'])}"
        for step in sweep["steps"]
    ]
    return "\n".join([*lines, f"chosen: NMS IoU {sweep['chosen']}, test AP {percent(sweep['metrics']['AP'])}"])
