"""`fcos demo`: the requests of its page; the network runs once per image and run."""

import contextlib
import io
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from PIL import Image

from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.data.coco import read_split
from fcos.data.images import opened, read_image
from fcos.detections import Candidates, detect
from fcos.errors import UserError
from fcos.files import sha256_bytes
from fcos.inference.detector import Detector, ImageArray, Weights, records
from fcos.palette import COLOURS, WHITE_ON
from fcos.study.layout import Layout

MAX_BYTES = 32 << 20  # largest image file
MAX_PIXELS = 50_000_000
LOWEST_SCORE = 0.01  # lower end of the slider; candidates below it are not kept
SHOWN_SIDE = 1600  # longer side, in pixels, of an image that is sent to the page
THUMBNAIL_SIDE = 160
KEPT_UPLOADS, KEPT_NETWORKS, KEPT_CANDIDATES = 16, 3, 64
KEPT_BYTES = 128 << 20  # limit of all uploads, kept as files because one decoded image may take 150 MB


class Refused(Exception):
    """A request of the page is refused; the page shows the message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Prediction:
    """Predictions of a network for an image, before NMS, and their time."""

    candidates: Candidates
    size: tuple[int, int]  # (height, width) of the image
    categories: list[dict[str, Any]]
    device: str
    network_ms: float


class Demo:
    """The runs and test images of the active study, and uploaded images.

    Thread-safe: one image at a time is decoded or run through a network.
    """

    def __init__(self, study: str, runs: Mapping[str, Run], test: TestConfig) -> None:
        if not runs:
            raise UserError("params.yaml: runs", "there is no network", found="{}", expected="a study with trainings")
        self.study, self.test, self.layout, self.runs = study, test, Layout(study), runs
        self.network_runs = 0
        self._uploads: OrderedDict[str, bytes] = OrderedDict()
        self._test_images, self._bits = _test_images(self.layout)
        self._lock = threading.RLock()
        self._load = lru_cache(KEPT_NETWORKS)(_load)
        self._say = lru_cache(KEPT_CANDIDATES)(self._run_network)
        if not self.trained():
            hint = f"fcos train {next(iter(runs))}"
            raise UserError(self.layout.runs, "no run has weights yet", expected="a trained run", hint=hint)

    def trained(self) -> list[str]:
        """Return the runs with weights, in the order of params.yaml; trainings may end while the page is open."""
        return [run for run in self.runs if self.layout.weights(run).exists()]

    def describe(self) -> dict[str, Any]:
        """Return what the page shows before an image is selected."""
        return {
            "study": self.study,
            "runs": [_about(self.runs[run], self.layout) for run in self.trained()],
            "images": list(self._test_images),
            "score": 0.3,
            "lowest_score": LOWEST_SCORE,
            "nms": self.test.nms_iou_threshold,
            "max_bytes": MAX_BYTES,
            "colors": [{"fill": color, "text": "#fff" if color in WHITE_ON else "#000"} for color in COLOURS],
        }

    def add(self, data: bytes) -> str:
        """Store an image file and return its id; old uploads are dropped when space runs out."""
        name = sha256_bytes(data)
        with self._lock:
            decode(data, self._bits)
            self._uploads[name] = data
            self._uploads.move_to_end(name)
            while len(self._uploads) > KEPT_UPLOADS or sum(map(len, self._uploads.values())) > KEPT_BYTES:
                self._uploads.popitem(last=False)
        return name

    def image(self, name: str) -> ImageArray:
        """Return the image with this id, an upload or a test image; a path is never accepted."""
        with self._lock:
            if name in self._uploads:
                return decode(self._uploads[name], self._bits)
            if name in self._test_images:
                return self._test_images[name]()
        raise Refused(HTTPStatus.NOT_FOUND, "The image is no longer available: choose it again.")

    def shown(self, name: str, *, thumbnail: bool = False) -> bytes:
        """Return the image as JPEG, reduced to the size that the page shows."""
        side = THUMBNAIL_SIDE if thumbnail else SHOWN_SIDE
        with self._lock:
            image = Image.fromarray(self.image(name))
            image.thumbnail((side, side))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80 if thumbnail else 92)
        return stream.getvalue()

    def detect(self, image: str, run_name: str, *, score: float, nms: float) -> dict[str, Any]:
        """Return the detections in the image at these thresholds; the network runs only for a new image or run."""
        if run_name not in self.trained():
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no run {run_name} with weights.")
        with self._lock:
            said = self._say(image, run_name, self.layout.weights(run_name).stat().st_mtime_ns)
        started = time.perf_counter()
        kept = said.candidates[said.candidates.scores >= score]
        found = detect(kept, nms_iou_threshold=nms, max_detections=self.test.max_detections)
        return {
            "width": said.size[1],
            "height": said.size[0],
            "detections": records(found, said.categories),
            "classes": said.categories,
            "network_ms": said.network_ms,
            "nms_ms": 1000 * (time.perf_counter() - started),
            "device": said.device,
            "network_runs": self.network_runs,
        }

    def _run_network(self, image: str, run_name: str, modified_ns: int) -> Prediction:
        detector = self._load(self.layout.weights(run_name), self.test, modified_ns)
        pixels = self.image(image)
        self.network_runs += 1
        started = time.perf_counter()
        candidates = detector.candidates(pixels)
        network_ms = 1000 * (time.perf_counter() - started)
        return Prediction(
            candidates,
            (pixels.shape[0], pixels.shape[1]),
            detector.categories,
            detector.predictor.device.type,
            network_ms,
        )


def decode(data: bytes, bits: int = 16) -> ImageArray:
    """Decode the bytes of an image file; raises Refused with the reason if they are not an accepted image."""
    most = f"{MAX_PIXELS // 1_000_000} million pixels are the limit"
    try:
        with opened(io.BytesIO(data), "the image") as image:
            width, height = image.size
    except UserError as error:
        if "is too large" in str(error.problem):
            raise Refused(HTTPStatus.BAD_REQUEST, f"The image is too large: {most}.") from None
        raise Refused(HTTPStatus.BAD_REQUEST, "This is not a supported image file (JPEG, PNG, WebP ...).") from None
    if width * height > MAX_PIXELS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"The image is too large, {width} x {height}: {most}.")
    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return read_image(Path(file.name), bits=bits)
        except UserError:
            raise Refused(HTTPStatus.BAD_REQUEST, "The image is damaged, or its format is not supported.") from None


def _load(path: Path, test: TestConfig, _modified_ns: int) -> Detector:
    """Load a detector and warm it up, because the first pass builds kernels and would distort the time of an image."""
    detector = Detector(Weights.read(path, test).with_test(score_threshold=min(LOWEST_SCORE, test.score_threshold)))
    detector.candidates(np.zeros((test.size, test.size, 3), dtype=np.uint8))
    return detector


def _test_images(layout: Layout) -> tuple[dict[str, Callable[[], ImageArray]], int]:
    """Return a reader of each test image by id, none if there are no data here, and the bits used of 16."""
    try:
        split = read_split(layout.data, "test")
    except UserError:
        return {}, 16
    return {f"test-{image['id']}": partial(split.pixels, image) for image in split.images}, split.bits


def _about(run: Run, layout: Layout) -> dict[str, Any]:
    """Return a short description of a run, with its test AP if it was scored."""
    words = [run.backbone, f"{run.epochs} epochs" if run.epochs else "imported", f"{run.num_convs} convolutions"]
    ap = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        ap = json.loads((layout.run(run.name) / "metrics.json").read_text())["AP"]
    if ap is not None:
        words.append(f"test AP {100 * ap:.1f}")
    return {"name": run.name, "about": " · ".join(words), "ap": ap}
