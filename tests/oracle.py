"""torchvision's FCOS, configured like ours, as the oracle of the tests."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection import FCOS as OracleFCOS
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fcos.model.convert import from_torchvision
from fcos.model.detector import FCOS
from fcos.model.locations import LocationGrid
from fcos.training.step import Assigner

STRIDES = (8, 16, 32, 64, 128)
# torchvision's fixed settings in our terms.
ORACLE_RANGES: list[list[float | None]] = [[0, 64], [64, 128], [128, 256], [256, 512], [512, None]]
GRID = LocationGrid(strides=STRIDES, offset=0.0, step_from_padding=True)
ASSIGNER = Assigner(grid=GRID, regression_ranges=ORACLE_RANGES, center_sampling_radius=1.5, inclusive=False)


def oracle_and_ours(*, num_classes: int = 5, backbone: str = "resnet18", seed: int = 0) -> tuple[OracleFCOS, FCOS]:
    """Return two networks with the same weights, random enough for some high scores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = get_model(backbone, weights=None)
        oracle = OracleFCOS(
            _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)),
            num_classes,
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
        )
        _make_confident(oracle)
    ours = FCOS(
        backbone=backbone,
        num_classes=num_classes,
        num_convs=4,
        pretrained=False,
        frozen_statistics=True,
        fpn_channels=256,
        p6_from_p5=True,
        group_norm_groups=32,
        prior_probability=0.01,
        initial_ltrb=0.0,
        normal_class_tower=True,
    )
    ours.load_state_dict(from_torchvision(oracle.state_dict()))
    return oracle, ours


def published_oracle() -> OracleFCOS:
    """Return torchvision's `fcos_resnet50_fpn` for COCO's ids 0..90, as with published weights but with random ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        oracle = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
        _make_confident(oracle)
        _freeze(oracle.backbone.body)  # torchvision builds frozen BatchNorms only for pretrained weights
    return oracle


def _make_confident(oracle: OracleFCOS) -> None:
    for name, parameter in oracle.head.named_parameters():
        if name.endswith("weight") and parameter.dim() == 4:
            nn.init.normal_(parameter, std=0.05)
    # Regression is a few strides, and scores are on both sides of the threshold.
    nn.init.constant_(oracle.head.regression_head.bbox_reg.bias, 2.0)
    nn.init.constant_(oracle.head.classification_head.cls_logits.bias, -2.0)


def _freeze(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features)
            for values in frozen.buffers():
                values.uniform_(0.5, 1.5)
            setattr(module, name, frozen)
        else:
            _freeze(child)


def oracle_anchors(feature_sizes: tuple[tuple[int, int], ...], padded_size: tuple[int, int]) -> Tensor:
    """Return torchvision's anchors of one image, (R, 4): squares around the locations with the stride as side."""
    generator = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    features = [torch.zeros(1, 1, *size) for size in feature_sizes]
    return generator(ImageList(torch.zeros(1, 3, *padded_size), [padded_size]), features)[0]


def oracle_assignment(
    boxes: Tensor, feature_sizes: tuple[tuple[int, int], ...], padded_size: tuple[int, int]
) -> Tensor:
    """Index of the box (M, 4) that torchvision gives to each location, -1 = none: (R,).

    Its `compute_loss` matches, then asks its head for the losses: this head hands the matches back.
    """
    anchors = oracle_anchors(feature_sizes, padded_size)
    head = SimpleNamespace(compute_loss=lambda _targets, _outputs, _anchors, matched: matched)
    network = SimpleNamespace(center_sampling_radius=1.5, head=head)
    per_level = [rows * columns for rows, columns in feature_sizes]
    return OracleFCOS.compute_loss(network, [{"boxes": boxes}], {}, [anchors], per_level)[0]
