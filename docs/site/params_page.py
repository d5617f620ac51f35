"""The page of params.yaml, generated from its schema; keys.yaml explains each key."""

import ast
import inspect
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from markdown_parts import table
from mkdocs.exceptions import PluginError

from fcos.config.data import DataConfig
from fcos.config.model import ModelConfig
from fcos.config.nms_sweep import NmsSweepConfig
from fcos.config.params import SECTIONS
from fcos.config.results import ResultsConfig
from fcos.config.runs import RunConfig
from fcos.config.section import Section
from fcos.config.statistics import StatisticsConfig
from fcos.config.tables import Table
from fcos.config.test import TestConfig
from fcos.config.tracking import TrackingConfig
from fcos.config.train import TrainConfig
from fcos.config.tta import TtaConfig

KEYS = Path(__file__).with_name("keys.yaml")
MODELS: dict[str, Any] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "test": TestConfig,
    "tta": TtaConfig,
    "nms_sweep": NmsSweepConfig,
    "statistics": StatisticsConfig,
    "tables": Table,
    "tracking": TrackingConfig,
    "runs": RunConfig,
    "results": ResultsConfig,
}
VARIANTS = ("source", "kind")
WORDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
SIGNS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
INTRODUCTION = """\
# params.yaml

The active study. Types, ranges and defaults are those of the schema that checks it, and the defaults of `model`,
`train`, `test` and `tta` are the published study's. A key without a default has to be given. An unknown key, a wrong
type or an impossible value stops every command before any work."""


def params_page() -> str:
    """Every key: what it is, its type and range, its default.

    Raises:
        PluginError: a key is neither in keys.yaml nor has a comment in the code, or keys.yaml has one that is gone.
    """
    described: dict[str, str] = yaml.safe_load(KEYS.read_text(encoding="utf-8"))
    stale = sorted(set(described) - set(SECTIONS) - {name for section in MODELS for name in keys(section)})
    if stale:
        raise PluginError(f"{KEYS}: {', '.join(stale)}: no such key in the schema")
    parts = [INTRODUCTION]
    for section in SECTIONS:
        parts += [f"## {section}", described[section]]
        for model in _models(MODELS.get(section)):
            variant = _variant(model)
            parts += [f"### {variant}"] if variant else []
            parts.append(table(["key", "what", "type and range", "default"], _rows(section, model, described)))
    return "\n\n".join(parts) + "\n"


def keys(section: str) -> list[str]:
    """Return `section.key` of every key of a section, for all sources and kinds."""
    return [f"{section}.{key}" for model in _models(MODELS[section]) for key in model.model_fields]


def _rows(section: str, model: type[Section], described: dict[str, str]) -> list[list[str]]:
    rows = []
    schemas = model.model_json_schema()["properties"]
    # Keys that decide which other keys exist come first.
    for key, schema in sorted(schemas.items(), key=lambda pair: pair[0] not in VARIANTS):
        what = described.get(f"{section}.{key}") or _comment(model, key)
        if not what:
            raise PluginError(f"{KEYS}: {section}.{key}: a key of the schema is not described")
        rows.append([f"`{key}`", what, _type(schema), _yaml(schema["default"]) if "default" in schema else ""])
    return rows


def _models(annotation: Any) -> list[type[Section]]:
    """The classes of a section: one, or one for each `source` or `kind`; none of a section that is a plain value."""
    if annotation is None:
        return []
    if get_origin(annotation) is Annotated:
        return _models(get_args(annotation)[0])
    return list(get_args(annotation)) or [annotation]


def _variant(model: type[Section]) -> str:
    """Return which of several classes of a section this is, as in params.yaml; empty if there is only one."""
    chosen = (key for key in VARIANTS if key in model.model_fields)
    return next((f"{key}: {get_args(model.model_fields[key].annotation)[0]}" for key in chosen), "")


def _comment(model: type[Section], key: str) -> str:
    """Return the comment above a field in the code as one line."""
    owner = next(of for of in model.__mro__ if key in inspect.get_annotations(of))
    source = inspect.getsource(owner)
    lines = source.splitlines()
    fields = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign))
    at = next(node.lineno for node in fields if ast.unparse(node.target) == key) - 1
    above = at
    while lines[above - 1].lstrip().startswith("#"):
        above -= 1
    return " ".join(line.strip(" #") for line in lines[above:at])


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON schema as text."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    match schema.get("type"):
        case "null":
            return "`null`"
        case "array":
            return _list(schema)
        case "object":
            values = schema.get("additionalProperties", True)
            return "mapping" if values is True else f"mapping to {_type(values)}"
        case kind:
            ends = [f"{sign} {schema[end]:g}" for end, sign in SIGNS.items() if end in schema]
            return ", ".join([WORDS[kind], *ends])


def _list(schema: dict[str, Any]) -> str:
    of = _type(schema["items"])
    least, most = schema.get("minItems"), schema.get("maxItems")
    count = f"{least} of: " if least and least == most else "of: " if " " in of else ""
    return f"list {count}{of}" + (" (not empty)" if least and least != most else "")


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`"
