"""Measure programs in turn and report ratios: what every benchmark here shares."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fcos.files import write_json
from fcos.progress import track

Program = Callable[[], Any]
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def parser(description: str | None, *, repetitions: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="the JSON to write")
    made.add_argument("--repetitions", type=int, default=repetitions)
    return made


def device_named(name: str) -> torch.device:
    """The type of `--device`: cpu, or cuda where there is one."""
    if name not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{name}: choose cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("cuda: there is no CUDA device here")
    return torch.device(name)


def in_turn(programs: Mapping[str, Program], repetitions: int, *, label: str) -> dict[str, list[float]]:
    """Return the seconds of each program in each repetition, after an unmeasured warm-up, in the order A, B, A, B, ...
    The programs take turns because the speed of a shared machine changes over time.
    """
    for program in programs.values():
        program()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in track(range(repetitions), label, total=repetitions, unit="repetitions"):
        for name, program in programs.items():
            synchronize()
            started = time.perf_counter()
            program()
            synchronize()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def synchronize() -> None:
    """Wait for the device, so that a clock measures its work and not only the launch."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def line(
    what: str, ours: list[float], theirs: list[float], *, peer: str, target: float, at_most: bool = False
) -> dict[str, Any]:
    """Return one line of the page: the ratio theirs / ours of each repetition, or ours / theirs if `at_most` is set."""
    pairs = zip(ours, theirs, strict=True)
    ratios = [mine / other if at_most else other / mine for mine, other in pairs]
    middle = statistics.median(ratios)
    return {
        "what": what,
        "peer": peer,
        "ours_s": [round(value, 4) for value in ours],
        "peer_s": [round(value, 4) for value in theirs],
        "ratio": round(middle, 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "target": target,
        "at_most": at_most,
        "reached": middle <= target if at_most else middle >= target,
    }


def write_report(path: Path, title: str, lines: list[dict[str, Any]], **settings: Any) -> None:
    """Write what `page.py` reads."""
    write_json(path, {"title": title, "machine": machine(), "settings": settings, "lines": lines})
    for of in lines:
        if "ratio" in of:
            print(f"{of['what']}: {of['ratio']} ({of['lowest']} to {of['highest']}) against {of['peer']}")


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    cpu: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        pairs = (row.split(":", 1) for row in Path("/proc/cpuinfo").read_text().splitlines() if ":" in row)
        cpu = {key.strip(): value.strip() for key, value in pairs}
    flags = set(cpu.get("flags", "").split())
    return {
        "processor": cpu.get("model name", platform.processor() or platform.machine()),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
