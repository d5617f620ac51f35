"""`fcos labels`: which annotations detectors contradict, as a page of crops and as files for labelling tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.comparing.inputs import Choices, check_out, describe, open_truth, read_chosen
from fcos.comparing.inspector import check_images, split_of
from fcos.config.runs import find_run, parse_runs
from fcos.config.section import read_params
from fcos.data.coco import CocoSplit, read_split
from fcos.data.images_beside import find_images
from fcos.errors import UserError
from fcos.files import write_csv, write_json, write_text
from fcos.formats import write_record
from fcos.reporting.labels_page import labels_page
from fcos.scoring.label_errors import KINDS, Suspect, in_turn, rank
from fcos.scoring.truth import Truth
from fcos.study.layout import Layout
from fcos.study.run_files import command_for

_CSV = [
    "rank", "kind", "suspicion", "score", "image_id", "file_name", "class", "x", "y", "width", "height",
    "suggested_class", "suggested_x", "suggested_y", "suggested_width", "suggested_height",
]  # fmt: skip
_MARK = "suspect: "  # begins the names of the categories for labelling tools


@dataclass(frozen=True)
class Inputs:
    """Ground truth, results and, if they are at hand, images."""

    gt: Path
    results: list[Path]
    images: Path | None


def labels(
    arguments: Sequence[str], gt: Path | None, *, out: Path, top: int, images: Path | None, choices: Choices
) -> dict[str, Any]:
    """Rank the annotations, write labels.{json,csv,html} and labels-coco.json into `out`, and return the JSON content.

    Args:
        arguments: runs of the active study, on its test split, or with `gt` results files.
        top: number of suspects in the page and in labels-coco.json, of each kind in turn.
        images: folder of the images (None: beside the ground truth, or where the study has them).

    Raises:
        UserError: a run or a file is missing or wrong.
    """
    check_out(out)
    check_images(images)
    given = _of_study(arguments, images) if gt is None else Inputs(gt, [Path(name) for name in arguments], images)
    for path in [given.gt, *given.results]:
        if not path.exists():
            raise UserError(path, "no such file", expected="a results file; without --gt: a run of the active study")
    opened = open_truth(given.gt, choices)
    truth, findings, tables = opened.truth, list(opened.findings), []
    for path in given.results:
        results = read_chosen(path, truth, choices)
        findings += results.findings
        tables.append(results.table)
    suspects = rank(tables, truth.objects)
    row_of = {suspect: _row(suspect, truth) for suspect in suspects}
    rows = list(row_of.values())
    content: dict[str, Any] = {
        "gt": opened.described,
        "results": [describe(path) for path in given.results],
        "counts": {**truth.counts, "suspects": {kind: sum(of.kind == kind for of in suspects) for kind in KINDS}},
        "diagnosis": [finding.json() for finding in findings],
        "suspects": rows,
    }
    shown = in_turn(suspects, top)
    split = split_of(truth)
    names = sorted({split.images[of.image]["file_name"] for of in shown})
    folder = find_images(given.gt, given.images, names, opened.images)
    page = labels_page(content, [(suspect, row_of[suspect]) for suspect in shown], split, folder)
    marked = coco_with_marks(truth, split, shown)
    write_record(out / "labels.json", content)
    write_csv(out / "labels.csv", [_flat(place, row) for place, row in enumerate(rows, start=1)], _CSV)
    write_json(out / "labels-coco.json", marked)
    write_text(out / "labels.html", page)
    return {**content, "shown": len(shown), "has_images": folder is not None}


def _of_study(names: Sequence[str], images: Path | None) -> Inputs:
    params = read_params()
    runs = parse_runs(params)
    layout = Layout(find_run(runs, names[0]).study)
    split = read_split(layout.data, "test")
    paths = [layout.run(find_run(runs, name).name) / "detections.json" for name in names]
    for name, path in zip(names, paths, strict=True):
        if not path.exists():
            raise UserError(
                path, "no such file", expected="the detections of the run", hint=command_for(path.name, name)
            )
    at_hand = split.image_dir if split.image_dir is not None and split.image_dir.is_dir() else None
    return Inputs(layout.data / "test.json", paths, images or at_hand)


def _row(suspect: Suspect, truth: Truth) -> dict[str, Any]:
    return {
        "kind": suspect.kind,
        "suspicion": round(suspect.suspicion, 6),
        "score": round(suspect.score, 6),
        "image_id": truth.image_ids[suspect.image],
        "file_name": truth.file_names[suspect.image] or str(truth.image_ids[suspect.image]),
        "class": _name(suspect.label, truth),
        "bbox": suspect.box,
        "suggested_class": _name(suspect.suggested_label, truth),
        "suggested_bbox": suspect.suggested_box,
    }


def _name(label: int | None, truth: Truth) -> str | None:
    return None if label is None else truth.categories[label]["name"]


def _flat(place: int, row: dict[str, Any]) -> dict[str, Any]:
    sides = ("x", "y", "width", "height")
    own = zip(sides, row["bbox"] or [""] * 4, strict=True)
    suggested = zip((f"suggested_{side}" for side in sides), row["suggested_bbox"] or [""] * 4, strict=True)
    named = {
        key: row[key] for key in ("kind", "suspicion", "score", "image_id", "file_name", "class", "suggested_class")
    }
    return {"rank": place, **named, **dict(own), **dict(suggested)}


def coco_with_marks(truth: Truth, split: CocoSplit, suspects: Sequence[Suspect]) -> dict[str, Any]:
    """Return COCO JSON of the images with suspects: their boxes, and a mark for each suspect.

    A mark is a box of a category of its own, such as "suspect: class", with the suspicion and the suggested class as
    attributes, which CVAT shows. Ids of images and categories are those of the ground truth if these are numbers.
    """
    image_ids, category_ids = _numbers(truth.image_ids), _numbers([category["id"] for category in truth.categories])
    first = max(category_ids) + 1
    mark_of = {kind: first + place for place, kind in enumerate(KINDS)}
    inside = {suspect.image for suspect in suspects}
    annotations: list[dict[str, Any]] = [
        {**of, "image_id": image_ids[of["image_id"]], "category_id": category_ids[of["category_id"]]}
        for of in split.annotations
        if of["image_id"] in inside
    ]
    for suspect in suspects:
        box = suspect.suggested_box or suspect.box
        assert box is not None
        attributes: dict[str, Any] = {"suspicion": round(suspect.suspicion, 3)}
        if suspect.suggested_label is not None:
            attributes["suggested"] = split.categories[suspect.suggested_label]["name"]
        place = {"image_id": image_ids[suspect.image], "category_id": mark_of[suspect.kind], "bbox": list(box)}
        annotations.append({**place, "area": box[2] * box[3], "iscrowd": 0, "attributes": attributes})
    keys = ("file_name", "width", "height")
    return {
        "images": [
            {"id": image_ids[place], **{key: image[key] for key in keys if image[key] is not None}}
            for place, image in enumerate(split.images)
            if place in inside
        ],
        "annotations": [{**of, "id": place} for place, of in enumerate(annotations, start=1)],
        "categories": [
            *({"id": category_ids[label], "name": of["name"]} for label, of in enumerate(split.categories)),
            *({"id": number, "name": f"{_MARK}{kind}"} for kind, number in mark_of.items()),
        ],
    }


def _numbers(ids: Sequence[Any]) -> list[int]:
    """Return the ids if all are whole numbers, else their places from 1."""
    return list(ids) if all(isinstance(of, int) for of in ids) else list(range(1, len(ids) + 1))
