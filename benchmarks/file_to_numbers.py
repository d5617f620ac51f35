"""From two files to the twelve numbers: ours, pycocotools and its fast successors, in turn, each in its own process.

    python benchmarks/file_to_numbers.py --out FILE [--peers PYTHON]

Sizes are COCO val2017's and VOC2007 test's. The twelve numbers are compared first: ours must be pycocotools' to the
last bit, the others' to 1e-12. Ours includes the lines on what is odd in the files. 1,000 replicates are ours; the
others have none that count an image twice, so theirs are 1,000 times one evaluation of the images of a bootstrap
sample. pycocotools and replicates are measured once, since they take minutes. `--peers` is a Python that has the
others: `make bench` makes one. The commit before these readers is measured too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import line, parser, write_report
from synthetic import COCO2017_IMAGES, VOC2007_IMAGES, Detector, coco_sized, detect, draw_images

from fcos.progress import track

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "78c7d94"  # the commit that TARGETS["before"] refers to
PEERS = ("ultrafast_pycocotools", "hotcoco", "faster_coco_eval")
REFERENCE = "pycocotools"
# Required speed relative to each peer; the two in Rust may be up to three times as fast.
TARGETS = {"before": 4.0, "ultrafast_pycocotools": 1 / 3, "hotcoco": 1 / 3, "faster_coco_eval": 6.0, "pycocotools": 8.0}
REPLICATES, REPLICATES_TARGET = 1000, 10.0


class Evaluator:
    """A process of evaluators.py."""

    def __init__(self, name: str, python: str, gt: Path, detections: Path, *, code: Path = ROOT) -> None:
        command = [python, str(ROOT / "benchmarks" / "evaluators.py"), name, str(gt), str(detections)]
        environment = {**os.environ, "PYTHONPATH": str(code)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{' '.join(map(str, self.process.args))} ended")  # type: ignore[arg-type]
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    made = parser(__doc__, repetitions=3)
    made.add_argument("--peers", help="a Python with the other packages; left out: pycocotools alone, of this one")
    made.add_argument("--images", type=int, nargs=2, default=[COCO2017_IMAGES, VOC2007_IMAGES])
    arguments = made.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        earlier = commit_before(Path(temporary) / "before")
        generator = np.random.default_rng(0)
        voc = draw_images(generator, arguments.images[1])
        for name, (truth, results) in {
            "COCO val2017": coco_sized(np.random.default_rng(0), arguments.images[0]),
            "VOC2007 test": (voc, detect(generator, voc, Detector())),
        }.items():
            folder = Path(temporary) / name.split()[0]
            lines += measured(f"{name}'s size, {len(results)} detections", folder, truth, results, arguments, earlier)
    write_report(arguments.out, "Files to numbers", lines, replicates=REPLICATES)


def commit_before(folder: Path) -> Path | None:
    """Return the code of the earlier commit; None if the clone does not have it."""
    found = subprocess.run(["git", "archive", BEFORE, "fcos"], cwd=ROOT, capture_output=True, check=False)
    if found.returncode != 0:
        return None
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=found.stdout, check=True)
    return folder


def measured(
    what: str, folder: Path, truth: Any, results: Any, arguments: argparse.Namespace, earlier: Path | None
) -> list[dict[str, Any]]:
    folder.mkdir()
    gt, detections = folder / "gt.json", folder / "detections.json"
    gt.write_text(json.dumps(truth))
    detections.write_text(json.dumps(results))
    evaluators = {"ours": Evaluator("ours", sys.executable, gt, detections)}
    if earlier is not None:
        evaluators["before"] = Evaluator("before", sys.executable, gt, detections, code=earlier)
    if arguments.peers:
        evaluators |= {name: Evaluator(name, arguments.peers, gt, detections) for name in PEERS}
    reference = Evaluator(REFERENCE, arguments.peers or sys.executable, gt, detections)
    first = {name: evaluator.ask("numbers") for name, evaluator in [*evaluators.items(), (REFERENCE, reference)]}
    reference.close()
    equal({name: answer["numbers"] for name, answer in first.items()})
    seconds: dict[str, list[float]] = {name: [] for name in evaluators}
    with_replicates: dict[str, list[float]] = {name: [] for name in evaluators}
    for _ in track(range(arguments.repetitions), what, total=arguments.repetitions, unit="repetitions"):
        for name, evaluator in evaluators.items():
            seconds[name].append(evaluator.ask("numbers")["seconds"])
    for name, evaluator in evaluators.items():  # once, since it takes minutes
        if name in ("ours", "before"):
            with_replicates[name].append(evaluator.ask("replicates")["seconds"])
        else:
            draw = evaluator.ask("draw")["seconds"]
            with_replicates[name].append(statistics.median(seconds[name]) + REPLICATES * draw)
    for evaluator in evaluators.values():
        evaluator.close()
    once = [first[REFERENCE]["seconds"]]
    middle = [statistics.median(seconds["ours"])]
    numbers_what = f"files to twelve numbers, {what}"
    lines = [line(numbers_what, middle, once, peer=f"{REFERENCE}, once", target=TARGETS[REFERENCE])]
    for name in list(evaluators)[1:]:
        peer = {"before": f"ours before ({BEFORE})"}.get(name, name.replace("_", "-"))
        target = round(TARGETS[name], 3)
        lines.append(line(numbers_what, seconds["ours"], seconds[name], peer=peer, target=target))
        target = 1.0 if name == "before" else REPLICATES_TARGET
        lines.append(
            line(
                f"the same with {REPLICATES} replicates, {what}",
                with_replicates["ours"],
                with_replicates[name],
                peer=peer if name == "before" else f"{peer}, extrapolated",
                target=target,
            )
        )
    return lines


def equal(numbers: dict[str, list[float]]) -> None:
    """Refuse to compare the speed of evaluators whose metrics differ."""
    reference = numbers["pycocotools"]
    for name, found in numbers.items():
        exact = name in ("ours", "before")
        if (found != reference) if exact else not np.allclose(found, reference, rtol=0, atol=1e-12):
            sys.exit(f"{name} has other numbers than pycocotools: {found} for {reference}")


if __name__ == "__main__":
    main()
