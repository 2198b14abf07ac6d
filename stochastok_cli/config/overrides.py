"""Overrides on the command line, `a.b=c`: their grammar, and how they change the tree of a file.

As in Hydra, a mapping that is given for a section is merged into it, and a list replaces the file's.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from stochastok_cli.config.schema import Config
from stochastok_cli.config.yaml_reader import PlainScalar, parse_yaml
from stochastok_cli.errors import short_repr


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str], problems: list[str]) -> list[tuple[str, str]]:
    """Changes the nested dictionaries of a file as overrides say.

    Args:
        tree: As `parse_yaml` gives it with `keep_spelling`.
        overrides: `a.b=c`, with values in Hydra's grammar.
        problems: What is wrong with an override is added to it, not raised.

    Returns:
        The dotted key of each value that is set, and the text of the override that sets it, in order.
    """
    applied: list[tuple[str, str]] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            problems.append(f"{short_repr(override)} is not an override of the form key.path=value")
            continue
        try:
            applied += [(name, override) for name in _assign(tree, key, _parse_value(text))]
        except ValueError as error:
            problems.append(f"override {short_repr(override)}: {error}")
            applied.append((key, override))
    return applied


def _parse_value(text: str) -> Any:
    """A value in Hydra's grammar: YAML flow syntax in which no space is needed after the colon of a key."""
    spaced = re.sub(r"\"[^\"]*\"|'[^']*'|(?<=[{,])(\s*[\w.-]+):(?=\S)", lambda m: f"{m[1]}: " if m[1] else m[0], text)
    return parse_yaml(spaced, keep_spelling=True) if spaced.strip() else None


def _assign(tree: dict[str, Any], key: str, value: Any) -> list[str]:
    """Sets a value, or those of a mapping that is given for a section. Returns the dotted keys that are set.

    Raises ValueError for a key below a value that is no section, and for a section that is given no values.
    """
    if (section := _section_of(key)) is not None:
        if isinstance(value, Mapping) and value:
            return [name for below, inner in value.items() for name in _assign(tree, f"{key}.{below}", inner)]
        if not value or (isinstance(value, PlainScalar) and value.value is None):
            example = next(iter(typing.get_type_hints(section)))
            raise ValueError(f"{key} is a section and can't be empty; set keys of it, as in {key}.{example}=…")
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if below is None or (isinstance(below, PlainScalar) and below.value is None):  # an empty section in the file
            below = tree[parent] = {}
        if not isinstance(below, dict):
            raise ValueError(f"{parent[:100]} is a value, not a section")
        tree = below
    tree[last] = value
    return [key]


def _section_of(key: str) -> Any:
    """The dataclass of the section that a dotted key names; None for the key of a value, and for an unknown one."""
    section: Any = Config
    for name in key.split("."):
        section = typing.get_type_hints(section).get(name) if dataclasses.is_dataclass(section) else None
    return section if dataclasses.is_dataclass(section) else None
