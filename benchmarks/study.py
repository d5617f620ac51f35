"""A whole study from a clone: how long it takes, and how much of that is not the work itself.

    python benchmarks/study.py --out FILE [--study smoke]

The share of orchestration is what the wall times of the stages, each up to the beginning of the next, have beyond the
seconds that the commands of training, prediction and scoring measured themselves: starting processes, imports, DVC,
MLflow, and preparing and reporting altogether.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from commands import absolute
from side_by_side import parser, write_report

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("train", "timing", "timing_tta", "tta", "evaluation", "nms_sweep")
RUNNING = re.compile(r"^(?:(?P<label>\S+) \| )?Running stage '")


def main() -> None:
    options = parser(__doc__, repetitions=1)
    options.add_argument("--study", default="shapes")
    arguments = options.parse_args()
    seconds, shares = [], []
    for _ in range(arguments.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            wall, share = run_study(Path(folder) / "project", arguments.study)
        seconds.append(wall)
        shares.append(share)
    what = f"study `{arguments.study}`, from a clone to its report"
    lines = [
        absolute(what, seconds, target=480),
        {**absolute(f"{what}: share that is not work", shares, target=0.15), "unit": ""},
    ]
    write_report(arguments.out, "Study", lines, study=arguments.study)


def run_study(project: Path, study: str) -> tuple[float, float]:
    """Return the seconds of the study and the share of its stages that is overhead."""
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    # Runs the clone's code and all of its stages, since the clone has no DVC cache.
    environment = {**os.environ, "PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "true"}
    fcos = [sys.executable, "-m", "fcos"]
    subprocess.run([*fcos, "study", "use", study, "--force"], cwd=project, env=environment, check=True)
    started = time.perf_counter()
    with subprocess.Popen(
        [*fcos, "study", "run"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        heard = [(time.perf_counter() - started, text) for text in process.stdout]
    wall = time.perf_counter() - started
    if process.returncode != 0:
        sys.exit("".join(text for _, text in heard[-30:]))
    stages = in_stages(heard)
    return wall, 1 - work(project / "runs" / study) / stages


def in_stages(heard: Iterable[tuple[float, str]]) -> float:
    """Return the sum of the wall times of all stages, from (seconds, line) of the output of `fcos study run`."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for seconds, text in heard:
        found = RUNNING.match(text)
        label = (found["label"] or "") if found else text.partition(" | ")[0] if " | " in text else ""
        if found:
            first.setdefault(label, seconds)
        if label in first:
            last[label] = seconds
    return sum(last[label] - first[label] for label in first)


def work(runs: Path) -> float:
    """Return the sum of the seconds that the commands measured themselves."""
    files = [path for name in MEASURED for path in runs.glob(f"*/{name}.json")]
    return sum(float(json.loads(path.read_text())["provenance"]["seconds"]) for path in files)


if __name__ == "__main__":
    main()
