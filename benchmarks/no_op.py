"""What `dvc repro` costs when nothing has changed, by the number of images of the source.

    python benchmarks/no_op.py --images 10000 --images 118000

In a temporary clone of what is committed: a YOLO folder of tiny files, prepared once; then `dvc status` and `dvc repro`
of all that is there, three times each. The peer is the same repro for the two images that every project has at least.
"""

import argparse
import shutil
import subprocess
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import yaml
from commands import seconds
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PREPARE = "stages/prepare/dvc.yaml:prepare"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, action="append", required=True)
    for count in [2, *parser.parse_args().images]:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), count)


def measure(folder: Path, count: int) -> None:
    source, project = folder / "source", folder / "project"
    write_images(source, count)
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    params = yaml.safe_load((project / "studies" / "smoke.yaml").read_text())
    params["data"] = {"source": "yolo", "root": str(source), "classes": ["thing"], "validation_fraction": 0.0}
    (project / "params.yaml").write_text(yaml.safe_dump({**params, "study": "many"}, sort_keys=False))
    first = seconds(project, ["dvc", "repro", PREPARE])
    nothing = sorted(seconds(project, ["dvc", "repro", PREPARE]) for _ in range(3))
    status = sorted(seconds(project, ["dvc", "status", PREPARE]) for _ in range(3))
    print(f"{count} images: first {first:.1f} s, again {nothing[1]:.1f} s, `dvc status` {status[1]:.1f} s", flush=True)
    shutil.rmtree(project)


def write_images(root: Path, count: int) -> None:
    """Write tiny, different images with one box each, a tenth of them for testing."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
    for number in range(count):
        split = "val" if number % 10 == 1 else "train"
        stream = BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
        (root / "images" / split / f"{number:06d}.png").write_bytes(stream.getvalue())
        (root / "labels" / split / f"{number:06d}.txt").write_text("0 0.5 0.5 0.5 0.5\n")


if __name__ == "__main__":
    main()
