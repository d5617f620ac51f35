"""`fcos tta RUN`: score the first 1, 2, ... merged views and choose their number, without a network."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fcos.config.section import parse_section, read_params
from fcos.config.tta import TtaConfig
from fcos.detections import Detections, merge_views
from fcos.errors import UserError
from fcos.evaluation.candidates import CandidatesFile
from fcos.evaluation.scoring import coco_metrics, coco_results, detect_all, score_detections
from fcos.formats import write_record
from fcos.progress import track
from fcos.records import Tta, TtaStep
from fcos.study.bootstrap import Bootstrap
from fcos.study.provenance import provenance
from fcos.study.run_files import read_run_file
from fcos.study.scored_run import VALIDATION_PREFIX, ScoredRun, best_step


def tta(name: str) -> Tta:
    """Write tta.json of a run and return it.

    Step n merges the first n views of params.yaml, each a complete pass over the split. `chosen` is the number of views
    used, and `metrics` are the metrics on the test split with them. `chosen` is all views, or with `tta.choose_on:
    validation` the best number of views there; then no other number of views is scored on the test split.
    """
    started = time.time()
    scored = ScoredRun.open(name)
    config = parse_section(read_params(), "tta", TtaConfig)
    sizes = list(config.views.items())
    on_test = config.choose_on is None
    chooser = scored if on_test else scored.to_choose("tta.choose_on")
    steps, merged = _steps(chooser, sizes, prefix="" if on_test else VALIDATION_PREFIX)
    chosen = (steps[-1] if on_test else best_step(steps))["num_views"]
    if not on_test:
        merged = _merge(scored, [_detect(scored, _read(scored, view, size)) for view, size in sizes[:chosen]])
    draws = Bootstrap.read()
    result = score_detections(merged, scored.split, draws.of(scored.split))
    identity = {"test": scored.test.settings(), "identity": _read(scored, *sizes[-1]).header}
    content: Tta = {
        "split": config.choose_on or "test",
        "steps": steps,
        "chosen": chosen,
        "metrics": result.metrics,
        "test": identity["test"],
        "identity": identity["identity"],
        "provenance": provenance(started),
    }
    if not on_test:
        content["validation_digest"] = chooser.split.digest
    draws.save(
        scored.dir / "tta_replicates.safetensors",
        {"chosen": result.drawn},
        numbers={"chosen": result.metrics},
        identity=identity,
    )
    write_record(scored.dir / "tta.json", content)
    return content


def _steps(
    scored: ScoredRun, sizes: Sequence[tuple[str, int]], *, prefix: str
) -> tuple[list[TtaStep], dict[int, Detections]]:
    """Score the first 1, 2, ... views on the split of `scored`; return the steps and the detections of all views.

    Args:
        prefix: prefix of the file names of that split.
    """
    seconds = _seconds(scored)
    used: list[str] = []
    of_view: list[dict[int, Detections]] = []
    steps: list[TtaStep] = []
    for view, size in track(sizes, f"TTA {scored.run.name}", total=len(sizes), unit="views"):
        used.append(view)
        of_view.append(_detect(scored, _read(scored, prefix + view, size)))
        merged = _merge(scored, of_view)
        steps.append(
            {
                "num_views": len(used),
                "views": list(used),
                "seconds": round(sum(seconds[prefix + name] for name in used), 4),
                "metrics": coco_metrics(coco_results(merged, scored.split), scored.split)["metrics"],
            }
        )
    return steps, merged


def _seconds(scored: ScoredRun) -> dict[str, float]:
    """Return the seconds that the network took for each view."""
    path = scored.dir / "timing_tta.json"
    content = read_run_file(path)
    try:
        return {view: timing["seconds"] for view, timing in content["views"].items()}
    except (KeyError, TypeError, AttributeError):
        expected = "seconds of each view"
        raise UserError(path, "is not what `fcos predict` wrote", expected=expected, hint=_command(scored)) from None


def _command(scored: ScoredRun) -> str:
    return f"fcos predict {scored.run.name} --views tta"


def _read(scored: ScoredRun, view: str, size: int) -> CandidatesFile:
    return scored.read_view(scored.dir / "candidates_tta" / f"{view}.safetensors", size, hint=_command(scored))


def _detect(scored: ScoredRun, file: CandidatesFile) -> dict[int, Detections]:
    return detect_all(file.of_image, **_settings(scored))


def _merge(scored: ScoredRun, of_view: Sequence[Mapping[int, Detections]]) -> dict[int, Detections]:
    return {
        image_id: merge_views([detections[image_id] for detections in of_view], **_settings(scored))
        for image_id in of_view[0]
    }


def _settings(scored: ScoredRun) -> dict[str, Any]:
    return scored.test.model_dump(include={"nms_iou_threshold", "max_detections"})
