"""`fcos export`: write a trained network for other runtimes, and keep the file only if its outputs agree with ours."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fcos.config.section import DEFAULT_PATH, read_params
from fcos.data.coco import read_split
from fcos.data.images import reduction
from fcos.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from fcos.detections import Detections
from fcos.errors import UserError
from fcos.files import sha256_file, whole_file
from fcos.inference.detector import Detector, ImageArray, Weights
from fcos.inference.exportable import Exportable, load_torchscript, save_onnx, save_torchscript
from fcos.progress import say, track
from fcos.study.build import build_grid, load_model
from fcos.study.layout import Layout

SUFFIX = {"onnx": ".onnx", "torchscript": ".pt"}
NEEDED = ("onnx", "onnxruntime")
NUM_IMAGES = 8  # images of the check
BOX_TOLERANCE = 0.1  # pixels
SCORE_TOLERANCE = 1e-4

Runs = Callable[[ImageArray], Detections]


class ExportDiffers(Exception):
    """The outputs of the exported network differ from ours, which is not the user's mistake."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Differences between detections of two networks: in pixels, in score, and how many are unpaired."""

    images: int = 0
    boxes: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0
    unpaired: int = 0

    @property
    def passed(self) -> bool:
        """Whether the exported network found the same boxes, within the tolerances."""
        differences = (self.box_difference <= BOX_TOLERANCE, self.score_difference <= SCORE_TOLERANCE)
        return all(differences) and self.unpaired == 0

    def __add__(self, other: "Check") -> "Check":
        return Check(
            images=self.images + other.images,
            boxes=self.boxes + other.boxes,
            box_difference=max(self.box_difference, other.box_difference),
            score_difference=max(self.score_difference, other.score_difference),
            unpaired=self.unpaired + other.unpaired,
        )

    def __str__(self) -> str:
        return (
            f"{self.boxes} PyTorch boxes on {self.images} images: coordinates differ by at most "
            f"{self.box_difference:.2g} pixels, scores by {self.score_difference:.2g}; "
            f"{self.unpaired} boxes have no match"
        )


def export(
    checkpoint: str, format: str, out: Path | None = None, *, score: float | None = None, nms: float | None = None
) -> tuple[Path, Check]:
    """Write the network with its pre- and postprocessing, from pixels to detections; return the file and its check.

    Args:
        format: onnx or torchscript; out: by default RUN.onnx or RUN.pt.
        score, nms: thresholds that are built in; None: as in params.yaml.

    Raises:
        ExportDiffers: the file, run by its own runtime, finds other boxes; the file is not kept.
    """
    if format == "onnx":
        _need_packages()
    # Our network also runs in float32, because bfloat16 would differ more than the export does.
    weights = Weights.find(checkpoint).with_test(
        score_threshold=score, nms_iou_threshold=nms, device="cpu", precision="float32"
    )
    out = out or Path(weights.run.name + SUFFIX[format])
    save, load = (save_onnx, _onnx) if format == "onnx" else (save_torchscript, _torchscript)
    with whole_file(out) as scratch:
        save(_exportable(weights), scratch, metadata(weights))
        check = _check(Detector(weights), load(scratch), check_images(weights))
        if not check.passed:
            raise ExportDiffers(
                f"{out} was not written: its boxes differ from PyTorch's; {check} "
                f"(allowed: {BOX_TOLERANCE} pixels, {SCORE_TOLERANCE})"
            )
    return out, check


def _need_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            "--format onnx",
            "packages are missing",
            found=f"no {', no '.join(missing)}",
            expected=" and ".join(NEEDED),
            hint="pip install '.[export]' in the folder of this project, or --format torchscript, which needs neither",
        )


def _exportable(weights: Weights) -> Exportable:
    return Exportable(
        load_model(weights.run, weights.identity, weights.path),
        build_grid(weights.run.model),
        **weights.test.model_dump(
            include={"size", "max_size", "score_threshold", "max_candidates", "nms_iou_threshold", "max_detections"}
        ),
    )


