"""`fcos evaluate-tta RUN`: what 1, 2, ... views give together; no network is run."""

import time
from typing import Any

from fcos.commands.predict import tta_views
from fcos.commands.provenance import provenance
from fcos.commands.scored_run import ScoredRun
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all
from fcos.files import read_json, write_json
from fcos.postprocess import merge_views
from fcos.progress import track
from fcos.structures import Detections


def evaluate_tta(name: str) -> list[dict[str, Any]]:
    """Write tta.json of a run and return its steps.

    Step n merges the first n views of params.yaml, each a whole test pass of its own; the last step is the result.
    """
    started = time.time()
    scored = ScoredRun.open(name)
    do = f"fcos predict {name} --views tta"
    settings: dict[str, Any] = scored.test.model_dump(include={"nms_iou_threshold", "max_detections"})
    seconds = read_json(scored.dir / "timing_tta.json", do=do)["views"]
    of_view: list[dict[int, Detections]] = []
    steps: list[dict[str, Any]] = []
    views = tta_views()
    for view, size in track(views.items(), f"TTA {name}", total=len(views), unit="views"):
        file = scored.read_view(scored.dir / "candidates_tta" / f"{view}.safetensors", size, do=do)
        of_view.append(detect_all(file.of_image, **settings))
        merged = {
            image_id: merge_views([detections[image_id] for detections in of_view], **settings)
            for image_id in file.of_image
        }
        used = list(views)[: len(of_view)]
        steps.append(
            {
                "num_views": len(used),
                "views": used,
                "seconds": round(sum(seconds[view]["seconds"] for view in used), 4),
                "metrics": coco_metrics(coco_results(merged, scored.split), scored.split)["metrics"],
            }
        )
    tta = {"steps": steps, "test": scored.test.settings(), "identity": file.header, "provenance": provenance(started)}
    write_json(scored.dir / "tta.json", tta)
    return steps
