"""`results`: detectors that were not trained here, by their results on the test images."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from fcos.config.section import Section, validate
from fcos.config.study import Name
from fcos.errors import UserError


class ResultsConfig(Section):
    """The results of one detector: a file, or several files that are repeats (seeds) of each other."""

    files: str | Annotated[list[str], Field(min_length=1)]
    ms_per_image: PositiveFloat | None = None  # as its authors measured it; None: unknown
    ignore_unknown_images: bool = False  # leave out detections in images that are not test images
    ignore_unknown_classes: bool = False

    @property
    def paths(self) -> list[str]:
        """The files, in the order of params.yaml."""
        return [self.files] if isinstance(self.files, str) else self.files

    def names(self, name: str) -> list[str]:
        """Return how the report names each file of the entry `name`: NAME, or NAME-1, NAME-2, ... if there are more."""
        paths = self.paths
        return [name] if len(paths) == 1 else [f"{name}-{number}" for number in range(1, len(paths) + 1)]


def parse_results(params: Mapping[str, Any], path: Any = "params.yaml") -> dict[str, ResultsConfig]:
    """Return the entries of the section by name; {} if there is none.

    Raises:
        UserError: an entry is wrong, or has the name of a run.
    """
    found = validate(params.get("results") or {}, dict[Name, ResultsConfig], path=path, prefix=("results",))
    taken = set(params.get("runs") or ())
    for name, config in found.items():
        for used in (name, *config.names(name)):
            if used in taken:
                raise UserError(f"{path}: results.{name}", "has the name of a run", found=used, expected="another name")
    return found
