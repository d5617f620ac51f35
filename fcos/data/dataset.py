"""Decoded images of prepared data, with their boxes as tensors."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from fcos.boxes import xywh_to_xyxy
from fcos.data.cache import Images
from fcos.data.coco import CocoSplit
from fcos.structures import GroundTruth, Sample

FETCHED_AHEAD = (
    8  # batches that are asked for before the one that is decoded, because of the latency of an object store
)


class DetectionDataset:
    """The images of a split with their boxes, by index; without `images`, an image is decoded at every access."""

    def __init__(self, split: CocoSplit, images: Images | None = None) -> None:
        self.split = split
        self._images = Images(split) if images is None else images

    def __len__(self) -> int:
        return len(self.split.images)

    def size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) of the image."""
        height, width = self.split.sizes[index].tolist()
        return height, width

    def __getitem__(self, index: int) -> Sample:
        truth = self.ground_truth(index)
        return Sample(int(self.split.image_ids[index]), self._images[index], truth, self.size(index))

    def fetch(self, indices: Sequence[int]) -> None:
        """Begin to fetch images that will be read soon, if they are far away."""
        self._images.fetch(indices)

    def cancel(self) -> None:
        """Do not fetch what was asked for and has not begun."""
        self._images.cancel()

    def ground_truth(self, index: int) -> GroundTruth:
        """Return the boxes of the image at `index`, in pixels of the original image."""
        objects = self.split.objects
        rows = objects.rows(index)
        return GroundTruth(
            xywh_to_xyxy(torch.from_numpy(objects.boxes_xywh[rows].astype(np.float32))),
            torch.from_numpy(objects.label[rows].astype(np.int64)),
            torch.from_numpy(objects.crowd[rows]),
        )


def _fetched_ahead(dataset: DetectionDataset, batches: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
    """Yield the batches, after the images of the next ones have been asked for where they are in shards."""
    if dataset.split.shards is None:
        yield from batches
        return
    asked: deque[Sequence[int]] = deque()
    try:
        for batch in batches:
            dataset.fetch(batch)
            asked.append(batch)
            if len(asked) > FETCHED_AHEAD:
                yield asked.popleft()
        yield from asked
    finally:
        dataset.cancel()


def load_ahead(dataset: DetectionDataset, batches: Iterable[Sequence[int]], *, workers: int) -> Iterator[list[Sample]]:
    """Yield the samples of each batch in order, decoded ahead of time by `workers` threads (0: on demand).

    Threads suffice, since decoding and the network both release the GIL.
    """
    remaining = _fetched_ahead(dataset, batches)
    if workers == 0:
        yield from ([dataset[index] for index in batch] for batch in remaining)
        return
    with ThreadPoolExecutor(min(workers, os.cpu_count() or 1)) as pool:

        def submit(batch: Sequence[int]) -> list[Future[Sample]]:
            return [pool.submit(dataset.__getitem__, index) for index in batch]

        queue = [submit(batch) for batch in islice(remaining, 2)]
        try:
            while queue:
                samples = [future.result() for future in queue.pop(0)]
                queue += [submit(batch) for batch in islice(remaining, 1)]
                yield samples
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
