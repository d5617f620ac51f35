"""The scratch of an unfinished training: used under the same key only, deleted when the training has ended well."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fcos.files import whole_file


@dataclass(frozen=True)
class Scratch:
    """One file, in a folder named after everything that decides the result."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "state.pt"

    def save(self, state: dict[str, Any]) -> None:
        with whole_file(self.path) as part:
            torch.save(state, part)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved last, or None."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        return state

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
