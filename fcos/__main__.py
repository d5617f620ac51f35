"""`python -m fcos`: the commands, from the code of the current folder (DVC's stages call it this way)."""

import os
import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` has its own: an end without a traceback of imports

try:
    from fcos.cli import main
except ModuleNotFoundError:
    # `.venv/bin/dvc repro` in a shell without the environment: DVC's stages find another python first.
    environment = Path(".venv/bin/python").absolute()
    if not environment.exists() or Path(sys.prefix) == environment.parent.parent:
        raise
    os.execv(environment, [str(environment), "-m", "fcos", *sys.argv[1:]])

if __name__ == "__main__":
    main()
