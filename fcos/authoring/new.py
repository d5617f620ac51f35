"""`fcos study new`: create a study from a folder, with settings that suit its images and this machine."""

import contextlib
import os
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fcos.authoring.contact_sheet import write_contact_sheets
from fcos.authoring.findings import Lines, found_lines
from fcos.authoring.settings import (
    BACKBONES,
    TINY_OBJECT,
    Facts,
    Settings,
    choose_settings,
    facts_of,
    most_objects,
    shown_objects,
)
from fcos.authoring.text import study_text
from fcos.config import params
from fcos.config.data import DataConfig, FilesData
from fcos.config.section import parse_section
from fcos.config.study import Name
from fcos.data.coco import read_split
from fcos.data.sources.discover import discover
from fcos.data.sources.found import Discovered
from fcos.errors import UserError
from fcos.files import write_text
from fcos.progress import duration
from fcos.records import Manifest
from fcos.study.data import write_data
from fcos.study.layout import STUDIES
from fcos.study.places import link_root

LONG_S, FIRST_LOOK_EPOCHS = 3600.0, 10


def study_new(
    name: str,
    folder: Path,
    *,
    epochs: int | None = None,
    seeds: int = 1,
    damaged: str = "error",
    outside_boxes: str = "error",
) -> str:
    """Write studies/NAME.yaml for the data in `folder`; return what was found, assumed and chosen.

    Args:
        epochs: epochs of each training; None: chosen by the number of images.
        seeds: trainings of each backbone; with one, the report compares two networks, not two settings.
        damaged: `data.damaged` of the study: error or leave-out.
        outside_boxes: `data.outside_boxes` of the study: error or clip.

    Raises:
        UserError: the study exists already, the layout of the folder is unknown, or `fcos prepare` would refuse its
            data.
    """
    path = refuse_existing(name)
    with tempfile.TemporaryDirectory() as scratch:
        with words_for(path):
            found = discover(folder)
            root, outside = place(name, found.data["root"])
            data, manifest = _check(found, Path(scratch), path, damaged=damaged, outside_boxes=outside_boxes)
            data["root"] = str(root)
        splits = {split: read_split(Path(scratch), split) for split in manifest["splits"]}
    from fcos.authoring import trial  # imports torch, which takes seconds, only for an accepted folder

    facts = facts_of(list(splits.values()))
    no_weights = trial.why_no_weights()
    choose = partial(choose_settings, facts, pretrained=no_weights is None, device=trial.device(), epochs=epochs)
    headline = f"{facts.num_train} images of {folder.resolve().name} to train on."
    write = partial(study_text, name, headline, data, seeds=seeds)
    draft = params.parse(yaml.safe_load(write(choose())), path)
    first_seeds = [run for run in draft.runs.values() if run.seed == 0]
    fitting, seconds = trial.try_runs(first_seeds, splits["train"])
    settings = choose(fitting=fitting)
    text = write(settings)
    params.parse(yaml.safe_load(text), path)
    lines = [
        *found_lines(found, manifest, facts, most_objects(list(splits.values()))),
        *_chosen(facts, settings, fitting, seeds),
    ]
    lines += [*trial.weights_lines(no_weights), *_time(facts, settings, seconds, seeds)]
    lines += [("linked", f"{root} to {outside}; on another machine: fcos source --at FOLDER")] if outside else []
    looked_at = Path("data/contact_sheets") / name
    lines += [("look", f"{looked_at}/: a contact sheet of each split: images with their boxes, unusual ones first")]
    lines += [("wrote", f"{path}, where every value is explained"), ("next", f"fcos study use {name}")]
    said = table([*lines, *(("", step) for step in after_use(name))])
    write_contact_sheets(splits, manifest, looked_at)
    if outside:
        link_root(root, outside)
    write_text(path, text)
    return said


def refuse_existing(name: str) -> Path:
    """Return the path of a new study file; raises UserError if the name is wrong or the file exists."""
    path = STUDIES / f"{name}.yaml"
    parse_section({"study": name}, "study", Name, path)
    if path.exists():
        raise UserError(path, "already exists; nothing was changed", hint="choose another name, or delete the file")
    return path


def after_use(name: str) -> list[str]:
    """Return what one runs after `fcos study use`."""
    if Path("dvc.yaml").is_file():
        both = [f"or both at once: make repro STUDY={name}"] if Path("Makefile").is_file() else []
        return ["fcos study run", *both]
    return [
        "fcos prepare, and the other commands one by one: this folder has no dvc.yaml, and `fcos study run` needs it"
    ]


