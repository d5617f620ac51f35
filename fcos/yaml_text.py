"""Read YAML files that people write; every mistake becomes one error with its line and column."""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from fcos.errors import UserError

MOST_VALUES = 1_000_000


class _Strict(yaml.constructor.BaseConstructor):
    """Rejects duplicate keys, of which YAML takes the last, and reports the line of values that Python cannot hold."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # such as 2026-02-30, a number of 5,000 digits or `!!bool 7`
            problem = str(error) if isinstance(error, ValueError) else f"not a valid {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConstructorError(None, None, f"duplicate key `{key.value}`", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


class Values(_Strict, yaml.SafeLoader):
    """Loads numbers, dates and booleans as YAML defines them."""


class Texts(_Strict, yaml.BaseLoader):
    """Loads every scalar as the text in the file: `no`, `007` and `1.50` are names."""


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values with all aliases expanded; nine lines of YAML can expand to a billion values."""
    if id(node) not in known:
        known[id(node)] = 0  # an alias within itself counts as 0 here; the constructor rejects it
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in pairs for part in pair]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def parse_yaml(text: str, path: Path, *, loader: type[Values | Texts] = Values, hint: str = "fix that line") -> Any:
    """Return the value of the YAML `text` of the file `path`, or None if it is empty.

    Raises:
        UserError: the text is not YAML, has a duplicate key or an invalid date or number, expands to too many values,
            or is nested too deeply for Python.
    """
    reader, mark = None, None
    try:
        reader = loader(text)
        reader.deep_construct = True  # an alias within itself has no value yet and is rejected
        node = reader.get_single_node()
        if node is not None and _count(node, {}) > MOST_VALUES:
            raise ConstructorError(None, None, f"aliases expand to more than {MOST_VALUES:,} values", node.start_mark)
        return None if node is None else reader.construct_document(node)
    except yaml.YAMLError as error:
        mark, found = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
    except RecursionError:
        mark, found = reader.get_mark() if reader else None, "lists or mappings nested too deeply"
    finally:
        if reader:
            reader.dispose()
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
    raise UserError(where, "is not YAML", found=found, expected="a YAML mapping", hint=hint)
