"""Box operations: `boxes` are (N, 4) xyxy in pixels, `boxes_xywh` are in COCO's format."""

from torch import Tensor, cat, stack


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """Return boxes (..., 4) converted from COCO's xywh to xyxy."""
    x, y, w, h = boxes_xywh.unbind(-1)
    return stack((x, y, x + w, y + h), dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """Return the areas (...) in pixels squared, in float64 if the device supports it, so that near ties differ."""
    exact = boxes if boxes.device.type == "mps" else boxes.double()
    x1, y1, x2, y2 = exact.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def boxes_from(locations: Tensor, ltrb: Tensor) -> Tensor:
    """Return boxes (..., R, 4) from locations (R, 2) and ltrb distances (..., R, 4), all in pixels."""
    return cat((locations - ltrb[..., :2], locations + ltrb[..., 2:]), dim=-1)


def clip(boxes: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return boxes (..., 4) clipped to images of `height` and `width`, tensors that broadcast against (...)."""
    limit = stack((width, height, width, height), dim=-1).to(boxes)
    return boxes.clamp(min=0).minimum(limit)
