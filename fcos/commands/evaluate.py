"""`fcos evaluate RUN`: compute detections and COCO metrics with intervals from candidates, without a network."""

import time

from fcos.detections import Detections
from fcos.evaluation.candidates import CandidatesFile
from fcos.evaluation.scoring import coco_results, detect_all, score_detections
from fcos.records import Evaluation
from fcos.scoring.matching import match
from fcos.scoring.operating import best_threshold
from fcos.study.bootstrap import Bootstrap
from fcos.study.evaluation_files import write_evaluation
from fcos.study.scored_run import ScoredRun


def evaluate(name: str) -> Evaluation:
    """Write detections.json, metrics.json, evaluation.json and replicates.safetensors; return evaluation.json."""
    started = time.time()
    scored_run = ScoredRun.open(name)
    draws = Bootstrap.read()
    file = scored_run.candidates_of("test")
    detections = _detect(scored_run, file, f"evaluate {name}")
    samples = draws.of(scored_run.split)
    scored = score_detections(detections, scored_run.split, samples)
    return write_evaluation(
        scored_run.dir,
        scored,
        scored_run.split,
        draws,
        samples,
        identity={"test": scored_run.test.settings(), "identity": file.header},
        num_candidates=sum(map(len, file.of_image.values())),
        started=started,
        threshold=_threshold(scored_run.on_validation()),
    )


def _threshold(held_out: ScoredRun) -> float | None:
    """Return the score threshold with the highest F1 on the validation split, or None if it has no images."""
    split = held_out.split
    if not split.images:
        return None
    detections = _detect(held_out, held_out.candidates_of("validation"))
    return best_threshold(match(coco_results(detections, split), split))


def _detect(scored_run: ScoredRun, file: CandidatesFile, description: str | None = None) -> dict[int, Detections]:
    test = scored_run.test
    return detect_all(
        file.of_image,
        nms_iou_threshold=test.nms_iou_threshold,
        max_detections=test.max_detections,
        description=description,
    )
