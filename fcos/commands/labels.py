"""`fcos labels`: which annotations detectors contradict, as a page of crops and as files for labelling tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos.comparing.inputs import Choices, describe, open_truth
from fcos.comparing.inspector import find_images, split_of
from fcos.config.runs import find_run, parse_runs
from fcos.config.section import read_params
from fcos.data.coco import CocoSplit, read_split
from fcos.errors import UserError
from fcos.files import write_csv, write_json
from fcos.formats import write_record
from fcos.reporting.labels_page import write_labels_page
from fcos.scoring.label_errors import KINDS, Suspect, in_turn, rank
from fcos.scoring.results import read_results
from fcos.scoring.truth import Truth
from fcos.study.layout import Layout
from fcos.study.run_files import command_for

_CSV = [
    "rank", "kind", "suspicion", "score", "file_name", "class", "x", "y", "width", "height", "suggested_class",
    "suggested_x", "suggested_y", "suggested_width", "suggested_height",
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
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}", "is a file", expected="a folder, which may be new")
    given = _of_study(arguments) if gt is None else Inputs(gt, [Path(name) for name in arguments], images)
    for path in [given.gt, *given.results]:
        if not path.exists():
            raise UserError(path, "no such file", expected="a results file; without --gt: a run of the active study")
    truth = open_truth(given.gt, choices).truth
    tables = [
        read_results(
            path,
            truth,
            ignore_unknown_images=choices.ignore_unknown_images,
            ignore_unknown_classes=choices.ignore_unknown_classes,
        ).table
        for path in given.results
    ]
    suspects = rank(tables, truth.objects)
    rows = [_row(suspect, truth) for suspect in suspects]
    content = {
        "gt": describe(given.gt),
        "results": [describe(path) for path in given.results],
        "counts": {**truth.counts, "suspects": {kind: sum(of.kind == kind for of in suspects) for kind in KINDS}},
        "suspects": rows,
    }
    shown = in_turn(suspects, top)
    split = split_of(truth)
    names = sorted({split.images[of.image]["file_name"] for of in shown})
    folder = find_images(given.gt, given.images, names)
    write_record(out / "labels.json", content)
    write_csv(out / "labels.csv", [_flat(place, row) for place, row in enumerate(rows, start=1)], _CSV)
    write_json(out / "labels-coco.json", coco_with_marks(split, shown))
    cards = [(suspect, _row(suspect, truth)) for suspect in shown]
    write_labels_page(out / "labels.html", content, cards, split, folder)
    return {**content, "shown": len(shown), "has_images": folder is not None}


def _of_study(names: Sequence[str]) -> Inputs:
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
    return Inputs(layout.data / "test.json", paths, split.image_dir)


def _row(suspect: Suspect, truth: Truth) -> dict[str, Any]:
    image = truth.image_records[suspect.image]
    return {
        "kind": suspect.kind,
        "suspicion": round(suspect.suspicion, 6),
        "score": round(suspect.score, 6),
        "image_id": image["id"],
        "file_name": image.get("file_name"),
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
    named = {key: row[key] for key in ("kind", "suspicion", "score", "file_name", "class", "suggested_class")}
    return {"rank": place, **named, **dict(own), **dict(suggested)}


def coco_with_marks(split: CocoSplit, suspects: Sequence[Suspect]) -> dict[str, Any]:
    """Return COCO JSON of the images with suspects: their annotations, and a mark for each suspect.

    A mark is a box of a category of its own, such as "suspect: class", with the suspicion and the suggested class as
    attributes, which CVAT shows.
    """
    inside = {suspect.image for suspect in suspects}
    first = len(split.categories)
    marks = [{"id": first + place, "name": f"{_MARK}{kind}"} for place, kind in enumerate(KINDS)]
    id_of = {kind: first + place for place, kind in enumerate(KINDS)}
    kept = [annotation for annotation in split.annotations if annotation["image_id"] in inside]
    for suspect in suspects:
        box = suspect.suggested_box or suspect.box
        assert box is not None
        attributes: dict[str, Any] = {"suspicion": round(suspect.suspicion, 3)}
        if suspect.suggested_label is not None:
            attributes["suggested"] = split.categories[suspect.suggested_label]["name"]
        place = {"image_id": suspect.image, "category_id": id_of[suspect.kind], "bbox": list(box)}
        kept.append({**place, "area": box[2] * box[3], "iscrowd": 0, "attributes": attributes})
    # Category ids begin at 1, as labelling tools expect.
    of_one = [{**of, "id": of["id"] + 1} for of in (*split.categories, *marks)]
    numbered = [
        {**of, "id": place, "image_id": of["image_id"] + 1, "category_id": of["category_id"] + 1}
        for place, of in enumerate(kept, start=1)
    ]
    keys = ("file_name", "width", "height")
    images = [
        {"id": image["id"] + 1, **{key: image[key] for key in keys}} for image in split.images if image["id"] in inside
    ]
    return {"images": images, "annotations": numbered, "categories": of_one}
