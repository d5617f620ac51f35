"""The numbered format of files that one version of fcos writes and another may read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.files import read_json, write_json
from fcos.records import odd_value
from fcos.version import own_version

FORMAT = 1  # increased when older files would be misread; files without a number have format 1


def write_record(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object and its format, which comes last so that the content is what one reads first."""
    write_json(path, {**content, "format": FORMAT})


def read_record(path: Path, *, hint: str, kind: Any = Any, complete: bool = False) -> Any:
    """Read what `write_record` wrote; `hint` is the command to run if it is missing, damaged or of another format.

    Args:
        kind, complete: see `fcos.records.odd_value`.
    """
    content = read_json(path, hint=hint)
    if not isinstance(content, Mapping):
        raise UserError(path, "is damaged", found=f"a {type(content).__name__}", expected="a JSON object", hint=hint)
    check_format(path, content, hint=hint)
    odd = odd_value(content, kind, complete=complete)
    if odd is not None:
        raise UserError(path, "is damaged", found=odd, hint=hint)
    return content


def header_metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that describe the tensors of a safetensors file."""
    return {"fcos": json.dumps({"format": FORMAT, **header}, sort_keys=True)}


def header_of(path: Path, metadata: Mapping[str, str] | None, *, hint: str | None) -> dict[str, Any]:
    """Return the header that `header_metadata` was given.

    Raises:
        KeyError, TypeError, ValueError: the metadata were not written by `header_metadata`.
        UserError: the file has another format.
    """
    header = json.loads((metadata or {})["fcos"])
    if not isinstance(header, dict):
        raise TypeError("a header is an object")
    check_format(path, header, hint=hint)
    header.pop("format", None)
    return header


def check_format(path: Path, content: Mapping[str, Any], *, hint: str | None) -> None:
    """Raise a UserError if a file has another format; the error names the version that wrote it if the file does."""
    found = content.get("format", FORMAT)
    if found == FORMAT:
        return
    provenance = content.get("provenance")
    versions = provenance.get("versions") if isinstance(provenance, Mapping) else None
    writer = f", written by fcos {versions['fcos']}" if isinstance(versions, Mapping) and "fcos" in versions else ""
    raise UserError(
        path,
        "has a format that this version cannot read",
        found=f"format {found}{writer}",
        expected=f"format {FORMAT}, which fcos {own_version()} writes",
        hint="use the version that wrote it" + (f", or create it again: {hint}" if hint else ""),
    )
