"""The page of all commands, generated from the command line itself."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer.main
from markdown_parts import table

import fcos.cli

WORDS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def commands_page() -> str:
    """Return every command of `fcos` with its arguments, options, defaults and example."""
    parts = [
        "# Commands",
        "Exit codes: 0 done, 2 a mistake of yours (one message says where, what was found, what was expected and what "
        "to do), 130 interrupted, 1 anything else. Whatever reads `params.yaml` checks all of it first.",
    ]
    for name, command in commands():
        example = command.epilog.removeprefix("Example: ")
        usage = _wrapped([f"fcos {name}", *(_usage(parameter) for parameter in command.params)])
        parts += [f"## fcos {name}", command.help, f"```text\n{usage}\n```", _parameters(command)]
        parts += [f"Example:\n\n```bash\n{example}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return name and command of all commands except former names, in alphabetical order."""
    group = group or typer.main.get_command(fcos.cli.app)
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _metavar(parameter: Any) -> str:
    """Return the placeholder of the value: the metavar, the choices, or the type."""
    if parameter.metavar or not _is_option(parameter):
        return str(parameter.metavar or parameter.name.upper())
    annotation = parameter.type_descriptor.annotation
    kinds = [kind for kind in (*get_args(annotation), annotation) if isinstance(kind, type)]
    if issubclass(kinds[0], Enum):
        return "|".join(choice.value for choice in kinds[0])
    return WORDS.get(kinds[0], kinds[0].__name__.upper())


def _usage(parameter: Any) -> str:
    text = _shown(parameter) + ("..." if parameter.nargs == -1 else "")
    return text if parameter.required else f"[{text}]"


def _wrapped(parts: list[str], width: int = 76) -> str:
    """Return the parts of a command in lines of at most `width` characters."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) < width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}")
    return "\n".join(lines)


def _parameters(command: Any) -> str:
    rows = [[f"`{_shown(p)}`", p.help or "", _default(p), _range(p)] for p in command.params]
    return table(["argument", "what", "default", "range"], rows) if rows else ""


def _shown(parameter: Any) -> str:
    if not _is_option(parameter):
        return _metavar(parameter)
    return str(parameter.opts[0]) if parameter.is_flag else f"{parameter.opts[0]} {_metavar(parameter)}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or getattr(parameter, "is_flag", False):
        return ""
    return f"`{getattr(parameter.default, 'value', parameter.default)}`"


def _range(parameter: Any) -> str:
    ends = (("≥", parameter.min), ("≤", parameter.max))
    return ", ".join(f"{sign} {end:g}" for sign, end in ends if end is not None)
