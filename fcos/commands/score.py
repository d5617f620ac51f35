"""`fcos score`: compute the COCO metrics of any detector's results, each with its interval."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcos.comparing.inputs import Choices, describe, match_results, open_truth, protocol_json
from fcos.errors import UserError
from fcos.files import write_csv
from fcos.formats import write_record
from fcos.progress import Progress
from fcos.reporting.comparison import drawn
from fcos.reporting.intervals import in_brackets, percent, plus_minus
from fcos.reporting.text_tables import html_list, html_table, text_table
from fcos.scoring import average_precision
from fcos.scoring.average_precision import METRICS, Scores, joined
from fcos.scoring.matching import Ints, Matches
from fcos.scoring.numbers import coco_metrics, rename_limit, with_intervals
from fcos.scoring.support import draws_of, without_interval

_BLOCK = 256  # bootstrap samples per update of the progress


def score(
    gt: Path,
    detections: Path,
    *,
    out: Path | None,
    replicates: int,
    confidence: float,
    seed: int,
    per_class: Path | None = None,
    choices: Choices | None = None,
) -> dict[str, Any]:
    """Score a detector's results and return the content that is written to `out`.

    Args:
        replicates: number of bootstrap samples; 0 for no intervals.
        per_class: the CSV file to write, with one line per class.

    Returns:
        The twelve metrics as fractions, and `per_class`, `intervals`, `statistics`, `protocol`, `inputs`, `counts` and
        `diagnosis`.

    Example:
        One object, found with a box that covers 60 of its 100 columns: a match at IoU 0.5, 0.55 and 0.6, 3 of the 10
        thresholds.

        >>> from fcos.files import write_json
        >>> box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 50], "area": 5000, "iscrowd": 0}
        >>> images, dog = [{"id": 1, "width": 200, "height": 100}], {"id": 1, "name": "dog"}
        >>> write_json(Path("gt.json"), {"images": images, "annotations": [box], "categories": [dog]})
        >>> found = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 60, 50], "score": 0.9}
        >>> write_json(Path("results.json"), [found])
        >>> content = score(
        ...     Path("gt.json"), Path("results.json"), out=None, replicates=0, confidence=0.95, seed=0
        ... )
        >>> round(content["AP"], 4), round(content["AP50"], 4), content["AP75"]
        (0.3, 1.0, 0.0)
    """
    choices = choices or Choices()
    for option, path in (("--out", out), ("--per-class", per_class)):
        if path is not None:
            check_out(path, [gt, detections], option)
    given = open_truth(gt, choices)
    truth = given.truth
    matches, num_detections, findings = match_results(detections, truth, choices)
    numbers = coco_metrics(matches, truth)
    weights = given.draw(replicates, seed)
    drawn, classes = draws_of(_replicates(matches, weights), matches, given.group_of_image)
    found = with_intervals(numbers, drawn, classes, confidence=confidence)
    unsupported = without_interval(drawn, METRICS) if replicates else []
    limit = choices.max_detections
    content = {
        **rename_limit(found["metrics"], limit),
        "per_class": [
            {**rename_limit(row, limit), "intervals": rename_limit(row["intervals"], limit)}
            for row in found["per_class"]
        ],
        "intervals": rename_limit(found["intervals"], limit),
        "statistics": given.statistics(confidence=confidence, replicates=replicates, seed=seed),
        "protocol": protocol_json(choices.protocol),
        "inputs": {"gt": given.described, "detections": describe(detections)},
        "counts": {**truth.counts, "detections": num_detections},
        "diagnosis": [finding.json() for finding in [*given.findings, *findings, *unsupported]],
    }
    if out is not None:
        write_record(out, content)
    if per_class is not None:
        _write_classes(content, per_class)
    return content


def score_text(content: dict[str, Any]) -> str:
    """Return the result of `score` as text: the twelve metrics, then the classes."""
    twelve = [
        f"{name:<6}{plus_minus(content[name], interval)} {in_brackets(interval)}"
        for name, interval in content["intervals"].items()
    ]
    return "\n".join(
        [
            _counted(content),
            "",
            *twelve,
            "",
            text_table(*_classes(content)),
            *diagnosis_lines(content["diagnosis"]),
        ]
    )


def score_html(content: dict[str, Any]) -> str:
    """Return the result of `score` as HTML for a notebook: what `score_text` says, as tables."""
    twelve = [
        [name, plus_minus(content[name], interval), in_brackets(interval)]
        for name, interval in content["intervals"].items()
    ]
    notes = [_counted(content), *(finding["text"] for finding in content["diagnosis"])]
    return html_table(["", "%", "interval"], twelve) + html_table(*_classes(content)) + html_list(notes)


def _counted(content: Mapping[str, Any]) -> str:
    """Return what was scored, and what the intervals are."""
    counted, statistics = content["counts"], content["statistics"]
    intervals = "no intervals (--replicates 0)"
    if statistics["replicates"]:
        intervals = (
            f"{100 * statistics['confidence']:g} % intervals from {statistics['replicates']} bootstrap samples of the "
            + drawn(statistics)
        )
    return (
        f"{counted['images']} images, {counted['objects']} objects, {counted['detections']} detections; percent, "
        + intervals
    )


def _classes(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of classes."""
    rows = [
        [
            row["name"],
            str(row["num_objects"]),
            plus_minus(row["AP"], row["intervals"]["AP"]),
            percent(row["AP50"]),
            percent(row["AP75"]),
        ]
        for row in content["per_class"]
    ]
    return ["class", "objects", "AP", "AP50", "AP75"], rows


def diagnosis_lines(findings: list[Mapping[str, Any]]) -> list[str]:
    """Return the findings in the files after an empty line, or nothing if there are none."""
    return ["", *(f"note: {finding['text']}" for finding in findings)] if findings else []


def check_out(out: Path, inputs: list[Path], option: str = "--out") -> None:
    """Raise UserError, before any work, if the file cannot be written or is one of the inputs."""
    if out.is_dir():
        raise UserError(f"{option} {out}", "is a folder", expected="the name of a file")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{option} {out}", "cannot be written", found=parent, expected="a folder that you may write to")
    if any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
        raise UserError(f"{option} {out}", "is also an input file", expected="another name")


def _write_classes(content: Mapping[str, Any], path: Path) -> None:
    metrics = [name for name in content["per_class"][0] if name.startswith("A")]
    rows = [
        {
            **{key: row[key] for key in ("category_id", "name", "num_objects", *metrics)},
            **{f"{name}_{end}": row["intervals"][name][end] for name in metrics for end in ("low", "high")},
        }
        for row in content["per_class"]
    ]
    write_csv(path, rows, list(rows[0]))


def _replicates(matches: Matches, weights: Ints) -> Scores:
    if not len(weights):
        return average_precision.score(matches, weights)
    progress = Progress("score", len(weights), unit="draws")
    blocks = []
    for begin in range(0, len(weights), _BLOCK):
        block = weights[begin : begin + _BLOCK]
        blocks.append(average_precision.score(matches, block))
        progress.update(len(block))
    progress.close()
    return joined(blocks)
