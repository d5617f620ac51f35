"""`fcos evaluate RUN`: compute detections and COCO metrics with intervals from candidates, without a network."""

import time

from fcos.evaluation.scoring import detect_all, score_detections
from fcos.records import Evaluation
from fcos.study.bootstrap import Bootstrap
from fcos.study.evaluation_files import write_evaluation
from fcos.study.scored_run import ScoredRun


def evaluate(name: str) -> Evaluation:
    """Write detections.json, metrics.json, evaluation.json and replicates.safetensors; return evaluation.json."""
    started = time.time()
    scored_run = ScoredRun.open(name)
    split, test = scored_run.split, scored_run.test
    draws = Bootstrap.read()
    path = scored_run.dir / "candidates" / "test.safetensors"
    file = scored_run.read_view(path, test.size, hint=f"fcos predict {name}")
    detections = detect_all(
        file.of_image,
        nms_iou_threshold=test.nms_iou_threshold,
        max_detections=test.max_detections,
        description=f"evaluate {name}",
    )
    samples = draws.of(split)
    scored = score_detections(detections, split, samples)
    return write_evaluation(
        scored_run.dir,
        scored,
        split,
        draws,
        samples,
        identity={"test": test.settings(), "identity": file.header},
        num_candidates=sum(map(len, file.of_image.values())),
        started=started,
    )
