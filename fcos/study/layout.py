"""Where everything of a study lies (docs/architecture.md has the image)."""

from dataclasses import dataclass
from pathlib import Path

from fcos.files import project_root

STUDIES = Path("studies")  # the files of all studies; params.yaml is a copy of the active one


@dataclass(frozen=True)
class Layout:
    """Paths of one study, relative to the folder of params.yaml."""

    study: str

    @property
    def data(self) -> Path:
        return Path("data") / self.study

    @property
    def source(self) -> Path:
        """Links to what the study is made from, wherever that lies on this machine."""
        return Path("data") / ".source" / self.study

    @property
    def runs(self) -> Path:
        return Path("runs") / self.study

    @property
    def report(self) -> Path:
        return Path("reports") / self.study

    def run(self, name: str) -> Path:
        return self.runs / name

    def weights(self, name: str) -> Path:
        return self.run(name) / "model.safetensors"

    @property
    def decoded(self) -> Path:
        """For `data.cache: disk`: shared by all studies, outside of what DVC knows and of its temporary copies."""
        return project_root() / "data" / ".scratch"

    @property
    def by_hand(self) -> Path:
        """Notes of stages that were typed by hand and that DVC has not recorded yet."""
        return project_root() / "runs" / self.study / ".scratch" / "by-hand"

    def scratch(self, name: str, key: str) -> Path:
        """For an unfinished training: outside of what DVC knows, and outside its temporary copies."""
        return project_root() / "runs" / self.study / ".scratch" / f"{name}-{key[:16]}"
