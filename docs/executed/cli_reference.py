"""The reference of the command line as Markdown, from the dataclasses that the program itself parses with."""

import dataclasses
import types
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import griffe
import tyro

from carina.cli import COMMANDS


def reference() -> str:
    """One section per command and subcommand."""
    return "\n".join(line for name, where in COMMANDS.items() for line in _section(f"carina {name}", _class(where), 2))


def _class(where: str) -> type:
    module, _, name = where.partition(":")
    found: type = getattr(import_module(module), name)
    return found


def _section(command: str, cls: type, level: int) -> Iterator[str]:
    hints = get_type_hints(cls, include_extras=True)
    subcommands, rows = [], []
    for field in dataclasses.fields(cls):
        if (parts := _subcommands(hints[field.name])) is not None:
            subcommands = parts
        else:
            rows.extend(_rows(cls, field, hints[field.name]))
    yield f"{'#' * level} {command}\n\n{_docstring(cls)}\n"
    if rows:
        yield "| option | takes | default | meaning |\n|---|---|---|---|"
        yield from rows
        yield ""
    for name, part in subcommands:
        yield from _section(f"{command} {name}", part, level + 1)


def _subcommands(hint: Any) -> list[tuple[str, type]] | None:
    """Name and dataclass of each subcommand, None where the type is an option's."""
    found = []
    for part in get_args(_bare(hint)):
        if not dataclasses.is_dataclass(cls := _bare(part)):
            return None
        names = [m.name for m in get_args(part)[1:] if getattr(m, "name", None)]
        found.append((names[0] if names else cls.__name__.lower(), cls))
    return found or None


def _rows(cls: type, field: "dataclasses.Field[Any]", hint: Any, prefix: str = "") -> list[str]:
    if dataclasses.is_dataclass(inner := _bare(hint)):
        hints = get_type_hints(inner, include_extras=True)
        parts = dataclasses.fields(inner)
        return [row for part in parts for row in _rows(inner, part, hints[part.name], f"{prefix}{field.name}.")]
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    flag = "--" + (prefix + field.name).replace("_", "-")
    if any(mark in get_args(tyro.conf.Positional[int])[1:] for mark in marks):
        spelled = [field.name.upper()]
    else:
        negative = f"--{prefix}no-{field.name}".replace("_", "-")
        spelled = [flag, *([negative] if _bare(hint) is bool else []), *aliases]
    default = "required" if _required(field) else _shown(field)
    meaning = _field_docstring(cls, field.name).replace("\n", " ").replace("|", "\\|")
    return [f"| {', '.join(f'`{s}`' for s in spelled)} | {_takes(hint)} | {default} | {meaning} |"]


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(field: "dataclasses.Field[Any]") -> str:
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    if default is None or default == ():
        return ""
    if isinstance(default, Path) and default.is_relative_to(Path.home()):
        default = Path("~") / default.relative_to(Path.home())
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"`{' '.join(map(str, default)) if isinstance(default, tuple) else default}`"


def _takes(hint: Any) -> str:
    kind = _bare(hint)
    if kind is bool:
        return ""
    if get_origin(kind) is Literal:
        return " ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_takes(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"{_takes(parts[0])} ..." if parts[-1] is Ellipsis else " ".join(map(_takes, parts))
    return {str: "text", int: "number", float: "number", Path: "path"}.get(kind, getattr(kind, "__name__", str(kind)))


def _bare(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


@cache
def _parsed(module: str) -> Any:
    return griffe.load(module, docstring_parser="google")


def _docstring(cls: type) -> str:
    return _text(_parsed(cls.__module__)[cls.__name__].docstring)


def _field_docstring(cls: type, name: str) -> str:
    for part in cls.__mro__[:-1]:
        if name in (members := _parsed(part.__module__)[part.__name__].members):
            return _text(members[name].docstring) or _attributes(part).get(name, "")
    return ""


def _attributes(cls: type) -> dict[str, str]:
    """What the docstring of the class says of its attributes."""
    docstring = _parsed(cls.__module__)[cls.__name__].docstring
    sections = docstring.parsed if docstring else []
    attributes = [
        part for section in sections if section.kind is griffe.DocstringSectionKind.attributes for part in section.value
    ]
    return {attribute.name: attribute.description for attribute in attributes}


def _text(docstring: Any) -> str:
    return docstring.value if docstring else ""
