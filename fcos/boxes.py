"""Boxes: `boxes` are (N, 4) xyxy in pixels, `boxes_xywh` the COCO form."""

from torch import Tensor, cat, stack


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """(..., 4) -> (..., 4)."""
    x, y, w, h = boxes_xywh.unbind(-1)
    return stack((x, y, x + w, y + h), dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """Areas (...) in pixels squared, in float64 where the device has it, so that near ties are told apart."""
    exact = boxes if boxes.device.type == "mps" else boxes.double()
    x1, y1, x2, y2 = exact.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def boxes_from(locations: Tensor, ltrb: Tensor) -> Tensor:
    """Boxes (..., R, 4) from locations (R, 2) and distances (..., R, 4), both in pixels."""
    return cat((locations - ltrb[..., :2], locations + ltrb[..., 2:]), dim=-1)


def clip(boxes: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Clip boxes (..., 4) to images of `height` and `width`, tensors that broadcast against (...)."""
    limit = stack((width, height, width, height), dim=-1).to(boxes)
    return boxes.clamp(min=0).minimum(limit)
