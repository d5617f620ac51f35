"""The provenance of a result: where, when and with which versions it was computed. It is no part of its identity."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fcos.files import project_root
from fcos.records import Provenance
from fcos.version import own_version

PACKAGES = ("torch", "torchvision", "numpy", "scipy")


def provenance(started: float, **more: Any) -> Provenance:
    """Return commit, versions and times of the calling command; `started` is its time.time()."""
    where: Provenance = {
        "commit": git("rev-parse", "HEAD") if _is_ours() else None,
        "clean_tree": _clean(),
        "versions": {
            "fcos": own_version(),
            "python": platform.python_version(),
            **{name: number for name in PACKAGES if (number := _version(name))},
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
    }
    where.update(more)  # type: ignore[typeddict-item]
    return where


def _version(package: str) -> str | None:
    """Return the version of a package, or None: results are scored where torch is not installed, too."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git(*arguments: str) -> str | None:
    """Return what git says of this folder, or None if it fails or is missing; it never asks for a password."""
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=quiet)
    except OSError:  # a missing git must not lose the result
        return None
    return done.stdout.strip("\n") if done.returncode == 0 else None


def _is_ours() -> bool:
    """Whether git's repository is this project's; an unpacked archive may be inside of another repository."""
    top = git("rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == project_root().resolve()


def _clean() -> bool | None:
    """Whether code and settings are committed; lock files and reports are not checked, since a run writes them."""
    if not _is_ours():
        return None
    status = git("status", "--porcelain", "--", "fcos", "stages/*/dvc.yaml", "dvc.yaml", "params.yaml")
    return None if status is None else status == ""
