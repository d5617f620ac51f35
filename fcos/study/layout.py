"""The paths of a study's files (docs/architecture.md has a diagram)."""

import os
from dataclasses import dataclass
from pathlib import Path

from fcos.files import project_root

SCRATCH = "FCOS_SCRATCH"  # the folder that the nodes of a cluster share, for unfinished work instead of runs/
STATES = "FCOS_STATES"  # a URL for the states of unfinished trainings, for nodes whose shared folder is slow
STUDIES = Path("studies")  # the files of all studies; params.yaml is a copy of the active one


@dataclass(frozen=True)
class Layout:
    """Paths of one study, relative to the folder of params.yaml."""

    study: str

    @property
    def data(self) -> Path:
        """The folder of the prepared data."""
        return Path("data") / self.study

    @property
    def source(self) -> Path:
        """Folder of links to the study's source data, wherever they are on this machine."""
        return Path("data") / ".source" / self.study

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return Path("runs") / self.study

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return Path("reports") / self.study

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.runs / name

    def weights(self, name: str) -> Path:
        """Return the path of a run's weights."""
        return self.run(name) / "model.safetensors"

    @property
    def decoded(self) -> Path:
        """Folder for `data.cache: disk`, shared by all studies and not tracked by DVC.

        Its path is that of the original project, also in DVC's temporary copies.
        """
        return project_root() / "data" / ".scratch"

    @property
    def unfinished(self) -> Path:
        """Folder for unfinished work, which DVC does not track; in the original project, or shared by the nodes."""
        shared = os.environ.get(SCRATCH)
        return Path(shared) / self.study if shared else self.own_unfinished

    @property
    def own_unfinished(self) -> Path:
        """Folder for unfinished work in the original project, also in DVC's temporary copies and on a cluster."""
        return project_root() / "runs" / self.study / ".scratch"

    @property
    def is_shared(self) -> bool:
        """Whether `unfinished` is shared by the nodes of a cluster."""
        return SCRATCH in os.environ

    @property
    def by_hand(self) -> Path:
        """Records of stages that were run by hand and that DVC has not recorded yet."""
        return self.own_unfinished / "by-hand"

    def scratch(self, name: str, key: str) -> Path:
        """Return the folder for the unfinished work of a training; of this machine, if its state is kept at a URL."""
        place = self.own_unfinished if STATES in os.environ else self.unfinished
        return place / f"{name}-{key[:16]}"

    def states_url(self, name: str, key: str) -> str | None:
        """Return the URL for the state of a training, or None if it stays in its folder."""
        url = os.environ.get(STATES)
        return f"{url.rstrip('/')}/{self.study}/{name}-{key[:16]}" if url else None
