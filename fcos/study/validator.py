"""Score a network during training (`train.validate_every`) on the validation split with the test settings."""

import torch
from torch import nn

from fcos.config.data import DataConfig
from fcos.config.runs import Run
from fcos.config.section import parse_section, read_params
from fcos.config.test import TestConfig
from fcos.data.cache import Images, keep_images
from fcos.data.coco import CocoSplit, read_validation
from fcos.data.dataset import DetectionDataset
from fcos.evaluation.predictor import predict_split
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.model.device import find_dtype
from fcos.records import Numbers
from fcos.study.layout import Layout
from fcos.study.predictor import build_predictor
from fcos.study.selection import selection_key
from fcos.training.validation import Part


class SplitValidator:
    """The Validator of a run; it computes COCO metrics without intervals."""

    def __init__(self, run: Run, training: CocoSplit) -> None:
        params = read_params()
        self._run, self._layout = run, Layout(run.study)
        self._test = parse_section(params, "test", TestConfig)
        self._data: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
        self._images: dict[Part, Images] = {}
        held_out = read_validation(self._layout.data, "validate", "train.validate_every")
        self._splits: dict[Part, CocoSplit] = {
            "validation": held_out,
            "training": _sample(training, len(held_out.images)),
        }

    @property
    def key(self) -> str:
        """The part of a training's key that validation adds."""
        return selection_key(self._splits["validation"].digest, self._test)

    @property
    def num_images(self) -> dict[str, int]:
        """The number of images of each part that is scored."""
        return {part: len(split.images) for part, split in self._splits.items()}

    def __call__(self, model: nn.Module, device: torch.device, split: Part) -> Numbers:
        test, images = self._test, self._splits[split]
        dtype = find_dtype(test.precision, device)
        predictor = build_predictor(model, self._run, test, device, dtype, graphs=False)  # of weights that change
        candidates, _ = predict_split(
            predictor,
            DetectionDataset(images, self._kept(split, device)),
            shorter=test.size,
            longest=test.max_size,
            batch_size=test.batch_size,
            workers=test.workers,
            description=None,
        )
        detections = detect_all(
            candidates, nms_iou_threshold=test.nms_iou_threshold, max_detections=test.max_detections
        )
        numbers: Numbers = coco_metrics(coco_results(detections, images), images)["metrics"]
        return numbers

    def _kept(self, part: Part, device: torch.device) -> Images:
        if part not in self._images:
            shown = self._test.size, self._test.max_size
            self._images[part] = keep_images(
                self._splits[part], self._data.cache, device=device, folder=self._layout.decoded, shown=shown
            )
        return self._images[part]


def _sample(split: CocoSplit, most: int) -> CocoSplit:
    """Return at most `most` images of the split, evenly spread over it."""
    step = max(1, -(-len(split.images) // most))
    images = split.images[::step]
    annotations = [annotation for image in images for annotation in split.annotations_of(image["id"])]
    return CocoSplit(images, split.categories, annotations, split.image_dir, split.shards)
