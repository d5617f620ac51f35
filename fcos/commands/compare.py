"""`fcos compare`: which of several results are better, by how much, and whether that is more than chance."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcos.commands.score import counts, describe
from fcos.data.coco import CocoSplit
from fcos.errors import UserError
from fcos.files import sha256_file, write_csv, write_json, write_text
from fcos.progress import track
from fcos.reporting.comparison import comparison_markdown, draw_comparison
from fcos.scoring.average_precision import AP_METRICS, METRICS, score
from fcos.scoring.bootstrap import Sample, draw_weights, estimate
from fcos.scoring.comparison import compare_all
from fcos.scoring.inputs import check_file, read_results, read_truth
from fcos.scoring.matching import Floats, Ints, match
from fcos.scoring.numbers import coco_metrics, estimate_json, sample_of

_INTERVAL = ("low", "high", "standard_error")
_DIFFERENCE = ("value", *_INTERVAL, "p_value")
_CSV = ["first", "second", "metric", "difference", *_INTERVAL, "p_value", "p_holm"]


@dataclass(frozen=True)
class Row:
    """One row of the comparison: a results file, or several that are repeats (seeds) of each other."""

    name: str
    paths: list[Path]


def parse_rows(arguments: Sequence[str]) -> list[Row]:
    """Rows from `[NAME=]FILE[,FILE...]`; the name is else the stem of the (first) file, with folders if need be.

    Raises:
        UserError: a file name is empty, or two rows have the same name.
    """
    parsed = [_parse(argument) for argument in arguments]
    default = iter(_default_names([paths[0] for name, paths in parsed if not name]))
    rows = [Row(name or next(default), paths) for name, paths in parsed]
    name, count = Counter(row.name for row in rows).most_common(1)[0]
    if count > 1:
        raise UserError(
            "fcos compare", "two rows have the same name", found=name, expected="another", do="name them: NAME=FILE"
        )
    return rows


def compare(
    arguments: Sequence[str], gt: Path, *, out: Path, replicates: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Score all rows under the same draws of images, write comparison.{json,csv,md,png} and return the first.

    Returns:
        `rows`, `differences` (later minus earlier row, of each pair), `statistics`, `gt` and `counts`.
    """
    if len(arguments) < 2:
        raise UserError("fcos compare", "nothing to compare with", found=arguments[0], expected="two results or more")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}", "is a file", expected="a folder, which may be new")
    rows = parse_rows(arguments)
    for path in [gt, *(path for row in rows for path in row.paths)]:
        check_file(path)
    _refuse_same_repeats(rows)
    split = read_truth(gt)
    if len(split.images) < 2:
        raise UserError(f"{gt}: images", "one image cannot show a difference", expected="two images or more")
    weights = draw_weights(len(split.images), replicates=replicates, seed=seed)
    scored = _score_all(rows, split, weights)
    samples = {name: sample_of(numbers, found, METRICS) for name, (numbers, found) in scored.items()}
    content = {
        "rows": [_row(row, samples[row.name], scored[row.name][0], confidence) for row in rows],
        "differences": _differences(samples, confidence),
        "statistics": {"confidence": confidence, "replicates": replicates, "seed": seed},
        "gt": describe(gt),
        "counts": counts(split),
    }
    _write(content, out)
    return content


def _refuse_same_repeats(rows: Sequence[Row]) -> None:
    for row in rows:
        digests = [sha256_file(path) for path in row.paths]
        digest, count = Counter(digests).most_common(1)[0]
        if count > 1:
            same = [str(path) for path, of_path in zip(row.paths, digests, strict=True) if of_path == digest]
            raise UserError(
                f"row {row.name}",
                "repeats with the same content",
                found=", ".join(same),
                expected="a training of its own behind each file",
            )


def _score_all(
    rows: Sequence[Row], split: CocoSplit, weights: Ints
) -> dict[str, tuple[list[dict[str, float | None]], Floats]]:
    """By row: the twelve numbers of each of S files, and (S, B, 12) replicates."""
    files = [(row.name, path) for row in rows for path in row.paths]
    numbers: dict[str, list[dict[str, float | None]]] = {row.name: [] for row in rows}
    replicates: dict[str, list[Floats]] = {row.name: [] for row in rows}
    for name, path in track(files, "compare", total=len(files), unit="files"):
        matches = match(read_results(path, split), split)
        numbers[name].append(coco_metrics(matches, split)["metrics"])
        replicates[name].append(score(matches, weights).metrics())
    return {name: (numbers[name], np.stack(replicates[name])) for name in numbers}


def _row(row: Row, sample: Sample, numbers: list[dict[str, float | None]], confidence: float) -> dict[str, Any]:
    files: list[dict[str, Any]] = [
        {**describe(path), "metrics": metrics} for path, metrics in zip(row.paths, numbers, strict=True)
    ]
    found = estimate(sample, confidence=confidence)
    spread = sample.values.std(axis=0, ddof=1).tolist() if len(files) > 1 else [None] * len(METRICS)
    return {
        "name": row.name,
        "n": len(files),
        "metrics": {name: of["value"] for name, of in estimate_json(found, METRICS, ("value",)).items()},
        "intervals": estimate_json(found, METRICS, _INTERVAL),
        "spread": {name: None if value != value else value for name, value in zip(METRICS, spread, strict=True)},
        "files": files,
    }


def _differences(samples: dict[str, Sample], confidence: float) -> list[dict[str, Any]]:
    differences = []
    for pair in compare_all(samples, confidence=confidence):
        metrics = {
            name: {"difference": numbers.pop("value"), **numbers, "p_holm": None if p != p else p}
            for (name, numbers), p in zip(
                estimate_json(pair.found, AP_METRICS, _DIFFERENCE).items(), pair.corrected_p.tolist(), strict=False
            )
        }
        differences.append(
            {
                "first": pair.row,
                "second": pair.other,
                "significant": pair.is_significant(0),
                "metrics": metrics,
                "sentence": pair.sentence(),
            }
        )
    return differences


def _write(content: dict[str, Any], out: Path) -> None:
    write_json(out / "comparison.json", content)
    lines = [
        {"first": pair["first"], "second": pair["second"], "metric": metric, **numbers}
        for pair in content["differences"]
        for metric, numbers in pair["metrics"].items()
    ]
    write_csv(out / "comparison.csv", lines, _CSV)
    draw_comparison(content, out / "comparison.png")
    write_text(out / "comparison.md", comparison_markdown(content, picture="comparison.png"))


def _parse(argument: str) -> tuple[str, list[Path]]:
    """Name ("" if none is given) and files; a file that exists is a file, whatever is in its name."""
    name, equals, files = argument.partition("=")
    if Path(argument).exists() or not equals or "/" in name:
        name, files = "", argument
    paths = [argument] if Path(argument).exists() else files.split(",")
    if not all(paths):
        raise UserError(f"argument {argument}", "a file name is empty", expected="[NAME=]FILE[,FILE...]")
    return name, [Path(path) for path in paths]


def _default_names(paths: Sequence[Path]) -> list[str]:
    """The stems of `paths`, with as many folders before them as tell them apart."""
    # A file name that is not UTF-8 is shown by its bytes.
    shown = [Path(os.fsencode(path.absolute()).decode(errors="backslashreplace")) for path in paths]
    parts = [path.with_suffix("").parts for path in shown]
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(of[-length:]) for of, length in zip(parts, lengths, strict=True)]
        seen = Counter(names)
        longer = [
            length + (seen[name] > 1 and length < len(of) - 1)
            for name, length, of in zip(names, lengths, parts, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer
