"""`fcos doctor`: report what will be used on this machine, and any problems."""

import platform
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fcos.config import params
from fcos.config.runs import Run
from fcos.data.coco import CocoSplit, read_manifest, read_split
from fcos.data.shards import Store
from fcos.distributed import number_of
from fcos.errors import UserError
from fcos.model.device import find_device, find_dtype
from fcos.progress import track
from fcos.running.jobs import usable_cores
from fcos.running.verify import verify
from fcos.study.batch_size import largest_batch, largest_size, make_trial
from fcos.study.layout import Layout
from fcos.version import own_version

NEEDED_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of `fcos doctor`; `problem` is what to do if something is wrong."""

    what: str
    value: str
    problem: str | None = None


def findings_text(findings: Iterable[Finding]) -> str:
    """Return a line for each finding, and another for its problem, if any."""
    lines = []
    for finding in findings:
        lines.append(f"{'wrong' if finding.problem else 'ok':<6} {finding.what:<12} {finding.value}")
        lines += [f"{'':<19} {finding.problem}"] if finding.problem else []
    return "\n".join(lines)


def doctor() -> list[Finding]:
    """Return findings about software, device, processor, disk, settings, data and the largest batches."""
    device = find_device("auto")
    dtype = str(find_dtype("auto", device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "processor"
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    low = f"less than {NEEDED_GB:.0f} GB: checkpoints may not fit" if free_gb < NEEDED_GB else None
    return [
        Finding("fcos", f"{own_version()}, python {platform.python_version()}, torch {torch.__version__}"),
        Finding("device", f"{device.type} ({name}), convolutions in {dtype}"),
        Finding("threads", f"{torch.get_num_threads()} of {usable_cores()} processors"),
        Finding("disk", f"{free_gb:.0f} GB free", low),
        *_study(),
    ]


def verify_files() -> list[Finding]:
    """Return a finding for each file whose content differs from what DVC recorded."""
    found = verify()
    whole = Finding("files", f"{found.count - len(found.damaged)} of {found.count} match what DVC recorded")
    return [whole, *(_damaged(names) for names in found.damaged)]


def _damaged(names: list[Path]) -> Finding:
    listed = " ".join(shlex.quote(str(name)) for name in names)
    cure = f"if you did not change it yourself: rm -f {listed}; then `fcos study run` creates it again"
    return Finding("files", f"{names[-1]} differs from what DVC recorded", cure)


def _study() -> list[Finding]:
    try:
        study = params.read()
    except UserError as error:
        return [Finding("params.yaml", "not valid", str(error))]
    of_what = f"{len(study.runs)} runs" if study.runs else f"{len(study.results)} results"
    findings = [Finding("study", f"{study.study}: {of_what}, {len(study.tables)} tables")]
    layout = Layout(study.study)
    try:
        splits = read_manifest(layout.data)["splits"]
        counts = ", ".join(f"{split} {content.get('num_images', 0)} images" for split, content in splits.items())
        findings.append(Finding("data", counts))
        findings += shard_findings(splits)
        findings += _batches(study.runs, layout)
    except UserError as error:
        prepared = (layout.data / "manifest.json").exists()
        cure = str(error) if prepared else "run `fcos prepare`, or `make repro` for the whole study"
        findings.append(Finding("data", "damaged" if prepared else "not prepared yet", cure))
    if not study.runs:
        return findings
    trained = sum(layout.weights(name).exists() for name in study.runs)
    return [*findings, Finding("trained", f"{trained} of {len(study.runs)} runs")]


def shard_findings(splits: Mapping[str, Any]) -> list[Finding]:
    """Return whether the object stores that the splits' images are in answer and have a shard of each split."""
    findings = []
    for split, content in splits.items():
        if shards := content.get("shards"):
            what = f"{split}: {len(shards['files'])} at {shards['url']}"
            try:
                missing = not Store(shards["url"]).has(shards["files"][0])
                cure = "missing in the store: fcos prepare --shards URL uploads them again" if missing else None
            except UserError as error:
                cure = str(error)
            findings.append(Finding("shards", what, cure))
    return findings


def _batches(runs: Mapping[str, Run], layout: Layout) -> list[Finding]:
    """Return the largest training batch of each network; runs that differ only in seed or epochs share a line."""
    try:
        split = read_split(layout.data, "train")
        distinct: dict[str, Run] = {}
        for run in runs.values():
            if run.checkpoint is None:
                distinct.setdefault(run.model_dump_json(exclude={"name", "epochs", "seed", "role"}), run)
        networks = list(distinct.values())
        return [batch_finding(run, split) for run in track(networks, "doctor", total=len(networks), unit="networks")]
    except UserError as error:
        return [Finding("batch", "not known", str(error))]


def batch_finding(run: Run, split: CocoSplit, *, memory: int | None = None) -> Finding:
    """Return the largest batch of `run` at its largest training size, and whether train.batch_size fits.

    On CUDA it is measured; elsewhere it is estimated from steps on small images for `memory` bytes (None: available
    memory).
    """
    trial = make_trial(run, len(split.categories))
    fitting, at_most = largest_batch(trial, run, split, memory=memory)
    how = "tried" if trial.device.type == "cuda" else "estimated from two small steps"
    height, width = largest_size(run, split)
    network = f"{run.backbone}, num_convs {run.num_convs} ({run.name})"
    of_size = f"{height} x {width} ({how})"
    devices = _devices(run, trial.device)
    each = f", shared by {devices} devices" if devices > 1 else ""
    value = f"{network}: {_count(fitting, at_most)} of {of_size}; train.batch_size is {run.train.batch_size}{each}"
    wanted = min(run.train.batch_size, len(split.images))
    return Finding("batch", value, _problem(fitting, -(-wanted // devices), devices))


def _devices(run: Run, device: torch.device) -> int:
    """Return the number of devices that hold a part of a batch each; the ranks of a CPU share its memory."""
    return 1 if device.type == "cpu" else number_of(run.train.devices, device)


def _count(fitting: int, at_most: int) -> str:
    return f"{fitting} images" if fitting < at_most else f"at least {fitting} images"


def _problem(fitting: int, wanted: int, devices: int) -> str | None:
    if fitting >= wanted:
        return None
    if fitting == 0:
        return "not even one image fits: lower train.sizes and train.max_size, or free memory"
    return f"train.batch_size does not fit: set it to {fitting * devices} or less"
