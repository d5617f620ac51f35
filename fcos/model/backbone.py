"""ResNets of torchvision as feature extractors."""

from torch import Tensor, nn
from torchvision.models import ResNet, get_model

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
        self.frozen_statistics = frozen_statistics
        width = resnet.fc.in_features
        self.out_channels = [width // 4, width // 2, width]
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4

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


def _load(name: str, pretrained: bool) -> ResNet:
    try:
        resnet: ResNet = get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    except OSError as error:
        raise UserError(
            "params.yaml: model.weights",
            f"the ImageNet weights of {name} cannot be downloaded; nothing was changed",
            found=error,
            do="put torchvision's file into $TORCH_HOME/hub/checkpoints, or set `weights: none`",
        ) from None
    return resnet