def metadata(weights: Weights) -> dict[str, str]:
    """Return the metadata of the file: its classes in label order, its input format, and its origin."""
    categories = weights.identity.categories
    values: dict[str, Any] = {
        "classes": [category["name"] for category in categories],
        "category_ids": [category["id"] for category in categories],
        "study": weights.run.study,
        "run": weights.run.name,
        "weights_sha256": sha256_file(weights.path),
        "input": "image: float32 (1, 3, height, width), RGB, 0 to 255, any height and width",
        "output": "boxes: float32 (D, 4) x1 y1 x2 y2 in pixels of the image; scores: (D,); labels: int64 (D,)",
        "inside": "resizing, normalising, padding, decoding, NMS",
        "normalisation": {"scale": 1 / 255, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "test": weights.test.settings(),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def as_input(image: ImageArray) -> NDArray[np.float32]:
    """Return an image (height, width, 3) as the network's input (1, 3, height, width)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def _onnx(path: Path) -> Runs:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: Detections(*session.run(None, {"image": as_input(image)}))


def _torchscript(path: Path) -> Runs:
    module = load_torchscript(path)

    def run(image: ImageArray) -> Detections:
        with torch.inference_mode():
            return Detections(*(output.numpy() for output in module(torch.from_numpy(as_input(image)))))

    return run


def check_images(weights: Weights) -> list[ImageArray]:
    """Return test images of the weights' study, or random ones if not available, and two of another shape."""
    images = _test_images(weights) or [_drawn(seed, weights.test.size) for seed in range(NUM_IMAGES)]
    height, width = images[0].shape[:2]
    return [*images, images[0][: -(-height // 2)], images[0][:, : -(-width // 3)]]


def _test_images(weights: Weights) -> list[ImageArray]:
    if not DEFAULT_PATH.exists() or read_params().get("study") != weights.run.study:
        return []
    try:
        split = read_split(Layout(weights.run.study).data, "test")
    except UserError:  # the data are not prepared here
        return []
    try:
        step = max(1, len(split.images) // NUM_IMAGES)
        images = split.images[::step][:NUM_IMAGES]
        limits = weights.test.size, weights.test.max_size
        factors = [reduction((image["height"], image["width"]), *limits) for image in images]
        return [split.pixels(image, factor) for image, factor in zip(images, factors, strict=True)]
    except UserError as error:
        say(f"the exported file is compared on drawn images, since a test image cannot be read: {error.where}")
        return []


def _drawn(seed: int, size: int) -> ImageArray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8))
    return np.array(coarse.resize((size * 4 // 3, size), Image.Resampling.BICUBIC))


def _check(detector: Detector, run: Runs, images: Sequence[ImageArray]) -> Check:
    total = Check()
    for image in track(images, "check", total=len(images), unit="images"):
        ours = detector.detect(detector.candidates(image))
        total += compare(ours, run(image), lowest=detector.test.score_threshold, most=detector.test.max_detections)
    if total.boxes == 0:
        raise UserError(
            "--score",
            "the network detects nothing in the check images, so the exported file cannot be checked",
            found=detector.test.score_threshold,
            expected="a score that some box reaches",
            hint="give a lower --score",
        )
    return total


def compare(ours: Detections, theirs: Detections, *, lowest: float, most: int) -> Check:
    """Return the differences of detections of one image, paired by class and nearest box, highest score first.

    Unpaired detections are not an error near the cutoff, where rounding decides. The cutoff is the `lowest` score, or
    the score of the last detection if there are `most`.
    """
    cut = max([lowest, *(found.scores.min() for found in (ours, theirs) if len(found) == most)]) + SCORE_TOLERANCE
    left = list(range(len(theirs)))
    unpaired, box_difference, score_difference = [], 0.0, 0.0
    for box, score, label in zip(ours.boxes, ours.scores, ours.labels, strict=True):
        same = [index for index in left if theirs.labels[index] == label]
        if not same:
            unpaired.append(score)
            continue
        apart = np.abs(theirs.boxes[same] - box).max(axis=1)
        partner = same[int(apart.argmin())]
        left.remove(partner)
        box_difference = max(box_difference, float(apart.min()))
        score_difference = max(score_difference, abs(float(theirs.scores[partner] - score)))
    unpaired += theirs.scores[left].tolist()
    return Check(
        images=1,
        boxes=len(ours),
        box_difference=box_difference,
        score_difference=score_difference,
        unpaired=sum(score > cut for score in unpaired),
    )
