"""Run a network over a split."""

import time
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fcos import distributed
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.images import resized_size
from fcos.data.transforms import View, make_batch, padded_size, send
from fcos.detections import Candidates, Detections
from fcos.model.device import find_memory_format
from fcos.model.graphs import Graphs, run
from fcos.model.locations import LocationGrid
from fcos.postprocess import candidates_of, decode_rows, detect_rows
from fcos.progress import Progress
from fcos.records import ViewTiming
from fcos.structures import Sample


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network with all that is needed to turn images into candidates."""

    model: nn.Module
    grid: LocationGrid
    device: torch.device
    dtype: torch.dtype
    score_threshold: float
    max_candidates: int
    graphs: Graphs | None = None  # of the model, on CUDA

    def __post_init__(self) -> None:
        self.model.to(self.device, memory_format=find_memory_format(self.device, self.dtype)).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, samples: list[Sample], views: list[View]) -> list[Candidates]:
        """Return the candidates of each sample in its view, in pixels of the original image."""
        return candidates_of(self.rows(samples, views), score_threshold=self.score_threshold)

    @torch.inference_mode()
    def detect(
        self, samples: list[Sample], views: list[View], *, nms_iou_threshold: float, max_detections: int
    ) -> list[Detections]:
        """Return the detections of each sample in its view, with NMS on the device."""
        return detect_rows(
            self.rows(samples, views),
            score_threshold=self.score_threshold,
            nms_iou_threshold=nms_iou_threshold,
            max_detections=max_detections,
        )

    def rows(self, samples: list[Sample], views: list[View]) -> Tensor:
        """Return boxes, scores and labels on the device; see `decode_rows`."""
        batch = make_batch(samples, views, self.device, find_memory_format(self.device, self.dtype))
        outputs = run(self.model, batch.images, self.dtype, self.graphs)
        height, width = batch.images.shape[2:]
        locations = self.grid(outputs.feature_sizes, (height, width), self.device)
        original = send(torch.tensor([sample.size for sample in samples], dtype=torch.float32), self.device)
        return decode_rows(
            outputs,
            locations.xy,
            locations.strides,
            batch.image_sizes,
            original,
            max_candidates=self.max_candidates,
        )


@dataclass(frozen=True)
class Timing:
    """Wall time in seconds over a split, from files on disk to candidates; `forward_s` is the part after decoding."""

    num_images: int
    seconds: float
    forward_s: float

    def to_json(self) -> ViewTiming:
        """Return the entry of timing.json."""
        return {
            "num_images": self.num_images,
            "seconds": round(self.seconds, 4),
            "forward_seconds": round(self.forward_s, 4),
            "ms_per_image": round(1000 * self.seconds / self.num_images, 4),
        }


def predict_split(
    predictor: Predictor,
    dataset: DetectionDataset,
    *,
    shorter: int,
    longest: int,
    batch_size: int,
    workers: int,
    description: str | None,
) -> tuple[dict[int, Candidates], Timing]:
    """Return the candidates of every image by image id, in the split's order, and the time they took.

    Several ranks share the batches, which stay the same, and all return the candidates of all images.

    Only images of one padded size share a batch, since padding affects an image through convolutions and GroupNorm:
    otherwise the predictions of an image would depend on the other images of its batch.

    Args:
        shorter, longest: sides that the images are resized to, in pixels; see `resized_size`.
        description: title of the progress bar; None shows no progress and skips the warm-up that the timing needs.
    """
    views = [View(resized_size(dataset.size(i), shorter, longest)) for i in range(len(dataset))]
    batches = list(distributed.share(_batches_of_one_shape(views, batch_size)))
    if description is not None:
        _warm_up(predictor, dataset, batches[:1], views)
    found: dict[int, list[Candidates]] = defaultdict(list)
    num_images = sum(map(len, batches))
    progress = None if description is None else Progress(description, num_images, unit="images")
    started = time.perf_counter()
    forward_s = 0.0
    for indices, samples in zip(batches, load_ahead(dataset, batches, workers=workers), strict=True):
        forward_started = time.perf_counter()
        results = predictor(samples, [views[index] for index in indices])
        forward_s += time.perf_counter() - forward_started
        for sample, candidates in zip(samples, results, strict=True):
            found[sample.image_id].append(candidates)
        if progress:
            progress.update(len(indices))
    for other, theirs in enumerate(distributed.gather(dict(found))):
        for image_id, results in theirs.items() if other != distributed.rank() else ():
            found[image_id] += results
    timing = Timing(len(dataset), time.perf_counter() - started, forward_s)
    if progress:
        progress.close()
    image_ids = dataset.split.image_ids.tolist()
    # Every image is predicted exactly once: none is lost or predicted twice (rf-detr#1507).
    assert sorted(found) == sorted(image_ids) and all(len(results) == 1 for results in found.values())
    return {image_id: found[image_id][0] for image_id in image_ids}, timing


def _batches_of_one_shape(views: list[View], batch_size: int) -> list[list[int]]:
    of_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, view in enumerate(views):
        of_shape[padded_size([view.size])].append(index)
    return [
        indices[first : first + batch_size]
        for indices in of_shape.values()
        for first in range(0, len(indices), batch_size)
    ]


def _warm_up(predictor: Predictor, dataset: DetectionDataset, batches: list[list[int]], views: list[View]) -> None:
    """Run these batches, so that the time for building kernels is not measured."""
    for indices in batches:
        predictor([dataset[index] for index in indices], [views[index] for index in indices])
