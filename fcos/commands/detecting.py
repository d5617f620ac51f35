"""A trained network as a thing that finds objects in pictures: what `fcos detect` and the MLflow model use."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fcos.commands.build import build_grid, load_model
from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.data.dataset import Sample
from fcos.data.transforms import View, resized_size
from fcos.detections import detect
from fcos.evaluation.predictor import Predictor
from fcos.model.checkpoint import read_identity
from fcos.model.device import find_device, find_dtype
from fcos.structures import GroundTruth

NOTHING = GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))


class Detector:
    """Pictures in, COCO-style records out."""

    def __init__(self, predictor: Predictor, test: TestConfig, categories: list[dict[str, Any]]) -> None:
        self.predictor, self.test, self.categories = predictor, test, categories

    @staticmethod
    def from_weights(path: Path, test: TestConfig | None = None) -> "Detector":
        """The detector in one of our weights files, which says itself what network it belongs to.

        Without `test` it looks at pictures at the largest size that it was trained on.
        """
        identity = read_identity(path, do="fcos train RUN")
        run = Run.model_validate({"role": None, **identity.run})
        if test is None:
            test = TestConfig(size=max(run.train.sizes), max_size=run.train.max_size)
        device = find_device(test.device)
        predictor = Predictor(
            model=load_model(run, identity, path),
            grid=build_grid(run.model),
            device=device,
            dtype=find_dtype(test.precision, device),
            score_threshold=test.score_threshold,
            max_candidates=test.max_candidates,
        )
        return Detector(predictor, test, identity.categories)

    def __call__(self, pictures: list[NDArray[np.uint8]]) -> list[list[dict[str, Any]]]:
        """Detections of each picture (height, width, 3), best first: category_id, category, bbox (xywh), score."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: NDArray[np.uint8]) -> list[dict[str, Any]]:
        height, width = picture.shape[:2]
        view = View(resized_size((height, width), self.test.size, self.test.max_size))
        candidates = self.predictor([Sample(0, picture, NOTHING)], [view])[0]
        found = detect(
            candidates, nms_iou_threshold=self.test.nms_iou_threshold, max_detections=self.test.max_detections
        )
        return [
            {
                "category_id": self.categories[label]["id"],
                "category": self.categories[label]["name"],
                "bbox": bbox,
                "score": score,
            }
            for bbox, label, score in zip(
                found.boxes_xywh.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            )
        ]
