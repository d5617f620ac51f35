"""From candidates to detections, and from detections to the COCO results list and its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fcos.data.coco import CocoSplit
from fcos.detections import Candidates, Detections, detect
from fcos.progress import track
from fcos.scoring import numbers
from fcos.scoring.average_precision import score
from fcos.scoring.bootstrap import Drawn, Resamples
from fcos.scoring.matching import Matches, match
from fcos.scoring.support import draws_of

Record = dict[str, Any]


def detect_all(
    of_image: Mapping[int, Candidates], *, nms_iou_threshold: float, max_detections: int, description: str | None = None
) -> dict[int, Detections]:
    """Return the detections by image id after NMS; `description` is the title of the progress bar, None shows none."""
    images = of_image.items()
    return {
        image_id: detect(candidates, nms_iou_threshold=nms_iou_threshold, max_detections=max_detections)
        for image_id, candidates in (
            track(images, description, total=len(images), unit="images") if description else images
        )
    }


def coco_results(of_image: Mapping[int, Detections], split: CocoSplit) -> list[Record]:
    """Return the COCO results list in a canonical order, since AP depends on the order of tied scores (cocoapi#650)."""
    results = []
    for image in split.images:
        detections = of_image[image["id"]]
        of_this = [
            {"image_id": image["id"], "category_id": split.category_ids[label], "bbox": bbox, "score": score}
            for bbox, score, label in zip(
                detections.boxes_xywh.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
            )
        ]
        results += sorted(of_this, key=lambda r: (-r["score"], r["category_id"], r["bbox"]))
    return results


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Detections of a split with their matches and metrics."""

    results: list[Record]  # the COCO results list
    matches: Matches
    numbers: dict[str, Any]  # see fcos.scoring.numbers.coco_metrics
    drawn: Drawn  # bootstrap replicates of the twelve metrics, (B, 12)
    classes: Drawn  # bootstrap replicates of the four metrics of each class, (B, K, 4)

    @property
    def metrics(self) -> dict[str, float | None]:
        """The twelve COCO metrics by name; None where a metric is not defined."""
        return dict(self.numbers["metrics"])


def score_detections(of_image: Mapping[int, Detections], split: CocoSplit, samples: Resamples) -> Scored:
    """Return the metrics of detections, with replicates for each of the bootstrap samples of the split."""
    return score_results(coco_results(of_image, split), split, samples)


def score_results(results: list[Record], split: CocoSplit, samples: Resamples) -> Scored:
    """Return the metrics of a COCO results list, with replicates for each of the bootstrap samples of the split."""
    matches = match(results, split)
    drawn, classes = draws_of(score(matches, samples.weights), matches, samples.groups)
    return Scored(
        results=results,
        matches=matches,
        numbers=numbers.coco_metrics(matches, split),
        drawn=drawn,
        classes=classes,
    )


def coco_metrics(results: list[Record], split: CocoSplit) -> dict[str, Any]:
    """Return the twelve COCO metrics, overall and per class (see fcos.scoring.numbers)."""
    return numbers.coco_metrics(match(results, split), split)
