"""The two networks of the benchmarks: ours and torchvision's FCOS, same layers and same weights."""

from typing import Any

from torchvision.models import get_model
from torchvision.models.detection import FCOS as TorchvisionFCOS
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.model.convert import to_torchvision
from fcos.study.build import build_model


def torchvisions(run: Run, num_classes: int, test: TestConfig, **more: Any) -> TorchvisionFCOS:
    """Return torchvision's FCOS with the layers of `run` and our initial weights; `more` are its own options."""
    channels = run.model.fpn_channels
    frozen = {"norm_layer": FrozenBatchNorm2d} if run.model.batch_norm == "frozen" else {}
    resnet = get_model(run.backbone, weights=None, **frozen)
    widths = [resnet.fc.in_features // 4, resnet.fc.in_features // 2, resnet.fc.in_features]
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    model = TorchvisionFCOS(
        BackboneWithFPN(resnet, layers, widths, channels, extra_blocks=LastLevelP6P7(channels, channels)),
        num_classes,
        head=FCOSHead(channels, 1, num_classes, num_convs=run.num_convs),
        center_sampling_radius=run.model.center_sampling_radius,
        score_thresh=test.score_threshold,
        nms_thresh=test.nms_iou_threshold,
        detections_per_img=test.max_detections,
        topk_candidates=test.max_candidates,
        **more,
    )
    state = to_torchvision(build_model(run, num_classes, pretrained=False).state_dict())
    names = model.state_dict().keys()  # frozen BatchNorms have no counter
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in names})
    return model
