"""Change one line at a time and see whether a test notices: `python tests/mutate.py [WORDS]`, or `make mutations`.

tests/mutations.json lists the changes; WORDS picks those whose description has them. Each is made in a copy of the
package, so nothing happens to this one. Ends with 1 where a change lived, or where its line is no longer there.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("fcos", "tests", "stages", "studies", "benchmarks", "docs", "pyproject.toml", "params.yaml", "dvc.yaml")


def outcome(mutation, copy):
    path = copy / mutation["file"]
    text = path.read_text()
    if mutation["old"] not in text:
        return "not found"
    path.write_text(text.replace(mutation["old"], mutation["new"], 1))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{mutation['test']}"]
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
    finally:
        path.write_text(text)
    return {0: "lived", 1: "died"}.get(done.returncode, f"pytest ended with {done.returncode}")


def main():
    words = " ".join(sys.argv[1:])
    chosen = [one for one in json.loads((ROOT / "tests/mutations.json").read_text()) if words in one["what"]]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            put = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            put(ROOT / name, copy / name)
        outcomes = []
        for mutation in chosen:
            outcomes.append(outcome(mutation, copy))
            print(f"{outcomes[-1]:<10}{mutation['what']} ({mutation['file']})", flush=True)
    sys.exit(any(found != "died" for found in outcomes))


if __name__ == "__main__":
    main()
