"""The link `fcos` of a project made by `fcos init`, through which DVC hashes the code of the installed package.

The dvc.yaml files name the modules of each stage as in a clone, for example fcos/losses.py. So an installed version
that changes such a module runs the stages that use it again, and no others.
"""

from pathlib import Path

import fcos
from fcos.progress import say

PROJECT = Path(".fcos.json")  # marks such a project: the version and the digests of the files that `fcos init` wrote
LINK = Path("fcos")


def refresh_link() -> None:
    """Point the link of the project in this folder, if it is one, to the package that runs now, and say so."""
    if PROJECT.is_file() and (LINK.is_symlink() or not LINK.exists()):
        package = Path(fcos.__path__[0]).resolve()
        if LINK.resolve() != package:
            LINK.unlink(missing_ok=True)
            LINK.symlink_to(package, target_is_directory=True)
            say(f"linked {LINK} to the installed package: {package}")
