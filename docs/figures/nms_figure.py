"""Figure of the effect of the NMS threshold on the candidates of one image."""

import torch
from matplotlib.figure import Figure
from scene import SIZE, Scene, assign, draw_scene, grid, outline, show
from style import BLUE, ORANGE, SOFT, new_figure
from torchvision.ops import box_iou

from fcos.data.sources.shapes import NAMES
from fcos.detections import Candidates, Detections, detect
from fcos.losses import centerness_targets
from fcos.postprocess import decode_candidates
from fcos.structures import HeadOutputs

NEIGHBOURS = 453  # seed of an image with two triangles that overlap
THRESHOLDS = (0.3, 0.6, 0.9)


def nms() -> Figure:
    """Draw the same candidates at three thresholds: a low one removes a neighbour, a high one keeps duplicates."""
    scene = draw_scene(NEIGHBOURS)
    candidates = _candidates(scene)
    figure = new_figure(2.95)
    for ax, threshold in zip(figure.subplots(1, 3), THRESHOLDS, strict=True):
        kept = detect(candidates, nms_iou_threshold=threshold, max_detections=100)
        first = _first_of_each_object(kept, scene)
        show(ax, scene, strength=0.6, small=True)
        for number, box in enumerate(torch.from_numpy(kept.boxes)):
            outline(ax, box, BLUE if first[number] else ORANGE, width=2.2 if first[number] else 1.2)
        ax.set_title(f"IoU {threshold}: {len(kept)} of {len(candidates)}", fontsize=9.5)
        lost = len(scene.boxes) - sum(first)
        words = f"{lost} of {len(scene.boxes)} objects lost, {len(kept) - sum(first)} duplicates"
        ax.text(SIZE / 2, SIZE + 40, words, ha="center", va="center", fontsize=8.5, color=SOFT)
    return figure


def _candidates(scene: Scene) -> Candidates:
    """Return plausible outputs of a good network: the targets of the scene with errors, decoded as in prediction."""
    locations = grid()
    targets = assign(scene.boxes[None], locations)
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([NAMES.index(name) for name in scene.names])[targets.matched_gt_index[0]]
    sure = torch.nn.functional.one_hot(labels, len(NAMES)) & targets.positive_mask[0, :, None]
    class_logits = 6.0 * sure - 4 + 0.4 * torch.randn(sure.shape, generator=generator)
    errors = 0.08 * torch.randn(targets.target_ltrb.shape, generator=generator)
    outputs = HeadOutputs(
        class_logits=class_logits[None],
        pred_ltrb=targets.target_ltrb * errors.exp(),
        centerness_logits=centerness_targets(targets.target_ltrb).logit(eps=1e-3),
        feature_sizes=tuple((SIZE // int(stride),) * 2 for stride in locations.strides.unique()),
    )
    size = torch.tensor([[float(SIZE), float(SIZE)]])
    return decode_candidates(
        outputs, locations.xy, locations.strides, size, size, score_threshold=0.3, max_candidates=1000
    )[0]


def _first_of_each_object(kept: Detections, scene: Scene) -> list[bool]:
    """Return whether each detection, by decreasing score, is the first one whose best object is that object."""
    nearest = box_iou(torch.from_numpy(kept.boxes), scene.boxes).argmax(dim=1).tolist()
    return [number not in nearest[:place] for place, number in enumerate(nearest)]
