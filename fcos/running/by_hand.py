"""Have DVC record the outputs of stages that were run by hand, so that it does not run them again.

A command notes the inputs of its stage, as dvc.yaml defines them, before and after it runs. Its outputs equal those of
a DVC run only if no input changed in between. The note stays in the study's `.scratch` folder until DVC has recorded
the stage: at once, or at the next `fcos study run` if another DVC holds the locks.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fcos.config.section import DEFAULT_PATH, read_params
from fcos.files import md5_file, project_root, read_note, sha256_json, write_json
from fcos.progress import say
from fcos.running.dvc import commit, is_busy, is_project, read_dvc_yaml, recorded_outputs
from fcos.running.stages import Stage
from fcos.study.layout import Layout
from fcos.study.places import SLOTS

TRIES, RETRY_S = 5, 2.0  # while another DVC is busy
Inputs = dict[str, Any]


@contextlib.contextmanager
def by_hand(stage: Stage, study: str, *, ends: bool = True) -> Iterator[None]:
    """Have DVC record the stage if the block, a command run by hand, succeeds; do nothing inside a DVC stage.

    Args:
        ends: whether the command is the last one of the stage (tta has two commands).
    """
    if "DVC_STAGE" in os.environ or not is_project():
        yield
        return
    before, started = stage_inputs(stage), time.time()
    yield
    digest = sha256_json(before)
    if before != stage_inputs(stage) or _source_changed(stage, study, started):
        say(f"{stage} was not recorded in DVC and will run again: its inputs changed while it ran")
        return
    note = _note(stage, study)
    if not ends:
        write_json(note, {"address": stage.address, "inputs": digest, "ended": False})
    elif stage.name != "tta" or _first_half(note) == digest:
        write_json(note, {"address": stage.address, "inputs": digest, "ended": True})
        record(stage, study)


def record(stage: Stage, study: str) -> None:
    """Have DVC record a stage that was run by hand, and print the result."""
    for attempt in range(TRIES):
        links = [Stage("source").address] if stage.name in ("prepare", "results") else []
        why_not = commit([*links, stage.address])
        if not is_busy(why_not):
            break
        if attempt == 0:
            say("waiting for another DVC to release its lock")
        time.sleep(RETRY_S)
    if why_not is None:
        _note(stage, study).unlink(missing_ok=True)
        drop_recorded(study)
        say(f"recorded in DVC: {stage} is done")
    elif is_busy(why_not):
        say(f"not recorded in DVC yet, since another DVC is running: the next `fcos study run` records {stage}")
    else:
        say(f"{stage} was not recorded in DVC and will run again: {why_not}")


def record_pending(study: str, stages: list[Stage]) -> None:
    """Record the stages that were run by hand while DVC was busy, if their inputs are unchanged."""
    if not is_project():
        return
    for stage in stages:
        note = _note(stage, study)
        content = read_note(note)
        if not content.get("ended"):
            continue
        if content.get("inputs") == sha256_json(stage_inputs(stage)):
            record(stage, study)
        else:
            note.unlink(missing_ok=True)


def stage_inputs(stage: Stage) -> Inputs:
    """Return the inputs of a stage as its dvc.yaml defines them: parameters, and size and time of each file.

    The links to the source are left out, because `fcos prepare` creates them after it has read their targets.
    """
    params = read_params()
    definition = read_dvc_yaml(_dvc_file(stage))["stages"][stage.name]
    definition = definition.get("do", definition)
    fill = {"${study}": params["study"], "${key}": stage.run_name or "", "${item}": stage.run_name or ""}

    def filled(text: str) -> str:
        for name, value in fill.items():
            text = text.replace(name, value)
        return text

    deps = [dep for dep in map(filled, definition["deps"]) if not dep.startswith("data/.source/")]
    files = {dep: _stamp(Path(dep)) for dep in deps}
    keys = definition["params"]
    if keys == [{str(DEFAULT_PATH): None}]:  # all of params.yaml
        return {"files": files, "params": params}
    return {"files": files, "params": {filled(key): _value(params, filled(key)) for key in keys}}


def _source_changed(stage: Stage, study: str, since: float) -> bool:
    """Whether a file of the source that the stage reads was written after `since` (seconds since the epoch)."""
    links = Layout(study).source
    read = {
        "prepare": [links / slot for slot in SLOTS],
        "train": [links / "checkpoints" / str(stage.run_name)],
        "results": [*(links / "results" / str(stage.run_name)).glob("*")],
    }
    files = (file for link in read.get(stage.name, []) if link.is_symlink() for file in _files(link))
    return any(file.stat().st_mtime_ns >= since * 1e9 for file in files)


def drop_recorded(study: str, folder: Path | None = None) -> None:
    """Delete the kept files of finished trainings that DVC has recorded and holds in its cache.

    Args:
        folder: the study's folder for unfinished work; default: that of this process.
    """
    recorded = _recorded_weights(study)
    for finished in (folder or Layout(study).unfinished).glob("*/finished"):
        weights = finished / "model.safetensors"
        if weights.is_file() and md5_file(weights) in recorded:
            shutil.rmtree(finished.parent, ignore_errors=True)
            finished.parent.with_name(f"{finished.parent.name}.lock").unlink(missing_ok=True)


def _recorded_weights(study: str) -> set[str]:
    """Return the md5 of each weights file that DVC's lock file lists."""
    outputs = recorded_outputs(project_root() / "stages/train/dvc.lock")
    return {md5 for path, md5 in outputs if path.is_relative_to(f"runs/{study}")}


def _dvc_file(stage: Stage) -> Path:
    return Path("dvc.yaml") if stage.name == "report" else Path("stages") / stage.name / "dvc.yaml"


def _files(path: Path) -> list[Path]:
    """Return the file at `path`, or all files below it."""
    if path.is_dir():
        return sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return [path] if path.is_file() else []


def _stamp(path: Path) -> list[list[Any]]:
    """Return name, size and modification time of a file, or of all files below a folder; empty if it is missing."""
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in _files(path)]


def _value(params: Mapping[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _first_half(note: Path) -> str | None:
    """Return the digest of the inputs of the stage's first command, or None if that was not run by hand."""
    return read_note(note).get("inputs")


def _note(stage: Stage, study: str) -> Path:
    return Layout(study).by_hand / (f"{stage.name}@{stage.run_name}.json" if stage.run_name else f"{stage.name}.json")
