"""Which device, and which number format on it."""

import contextlib

import torch

from fcos.errors import UserError


def find_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU; a device that is asked for and missing is an error."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there[name]:
        available = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise UserError(
            "params.yaml: device", "not available here", found=name, expected=available, hint="set `device: auto`"
        )
    return torch.device(name)


def find_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the device computes in it, else float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # Without the instructions oneDNN converts back and forth, slower than float32.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def find_memory_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """channels_last, but for float32 on a CPU without AVX-512, where convolutions are faster in channels first.

    ResNet-18 at 480 x 640 with AVX2 alone: a step takes 1.15 to 1.4 times as long in channels_last; with AVX-512, 0.93.
    """
    if device.type == "cpu" and dtype == torch.float32 and not torch.cpu._is_avx512_supported():
        return torch.contiguous_format
    return torch.channels_last


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """A context in which convolutions run in `dtype`."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
