"""`results`: detectors that were not trained here, by their results on the test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from fcos.config.section import Section, validate
from fcos.config.study import Name
from fcos.errors import UserError

NOT_TRAINED_HERE = "not trained here"  # where there would be settings of a training


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

    def flags(self) -> dict[str, bool]:
        """Return the settings that the numbers depend on, besides the file."""
        return self.model_dump(include={"ignore_unknown_images", "ignore_unknown_classes"})

    def names(self, name: str) -> list[str]:
        """Return how the report names each file of the entry `name`: NAME, or NAME-1, NAME-2, ... if there are more."""
        paths = self.paths
        return [name] if len(paths) == 1 else [f"{name}-{number}" for number in range(1, len(paths) + 1)]

    def given_files(self, name: str) -> list["GivenFile"]:
        """Return the files of the entry `name`."""
        named = zip(self.names(name), self.paths, strict=True)
        return [
            GivenFile(name, shown, Path(name) / str(number), path)
            for number, (shown, path) in enumerate(named, start=1)
        ]


@dataclass(frozen=True)
class GivenFile:
    """A file of an entry of `results`."""

    entry: str
    name: str  # in the report
    place: Path  # ENTRY/1, ENTRY/2, ..., below the folder of the links and below that of the runs
    path: str  # as params.yaml says it


def parse_results(params: Mapping[str, Any], path: Any = "params.yaml") -> dict[str, ResultsConfig]:
    """Return the entries of the section by name; {} if there is none.

    Raises:
        UserError: an entry is wrong, or has the name of a run or of another entry's file.
    """
    section = params.get("results", {})
    if not isinstance(section, Mapping):  # DVC refuses it too, but by a message about its own variables
        hint = "write an entry, or leave the section out"
        raise UserError(f"{path}: results", "is no mapping", found=section, expected="NAME: {files: ...}", hint=hint)
    found = validate(section, dict[Name, ResultsConfig], path=path, prefix=("results",))
    owner = dict.fromkeys(params.get("runs") or (), "a run")
    for name, config in found.items():
        for used in dict.fromkeys((name, *config.names(name))):
            if used in owner:
                problem = f"has the name of {owner[used]}"
                raise UserError(f"{path}: results.{name}", problem, found=used, expected="another name")
            owner[used] = f"results.{name}"
    return found


def files_of(entries: Mapping[str, ResultsConfig]) -> list[GivenFile]:
    """Return the files of all entries, in the order of params.yaml."""
    return [file for name, config in entries.items() for file in config.given_files(name)]
