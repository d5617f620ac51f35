"""`study`: the name of the active study, which is also the name of its folders and of its experiment."""

from typing import Annotated

from pydantic import StringConstraints

# No dot, slash or space: names become folders, DVC addresses and keys of params.yaml.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
