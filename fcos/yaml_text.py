"""YAML that people write: whatever is wrong with it is one message with its place."""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from fcos.errors import UserError

MOST_VALUES = 1_000_000


class _Strict(yaml.constructor.BaseConstructor):
    """No key twice, of which YAML's last one would count; a value that Python cannot hold is named with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # 2026-02-30, a number of 5,000 digits, `!!bool 7`
            problem = str(error) if isinstance(error, ValueError) else f"no value of {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConstructorError(None, None, f"duplicate key `{key.value}`", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


class Values(_Strict, yaml.SafeLoader):
    """Numbers, dates and truth values are what YAML takes them for."""


class Texts(_Strict, yaml.BaseLoader):
    """Every scalar is the text that stands there: `no`, `007` and `1.50` are names."""


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values there are with each alias written out: nine lines can stand for a thousand million."""
    if id(node) not in known:
        known[id(node)] = 0  # of an alias within itself, which the constructor refuses
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in pairs for part in pair]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def parse_yaml(text: str, path: Path, *, loader: type[Values | Texts] = Values, hint: str = "fix that line") -> Any:
    """The value of the YAML `text` of the file `path`; None where it is empty.

    Raises:
        UserError: not YAML; a key twice; a date or number that is none; nested deeper than Python can follow.
    """
    reader, mark = None, None
    try:
        reader = loader(text)
        reader.deep_construct = True  # an alias within itself has no value then
        node = reader.get_single_node()
        if node is not None and _count(node, {}) > MOST_VALUES:
            raise ConstructorError(None, None, f"aliases make more than {MOST_VALUES:,} values of it", node.start_mark)
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
