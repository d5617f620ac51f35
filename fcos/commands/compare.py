"""`fcos compare`: which of several results are better, by how much, and whether the difference is significant."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcos.comparing.classes import (
    CLASS_DIFFERENCES_CSV,
    PER_CLASS_CSV,
    SLICE_DIFFERENCES_CSV,
    SLICES_CSV,
    class_difference_lines,
    class_differences_json,
    per_class_json,
    per_class_lines,
    slice_difference_lines,
    slice_lines,
)
from fcos.comparing.inputs import (
    Choices,
    TruthInput,
    check_out,
    describe,
    digest,
    match_results,
    open_truth,
    protocol_json,
)
from fcos.comparing.inspector import Inspector, check_images, check_protocol
from fcos.comparing.looks import AtScore, Look, Slices
from fcos.comparing.rows import Row, parse_rows
from fcos.errors import UserError
from fcos.files import write_csv, write_text
from fcos.formats import write_record
from fcos.progress import track
from fcos.reporting.comparison import comparison_markdown
from fcos.reporting.comparison_chart import comparison_svg
from fcos.scoring.average_precision import AP_METRICS, METRICS, score
from fcos.scoring.bootstrap import Drawn, Sample, Spread, estimate, pooled_spread
from fcos.scoring.class_comparison import class_sample, compare_classes
from fcos.scoring.comparison import Comparison, Gate, compare_all
from fcos.scoring.findings import Finding
from fcos.scoring.matching import Ints
from fcos.scoring.numbers import coco_metrics, estimate_json, rename_limit, sample_of
from fcos.scoring.power import needed
from fcos.scoring.support import draws_of, without_interval

_INTERVAL = ("low", "high", "standard_error")
_DIFFERENCE = ("value", *_INTERVAL, "p_value")
_CSV = ["first", "second", "metric", "difference", *_INTERVAL, "p_value", "p_holm"]


def compare(
    arguments: Sequence[str],
    gt: Path,
    *,
    out: Path,
    replicates: int,
    confidence: float,
    seed: int,
    choices: Choices | None = None,
    power: bool = False,
    baseline: str | None = None,
    gate: Gate | None = None,
    html: bool = False,
    images: Path | None = None,
    at_score: Sequence[str] = (),
    slices: str | None = None,
) -> dict[str, Any]:
    """Score all rows on the same bootstrap samples, write the files of `out` and return the JSON content.

    The files are comparison.{json,csv,md,svg}, per_class.csv, class_differences.csv and, if asked for, comparison.html,
    slices.csv and slice_differences.csv.

    Args:
        replicates: number of bootstrap samples; 0 for no intervals and tests.
        power: whether to estimate how many images and trainings would show a difference of 1 AP.
        baseline: name of the row that all others are compared with; None compares all pairs.
        gate: condition that each row must meet against the baseline (None: the first row).
        html: whether to write comparison.html too, which shows classes, errors and images.
        images: folder of the images for its gallery (None: beside the ground truth, if they are there).
        at_score: score thresholds for precision, recall and F1, as `--at-score` says them.
        slices: how images are divided for AP of each part, as `--slices` says it.

    Returns:
        `rows`, `differences` (later minus earlier row or row minus baseline, for each pair), `statistics`, `protocol`,
        `gt`, `counts`, `diagnosis` (of the ground truth; each results file has its own) and, with a `gate`, `gate`
        with `passed` and `failures`.

    Example:
        >>> from fcos.files import write_json
        >>> places = [(image, [0, 0, 100, 50]) for image in (1, 2)]
        >>> boxes = [
        ...     {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 5000, "iscrowd": 0} for i, box in places
        ... ]
        >>> images = [{"id": i, "width": 200, "height": 100} for i, _ in places]
        >>> dog = {"id": 1, "name": "dog"}
        >>> write_json(Path("gt.json"), {"images": images, "annotations": boxes, "categories": [dog]})
        >>> found = [{"image_id": i, "category_id": 1, "bbox": box, "score": 0.9} for i, box in places]
        >>> write_json(Path("both.json"), found)
        >>> write_json(Path("one.json"), found[:1])
        >>> content = compare(
        ...     ["one.json", "both.json"], Path("gt.json"), out=Path("out"), replicates=0, confidence=0.95, seed=0
        ... )
        >>> {row["name"]: round(row["metrics"]["AP"], 3) for row in content["rows"]}
        {'one': 0.505, 'both': 1.0}
    """
    if len(arguments) < 2:
        raise UserError("fcos compare", "nothing to compare with", found=arguments[0], expected="two results or more")
    check_out(out)
    rows = parse_rows(arguments)
    if html:
        check_protocol((choices or Choices()).protocol)
        check_images(images)
        _refuse_same_names(rows)
    inspector = Inspector(confidence) if html else None
    content = compare_rows(
        rows,
        gt,
        replicates=replicates,
        confidence=confidence,
        seed=seed,
        choices=choices,
        power=power,
        baseline=baseline,
        gate=gate,
        inspector=inspector,
        at_score=at_score,
        slices=slices,
    )
    (out / "comparison.html").unlink(missing_ok=True)  # never an older page beside new numbers
    _write(content, out)
    if inspector is not None:
        from fcos.reporting.comparison_page import write_comparison_page  # imports templates and charts

        write_comparison_page(out / "comparison.html", content, inspector, gt=gt, images=images)
    return content


def compare_rows(
    rows: Sequence[Row],
    gt: Path,
    *,
    replicates: int,
    confidence: float,
    seed: int,
    choices: Choices | None = None,
    power: bool = False,
    baseline: str | None = None,
    gate: Gate | None = None,
    inspector: Inspector | None = None,
    at_score: Sequence[str] = (),
    slices: str | None = None,
) -> dict[str, Any]:
    """Return what `compare` returns for two rows or more; write nothing.

    Args:
        inspector: what looks at the matches of each file.
    """
    choices = choices or Choices()
    if gate is not None:
        baseline = baseline or rows[0].name
    _check_gate(rows, baseline, gate, replicates)
    for path in [gt, *(path for row in rows for path in row.paths)]:
        if not path.exists():
            raise UserError(path, "no such file", expected="a JSON file or a folder", hint="give the path of COCO JSON")
    _refuse_same_repeats(rows)
    given = open_truth(gt, choices)
    if inspector is not None:
        inspector.images = given.images
    truth = given.truth
    if truth.num_images < 2:
        raise UserError(f"{gt}: images", "one image cannot show a difference", expected="two images or more")
    weights = given.draw(replicates, seed)
    looks: list[Look] = [AtScore(at_score, [row.name for row in rows])] if at_score else []
    if slices is not None:
        looks.append(Slices(slices, truth, replicates=replicates, seed=seed))
    scored = _score_all(rows, given, weights, choices, inspector, looks)
    samples = {name: sample_of(of.metrics, of.drawn, METRICS) for name, of in scored.items()}
    classes = {name: class_sample(of.per_class, of.of_classes) for name, of in scored.items()}
    pooled = pooled_spread(samples.values())
    pairs = compare_all(samples, confidence=confidence, baseline=baseline)
    spread = pooled_spread(classes.values())
    of_pairs = compare_classes(
        classes, [(pair.row, pair.other) for pair in pairs], confidence=confidence, spread=spread
    )
    names = scored[rows[0].name].per_class[0]  # of the classes, the same for all files
    content: dict[str, Any] = {
        "rows": [
            _row(row, samples[row.name], scored[row.name], confidence, choices.max_detections, pooled)
            | {"per_class": per_class_json(names, classes[row.name], confidence=confidence, spread=spread)}
            for row in rows
        ],
        "differences": [
            {**difference, **class_differences_json(of_pair, names, confidence)}
            for difference, of_pair in zip(_differences(pairs, replicates), of_pairs, strict=True)
        ],
        "statistics": given.statistics(confidence=confidence, replicates=replicates, seed=seed),
        "protocol": protocol_json(choices.protocol),
        "gt": given.described,
        "counts": truth.counts,
        "diagnosis": [finding.json() for finding in given.findings],
    }
    if power and replicates:
        content["power"] = needed(samples, truth.num_images, confidence=confidence).sentence()
    if baseline is not None:
        content["baseline"] = baseline
    if gate is not None:
        failures = [why for pair in pairs if (why := gate.failure(pair)) is not None]
        content["gate"] = {"margin": gate.margin, "better": gate.better, "passed": not failures, "failures": failures}
    for look in looks:
        look.add_to(content, confidence)
    return content


def _check_gate(rows: Sequence[Row], baseline: str | None, gate: Gate | None, replicates: int) -> None:
    names = [row.name for row in rows]
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}", "no such row", expected=f"one of {', '.join(names)}")
    if gate is not None and not replicates:
        hint = "leave out --replicates 0"
        raise UserError("fcos compare", "the --fail options need intervals", found="--replicates 0", hint=hint)


def _refuse_same_repeats(rows: Sequence[Row]) -> None:
    for row in rows:
        digests = [digest(path) for path in row.paths]
        repeated, count = Counter(digests).most_common(1)[0]
        if count > 1:
            same = [str(path) for path, of_path in zip(row.paths, digests, strict=True) if of_path == repeated]
            raise UserError(
                f"row {row.name}",
                "files with the same content",
                found=", ".join(same),
                expected="one training per file",
            )


def _names_of_files(row: Row) -> list[str]:
    """Return how the page calls each file of a row."""
    return [row.name] if len(row.paths) == 1 else [f"{row.name} #{number + 1}" for number in range(len(row.paths))]


def _refuse_same_names(rows: Sequence[Row]) -> None:
    name, count = Counter(name for row in rows for name in _names_of_files(row)).most_common(1)[0]
    if count > 1:
        hint = "name the rows otherwise: NAME=FILE"
        raise UserError("fcos compare --html", "two results have the same name", found=name, hint=hint)


@dataclass(frozen=True)
class _Scored:
    """Metrics, bootstrap replicates and findings of each of the S files of a row."""

    metrics: list[dict[str, float | None]]  # the twelve metrics
    drawn: list[Drawn]  # and their replicates
    per_class: list[list[dict[str, Any]]]  # the four metrics of each class
    of_classes: list[Drawn]  # and their replicates
    findings: list[list[Finding]]


def _score_all(
    rows: Sequence[Row],
    given: TruthInput,
    weights: Ints,
    choices: Choices,
    inspector: Inspector | None,
    looks: Sequence[Look],
) -> dict[str, _Scored]:
    files = [(row, path) for row in rows for path in row.paths]
    scored = {row.name: _Scored([], [], [], [], []) for row in rows}
    for row, path in track(files, "compare", total=len(files), unit="files"):
        matches, _, findings = match_results(path, given.truth, choices)
        numbers = coco_metrics(matches, given.truth)
        drawn, of_classes = draws_of(score(matches, weights), matches, given.group_of_image)
        unsupported = without_interval(drawn, METRICS) if len(weights) else []
        of_row = scored[row.name]
        of_row.metrics.append(numbers["metrics"])
        of_row.per_class.append(numbers["per_class"])
        of_row.drawn.append(drawn)
        of_row.of_classes.append(of_classes)
        of_row.findings.append([*findings, *unsupported])
        if inspector is not None:
            name = _names_of_files(row)[len(of_row.metrics) - 1]
            inspector.look(name, matches, numbers, of_classes, given.truth, weights)
        for look in looks:
            look.see(row.name, matches, weights, given.group_of_image)
    return scored


def _row(
    row: Row, sample: Sample, scored: _Scored, confidence: float, limit: int, pooled: Spread | None
) -> dict[str, Any]:
    files: list[dict[str, Any]] = [
        {
            **describe(path),
            "metrics": rename_limit(metrics, limit),
            "diagnosis": [finding.json() for finding in findings],
        }
        for path, metrics, findings in zip(row.paths, scored.metrics, scored.findings, strict=True)
    ]
    found = estimate(sample, confidence=confidence, spread=pooled)
    spread = sample.values.std(axis=0, ddof=1).tolist() if len(files) > 1 else [None] * len(METRICS)
    of_metric = {name: None if value != value else value for name, value in zip(METRICS, spread, strict=True)}
    return {
        "name": row.name,
        "n": len(files),
        "metrics": rename_limit(
            {name: of["value"] for name, of in estimate_json(found, METRICS, ("value",)).items()}, limit
        ),
        "intervals": rename_limit(estimate_json(found, METRICS, _INTERVAL), limit),
        "spread": rename_limit(of_metric, limit),
        "files": files,
    }


def _differences(pairs: Sequence[Comparison], replicates: int) -> list[dict[str, Any]]:
    differences = []
    for pair in pairs:
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
                "about": pair.scope,
                "metrics": metrics,
                "sentence": pair.sentence() if replicates else _without_interval(pair),
            }
        )
    return differences


def _without_interval(pair: Comparison) -> str:
    difference = pair.found.value[0]
    said = "AP is not defined" if np.isnan(difference) else f"{100 * difference:+.1f} AP"
    return f"{pair.row} against {pair.other}: {said}; no interval (--replicates 0)"


def difference_lines(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each pair and metric, as in comparison.csv."""
    return [
        {"first": pair["first"], "second": pair["second"], "metric": metric, **numbers}
        for pair in content["differences"]
        for metric, numbers in pair["metrics"].items()
    ]


def _write(content: dict[str, Any], out: Path) -> None:
    write_record(out / "comparison.json", content)
    write_csv(out / "comparison.csv", difference_lines(content), _CSV)
    write_csv(out / "per_class.csv", per_class_lines(content), PER_CLASS_CSV)
    write_csv(out / "class_differences.csv", class_difference_lines(content), CLASS_DIFFERENCES_CSV)
    for name in ("slices.csv", "slice_differences.csv"):
        (out / name).unlink(missing_ok=True)  # never those of an earlier comparison
    if "slices_by" in content:
        write_csv(out / "slices.csv", slice_lines(content), SLICES_CSV)
        write_csv(out / "slice_differences.csv", slice_difference_lines(content), SLICE_DIFFERENCES_CSV)
    write_text(out / "comparison.svg", comparison_svg(content))
    write_text(out / "comparison.md", comparison_markdown(content, image="comparison.svg"))
