"""A data set and detectors that exist only as numbers: boxes, scores, and an AP that can be known to any precision.

python benchmarks/synthetic.py --out FOLDER        writes gt.json and detections.json of VOC2007 test's size
                               --like coco         of COCO val2017's: 5,000 images, 80 classes, 481,000 detections
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

WIDTH, HEIGHT = 500, 375
# Objects of each class in the annotations of VOC2007 test, difficult ones included.
CLASS_WEIGHTS = np.array(
    [311, 389, 576, 393, 657, 254, 1541, 370, 1374, 329, 299, 530, 395, 369, 5227, 592, 311, 396, 302, 361]
)
VOC2007_IMAGES, VOC2007_DETECTIONS = 4952, 243_000
# COCO val2017: 36,781 objects of 80 classes; person has 30 %, and the other shares decrease.
_FALLING = 1 / (np.arange(79) + 4.0)
COCO2017_WEIGHTS = np.concatenate(([0.3 / 0.7 * _FALLING.sum()], _FALLING))
COCO2017_IMAGES, COCO2017_CLUTTER = 5000, 92.1


@dataclass(frozen=True, kw_only=True)
class Detector:
    """How good a synthetic detector is.

    recall: share of the objects that it finds at all; jitter: error of a box, as a share of its sides (s.d.);
    confidence: mean log-odds of the score of a box that finds something, against 0 of one that does not;
    clutter: boxes in an image that find nothing, on average.
    """

    recall: float = 0.85
    jitter: float = 0.05
    confidence: float = 3.0
    clutter: float = 47.0


def draw_images(
    generator: Generator,
    num_images: int,
    *,
    objects_per_image: float = 3.02,
    class_weights: Any = CLASS_WEIGHTS,
    evenness: float = 1.5,
    themed: float = 0.5,
) -> dict[str, Any]:
    """COCO ground truth: every image an independent draw, some of them without objects, some crowded.

    Args:
        evenness: of the negative binomial number of objects in an image; near 0 a few images have nearly all.
        themed: share of an image's objects that are of its one class.
    """
    share = class_weights / class_weights.sum()
    counts = generator.negative_binomial(evenness, evenness / (evenness + objects_per_image), size=num_images)
    image = np.repeat(np.arange(num_images), counts)
    total = len(image)
    # Half of the objects of an image are of one class, as in photographs.
    theme = generator.choice(len(share), size=num_images, p=share)
    other = generator.choice(len(share), size=total, p=share)
    label = np.where(generator.random(total) < themed, theme[image], other)
    side = np.exp(generator.normal(4.4, 0.8, size=total)).clip(8, 350)
    aspect = np.exp(generator.normal(0, 0.35, size=total))
    w, h = np.minimum(side * aspect, WIDTH), np.minimum(side / aspect, HEIGHT)
    x, y = generator.random(total) * (WIDTH - w), generator.random(total) * (HEIGHT - h)
    boxes = np.stack((x, y, w, h), axis=1).round(1)
    columns = (image + 1).tolist(), label.tolist(), boxes.tolist()
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i + 1}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(num_images)
        ],
        "categories": [{"id": k + 1, "name": f"class {k + 1}"} for k in range(len(share))],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, k, box) in enumerate(zip(*columns, strict=True), start=1)
        ],
    }


def write_images(folder: Path, truth: dict[str, Any]) -> None:
    """Write a JPEG file of smooth noise for each image of `truth`."""
    for image in truth["images"]:
        size = image["width"], image["height"]
        small = np.random.default_rng(image["id"]).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / image["file_name"], quality=90)


def detect(generator: Generator, truth: dict[str, Any], detector: Detector, *, hardness: int = 0) -> list[Any]:
    """COCO results of `detector` on `truth`.

    How hard an image and an object are is drawn from `hardness`: with the same one, detectors find the same ones hard,
    as two trainings of a network do.
    """
    num_images, num_objects = len(truth["images"]), len(truth["annotations"])
    shared = np.random.default_rng(hardness)
    hard = shared.normal(0, 0.7, size=num_images)
    image = np.array([a["image_id"] for a in truth["annotations"]], dtype=int) - 1
    label = np.array([a["category_id"] for a in truth["annotations"]], dtype=int)
    boxes = np.array([a["bbox"] for a in truth["annotations"]], dtype=float).reshape(-1, 4)
    of_object = hard[image] + shared.normal(0, 1.0, size=num_objects)
    found = generator.random(num_objects) < _odds(np.log(detector.recall / (1 - detector.recall)) - of_object)
    # One object in ten has a second, worse box, as duplicates remain after NMS.
    again = found & (generator.random(num_objects) < 0.1)
    which = np.concatenate((np.flatnonzero(found), np.flatnonzero(again)))
    worse = np.repeat([1.0, 2.0], [found.sum(), again.sum()])
    jitter = detector.jitter * (worse * np.exp(0.3 * of_object[which]))[:, None]
    moved = boxes[which] + generator.normal(size=(len(which), 4)) * jitter * boxes[which][:, [2, 3, 2, 3]]
    scores = _odds(generator.normal(detector.confidence - of_object[which] - 0.7 * worse, 1.0) - 1)
    clutter = generator.poisson(detector.clutter * np.exp(0.3 * hard - 0.045))
    where = np.repeat(np.arange(num_images), clutter)
    side = np.exp(generator.normal(4.2, 0.8, size=(len(where), 2))).clip(6, 340)
    corner = generator.random((len(where), 2)) * (np.array([WIDTH, HEIGHT]) - side).clip(0)
    classes = generator.integers(1, len(truth["categories"]) + 1, size=len(where))
    noise = _odds(generator.normal(-2.5, 1.2, size=len(where)) + 0.3 * hard[where])
    return _records(
        np.concatenate((image[which], where)),
        np.concatenate((label[which], classes)),
        np.concatenate((moved, np.concatenate((corner, side), axis=1))).clip(0.5),
        np.concatenate((scores, noise)),
    )


def coco_sized(generator: Generator, num_images: int = COCO2017_IMAGES) -> tuple[dict[str, Any], list[Any]]:
    """Return ground truth and results of the size of COCO val2017."""
    truth = draw_images(generator, num_images, objects_per_image=7.36, class_weights=COCO2017_WEIGHTS)
    return truth, detect(generator, truth, Detector(clutter=COCO2017_CLUTTER))


def _odds(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def _records(image: Any, category_id: Any, boxes: Any, scores: Any) -> list[dict[str, Any]]:
    order = np.lexsort((-scores, image))
    columns = (
        (image[order] + 1).tolist(),
        category_id[order].tolist(),
        boxes[order].round(2).tolist(),
        scores[order].tolist(),
    )
    return [
        {"image_id": i, "category_id": k, "bbox": box, "score": score}
        for i, k, box, score in zip(*columns, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=VOC2007_IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--like", choices=["voc", "coco"], default="voc")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    if arguments.like == "coco":
        truth, results = coco_sized(generator)
    else:
        truth = draw_images(generator, arguments.images)
        results = detect(generator, truth, Detector())
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gt.json").write_text(json.dumps(truth))
    (arguments.out / "detections.json").write_text(json.dumps(results))
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} objects, {len(results)} detections")


if __name__ == "__main__":
    main()
