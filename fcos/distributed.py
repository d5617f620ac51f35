"""Several processes that share one training or prediction, one for each device: torch.distributed, as it is used here.

Each process has a rank. Without others, every function here does nothing and returns what it was given, so that the
callers need no second path. The processes are started by `joined` or by torchrun.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import FileStore

from fcos.errors import UserError

T = TypeVar("T")
# A rank may wait while the first one validates or decodes images. A rank that dies closes its connections, which the
# others notice at once.
PATIENCE = timedelta(days=1)
END_S = 30.0  # for the other ranks to end by themselves
STORE = "FCOS_RANKS"  # the file by which the ranks that `joined` starts find each other
_others: list[tuple[subprocess.Popen[bytes], Path]] = []  # the processes that this one started, with their logs


def rank_to_be() -> int:
    """Return the rank that the environment gives this process: 0 for the first one, or the only one."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def rank() -> int:
    """Return the rank of this process; 0 if it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Return the number of ranks; 1 if this process is alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this rank's part of `items`: consecutive ones, as many as every other rank has, or one more."""
    first, last = (len(items) * part // size() for part in (rank(), rank() + 1))
    return items if size() == 1 else items[first:last]


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks, which all have one of this shape."""
    if size() == 1:
        return tensor
    summed = tensor.clone()
    with _heard():
        distributed.all_reduce(summed)
    return summed


def any_of(*flags: bool) -> list[bool]:
    """Return for each flag whether it is set on any rank. It does not wait for a GPU."""
    if size() == 1:
        return list(flags)
    return [bool(count) for count in total(torch.tensor(flags, dtype=torch.int32)).tolist()]


def from_first(value: T) -> T:
    """Return the value that the first rank has given; that of the others is ignored."""
    if size() == 1:
        return value
    values = [value]
    with _heard():
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: T) -> list[T]:
    """Return the values of all ranks, in their order."""
    if size() == 1:
        return [value]
    values: list[T] = [value] * size()
    with _heard():
        distributed.all_gather_object(values, value)
    return values


def number_of(devices: int | Literal["all"], device: torch.device) -> int:
    """Return how many devices of the kind of `device` are meant by `devices` in params.yaml.

    Raises:
        UserError: there are fewer.
    """
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    wanted = there if devices == "all" else devices
    # Several ranks may share a CPU.
    if wanted > there and device.type != "cpu":
        raise UserError(
            "params.yaml: devices",
            "not available here",
            found=wanted,
            expected=f"at most {there} ({device.type})",
            hint="set `devices: all`",
        )
    return wanted


@contextlib.contextmanager
def joined(number: int, device: torch.device, command: Sequence[str]) -> Iterator[torch.device]:
    """Connect to the other ranks while the block lasts, and yield the device of this one.

    If this process has no rank yet (from torchrun), it is the first one and starts the others.

    Args:
        number: of ranks, if this process starts them.
        command: what the other ranks run, after `python -m fcos`.

    Raises:
        UserError: another rank has ended, here or in any function of this module.
    """
    given = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if number == 1 and not given:
        yield device
        return
    here = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", here)
        torch.cuda.set_device(device)
    with contextlib.ExitStack() as stack:
        store = os.environ.get(STORE) if given else stack.enter_context(_started(number, command))
        count = int(os.environ["WORLD_SIZE"]) if given else number
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        join = partial(distributed.init_process_group, backend, timeout=PATIENCE)
        with _heard():
            if store is None:  # torchrun's
                join()
            else:
                join(store=FileStore(store, count), rank=rank_to_be(), world_size=count)
        try:
            yield device
            with _heard():
                distributed.barrier()  # nobody leaves while another rank is still receiving
        finally:
            distributed.destroy_process_group()


@contextlib.contextmanager
def _started(number: int, command: Sequence[str]) -> Iterator[str]:
    """Start all ranks but the first, each with its share of the threads, and end them with the block.

    Yields the file by which all of them find each other.
    """
    before = torch.get_num_threads()
    threads = max(1, before // number)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    with tempfile.TemporaryDirectory(prefix="fcos-ranks-") as folder:
        store = f"{folder}/store"
        shared = {**os.environ, STORE: store, "WORLD_SIZE": str(number), "OMP_NUM_THREADS": str(threads)}
        for other in range(1, number):
            log = Path(folder) / f"rank-{other}.log"
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", "fcos", *command],
                    env={**shared, "RANK": str(other), "LOCAL_RANK": str(other)},
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            _others.append((process, log))
        torch.set_num_threads(threads)
        try:
            yield store
        finally:
            torch.set_num_threads(before)
            _end_others()


def _end_others() -> None:
    """Wait for the other ranks, which end when they are done or have lost this one."""
    for process, _ in _others:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        process.kill()
        process.wait()
    _others.clear()


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Turn torch's error about another rank that does not answer into a message."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"rank {rank_to_be()}",
            "another rank of this command has ended",
            found=_end_of_another() or str(error).partition("\n")[0][:200],
            expected="all ranks to work until the end",
            hint="run the command again: a training resumes from its last saved state",
        ) from None


def _end_of_another() -> str:
    """Return how the first of the other ranks to end did so, if this process started them."""
    for number, (process, log) in enumerate(_others, start=1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(END_S / 10)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            return f"rank {number}: {how}{f', {last}' if last else ''}"
    return ""
