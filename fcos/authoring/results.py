"""`fcos study new --gt`: create a study that scores the results of detectors and trains nothing."""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
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
from fcos.data.images_beside import find_images
from fcos.errors import UserError
from fcos.files import in_project, write_text
from fcos.records import Manifest
from fcos.scoring.results import read_results
from fcos.scoring.truth import Truth
from fcos.study.findings import counted
from fcos.study.ground_truth import read_ground_truth, write_truth
from fcos.study.places import link_root
from fcos.study.truth_folder import find_truth

_STUDY = Template("""\
# The results of $detectors on $truth; nothing is trained.
# Written by `fcos study new --gt`; all of it may be changed. `fcos study use $name && fcos study run` runs it,
# `make repro STUDY=$name` too.
study: $study

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
    "source": "objects to score results against, as `fcos compare` takes them",
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
        images: the folder of the images; None: that of the folder, or beside the file, if they are there.

    Raises:
        UserError: the study exists already, a file is missing or wrong, or the ground truth is not valid.
    """
    path = refuse_existing(name)
    results = _entries(parse_rows(arguments))
    gt, split, known, said = _found(gt, split)
    with words_for(path):
        home = gt if split else gt.parent
        truth, notes = read_ground_truth(_config(home, gt, split, None, path))
        counts = [_check(file, truth) for file in _files(results)]
        folder, why = _folder_of_images(gt, truth.names, home, images, known)
        config = _config(home, gt, split, folder, path)
        try:
            manifest = _prepared(config, truth, notes)
        except UserError as error:
            if folder is None or images is not None:
                raise
            folder, why = None, f"not shown, so the report has no gallery: {error.where} {error.problem}"
            config = _config(home, gt, split, None, path)
            manifest = _prepared(config, truth, notes)
        home = in_project(config.root)
        root, outside = place(name, home)
        data = {**config.model_dump(include=set(_DATA)), "root": str(root)}
        text = _STUDY.substitute(
            name=name,
            study=flow(name),
            detectors="1 detector" if len(results) == 1 else f"{len(results)} detectors",
            truth=" ".join(gt.absolute().name.split()),
            data="\n".join(_entry(key, data[key]) for key in _DATA if data[key] is not None or key == "images"),
            results="\n".join(f"  {flow(key)}: {{files: {flow(files)}}}" for key, files in results.items()),
        )
        params.parse(yaml.safe_load(text), path)
    if outside:
        link_root(root, outside)
    write_text(path, text)
    lines = [("found", f"{gt}: {counted(manifest['splits']['test'])}"), *(("note", text) for text in [*said, *notes])]
    lines += [("images", why if folder is None else f"{folder}/")]
    files = zip(_files(results), counts, strict=True)
    lines += [("results", f"{file}: {count:,} detections") for file, count in files]
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
            expected, hint = "one of its own", "name them: NAME=FILE"
            raise UserError(f"results {row.name}", "needs another name", found=name, expected=expected, hint=hint)
        files = [os.path.relpath(path) for path in row.paths]
        entries[name] = files[0] if len(files) == 1 else files
    return entries


def _prepared(config: GroundTruthData, truth: Truth, notes: list[str]) -> Manifest:
    """Return what `fcos prepare` would find."""
    with tempfile.TemporaryDirectory() as scratch:
        return write_truth(config, truth, notes, Path(scratch))


def _files(results: Mapping[str, str | list[str]]) -> list[str]:
    return [file for files in results.values() for file in ([files] if isinstance(files, str) else files)]


def _check(file: str, truth: Truth) -> int:
    """Return the number of detections in a file of results; raises UserError if `fcos results` would refuse it."""
    return len(read_results(Path(file), truth).table)


def _found(gt: Path, split: str | None) -> tuple[Path, str | None, Path | None, list[str]]:
    """Return COCO JSON without a split, or another folder with its split; its images, and what was found."""
    if not gt.exists():
        raise UserError(gt, "no such file or folder", expected="ground truth: COCO JSON, or a folder of labels")
    if not gt.is_dir():
        if split is not None:
            raise UserError(f"--split {split}", "needs a folder", found=f"--gt {gt}", hint="leave it out")
        return gt, None, None, []
    found = find_truth(gt, split)
    if isinstance(found.content, Path):
        return found.content, None, found.images, [found.sentence]
    return gt, found.split, found.images, []


def _config(home: Path, gt: Path, split: str | None, images: Path | None, path: Path) -> GroundTruthData:
    """Return the section `data`; its root is `home`, or the folder that also has the images."""
    home = home if images is None else _common(home, images)
    data: dict[str, Any] = {"source": "ground-truth", "root": str(home), "annotations": os.path.relpath(gt, home)}
    data |= {"split": split, "images": None if images is None else os.path.relpath(images, home)}
    return parse_section({"data": data}, "data", GroundTruthData, path)


def _folder_of_images(
    gt: Path, names: Sequence[str], home: Path, given: Path | None, known: Path | None
) -> tuple[Path | None, str]:
    """Return the folder of the images, or None and the reason.

    Raises:
        UserError: the `given` folder lacks an image, or cannot be used.
    """
    folder = find_images(gt, given, names, known)
    if folder is None:
        return None, "not all are beside the ground truth, so the report has no gallery: --images FOLDER"
    folder = Path(os.path.normpath(folder.absolute()))
    here = Path.cwd()
    if here.is_relative_to(folder.resolve()):
        why = "contains this project, whose files change all the time"
    elif here != (common := _common(home, folder)) and here.is_relative_to(common):
        why = "has only folders around this project in common with the ground truth"
    else:
        return folder, ""
    if given is None:
        return None, f"{folder} {why}, so the report has no gallery"
    hint = "move or link ground truth and images into one folder, or leave out --images"
    raise UserError(f"--images {given}", why, hint=hint)


def _common(home: Path, folder: Path) -> Path:
    """Return the folder that both are in, by their names."""
    return Path(os.path.commonpath([os.path.normpath(home.absolute()), os.path.normpath(folder.absolute())]))


def _entry(key: str, value: Any) -> str:
    return f"  {key}: {flow(value)}   # {_DATA[key]}"
