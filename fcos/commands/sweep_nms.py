"""`fcos sweep-nms RUN`: the COCO numbers at each NMS threshold; no network is run."""

import time
from typing import Any

from fcos.commands.provenance import provenance
from fcos.commands.scored_run import ScoredRun
from fcos.config.nms_sweep import NmsSweepConfig
from fcos.config.section import parse_section, read_params
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.files import write_json
from fcos.progress import track


def sweep_nms(name: str) -> list[dict[str, Any]]:
    """Write nms_sweep.json of a run and return its steps."""
    started = time.time()
    scored = ScoredRun.open(name)
    thresholds = parse_section(read_params(), "nms_sweep", NmsSweepConfig).thresholds
    path = scored.dir / "candidates" / "test.safetensors"
    file = scored.read_view(path, scored.test.size, do=f"fcos predict {name}")
    steps = []
    for threshold in track(thresholds, f"NMS sweep {name}", total=len(thresholds), unit="thresholds"):
        detections = detect_all(file.of_image, nms_iou_threshold=threshold, max_detections=scored.test.max_detections)
        metrics = coco_metrics(coco_results(detections, scored.split), scored.split)["metrics"]
        steps.append({"nms_iou_threshold": threshold, "metrics": metrics})
    sweep = {"steps": steps, "test": scored.test.settings(), "identity": file.header, "provenance": provenance(started)}
    write_json(scored.dir / "nms_sweep.json", sweep)
    return steps
