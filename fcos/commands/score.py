"""`fcos score`: the COCO numbers of any detector's results, each with its interval."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fcos.data.coco import CocoSplit
from fcos.errors import UserError
from fcos.files import sha256_file, write_json
from fcos.progress import Progress
from fcos.reporting.intervals import in_brackets, percent, plus_minus, text_table
from fcos.scoring import average_precision
from fcos.scoring.average_precision import Scores
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.inputs import read_results, read_truth
from fcos.scoring.matching import Ints, Matches, match
from fcos.scoring.numbers import coco_metrics, with_intervals

_BLOCK = 256  # draws between two signs of progress


def score(
    gt: Path, detections: Path, *, out: Path | None, replicates: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Score a COCO results list and return what is written to `out`.

    Returns:
        The twelve numbers as fractions, and `per_class`, `intervals`, `statistics`, `inputs` and `counts`.
    """
    if out is not None:
        check_out(out, [gt, detections])
    split = read_truth(gt)
    results = read_results(detections, split)
    matches = match(results, split)
    weights = draw_weights(len(split.images), replicates=replicates, seed=seed)
    found = with_intervals(coco_metrics(matches, split), _replicates(matches, weights), confidence=confidence)
    content = {
        **found["metrics"],
        "per_class": found["per_class"],
        "intervals": found["intervals"],
        "statistics": {"confidence": confidence, "replicates": replicates, "seed": seed},
        "inputs": {name: describe(path) for name, path in (("gt", gt), ("detections", detections))},
        "counts": {**counts(split), "detections": len(results)},
    }
    if out is not None:
        write_json(out, content)
    return content


def score_text(content: dict[str, Any]) -> str:
    """What `score` returned, to be read: the twelve numbers, then the classes."""
    counted, statistics = content["counts"], content["statistics"]
    twelve = [
        f"{name:<6}{plus_minus(content[name], interval)} {in_brackets(interval)}"
        for name, interval in content["intervals"].items()
    ]
    classes = [
        [
            row["name"],
            str(row["num_objects"]),
            plus_minus(row["AP"], row["intervals"]["AP"]),
            percent(row["AP50"]),
            percent(row["AP75"]),
        ]
        for row in content["per_class"]
    ]
    return "\n".join(
        [
            f"{counted['images']} images, {counted['objects']} objects, {counted['detections']} detections; percent, "
            f"{100 * statistics['confidence']:g} % intervals from {statistics['replicates']} draws of the images",
            "",
            *twelve,
            "",
            text_table(["class", "objects", "AP", "AP50", "AP75"], classes),
        ]
    )


def describe(path: Path) -> dict[str, str]:
    return {"file": str(path), "sha256": sha256_file(path)}


def counts(split: CocoSplit) -> dict[str, int]:
    """Images, classes, objects to be found, and crowd regions, which are neither objects nor background."""
    crowd = sum(bool(annotation["iscrowd"]) for annotation in split.annotations)
    objects = len(split.annotations) - crowd
    return {"images": len(split.images), "classes": len(split.categories), "objects": objects, "crowd": crowd}


def check_out(out: Path, inputs: list[Path]) -> None:
    """Refuse, before any work, a file that cannot be written or that is one of the inputs."""
    if out.is_dir():
        raise UserError(f"--out {out}", "is a folder", expected="the name of a file")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--out {out}", "cannot be written", found=parent, expected="a folder that you may write to")
    if any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
        raise UserError(f"--out {out}", "is one of the files to be read", expected="another name")


def _replicates(matches: Matches, weights: Ints) -> Scores:
    progress = Progress("score", len(weights), unit="draws")
    blocks = []
    for begin in range(0, len(weights), _BLOCK):
        block = weights[begin : begin + _BLOCK]
        blocks.append(average_precision.score(matches, block))
        progress.update(len(block))
    progress.close()
    names = [field.name for field in fields(Scores)]
    return Scores(**{name: np.concatenate([getattr(block, name) for block in blocks]) for name in names})
