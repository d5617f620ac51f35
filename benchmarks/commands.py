"""What the command line costs: help, a repro with nothing to do, and what TTA and the NMS sweep save.

    python benchmarks/commands.py --out FILE

Everything runs in a temporary clone of what is committed, on the study `smoke` with 7 views and 11 thresholds. Seven
separate evaluations are seven times `fcos predict` and `fcos evaluate`: what one would type without `--views tta`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from side_by_side import line, parser, write_report

VIEWS = [48, 56, 64, 72, 80, 88, 96]
THRESHOLDS = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
RUN = "one-epoch"


def main() -> None:
    arguments = parser(__doc__, repetitions=2).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        make_project(project)
        fcos = [sys.executable, "-m", "fcos"]
        predict, evaluate = [*fcos, "predict", RUN], [*fcos, "evaluate", RUN]
        together, apart, sweep, single = [], [], [], []
        for _ in range(arguments.repetitions):
            together.append(seconds(project, [*predict, "--views", "tta"], [*fcos, "tta", RUN]))
            apart.append(seconds(project, *([predict, evaluate] * len(VIEWS))))
            sweep.append(seconds(project, [*fcos, "nms-sweep", RUN]))
            single.append(seconds(project, evaluate))
        seconds(project, ["dvc", "repro", "--force"])  # records in dvc.lock what was run by hand above
        nothing = [seconds(project, ["dvc", "repro"]) for _ in range(3)]
        help_s = [seconds(project, ["fcos", "--help"]) for _ in range(5)]
    lines = [
        line("TTA with 7 views", together, apart, peer="7 predictions and evaluations", target=0.7, at_most=True),
        line("NMS sweep of 11 thresholds", sweep, single, peer="1 evaluation", target=1.3, at_most=True),
        absolute("`dvc repro` with nothing to do", nothing, target=3.0),
        absolute("`fcos --help`", help_s, target=0.3),
    ]
    write_report(arguments.out, "Commands", lines, study="smoke")


def make_project(project: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    subprocess.run(["git", "clone", "--quiet", root, project], check=True)
    params = yaml.safe_load((project / "studies" / "smoke.yaml").read_text())
    params["tta"] = {**params["tta"], "sizes": VIEWS, "runs": [RUN]}
    params["nms_sweep"] = {**params["nms_sweep"], "thresholds": THRESHOLDS}
    params["tables"] = [table for table in params["tables"] if table["kind"] == "trained"]
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    seconds(project, ["dvc", "repro"])


def seconds(project: Path, *commands: list[str]) -> float:
    """Return the wall time of the commands, run one after the other."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "true"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.perf_counter()
    for command in commands:
        done = subprocess.run(
            command, cwd=project, env={**os.environ, **quiet, "PATH": path}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def absolute(what: str, values: list[float], *, target: float) -> dict[str, Any]:
    """Return a line without a peer: the fastest repetition, since other load only adds time."""
    return {
        "what": what,
        "ours_s": [round(value, 3) for value in values],
        "target": target,
        "reached": min(values) <= target,
    }


if __name__ == "__main__":
    main()
