"""`fcos evaluate RUN`: candidates to detections to the COCO numbers; no network is run."""

import time

from fcos.commands.provenance import provenance
from fcos.commands.scored_run import ScoredRun
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.files import write_json


def evaluate(name: str) -> dict[str, float | None]:
    """Write detections.json, metrics.json and evaluation.json of a run; return the twelve numbers."""
    started = time.time()
    scored = ScoredRun.open(name)
    path = scored.dir / "candidates" / "test.safetensors"
    file = scored.read_view(path, scored.test.size, do=f"fcos predict {name}")
    detections = detect_all(
        file.of_image,
        nms_iou_threshold=scored.test.nms_iou_threshold,
        max_detections=scored.test.max_detections,
    )
    results = coco_results(detections, scored.split)
    numbers = coco_metrics(results, scored.split)
    evaluation = {
        **numbers,
        "num_images": len(scored.split.images),
        "num_candidates": sum(map(len, file.of_image.values())),
        "num_detections": len(results),
        "test": scored.test.settings(),
        "identity": file.header,
        "provenance": provenance(started),
    }
    write_json(scored.dir / "detections.json", results, indent=None)
    write_json(scored.dir / "evaluation.json", evaluation)
    write_json(scored.dir / "metrics.json", numbers["metrics"])
    return dict(numbers["metrics"])
