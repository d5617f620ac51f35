"""`fcos results NAME`: score the results of a detector that was not trained here as those of a run are scored."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcos.config.results import ResultsConfig, parse_results
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.data.coco import CocoSplit, read_split
from fcos.errors import UserError
from fcos.evaluation.scoring import Record, score_results
from fcos.files import in_project, sha256_file, whole_dir
from fcos.records import Evaluation
from fcos.scoring import diagnosis
from fcos.scoring.bootstrap import Resamples
from fcos.scoring.findings import Finding
from fcos.scoring.matching import ResultTable
from fcos.scoring.results import read_results
from fcos.scoring.truth import Truth, truth_of
from fcos.study.bootstrap import Bootstrap
from fcos.study.evaluation_files import write_evaluation
from fcos.study.layout import Layout

_OF_FILES = ("voc", "yolo")  # sources without ids of images


def results(name: str) -> list[Evaluation]:
    """Score each file of the entry `name` of `results`; return the content of each evaluation.json.

    The files are those of a run's evaluation, in a folder of runs/STUDY/NAME/ for each file: 1, 2, ...

    Raises:
        UserError: there is no such entry, or a file is not of the test images and classes of the study.
    """
    params = read_params()
    layout = Layout(parse_section(params, "study", Name))
    config = find_results(parse_results(params), name)
    files = config.given_files(name)
    digests = _digests(name, [in_project(file.path) for file in files])
    split = read_split(layout.data, "test")
    truth = _truth(split, str(layout.data / "test.json"), names_first=_has_no_ids(params["data"]))
    draws = Bootstrap.read()
    samples = draws.of(split)
    with whole_dir(layout.run(name)) as folder:  # nothing stays of an entry that had more files
        return [
            _score(path, digest, folder / file.place.name, config, split, truth, draws, samples)
            for file, (path, digest) in zip(files, digests.items(), strict=True)
        ]


def find_results(entries: dict[str, ResultsConfig], name: str) -> ResultsConfig:
    """Return the entry called `name`, or raise a UserError that lists the entries."""
    if name not in entries:
        expected = f"one of {', '.join(entries)}" if entries else "a section `results:` with this entry"
        raise UserError("params.yaml: results", "no such entry", found=name, expected=expected)
    return entries[name]


def _has_no_ids(data: dict[str, Any]) -> bool:
    """Whether the image ids were only assigned by `fcos prepare`, so that results are looked up by file names first."""
    return data["source"] in _OF_FILES or data.get("split") is not None


def _digests(name: str, paths: list[Path]) -> dict[Path, str]:
    """Return the sha256 of each file of an entry.

    Raises:
        UserError: two files have the same content, which would make the spread between seeds too small.
    """
    first: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "no such file"
            expected = "a file of results, such as a COCO results list"
            raise UserError(f"params.yaml: results.{name}.files", problem, found=path, expected=expected)
        other = first.setdefault(sha256_file(path), path)
        if other is not path:
            found, expected = f"{other}, {path}", "one training per file"
            raise UserError(
                f"params.yaml: results.{name}.files", "files with the same content", found=found, expected=expected
            )
    return {path: digest for digest, path in first.items()}


def _truth(split: CocoSplit, where: str, *, names_first: bool) -> Truth:
    """Return the test split under the ids that other tools know: those of its source."""
    image_of = {image["id"]: image.get("original_id", image["id"]) for image in split.images}
    class_of = {category["id"]: category.get("original_id", category["id"]) for category in split.categories}
    content = {
        "images": [{**image, "id": image_of[image["id"]]} for image in split.images],
        "categories": [{**category, "id": class_of[category["id"]]} for category in split.categories],
        "annotations": [
            {**a, "image_id": image_of[a["image_id"]], "category_id": class_of[a["category_id"]]}
            for a in split.annotations
        ],
    }
    return truth_of(content, where, names_first=names_first)


def _score(
    path: Path,
    digest: str,
    folder: Path,
    config: ResultsConfig,
    split: CocoSplit,
    truth: Truth,
    draws: Bootstrap,
    samples: Resamples,
) -> Evaluation:
    started = time.time()
    found = read_results(
        path,
        truth,
        ignore_unknown_images=config.ignore_unknown_images,
        ignore_unknown_classes=config.ignore_unknown_classes,
    )
    _refuse_numbers(path, found.findings, config, truth)
    scored = score_results(_as_coco(found.table, truth, split), split, samples)
    findings = [*found.findings, *diagnosis.of_results(found.table, scored.matches, truth)]
    identity = {
        "file": path.name,
        "sha256": digest,
        "categories": split.categories,
        "data_digest": split.digest,
    }
    return write_evaluation(
        folder,
        scored,
        split,
        draws,
        samples,
        identity={"test": config.flags(), "identity": identity},
        num_candidates=len(found.table),
        started=started,
        findings=findings,
    )


def _refuse_numbers(path: Path, findings: list[Finding], config: ResultsConfig, truth: Truth) -> None:
    """Refuse class numbers of a folder whose other classes are left out: they count classes that nobody knows here.

    Raises:
        UserError: the source has no category ids, and the file has no class names.
    """
    named = any(finding.kind == "class_by_name" for finding in findings)
    if config.ignore_unknown_classes and truth.names_first and not named:
        names = ", ".join(category["name"] for category in truth.categories)
        raise UserError(
            path,
            "has numbers of classes, whose meaning is not known if others are left out",
            expected=f"names of classes ({names}), or the numbers of test.json without `ignore_unknown_classes`",
            hint="write the names of the classes as category_id",
        )


def _as_coco(table: ResultTable, truth: Truth, split: CocoSplit) -> list[Record]:
    """Return the results with the ids of the study, in the order of their file, which decides ties of scores."""
    image_ids = _ids_of(truth.image_ids, split.images)
    category_ids = _ids_of([category["id"] for category in truth.categories], split.categories)
    columns = (table.image, table.label, table.boxes_xywh, table.score)
    return [
        {"image_id": image_ids[image], "category_id": category_ids[label], "bbox": bbox, "score": score}
        for image, label, bbox, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _ids_of(original: list[Any], entries: Sequence[dict[str, Any]]) -> list[int]:
    """Return the study's id for each of the ids of the source."""
    of = {entry.get("original_id", entry["id"]): int(entry["id"]) for entry in entries}
    return [of[key] for key in original]
