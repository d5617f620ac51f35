"""`fcos study new --gt`: create a study that scores the results of detectors and trains nothing."""

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from fcos.authoring.new import after_use, place, refuse_existing, table, words_for
from fcos.authoring.text import flow
from fcos.comparing.rows import Row, parse_rows
from fcos.config import params
from fcos.config.data import GroundTruthData
from fcos.config.section import parse_section
from fcos.data.coco import read_split
from fcos.data.images_beside import find_images
from fcos.errors import UserError
from fcos.files import write_text
from fcos.study.findings import counted
from fcos.study.ground_truth import write_truth
from fcos.study.places import link_root
from fcos.study.truth_folder import find_truth

_STUDY = Template("""\
# The results of $detectors on $truth; nothing is trained.
# Written by `fcos study new --gt`; all of it may be changed. `fcos study use $name && fcos study run` runs it,
# `make repro STUDY=$name` too.
study: $name

data:
$data

results:   # of each detector a file, or several files that are its seeds: files: [one.json, two.json]
$results
# An entry may have `ms_per_image: 3.5`, its authors' time of an image, for the chart of accuracy and time, and
# `ignore_unknown_images: true` or `ignore_unknown_classes: true`, which leave out such detections, counted.

statistics:            # of the intervals and tests in every table
  confidence: 0.95     # of 100 such intervals, 95 contain the true value
  replicates: 1000     # bootstrap samples of the images
  seed: 0              # of the bootstrap; the same for all results, so that differences are paired

tracking:
  checkpoints: none    # there are none

tables: []             # one of all detectors is added
runs: {}               # trainings

test: {}               # of trainings
tta: {runs: []}
nms_sweep: {runs: []}
""")
_DATA = {
    "source": "objects to score against; nothing in them is changed or left out",
    "root": "the folder of the data, or a link to it; on another machine: fcos source --at FOLDER",
    "annotations": "COCO JSON, or a folder in VOC or YOLO layout; relative to root",
    "split": "of that folder",
    "images": "the folder of the images, for the gallery only",
    "groups": "groups of related images, which the bootstrap resamples together",
}


def study_of_results(
    name: str, gt: Path, arguments: Sequence[str], *, split: str | None = None, images: Path | None = None
) -> str:
    """Write studies/NAME.yaml for results on the ground truth `gt`; return what was found and chosen.

    Args:
        gt: COCO JSON, or a folder that `fcos study new --from` reads.
        arguments: [NAME=]FILE[,FILE...] for each detector.
        split: of a folder; None: test, or the first that there is.
        images: the folder of the images; None: beside the ground truth, if they are there.

    Raises:
        UserError: the study exists already, a file is missing, or the ground truth is not valid.
    """
    path = refuse_existing(name)
    results = _entries(parse_rows(arguments))
    gt, split = _found(gt, split)
    with tempfile.TemporaryDirectory() as scratch, words_for(path):
        home = gt if split else gt.parent
        manifest = write_truth(_config(home, gt, split, None, path), Path(scratch))
        names = [image["file_name"] for image in read_split(Path(scratch), "test").images]
    folder = _without_this_project(find_images(gt, images, names))
    home = home if folder is None else Path(os.path.commonpath([home.absolute(), folder.absolute()]))
    root, outside = place(name, home)
    data = {**_config(home, gt, split, folder, path).model_dump(include=set(_DATA)), "root": str(root)}
    text = _STUDY.substitute(
        name=name,
        detectors=_counted(results),
        truth=gt.absolute().name,
        data="\n".join(_entry(key, data[key]) for key in _DATA if data[key] is not None or key == "images"),
        results="\n".join(f"  {key}: {{files: {flow(files)}}}" for key, files in results.items()),
    )
    params.parse(yaml.safe_load(text), path)
    if outside:
        link_root(root, outside)
    write_text(path, text)
    lines = [("found", counted(manifest["splits"]["test"])), *(("note", text) for text in manifest["notes"])]
    lines += [
        ("images", "none beside the ground truth, so no gallery: --images FOLDER")
        if folder is None
        else ("images", f"{folder}/")
    ]
    lines += [("results", f"{key}: {of if isinstance(of, str) else ', '.join(of)}") for key, of in results.items()]
    lines += [("linked", f"{root} to {outside}; on another machine: fcos source --at FOLDER")] if outside else []
    lines += [("wrote", str(path)), ("next", f"fcos study use {name}"), *(("", step) for step in after_use(name))]
    return table(lines)


def _entries(rows: Sequence[Row]) -> dict[str, str | list[str]]:
    """Return `files` of each entry of `results`; names become lower-case letters, digits and hyphens.

    Raises:
        UserError: a file is missing or a folder, or two rows get the same name.
    """
    entries: dict[str, str | list[str]] = {}
    for row in rows:
        for path in row.paths:
            if not path.is_file():
                problem = "is a folder" if path.is_dir() else "no such file"
                raise UserError(path, problem, expected="a file of results, such as a COCO results list")
        name = re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")[:64].strip("-")
        if not name or name in entries:
            hint = "name them: NAME=FILE"
            raise UserError(
                f"results {row.name}", "needs another name", found=name, expected="one of its own", hint=hint
            )
        files = [os.path.relpath(path) for path in row.paths]
        entries[name] = files[0] if len(files) == 1 else files
    return entries


def _found(gt: Path, split: str | None) -> tuple[Path, str | None]:
    """Return COCO JSON without a split, or a folder in another layout with the split that is scored."""
    if not gt.exists():
        raise UserError(gt, "no such file or folder", expected="ground truth: COCO JSON, or a folder of labels")
    if not gt.is_dir():
        if split is not None:
            raise UserError(f"--split {split}", "needs a folder", found=f"--gt {gt}", hint="leave it out")
        return gt, None
    found = find_truth(gt, split)
    return (found.content, None) if isinstance(found.content, Path) else (gt, found.split)


def _config(home: Path, gt: Path, split: str | None, images: Path | None, path: Path) -> GroundTruthData:
    """Return the section `data` with the folder `home` as its root."""
    data: dict[str, Any] = {"source": "ground-truth", "root": str(home), "annotations": os.path.relpath(gt, home)}
    data |= {"split": split, "images": None if images is None else os.path.relpath(images, home)}
    config: GroundTruthData = parse_section({"data": data}, "data", GroundTruthData, path)
    return config


def _without_this_project(folder: Path | None) -> Path | None:
    """Return the folder of images, or None if it contains this project, whose files DVC would take for images."""
    return None if folder is None or Path.cwd().is_relative_to(folder.resolve()) else folder


def _counted(results: dict[str, Any]) -> str:
    return "1 detector" if len(results) == 1 else f"{len(results)} detectors"


def _entry(key: str, value: Any) -> str:
    return f"  {key}: {flow(value)}   # {_DATA[key]}"
