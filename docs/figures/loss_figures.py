"""Figures of the three losses: GIoU against IoU, the map of centerness, the focal loss."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import BLUE, GREEN, GRID, INK, ORANGE, PINK, SOFT, new_figure, without_axes
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import box_iou, generalized_box_iou_loss

from fcos.losses import centerness_targets, detection_losses, ltrb_giou_loss
from fcos.postprocess import joint_scores
from fcos.structures import HeadOutputs, LocationTargets

SIDE = 100.0  # of both boxes, pixels


def giou() -> Figure:
    """Draw the losses and their gradients while a predicted box moves away from an equal target along the diagonal."""
    drift = torch.linspace(1, 220, 220, requires_grad=True)
    of_iou, of_giou = 1 - _iou(drift), _general_giou(drift)
    pull_of_iou, pull_of_giou = (torch.autograd.grad(loss.sum(), drift)[0] for loss in (of_iou, of_giou))
    around = torch.linspace(1, SIDE - 1, 12, requires_grad=True)
    ours = _our_giou(around)
    our_pull = torch.autograd.grad(ours.sum(), around)[0]

    figure = new_figure(4.4)
    axes = figure.subplot_mosaic([["a"] * 2, ["loss", "pull"]], height_ratios=(0.62, 1))
    _drifting(axes["a"], (30, 80, 140))
    x = drift.detach()
    for ax, lines, dots, title in (
        (axes["loss"], (of_iou, of_giou), ours, "loss"),
        (axes["pull"], (pull_of_iou, pull_of_giou), our_pull, "gradient, per pixel of drift"),
    ):
        for line, colour, name in zip(lines, (ORANGE, BLUE), ("1 - IoU", "1 - GIoU"), strict=True):
            ax.plot(x, line.detach(), color=colour, label=name)
        ax.plot(around.detach(), dots.detach(), "o", color=BLUE, markersize=4.5, label="fcos.losses")
        ax.axvline(SIDE, color=SOFT, linewidth=1, linestyle=":")
        ax.set_title(title)
        ax.set_xlabel("drift, pixels")
        ax.set_xlim(0, 220)
        ax.set_ylim(bottom=0)
    axes["loss"].legend(loc="lower right", fontsize=9)
    axes["pull"].text(SIDE + 5, axes["pull"].get_ylim()[1] * 0.8, "no overlap from here", color=SOFT, fontsize=9)
    return figure


def centerness() -> Figure:
    """Draw centerness over a box with sides 2 to 1, and its effect on the score of a confident prediction."""
    width, height = 200, 100
    x, y = np.meshgrid(np.arange(1, width), np.arange(1, height))
    ltrb = torch.from_numpy(np.stack((x, y, width - x, height - y), axis=-1).astype(np.float32))
    values = centerness_targets(ltrb)
    figure = new_figure(2.7)
    box, line = figure.subplots(1, 2, width_ratios=(1.25, 1))
    shades = box.contourf(x, y, values, levels=np.linspace(0, 1, 11), cmap="viridis")
    contours = box.contour(x, y, values, levels=[0.25, 0.5, 0.75], colors="#ffffff", linewidths=1)
    box.clabel(contours, fmt="%g", fontsize=9)
    box.set_aspect("equal")
    box.set_xticks([0, 50, 100, 150, 200])
    box.set_yticks([0, 50, 100])
    box.set_xlim(0, width)
    box.set_ylim(height, 0)
    box.grid(visible=False)
    box.set_title("centerness of each location")
    figure.colorbar(shades, ax=box, ticks=[0, 0.5, 1], shrink=0.62).outline.set_visible(False)

    middle = values[height // 2 - 1]
    line.plot(x[0], middle, color=INK, label="centerness")
    for probability, colour in ((0.9, BLUE), (0.5, ORANGE)):
        line.plot(x[0], _scores(probability, middle), color=colour, label=f"score at p = {probability}")
    line.set_title("along the middle row")
    line.set_xlabel("x in the box, pixels")
    line.set_ylim(0, 1.02)
    line.set_xlim(0, width)
    line.legend(fontsize=8.5, loc="lower center")
    return figure


def focal() -> Figure:
    """Draw the classification loss of one location and class, with plain cross entropy for comparison."""
    tail = np.linspace(0.004, 0.1, 25)
    probability = np.concatenate((tail, np.linspace(0.11, 0.89, 40), 1 - tail[::-1]))
    logits = torch.from_numpy(np.log(probability / (1 - probability))).float()
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, is_object, title in zip(axes, (1, 0), ("an object", "background"), strict=True):
        plain = binary_cross_entropy_with_logits(logits, torch.full_like(logits, is_object), reduction="none")
        ours = np.array([_classification(logit, is_object) for logit in logits])
        ax.plot(probability, plain, color=ORANGE, label="cross entropy")
        ax.plot(probability, ours, color=BLUE, label="fcos.losses (focal)")
        easy = int(np.abs(probability - (0.9 if is_object else 0.1)).argmin())
        ratio = float(plain[easy]) / ours[easy]
        ax.vlines(probability[easy], ours[easy], plain[easy], color=SOFT, linewidth=1, linestyle=":")
        ax.text(
            0.5,
            3.0,
            f"at {probability[easy]:.1f}: {ratio:,.0f} times less",
            ha="center",
            va="center",
            color=SOFT,
            fontsize=9,
        )
        ax.set_yscale("log")
        ax.set_title(title)
        ax.set_xlabel("predicted probability of the class")
        ax.set_xlim(0, 1)
        ax.set_ylim(1e-6, 10)
        ax.set_yticks([1e-6, 1e-4, 1e-2, 1], labels=["0.000001", "0.0001", "0.01", "1"])
        ax.legend(fontsize=9, loc="lower left" if is_object else "lower right")
    return figure


def _iou(drift: Tensor) -> Tensor:
    target, moved = _boxes(drift)
    return torch.stack([box_iou(target[None], box[None])[0, 0] for box in moved])


def _general_giou(drift: Tensor) -> Tensor:
    target, moved = _boxes(drift)
    return generalized_box_iou_loss(moved, target.expand_as(moved))


def _our_giou(drift: Tensor) -> Tensor:
    """Return the package's loss for a location in the middle of the overlap."""
    before = (drift + SIDE) / 2
    target = torch.stack((before, before, SIDE - before, SIDE - before), dim=-1)
    moved = torch.stack((before - drift, before - drift, SIDE + drift - before, SIDE + drift - before), dim=-1)
    return ltrb_giou_loss(moved, target)


