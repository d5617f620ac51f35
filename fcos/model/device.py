"""The choice of device, dtype and memory format."""

import contextlib

import torch

from fcos.errors import UserError


def find_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` prefers CUDA, then MPS, then the CPU.

    On CUDA, float32 is set to mean float32.

    Raises:
        UserError: the device is not available.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there[name]:
        available = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise UserError(
            "params.yaml: device", "not available here", found=name, expected=available, hint="set `device: auto`"
        )
    if name == "cuda":
        # cuDNN's default for float32 convolutions is TF32, whose mantissa has 10 bits.
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return the name by which results are kept: that of the GPU on CUDA, else the type of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def find_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype for `precision`; `auto` is bfloat16 if the device computes in it natively, else float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # Without these instructions oneDNN converts back and forth, which is slower than float32.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def find_memory_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Return channels_last, except for float32 on a CPU without AVX-512, where channels-first convolutions are faster.

    For ResNet-18 at 480 x 640, a step in channels_last takes 1.15 to 1.4 times as long as in channels first with AVX2
    only, and 0.93 times as long with AVX-512.
    """
    if device.type == "cpu" and dtype == torch.float32 and not torch.cpu._is_avx512_supported():
        return torch.contiguous_format
    return torch.channels_last


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Return a context manager in which convolutions run in `dtype`."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
