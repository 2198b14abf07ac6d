"""Nested dictionaries as typed sections; what does not fit is collected, not raised."""

import dataclasses
import types
import typing
from typing import Any, Literal, get_args, get_origin

from stochastok_cli.config.schema import Config
from stochastok_cli.errors import did_you_mean


def build(section: Any, tree: Any, prefix: str, origin: Any, problems: list[str]) -> Any:
    """An instance of the dataclass `section` from nested dictionaries; what is wrong is added to `problems`."""
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        problems.append(f"{prefix or 'the file'} must be a section of keys, not {tree!r} ({origin(prefix)})")
        return section()
    hints = typing.get_type_hints(section)
    hints.pop("overridden", None)
    values = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if key not in hints:
            known = [f"{prefix}.{name}" if prefix else name for name in hints] + list(_ALL_KEYS)
            problems.append(f"unknown key {path!r} ({origin(path)}){did_you_mean(path, known)}")
        else:
            values[key] = _convert(hints[key], value, path, origin, problems)
    return section(**values)


def _convert(kind: Any, value: Any, path: str, origin: Any, problems: list[str]) -> Any:
    """`value` as `kind` (a section, a tuple of them, a Literal, an Optional or a scalar)."""
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path, origin, problems)
    if get_origin(kind) is types.UnionType:
        return None if value is None else _convert(get_args(kind)[0], value, path, origin, problems)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{path} must be a list, not {value!r} ({origin(path)})")
            return ()
        inner = get_args(kind)[0]
        return tuple(_convert(inner, item, f"{path}.{i}", origin, problems) for i, item in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            choices = " or ".join(map(repr, get_args(kind)))
            problems.append(f"{path} = {value!r} is not supported, only {choices} ({origin(path)})")
        return value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        problems.append(f"{path} must be {names[kind]}, not {value!r} ({origin(path)})")
    return value


def _keys(section: Any, prefix: str = "") -> typing.Iterator[str]:
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


_ALL_KEYS = tuple(key for key in _keys(Config) if key != "overridden")
