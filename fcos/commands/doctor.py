"""`fcos doctor`: what will be used on this machine, and what is wrong."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from fcos import __version__
from fcos.commands.layout import Layout
from fcos.config import params
from fcos.errors import UserError
from fcos.files import read_json
from fcos.model.device import find_device, find_dtype

NEEDED_GB = 5.0


@dataclass(frozen=True)
class Finding:
    what: str
    value: str
    problem: str | None = None


def doctor() -> list[Finding]:
    """Findings about software, device, processor, disk, settings and data."""
    device = find_device("auto")
    dtype = str(find_dtype("auto", device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "processor"
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    low = f"less than {NEEDED_GB:.0f} GB: checkpoints may not fit" if free_gb < NEEDED_GB else None
    return [
        Finding("fcos", f"{__version__}, python {platform.python_version()}, torch {torch.__version__}"),
        Finding("device", f"{device.type} ({name}), convolutions in {dtype}"),
        Finding("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"),
        Finding("disk", f"{free_gb:.0f} GB free", low),
        *_study(),
    ]


def _study() -> list[Finding]:
    try:
        study = params.read()
    except UserError as error:
        return [Finding("params.yaml", "not valid", str(error))]
    findings = [Finding("study", f"{study.study}: {len(study.runs)} runs, {len(study.tables)} tables")]
    layout = Layout(study.study)
    try:
        splits = read_json(layout.data / "manifest.json", do="fcos prepare")["splits"]
        counts = ", ".join(f"{split} {content['num_images']} pictures" for split, content in splits.items())
        findings.append(Finding("data", counts))
    except UserError:
        findings.append(Finding("data", "not prepared yet", "type `fcos prepare`, or `make repro` for everything"))
    trained = sum(layout.weights(name).exists() for name in study.runs)
    return [*findings, Finding("trained", f"{trained} of {len(study.runs)} runs")]
