"""`engine.yaml`: where and how the jobs of an engine run on this site. It is not part of a study or of its results."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fcos.config.section import Section, validate
from fcos.errors import UserError
from fcos.yaml_text import parse_yaml


class EngineOptions(Section):
    """Settings of a site; docs/team.md explains them."""

    scratch: str  # a folder that all nodes share: states of trainings, jobs and logs
    states: str | None = None  # a URL for the states of trainings instead of `scratch`: s3://BUCKET/FOLDER
    repository: str | None = None  # where nodes clone from; default: git's remote `origin`
    node_scratch: str = "/tmp/fcos-$USER"  # noqa: S108  # on each node; clones and environments
    keep: int = Field(default=3, ge=1)  # commits whose clones a node keeps, and 2 environments
    python: str | None = None  # an interpreter that has everything; default: made from requirements.txt
    threads: int = Field(default=1, ge=1)  # CPU threads of a training; the last bits of its weights depend on them
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["bfloat16", "float32"] | None = None  # default: bfloat16 on CUDA; on a CPU, if it supports it
    data: str | None = None  # the folder of the data on each node, as for `fcos source --at`
    secrets: str | None = None  # file on each node with lines NAME=VALUE, added to the environment of a job
    exports: list[str] = []  # variables of this environment that SLURM hands to the jobs
    slurm: list[str] = []  # further options of sbatch: --partition=gpu, --time=8:00:00
    ray: dict[str, Any] = {}  # `address` of the cluster, and options of its actors: num_gpus, resources

    @property
    def shared(self) -> Path:
        """The folder `scratch`, with the variables in its name replaced."""
        return Path(os.path.expandvars(self.scratch))


def read_options(path: Path) -> EngineOptions:
    """Read the settings of the site.

    Raises:
        UserError: the file is missing or wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            path,
            "cannot be read: it must name at least the folder that the nodes share",
            found=error,
            expected="scratch: /shared/fcos      # a folder that this machine and all nodes see",
            hint="docs/team.md explains all settings; to use another file: --engine-options FILE",
        ) from None
    return validate(parse_yaml(text, path), EngineOptions, path=path)