def _boxes(drift: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tensor([0, 0, SIDE, SIDE]), torch.stack((drift, drift, drift + SIDE, drift + SIDE), dim=-1)


def _drifting(ax: Axes, drifts: Sequence[int]) -> None:
    """Target, prediction and the box that encloses both, at some drifts."""
    without_axes(ax)
    corner = 0.0
    for drift in drifts:
        enclosing = SIDE + drift
        ax.add_patch(Rectangle((corner, 0), enclosing, enclosing, facecolor=GRID, edgecolor="none"))
        for moved, colour in ((0, GREEN), (drift, PINK)):
            ax.add_patch(Rectangle((corner + moved, moved), SIDE, SIDE, fill=False, edgecolor=colour, linewidth=2.2))
        at = torch.tensor([float(drift)])
        words = f"drift {drift}\nIoU {float(_iou(at)):.2f}\nGIoU {float(1 - _general_giou(at)):.2f}"
        ax.text(corner + enclosing + 12, enclosing, words, va="bottom", fontsize=9, linespacing=1.5)
        corner += enclosing + 150
    ax.set_xlim(-5, corner)
    ax.set_ylim(SIDE + max(drifts) + 5, -5)
    ax.set_aspect("equal")


def _scores(probability: float, centerness: Tensor) -> Tensor:
    """Return the scores of `joint_scores` for a class probability at locations of these centernesses."""
    outputs = HeadOutputs(
        class_logits=torch.full((1, len(centerness), 1), probability).logit(),
        pred_ltrb=torch.ones(1, len(centerness), 4),
        centerness_logits=centerness[None].logit(),
        feature_sizes=((1, len(centerness)),),
    )
    return joint_scores(outputs)[0, :, 0]


def _classification(logit: Tensor, is_object: int) -> float:
    """The classification part of `detection_losses` for one location and one class."""
    ones, label = torch.ones(1, 1, 4), torch.tensor([[is_object - 1]])
    outputs = HeadOutputs(logit.reshape(1, 1, 1), ones, torch.zeros(1, 1), ((1, 1),))
    targets = LocationTargets(label, ones, label, torch.ones(1, 1, dtype=torch.bool))
    return float(detection_losses(outputs, targets)[0]["classification"])
