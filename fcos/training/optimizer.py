"""The optimizer and the learning rate schedule."""

import math

import torch
from torch import nn

from fcos.config.train import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return SGD or AdamW, with weight decay only for the weights of convolutions, not for biases and norms."""
    decayed = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    chosen = set(map(id, decayed))
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in chosen], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)


def learning_rate(step: int, *, peak: float, warmup_steps: int, cosine_steps: int) -> float:
    """Return the rate of the 0-based `step`: linear from peak / warmup_steps to peak, then half a cosine towards 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, cosine_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
