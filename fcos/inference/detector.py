"""A trained network as a detector of objects in images, for `detect`, `export`, `demo` and the MLflow model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from fcos.config.runs import Run
from fcos.config.section import DEFAULT_PATH, parse_section, read_params
from fcos.config.study import Name
from fcos.config.test import TestConfig
from fcos.data.images import reduced, reduction, resized_size
from fcos.data.transforms import View
from fcos.detections import Candidates, Detections, detect
from fcos.errors import UserError
from fcos.model.checkpoint import Identity, read_identity
from fcos.model.device import find_device, find_dtype
from fcos.structures import GroundTruth, Sample
from fcos.study.build import load_model
from fcos.study.layout import Layout
from fcos.study.predictor import build_predictor

NOTHING = GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
ImageArray = NDArray[np.uint8]  # (height, width, 3)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A weights file of this project, with the network and the test settings that its header records."""

    path: Path
    identity: Identity
    run: Run
    test: TestConfig

    @staticmethod
    def read(path: Path, test: TestConfig | None = None) -> "Weights":
        """Read the weights at `path`; without `test`, images are resized to the largest training size."""
        identity = read_identity(path, hint="fcos train RUN")
        try:
            run = Run.model_validate({"role": None, **identity.run})
        except ValidationError as error:
            found = f"run.{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
            raise UserError(path, "describes a network that this version does not support", found=found) from None
        _check_size(path, run)
        default = TestConfig(size=max(run.train.sizes), max_size=run.train.max_size)
        return Weights(path=path, identity=identity, run=run, test=test or default)

    @staticmethod
    def find(run_or_file: str) -> "Weights":
        """Return the weights of a run of the active study or of a file, with test settings from params.yaml, if any."""
        params = read_params() if DEFAULT_PATH.exists() else {}
        test = parse_section(params, "test", TestConfig) if "test" in params else None
        if Path(run_or_file).is_file():
            return Weights.read(Path(run_or_file), test)
        return Weights.read(_weights_path(run_or_file, params), test)

    def with_test(self, **changes: Any) -> "Weights":
        """Return the weights with changed test settings; None keeps a setting."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, test=self.test.model_copy(update=given))


def _check_size(path: Path, run: Run) -> None:
    """Raise UserError for a header that describes a larger network than the file can hold, before it is built."""
    channels, size = run.model.fpn_channels, path.stat().st_size
    at_least = 2 * 9 * channels**2 * (run.num_convs + 1)  # one tower of 3 x 3 convolutions, two bytes per weight
    if at_least > size:
        found = f"{run.num_convs} convolutions of {channels} channels, in {size} bytes"
        raise UserError(path, "its header describes a larger network than the file contains", found=found)


def _weights_path(run_name: str, params: Mapping[str, Any]) -> Path:
    runs = params.get("runs", {})
    if "study" not in params or run_name not in runs:
        expected = f"a file, or one of {', '.join(runs) or 'the runs of params.yaml (not found here)'}"
        raise UserError("RUN_OR_FILE", f"no run and no file called {run_name!r}", expected=expected)
    return Layout(parse_section(params, "study", Name)).weights(run_name)


class Detector:
    """Callable that takes images and returns COCO-style records."""

    def __init__(self, weights: Weights) -> None:
        self.test, self.categories, self.bits = weights.test, weights.identity.categories, weights.identity.bits
        device = find_device(self.test.device)
        dtype = find_dtype(self.test.precision, device)
        model = load_model(weights.run, weights.identity, weights.path)
        self.predictor = build_predictor(model, weights.run, self.test, device, dtype, graphs=self.test.cuda_graphs)

    @staticmethod
    def from_weights(path: Path, test: TestConfig | None = None) -> "Detector":
        """Return the detector with the weights at `path`; `test` replaces the settings of prediction."""
        return Detector(Weights.read(path, test))

    def __call__(self, images: list[ImageArray]) -> list[list[dict[str, Any]]]:
        """Return the detections of each image, highest score first: category_id, category, bbox (xywh), score."""
        return [records(self._detections(image), self.categories) for image in images]

    def candidates(self, image: ImageArray) -> Candidates:
        """Return the predictions for the image, before NMS, in pixels of the image."""
        sample, view = self._shown(image)
        return self.predictor([sample], [view])[0]

    def _detections(self, image: ImageArray) -> Detections:
        if not self.test.nms_on_device:
            return self.detect(self.candidates(image))
        sample, view = self._shown(image)
        nms_iou_threshold, max_detections = self.test.nms_iou_threshold, self.test.max_detections
        return self.predictor.detect(
            [sample], [view], nms_iou_threshold=nms_iou_threshold, max_detections=max_detections
        )[0]

    def _shown(self, image: ImageArray) -> tuple[Sample, View]:
        size = image.shape[0], image.shape[1]
        limits = self.test.size, self.test.max_size
        return Sample(0, reduced(image, reduction(size, *limits)), NOTHING, size), View(resized_size(size, *limits))

    def detect(self, candidates: Candidates) -> Detections:
        """Return the detections that NMS keeps of the candidates."""
        nms_iou_threshold, max_detections = self.test.nms_iou_threshold, self.test.max_detections
        return detect(candidates, nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)


def records(detections: Detections, categories: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return detections as category_id, category, bbox (xywh) and score; `categories` are in label order."""
    columns = (detections.boxes_xywh.tolist(), detections.labels.tolist(), detections.scores.tolist())
    return [
        {
            "category_id": categories[label]["id"],
            "category": categories[label]["name"],
            "bbox": bbox,
            "score": score,
        }
        for bbox, label, score in zip(*columns, strict=True)
    ]
