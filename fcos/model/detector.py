"""The FCOS network, from images to HeadOutputs."""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fcos.model.backbone import Backbone
from fcos.model.head import Head
from fcos.structures import HeadOutputs


class FCOS(nn.Module):
    """The network, from normalised images (B, 3, H, W), H and W multiples of 32, to HeadOutputs.

    It returns the same in training and in evaluation mode; losses and decoding are separate.
    """

    def __init__(
        self,
        *,
        backbone: str,
        num_classes: int,
        num_convs: int,
        pretrained: bool | Path,
        frozen_statistics: bool,
        fpn_channels: int,
        p6_from_p5: bool,
        group_norm_groups: int,
        prior_probability: float,
        initial_ltrb: float,
        normal_class_tower: bool,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            backbone,
            pretrained=pretrained,
            frozen_statistics=frozen_statistics,
            zero_init_residual=zero_init_residual,
        )
        channels = self.backbone.out_channels
        p6p7 = _Float32P6P7(fpn_channels if p6_from_p5 else channels[-1], fpn_channels)
        p6p7.use_P5 = p6_from_p5  # torchvision guesses this from the channels, which may be equal by chance
        self.fpn = FeaturePyramidNetwork(channels, fpn_channels, extra_blocks=p6p7)
        self.head = Head(
            channels=fpn_channels,
            num_classes=num_classes,
            num_convs=num_convs,
            group_norm_groups=group_norm_groups,
            prior_probability=prior_probability,
            initial_ltrb=initial_ltrb,
            normal_class_tower=normal_class_tower,
        )

    def forward(self, images: Tensor) -> HeadOutputs:
        """Return the outputs at all locations of P3 to P7 for images (B, 3, H, W)."""
        features = OrderedDict(zip(("c3", "c4", "c5"), self.backbone(images), strict=True))
        outputs: HeadOutputs = self.head(list(self.fpn(features).values()))
        return outputs


class _Float32P6P7(LastLevelP6P7):  # type: ignore[misc]
    """P6 and P7, computed in float32 under any autocast.

    oneDNN's bfloat16 kernel leaves most of the weight gradient of a strided 3x3 convolution on a 1x1 map uninitialised
    (seen with torch 2.15), so that P7 of a 64-pixel image was trained with arbitrary gradients. Both levels are tiny,
    so that float32 costs little.
    """

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        with torch.autocast(p[0].device.type, enabled=False):
            levels, names = super().forward([*p[:-1], p[-1].float()], [*c[:-1], c[-1].float()], names)
        return levels, names
