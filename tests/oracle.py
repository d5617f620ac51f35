"""torchvision's FCOS, set up as ours: the oracle of the tests."""

import torch
from torchvision.models import get_model
from torchvision.models.detection import FCOS as OracleFCOS
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fcos.model.convert import from_torchvision
from fcos.model.detector import FCOS
from fcos.model.locations import LocationGrid
from fcos.training.step import Assigner

STRIDES = (8, 16, 32, 64, 128)
# torchvision's FCOS in our words: what it does not let one choose.
ORACLE_RANGES = [[0, 64], [64, 128], [128, 256], [256, 512], [512, None]]
GRID = LocationGrid(strides=STRIDES, offset=0.0, step_from_padding=True)
ASSIGNER = Assigner(grid=GRID, regression_ranges=ORACLE_RANGES, center_sampling_radius=1.5, inclusive=False)


def oracle_and_ours(*, num_classes: int = 5, backbone: str = "resnet18", seed: int = 0) -> tuple[OracleFCOS, FCOS]:
    """Two networks with the same weights, random enough to be confident about something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = get_model(backbone, weights=None)
        oracle = OracleFCOS(
            _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)),
            num_classes,
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
        )
        for name, parameter in oracle.head.named_parameters():
            if name.endswith("weight") and parameter.dim() == 4:
                torch.nn.init.normal_(parameter, std=0.05)
        # Regression of some strides, and scores on both sides of the threshold.
        torch.nn.init.constant_(oracle.head.regression_head.bbox_reg.bias, 2.0)
        torch.nn.init.constant_(oracle.head.classification_head.cls_logits.bias, -2.0)
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
        normal_class_tower=True,
    )
    ours.load_state_dict(from_torchvision(oracle.state_dict()))
    return oracle, ours
