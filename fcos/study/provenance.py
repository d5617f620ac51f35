"""Where, when and by what something was computed: kept apart from what it is."""

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fcos import __version__
from fcos.files import project_root
from fcos.records import Provenance

PACKAGES = ("torch", "torchvision", "numpy", "scipy")


def provenance(started: float, **more: Any) -> Provenance:
    """Commit, versions and times (`started` as of time.time()) of the command that calls it."""
    where: Provenance = {
        "commit": _git("rev-parse", "HEAD") if _is_ours() else None,
        "clean_tree": _clean(),
        "versions": {
            "fcos": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
    }
    where.update(more)  # type: ignore[typeddict-item]
    return where


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git here: no reason to lose what was computed
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _is_ours() -> bool:
    """Whether the repository found from here is this project's own: an unpacked archive may lie below another one."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == project_root().resolve()


def _clean() -> bool | None:
    """Whether the code and settings are as committed; locks and reports are what a run itself writes."""
    if not _is_ours():
        return None
    status = _git("status", "--porcelain", "--", "fcos", "stages/*/dvc.yaml", "dvc.yaml", "params.yaml")
    return None if status is None else status == ""
