"""The complete computation from pixels to detections as one traceable torch module, for other runtimes."""

import contextlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torchvision.ops import nms

from fcos.boxes import boxes_from, clip
from fcos.data.transforms import IMAGENET_MEAN, IMAGENET_STD, PAD_MULTIPLE
from fcos.model.detector import FCOS
from fcos.model.locations import LocationGrid, make_locations
from fcos.postprocess import joint_scores
from fcos.structures import HeadOutputs

OUTPUTS = ("boxes", "scores", "labels")
OPSET = 18
EXAMPLE_SIZE = (96, 128)  # of the image that is traced; the graph takes any other


class Exportable(nn.Module):
    """Module that maps an image of any size to its detections, as `Predictor` and `detections.detect` do, in one graph.

    It includes resizing, normalising, padding, decoding and NMS. All computations that depend on the size of the image
    are tensor operations, so that a trace is valid for other sizes.

    Args:
        model: in float32 with weights in the contiguous format; modified (GroupNorm) and set to evaluation mode.
        size, max_size: shorter side and largest longer side of the network's input, in pixels.
        max_candidates: per level; max_detections: per image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: FCOS,
        grid: LocationGrid,
        *,
        size: int,
        max_size: int,
        score_threshold: float,
        max_candidates: int,
        nms_iou_threshold: float,
        max_detections: int,
    ) -> None:
        super().__init__()
        self.model, self.grid = _with_plain_group_norm(model), grid
        self.size, self.max_size = size, max_size
        self.score_threshold, self.max_candidates = score_threshold, max_candidates
        self.nms_iou_threshold, self.max_detections = nms_iou_threshold, max_detections
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the detections of one image, highest score first.

        Args:
            image: (1, 3, height, width) float32 RGB, 0 to 255.

        Returns:
            boxes (D, 4) xyxy in pixels of the image, scores (D,), labels (D,) int64.
        """
        size = torch._shape_as_tensor(image)[2:]  # (height, width)
        shown = self._shown_size(size)
        resized = interpolate(image / 255, size=[shown[0], shown[1]], mode="bilinear", align_corners=False)  # type: ignore[list-item]
        filled = -shown % PAD_MULTIPLE
        resized = pad((resized - self.mean) / self.std, [0, filled[1], 0, filled[0]])  # type: ignore[list-item]
        boxes, scores, labels = self._candidates(resized, size, shown)
        kept = self._best(boxes, scores, labels)
        return boxes[kept], scores[kept], labels[kept]

    def _shown_size(self, size: Tensor) -> Tensor:
        """Compute `transforms.resized_size` without a branch: the smaller of both ratios gives the smaller size."""
        by_shorter, by_longer = size * self.size // size.min(), size * self.max_size // size.max()
        return by_shorter.minimum(by_longer).clamp(min=1)

    def _candidates(self, images: Tensor, size: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, 4) in pixels of the image of `size`, scores and labels (N,); see `decode_candidates`."""
        levels = list(self.model.fpn(OrderedDict(enumerate(self.model.backbone(images)))).values())
        outputs: HeadOutputs = self.model.head(levels)
        locations = make_locations(
            [(level.shape[2], level.shape[3]) for level in levels],
            (images.shape[2], images.shape[3]),
            strides=self.grid.strides,
            offset=self.grid.offset,
            step_from_padding=self.grid.step_from_padding,
            device=images.device,
        )
        num_classes = outputs.class_logits.shape[-1]
        scale = (size / shown).flip(0).repeat(2)  # x, y, x, y
        boxes = boxes_from(locations.xy, outputs.pred_ltrb[0] * locations.strides[:, None]) * scale
        boxes = clip(boxes, size[0], size[1])
        scores = joint_scores(outputs)[0] * (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
        scores, pair = self._best_pairs(scores, [level.shape[2] * level.shape[3] for level in levels])
        return boxes[pair // num_classes], scores, pair % num_classes

    def _best_pairs(self, scores: Tensor, cells: list[int]) -> tuple[Tensor, Tensor]:
        """Return at most `max_candidates` scores per level above the threshold, and flat (location, class) indices.

        Levels are padded with scores below any threshold, since the k of a traced topk is fixed.
        """
        best, pair, first = [], [], 0
        for count in cells:
            level = pad(scores[first : first + count].flatten(), [0, self.max_candidates], value=-1.0)
            values, index = level.topk(self.max_candidates)
            best.append(values)
            pair.append(index + first * scores.shape[1])
            first = first + count
        all_scores, all_pairs = torch.cat(best), torch.cat(pair)
        kept = (all_scores > self.score_threshold).nonzero().squeeze(1)
        return all_scores[kept], all_pairs[kept]

    def _best(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the indices that NMS keeps, highest score first.

        NMS runs for each class, because offsets that separate the classes in one call would round the boxes.
        """
        kept = []
        for label in range(self.model.head.class_logits.out_channels):
            of_class = (labels == label).nonzero().squeeze(1)
            kept.append(of_class[nms(boxes[of_class], scores[of_class], self.nms_iou_threshold)])
        indices = torch.cat(kept)
        return indices[scores[indices].argsort(descending=True)[: self.max_detections]]


def save_torchscript(module: Exportable, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the traced module, with each metadata entry as an extra file."""
    with _silenced():
        traced = torch.jit.trace(module, (_example(),), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, path, _extra_files=dict(metadata))


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """Load an exported TorchScript file without torch's deprecation warnings."""
    with _silenced():
        return torch.jit.load(path)  # type: ignore[no-any-return, no-untyped-call]


def save_onnx(module: Exportable, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the traced module as ONNX; needs the packages of the extra `export`.

    This uses the older of torch's two exporters. The newer one (torch 2.15) fixes the size of pyramid levels that have
    a single row or column in the example, so that other images fail, and takes 30 s instead of 1 s.
    """
    import onnx

    free = {name: {0: "detections"} for name in OUTPUTS}
    with _silenced():
        torch.onnx.export(
            module,
            (_example(),),
            path,
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_axes={"image": {2: "height", 3: "width"}, **free},
            opset_version=OPSET,
            dynamo=False,
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(metadata))
    onnx.checker.check_model(written)
    onnx.save(written, path)


def _example() -> Tensor:
    return torch.full((1, 3, *EXAMPLE_SIZE), 127.0)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Ignore known warnings: TorchScript is deprecated but works, and the graph ignores HeadOutputs.feature_sizes."""
    known: list[tuple[str, type[Warning]]] = [
        (r"`torch\.jit\.\w+` is deprecated", FutureWarning),
        ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
        ("The feature will be removed. Please remove usage of this function", DeprecationWarning),
        ("Constant folding - Only steps=1 can be constant folded", UserWarning),  # from the padding; harmless
        ("Converting a tensor to a Python integer", torch.jit._trace.TracerWarning),
    ]
    with warnings.catch_warnings():
        for message, category in known:
            warnings.filterwarnings("ignore", message, category)
        yield


class _GroupNorm(nn.GroupNorm):
    """GroupNorm without kernel selection and torch's own size check, because a trace would fix both."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _with_plain_group_norm(model: FCOS) -> FCOS:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                plain = _GroupNorm(child.num_groups, child.num_channels, child.eps)
                plain.load_state_dict(child.state_dict())
                setattr(module, name, plain)
    return model
