"""How time and memory grow with the data: prepare, score, the merging of views, reading by several workers.

python benchmarks/growth.py --out FILE [--largest 100000]
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from side_by_side import write_report
from synthetic import Detector, detect, draw_images

from fcos.data.coco import CocoSplit
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.sources.assemble import assemble
from fcos.data.sources.description import Boxes, Source, SourceBox, SourceImage, SourceSplit
from fcos.detections import Candidates, merge_views
from fcos.evaluation.scoring import detect_all
from fcos.scoring.matching import match
from fcos.scoring.numbers import coco_metrics

IMAGE = (48, 64)  # height and width of the images to prepare; small, since reading files is not measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--measure", nargs=2, metavar=("PART", "SIZE"), help="one measurement, for memory of its own")
    arguments = parser.parse_args()
    if arguments.measure:
        part, size = arguments.measure
        measured = PARTS[part](int(size))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"size": int(size), "seconds": round(measured, 3), "peak_gb": round(peak, 2)}))
        return
    if arguments.out is None:
        parser.error("--out FILE is missing")
    images = [size for size in (1_000, 10_000, 100_000) if size <= arguments.largest]
    sizes = {"prepare": images, "score": images, "views": [1, 2, 4, 8], "workers": [0, 1, 2, 4]}
    units = {"prepare": "images", "score": "images", "views": "views", "workers": "threads"}
    lines = []
    for part, of_part in sizes.items():
        rows = [in_own_process(part, size) for size in of_part]
        lines.append({"what": part, "unit": units[part], "rows": rows, "exponent": exponent(rows)})
        print(lines[-1])
    write_report(arguments.out, "Growth", lines)


def in_own_process(part: str, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", part, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def exponent(rows: list[dict[str, Any]]) -> float:
    """Return b of seconds = a * size ** b from the two largest sizes, where fixed costs matter least."""
    before, last = rows[-2:]
    return round(math.log(last["seconds"] / before["seconds"]) / math.log(last["size"] / before["size"]), 2)


def prepare(count: int) -> float:
    """Check `count` images and write them as COCO JSON, five boxes each."""
    with tempfile.TemporaryDirectory() as folder, quiet_files(Path(folder), count) as names:
        generator = np.random.default_rng(0)
        corners = generator.integers(0, (IMAGE[1] // 2, IMAGE[0] // 2), (count, 5, 2))
        images = [
            SourceImage(
                image_dir=Path(folder),
                file_name=name,
                described_in=Path(folder),
                image_id=number,
                size=IMAGE,
                boxes=Boxes(SourceBox("thing", [float(x), float(y), 10.0, 10.0]) for x, y in corners[number - 1]),
            )
            for number, name in enumerate(names, start=1)
        ]
        half = len(images) // 2
        splits = {"train": SourceSplit(Path(folder), images[:half]), "test": SourceSplit(Path(folder), images[half:])}
        out = Path(folder) / "out"
        started = time.perf_counter()
        assemble(Source([{"id": 1, "name": "thing"}], splits), out, clip_outside=False)
        return time.perf_counter() - started


@contextmanager
def quiet_files(folder: Path, count: int) -> Iterator[list[str]]:
    """Write `count` JPEG files that differ in a number after the end of the image."""
    buffer = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*IMAGE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="JPEG")
    names = [f"{number}.jpg" for number in range(count)]
    for name in names:
        (folder / name).write_bytes(buffer.getvalue() + name.encode())
    yield names


def score(count: int) -> float:
    """Match and score the synthetic detections of `count` images."""
    generator = np.random.default_rng(0)
    truth = draw_images(generator, count)
    results = detect(generator, truth, Detector())
    split = CocoSplit(truth["images"], truth["categories"], truth["annotations"], Path())
    started = time.perf_counter()
    coco_metrics(match(results, split), split)
    return time.perf_counter() - started


def views(count: int) -> float:
    """Run NMS on each view's candidates and on their union, for 200 images with 200 candidates per view."""
    rng = np.random.default_rng(0)
    of_view = []
    for _ in range(count):
        corners = rng.random((200, 200, 2), np.float32) * 400
        boxes = np.concatenate((corners, corners + 20 + rng.random((200, 200, 2), np.float32) * 100), axis=2)
        scores, labels = rng.random((200, 200), np.float32), rng.integers(0, 20, (200, 200))
        of_view.append({i: Candidates(boxes[i], scores[i], labels[i]) for i in range(200)})
    settings: dict[str, Any] = {"nms_iou_threshold": 0.6, "max_detections": 100}
    started = time.perf_counter()
    found = [detect_all(candidates, **settings) for candidates in of_view]
    for number in range(200):
        merge_views([detections[number] for detections in found], **settings)
    return time.perf_counter() - started


def workers(count: int) -> float:
    """Read 200 images of 640 x 480 with `count` threads (0: without any)."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number in range(200):
            small = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            name = f"{number}.jpg"
            Image.fromarray(small).resize((640, 480)).save(Path(folder) / name, quality=90)
            images.append({"id": number, "file_name": name, "width": 640, "height": 480})
        dataset = DetectionDataset(CocoSplit(images, [], [], Path(folder)))
        batches = [list(range(first, first + 8)) for first in range(0, 200, 8)]
        started = time.perf_counter()
        for _ in load_ahead(dataset, batches, workers=count):
            pass
        return time.perf_counter() - started


PARTS: dict[str, Callable[[int], float]] = {"prepare": prepare, "score": score, "views": views, "workers": workers}


if __name__ == "__main__":
    main()
