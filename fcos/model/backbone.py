"""ResNets of torchvision as feature extractors."""

from torch import Tensor, nn
from torchvision.models import get_model

from fcos.errors import UserError


class Backbone(nn.Module):
    """A ResNet without its classifier; returns C3, C4, C5 (strides 8, 16, 32).

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        pretrained: load torchvision's IMAGENET1K_V1 weights (a download, unless torch's hub folder has them).
        frozen_statistics: keep BatchNorm in evaluation mode for good; its affine parameters are trained all the same.
    """

    def __init__(self, name: str, *, pretrained: bool, frozen_statistics: bool) -> None:
        super().__init__()
        resnet = _load(name, pretrained)
        self.out_channels = [layer[-1].bn2.num_features * _expansion(layer[-1]) for layer in _stages(resnet)]
        self.frozen_statistics = frozen_statistics
        for child in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(child, getattr(resnet, child))

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return [c3, c4, self.layer4(c4)]


def _load(name: str, pretrained: bool) -> nn.Module:
    try:
        return get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    except OSError as error:
        raise UserError(
            "params.yaml: model.weights",
            f"the ImageNet weights of {name} cannot be downloaded; nothing was changed",
            found=error,
            do="put torchvision's file into $TORCH_HOME/hub/checkpoints, or set `weights: none`",
        ) from None


def _stages(resnet: nn.Module) -> list[nn.Sequential]:
    return [resnet.layer2, resnet.layer3, resnet.layer4]  # type: ignore[list-item]


def _expansion(block: nn.Module) -> int:
    return int(block.expansion)  # type: ignore[arg-type]
