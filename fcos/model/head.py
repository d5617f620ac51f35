"""The heads, shared by all levels (section 3.1 and figure 2 of the paper)."""

import math

import torch
from torch import Tensor, nn

from fcos.model.group_norm import GroupNorm
from fcos.structures import HeadOutputs


class Head(nn.Module):
    """Two towers of `num_convs` x (conv3x3, GroupNorm, ReLU): one for classes, one for boxes and centerness."""

    def __init__(
        self,
        *,
        channels: int,
        num_classes: int,
        num_convs: int,
        group_norm_groups: int,
        prior_probability: float,
        initial_ltrb: float,
        normal_class_tower: bool,
    ) -> None:
        super().__init__()
        self.class_tower = _tower(channels, num_convs, group_norm_groups)
        self.box_tower = _tower(channels, num_convs, group_norm_groups)
        self.class_logits = _conv(channels, num_classes)
        self.box_regression = _conv(channels, 4)
        self.centerness = _conv(channels, 1)
        towers = [self.box_tower, self.class_tower] if normal_class_tower else [self.box_tower]
        for module in [*towers, self.class_logits, self.box_regression, self.centerness]:
            module.apply(_small_normal)
        bias = self.class_logits.bias
        assert bias is not None
        nn.init.constant_(bias, -math.log((1 - prior_probability) / prior_probability))
        assert self.box_regression.bias is not None
        # With a bias of zero, ReLU leaves most boxes of a network without pretrained weights without area and gradient.
        nn.init.constant_(self.box_regression.bias, initial_ltrb)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Return the outputs at all locations of the feature maps (B, C, H, W) of each level."""
        class_logits, pred_ltrb, centerness = [], [], []
        for feature in features:
            class_logits.append(_flat(self.class_logits(self.class_tower(feature))))
            box_feature = self.box_tower(feature)
            pred_ltrb.append(_flat(self.box_regression(box_feature).relu()))
            centerness.append(_flat(self.centerness(box_feature)))
        return HeadOutputs(
            class_logits=torch.cat(class_logits, dim=1),
            pred_ltrb=torch.cat(pred_ltrb, dim=1),
            centerness_logits=torch.cat(centerness, dim=1).squeeze(-1),
            feature_sizes=tuple((int(f.shape[2]), int(f.shape[3])) for f in features),
        )


def _conv(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel_size=3, padding=1)


def _tower(channels: int, num_convs: int, groups: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [_conv(channels, channels), GroupNorm(groups, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _small_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _flat(x: Tensor) -> Tensor:
    """Flatten a feature map: (B, C, H, W) -> (B, H*W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
