"""What trainings on this machine depend on besides their code: torch, the kind of device and the number format."""

import functools
import json
import subprocess
import sys
from typing import Any

from fcos.errors import UserError


@functools.cache
def ask_node(device: str, precision: str) -> dict[str, Any]:
    """Return what `device` and `precision` of a study mean on this machine, asked in a process of its own.

    Raises:
        UserError: torch cannot be used here.
    """
    asked = json.dumps({"device": device, "precision": precision})
    command = [sys.executable, "-m", "fcos.running.engines.node", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("torch", "cannot be used here", found=done.stderr.strip()[-500:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print as JSON what the settings in the first argument mean here."""
    import torch

    from fcos.model.device import find_device, find_dtype

    asked = json.loads(sys.argv[1])
    device = find_device(asked["device"])
    dtype = str(find_dtype(asked["precision"], device)).removeprefix("torch.")
    print(json.dumps({"torch": torch.__version__, "device": device.type, "precision": dtype}))


if __name__ == "__main__":
    main()
