"""`fcos nms-sweep RUN`: compute the COCO metrics at each NMS threshold and choose the best, without a network."""

import time

from fcos.config.nms_sweep import NmsSweepConfig
from fcos.config.section import parse_section, read_params
from fcos.evaluation.candidates import CandidatesFile
from fcos.evaluation.scoring import Scored, detect_all, score_detections
from fcos.formats import write_record
from fcos.progress import track
from fcos.records import NmsStep, NmsSweep
from fcos.scoring.bootstrap import Resamples
from fcos.scoring.replicates import sweep_steps
from fcos.study.bootstrap import Bootstrap
from fcos.study.provenance import provenance
from fcos.study.scored_run import ScoredRun, best_step


def nms_sweep(name: str) -> NmsSweep:
    """Write nms_sweep.json of a run and return it.

    Its steps are the thresholds, scored on the split `nms_sweep.choose_on`. `chosen` is the best threshold on that
    split, and `metrics` are the metrics on the test split at `chosen`. With `validation`, no other threshold is scored
    on the test split.
    """
    started = time.time()
    scored = ScoredRun.open(name)
    config = parse_section(read_params(), "nms_sweep", NmsSweepConfig)
    test_file = scored.candidates_of("test")
    on_test = config.choose_on == "test"
    chooser = scored if on_test else scored.to_choose("nms_sweep.choose_on")
    file = test_file if on_test else chooser.candidates_of("validation")
    draws = Bootstrap.read()
    samples = draws.of(chooser.split)
    steps: list[NmsStep] = []
    replicates = {}
    for threshold in track(config.thresholds, f"NMS sweep {name}", total=len(config.thresholds), unit="thresholds"):
        at = _score(chooser, file, threshold, samples)
        steps.append({"nms_iou_threshold": threshold, "metrics": at.metrics})
        replicates[str(threshold)] = at.drawn
    best = best_step(steps)
    chosen, metrics = best["nms_iou_threshold"], best["metrics"]
    replicates["chosen"] = replicates[str(chosen)]
    if not on_test:
        once = _score(scored, test_file, chosen, draws.of(scored.split))
        metrics, replicates["chosen"] = once.metrics, once.drawn
    identity = {"test": scored.test.settings(), "identity": test_file.header}
    sweep: NmsSweep = {
        "split": config.choose_on,
        "steps": steps,
        "chosen": chosen,
        "metrics": metrics,
        "test": identity["test"],
        "identity": identity["identity"],
        "provenance": provenance(started),
    }
    if not on_test:
        sweep["validation_digest"] = chooser.split.digest
    path = scored.dir / "nms_sweep_replicates.safetensors"
    draws.save(path, replicates, numbers=sweep_steps(sweep), identity=identity)
    write_record(scored.dir / "nms_sweep.json", sweep)
    return sweep


def _score(scored: ScoredRun, file: CandidatesFile, threshold: float, samples: Resamples) -> Scored:
    detections = detect_all(file.of_image, nms_iou_threshold=threshold, max_detections=scored.test.max_detections)
    return score_detections(detections, scored.split, samples)
