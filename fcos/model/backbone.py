"""torchvision's ResNets as feature extractors."""

from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import ResNet, get_model, get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from fcos.errors import UserError
from fcos.model.checkpoint import read_state_dict


class Backbone(nn.Module):
    """A ResNet without its classifier; returns C3, C4, C5 (strides 8, 16, 32).

    The modules and their names are torchvision's, but the forward passes of the blocks are not: under autocast, a
    BatchNorm in evaluation mode is folded into the convolution before it.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        pretrained: True loads torchvision's IMAGENET1K_V1 weights (downloaded unless torch's hub folder has them); a
            path loads a state dict of a torchvision ResNet of this name, with or without its classifier.
        frozen_statistics: always keep BatchNorm in evaluation mode; its affine parameters are trained nevertheless.
        zero_init_residual: let each block start as the identity by setting the weight of its last BatchNorm to 0
            (arXiv 1706.02677).
    """

    def __init__(
        self, name: str, *, pretrained: bool | Path, frozen_statistics: bool, zero_init_residual: bool = False
    ) -> None:
        super().__init__()
        resnet = _load(name, pretrained, zero_init_residual=zero_init_residual)
        self.frozen_statistics = frozen_statistics
        width = resnet.fc.in_features
        self.out_channels = [width // 4, width // 2, width]
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode; BatchNorms with frozen statistics stay in evaluation mode."""
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, _BatchNorm):  # SyncBatchNorm too
                    module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return C3, C4 and C5 of images (B, 3, H, W): (B, C, H / 8, W / 8), then half of it each time."""
        # Max pooling and ReLU commute; pooling first leaves ReLU a quarter of the pixels.
        x = self.maxpool(_conv_bn(self.conv1, self.bn1, images)).relu_()
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = _residual(block, x)
            features.append(x)
        return features[1:]


def _residual(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    """Run a torchvision block with `_conv_bn`."""
    y = _conv_bn(block.conv1, block.bn1, x).relu_()
    y = _conv_bn(block.conv2, block.bn2, y)
    if isinstance(block, Bottleneck):
        y = _conv_bn(block.conv3, block.bn3, y.relu_())
    if block.downsample is not None:
        conv, norm = block.downsample
        x = _conv_bn(conv, norm, x)
    return y.add_(x).relu_()


def _conv_bn(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return norm(conv(x)); nothing is folded in float32, so that the outputs stay within 1e-6 of torchvision's."""
    if not norm.training and torch.is_autocast_enabled(x.device.type):
        return folded(conv, norm, x)
    y: Tensor = norm(conv(x))
    return y


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return norm(conv(x)) as one convolution, for a BatchNorm with fixed statistics.

    This avoids storing and reading the feature map between the two. Gradients reach the weights of both.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    return conv2d(x, weight, norm.bias - norm.running_mean * scale, conv.stride, conv.padding)


def imagenet_file(name: str) -> tuple[str, Path]:
    """Return the URL of torchvision's ImageNet weights of a backbone and their path in torch's hub folder."""
    url: str = get_model_weights(name).IMAGENET1K_V1.url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _load(name: str, pretrained: bool | Path, *, zero_init_residual: bool) -> ResNet:
    # The random initialisation runs even for pretrained weights, so that the head draws the same random numbers.
    resnet: ResNet = get_model(name, weights=None, zero_init_residual=zero_init_residual)
    if pretrained:
        state, source = (_imagenet(name), None) if pretrained is True else (read_state_dict(pretrained), pretrained)
        fitting = _fitting(state, resnet, name, source or imagenet_file(name)[1])
        resnet.load_state_dict(fitting, strict=False)
    return resnet


def _imagenet(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = get_model_weights(name).IMAGENET1K_V1.get_state_dict(check_hash=True)
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError) as error:  # last three: a damaged file
        url, path = imagenet_file(name)
        raise UserError(
            "params.yaml: model.weights",
            f"the ImageNet weights of {name} are not available; nothing was changed",
            found=getattr(error, "reason", None) or error,
            expected=f"{url} at {path}",
            hint=f"put {path.name} there (replace an existing file), or anywhere with `weights: FILE`, or set "
            "`weights: none`",
        ) from None
    return state


def _fitting(state: dict[str, Tensor], resnet: ResNet, name: str, source: Path) -> dict[str, Tensor]:
    """Return the weights of `state` that the backbone uses: all but the classifier, which may have any classes.

    Raises:
        UserError: a weight is missing, has another shape, or is not part of this network.
    """
    expected = {key: tensor.shape for key, tensor in resnet.state_dict().items() if not key.startswith("fc.")}
    found = {key: tensor.shape for key, tensor in state.items() if not key.startswith("fc.")}
    counts = {key for key in expected if key.endswith(".num_batches_tracked")}  # missing in old files
    for key in sorted((expected.keys() | found.keys()) - (counts - found.keys())):
        if expected.get(key) != found.get(key):
            raise UserError(
                source,
                f"does not fit {name}: {key}",
                found=tuple(found[key]) if key in found else "no such weight",
                expected=tuple(expected[key]) if key in expected else "no such weight",
                hint=f"set model.weights to a torchvision state dict of {name}, such as {imagenet_file(name)[1].name}",
            )
    return {key: state[key] for key in found}
