"""`study`: the name of the active study, of its folders and of its MLflow experiment."""

from typing import Annotated

from pydantic import StringConstraints

# Dots, slashes and spaces are not allowed, since names become folders, DVC addresses and keys of params.yaml.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