def place(name: str, folder: Path) -> tuple[Path, Path | None]:
    """Return `data.root` for the data in `folder`, and the folder itself if it is outside this project.

    A study file contains no path of this machine, so a folder outside the project gets a link in datasets/.
    """
    absolute = Path(os.path.normpath(Path.cwd() / folder))
    if absolute.is_relative_to(Path.cwd()):
        return absolute.relative_to(Path.cwd()), None
    link = Path("datasets") / name
    if link.exists() and not link.is_symlink() and not link.samefile(absolute):
        hint = "choose another name for the study, or move that folder"
        raise UserError(link, "already exists and is another folder; nothing was changed", found=absolute, hint=hint)
    return link, absolute


@contextlib.contextmanager
def words_for(path: Path) -> Iterator[None]:
    """Replace params.yaml in error messages by the study file that is being written."""
    try:
        yield
    except UserError as error:
        error.args = (str(error).replace("params.yaml: ", f"{path} (not written): "),)
        raise


def _check(
    found: Discovered, scratch: Path, path: Path, *, damaged: str = "error", outside_boxes: str = "error"
) -> tuple[dict[str, Any], Manifest]:
    """Return the complete section `data`, and the manifest of the data prepared in `scratch`."""
    data = {key: value for key, value in found.data.items() if value is not None or not key.startswith("validation")}
    data |= {"root": str(found.data["root"]), "validation_fraction": 0.0, "cache": "auto"}
    data |= {"damaged": damaged, "outside_boxes": outside_boxes}
    data |= {"difficult": "keep"} if data["source"] == "voc" else {}
    config: FilesData = parse_section({"data": data}, "data", DataConfig, path)  # type: ignore[arg-type]
    manifest = write_data(config, scratch)
    return {**data, "classes": [category["name"] for category in manifest["categories"]]}, manifest


def _chosen(facts: Facts, settings: Settings, fitting: int, seeds: int) -> Lines:
    lines = [
        ("chosen", f"test.size {settings.size}: {settings.size_why}; max_size {settings.max_size}"),
        ("", f"train.sizes {settings.sizes[0]} to {settings.sizes[-1]}"),
        ("", f"model.regression_ranges: {settings.ranges_why}"),
        (
            "",
            f"train.batch_size {settings.batch_size}: {fitting} fit into memory",
        ),
        ("", f"train.optimizer {settings.optimizer}, learning_rate {settings.learning_rate}"),
        ("", f"epochs {settings.epochs}: {settings.epochs_why}"),
        ("", _runs_said(seeds)),
    ]
    if not fitting:
        lines.append(("note", "not even one image fits into memory: lower train.sizes and train.max_size"))
    tiny = float(np.mean(shown_objects(facts, settings) < TINY_OBJECT)) if len(facts.object_sizes) else 0.0
    if tiny > 0.1:
        lines.append(
            (
                "note",
                f"{tiny:.0%} of the objects are below {TINY_OBJECT:.0f} pixels at that size, too small to be "
                "found well: raise test.size and train.sizes, or cut the images into tiles",
            )
        )
    return lines


def _runs_said(seeds: int) -> str:
    backbones = " and ".join(BACKBONES)
    if seeds == 1:
        return (
            f"two runs, {backbones}: one training each compares two networks only; to compare the two backbones as "
            "settings, use --seeds 2 or more"
        )
    return f"{len(BACKBONES) * seeds} runs: {backbones}, {seeds} seeds each"


def _time(facts: Facts, settings: Settings, seconds: Sequence[float], seeds: int) -> Lines:
    if len(seconds) < len(BACKBONES):  # a batch of one of them does not fit
        return []
    shown = facts.num_train * (settings.epochs + settings.warmup_epochs)
    shown_at_full_size = shown * float(np.mean([(size / settings.size) ** 2 for size in settings.sizes]))
    each = [shown_at_full_size * one * seeds for one in seconds]
    parts = ", ".join(f"{backbone} {duration(one)}" for backbone, one in zip(BACKBONES, each, strict=True))
    lines = [
        ("time", f"training takes about {duration(sum(each))} on this machine ({parts}), estimated from one step each")
    ]
    if sum(each) > LONG_S and settings.epochs > FIRST_LOOK_EPOCHS:
        lines.append(("", f"for a first look: delete the study and create it again with --epochs {FIRST_LOOK_EPOCHS}"))
    return lines


def table(lines: Lines) -> str:
    """Return lines with their labels in a column, wrapped."""
    wrapped = (
        textwrap.fill(said, 110, initial_indent=f"{what:<9}", subsequent_indent=" " * 11, break_on_hyphens=False)
        for what, said in lines
    )
    return "\n".join(wrapped)
