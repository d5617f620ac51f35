"""`python -m fcos`: run the command line from the code of the current folder, as DVC's stages do."""

import os
import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

try:
    from fcos.cli import main
except ModuleNotFoundError:
    # When `.venv/bin/dvc repro` runs in a shell without the environment active, DVC's stages find another python first.
    environment = Path(".venv/bin/python").absolute()
    if not environment.exists() or Path(sys.prefix) == environment.parent.parent:
        raise
    os.execv(environment, [str(environment), "-m", "fcos", *sys.argv[1:]])

if __name__ == "__main__":
    main()
