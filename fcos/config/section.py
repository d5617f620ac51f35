"""The base of all sections: strict validation, reading, and a clear message for each mistake."""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from fcos.errors import UserError
from fcos.yaml_text import parse_yaml

DEFAULT_PATH = Path("params.yaml")
T = TypeVar("T")


class Wrong(ValueError):
    """Raised by a validator if the value of `key` in its section is wrong."""

    def __init__(self, key: str, problem: str, *, found: object, expected: object, hint: str | None = None) -> None:
        super().__init__(problem)
        self.key, self.problem, self.found, self.expected, self.hint = key, problem, found, expected, hint


class Section(BaseModel):
    """A section of params.yaml; it is immutable, and an unknown key is an error that suggests the closest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, data: Any) -> Any:
        for key in data if isinstance(data, Mapping) else ():
            if key not in cls.model_fields:
                known = list(cls.model_fields)
                close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
                hint = f"did you mean `{close[0]}`?" if close else None
                raise Wrong(str(key), "unknown key", found=key, expected=f"one of {', '.join(known)}", hint=hint)
        return data


def read_params(path: Path = DEFAULT_PATH) -> dict[str, Any]:
    """Return params.yaml as plain data; the only check is that it is a YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "cd to a project, or make one: fcos init FOLDER; if this is one: fcos study use smoke"
        raise UserError(path, "is missing, so this is no project folder", hint=hint) from None
    except OSError as error:
        raise UserError(path, "cannot be read", found=error.strerror, hint="check its permissions") from None
    except UnicodeDecodeError as error:
        raise UserError(path, "is not text in UTF-8", found=error, hint="save it as UTF-8") from None
    params = _parsed(text, path)
    if not isinstance(params, dict):
        found = "nothing" if params is None else type(params).__name__
        hint = "write the study there, or choose one: fcos study use shapes"
        raise UserError(path, "is not a mapping", found=found, expected="sections such as `study:`", hint=hint)
    return params


@functools.lru_cache(maxsize=8)
def _parsed(text: str, path: Path) -> Any:
    """Parse each text once per command, since the sections are read one by one."""
    return parse_yaml(text, path)


def parse_section(params: Mapping[str, Any], name: str, model: type[T], path: Path = DEFAULT_PATH) -> T:
    """Check one section of params.yaml and return it as `model` (a Section, or a type hint of one)."""
    if name not in params:
        raise UserError(f"{path}: {name}", "section is missing", expected=f"a section `{name}:`")
    return validate(params[name], model, path=path, prefix=(name,))


def validate(value: Any, model: type[T], *, path: Path, prefix: Sequence[str] = ()) -> T:
    """Return `value` as `model`, or raise one UserError that names every wrong key."""
    try:
        checked: T = _adapter(model).validate_python(value)  # type: ignore[arg-type]
        return checked
    except ValidationError as error:
        mistakes = [_mistake(details, value, path, prefix) for details in error.errors()]
    if len(mistakes) == 1:
        raise mistakes[0]
    raise UserError(path, f"{len(mistakes)} mistakes\n" + "\n".join(map(str, mistakes)))


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    """Return a cached adapter, since creating it takes longer than validating."""
    return TypeAdapter(model)


def _mistake(details: Any, value: Any, path: Path, prefix: Sequence[str]) -> UserError:
    missing = details["type"] == "missing"
    location = [*prefix, *map(str, _location_in(value, details["loc"], missing=missing))]
    wrong = details.get("ctx", {}).get("error")
    if isinstance(wrong, Wrong):
        where = f"{path}: {'.'.join([*location, wrong.key])}"
        return UserError(where, wrong.problem, found=wrong.found, expected=wrong.expected, hint=wrong.hint)
    where = f"{path}: {'.'.join(location)}"
    if missing:
        return UserError(where, "missing key", found="nothing", expected=f"a value for `{location[-1]}`")
    found = details["input"]
    hint = None
    if isinstance(found, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", found):
        hint = "YAML reads this as text; write the number with a decimal point, as in 1.0e-4"
    return UserError(where, "wrong value", found=repr(found), expected=details["msg"], hint=hint)


def _location_in(value: Any, location: Sequence[str | int], *, missing: bool) -> list[str | int]:
    """Drop the tags of unions from pydantic's location, since they are not keys of the data."""
    kept: list[str | int] = []
    for index, part in enumerate(location):
        if isinstance(value, Mapping) and (part in value or (missing and index == len(location) - 1)):
            kept.append(part)
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            kept.append(part)
            value = value[part] if part < len(value) else None
    return kept
