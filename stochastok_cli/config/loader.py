"""From a YAML file and `a.b=c` overrides to a checked `Config`."""

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from stochastok_cli.config.overrides import apply_overrides
from stochastok_cli.config.schema import TEXT_OPTIONS, Config
from stochastok_cli.config.sources import Source, find_sources
from stochastok_cli.config.validation import Check, find_invalid_values
from stochastok_cli.config.yaml_reader import PlainScalar, parse_yaml, plain_values
from stochastok_cli.errors import UserError, did_you_mean, short_repr
from stochastok_cli.paths import expand_home

MOST_SUGGESTED = 3  # keys in the message about one that is not there
MOST_PROBLEMS = 20  # of a configuration that an error lists
Origin = Callable[[str], str]
"""From a dotted key to where its value comes from, for error messages."""


def find_config(name_or_path: str) -> Path:
    """The YAML file of a path, or of a name in `./configs` or among the files in the package.

    Raises UserError if there is none.
    """
    stem = name_or_path.removesuffix(".yaml").removesuffix(".yml")
    for candidate in [Path(name_or_path), *(folder / f"{stem}.yaml" for folder in _config_folders())]:
        if candidate.is_file():
            return candidate
    known = config_names()
    raise UserError(
        f"no configuration {name_or_path!r}: neither a file nor a name in ./configs or in the package",
        fix=f"known names: {', '.join(known)}{did_you_mean(stem, known).replace(';', ' —')}",
    )


def config_names() -> list[str]:
    """The names that `find_config` knows, in alphabetical order."""
    return sorted({file.stem for folder in _config_folders() for file in folder.glob("*.yaml")})


def _config_folders() -> list[Path]:
    package = Path(__file__).parent.parent
    return [Path("configs"), package / "configs", package.parent / "configs"]


def load_config(name_or_path: str, overrides: Sequence[str] = (), checks: Iterable[Check] = ()) -> Config:
    """Reads a configuration file and applies overrides to it.

    Args:
        name_or_path: See `find_config`.
        overrides: `a.b=c`, with values in Hydra's grammar.
        checks: More checks of values, such as `evaluation.registry.find_invalid_values`.

    Raises:
        UserError: The file is not a configuration. All unknown keys and wrong types are named at once, or all
            impossible values.

    >>> load_config("pretraining", ["trainer.optimizer.lr=1e-3"]).trainer.optimizer.lr
    0.001
    """
    return load_config_and_sources(name_or_path, overrides, checks)[0]


def load_config_and_sources(
    name_or_path: str, overrides: Sequence[str] = (), checks: Iterable[Check] = ()
) -> tuple[Config, dict[str, Source]]:
    """What `load_config` returns, and where each value comes from, by the keys of `values_by_key`.

    >>> config, sources = load_config_and_sources("pretraining", ["trainer.optimizer.lr=1e-3"])
    >>> str(sources["trainer.optimizer.lr"]), str(sources["trainer.lora.rank"])
    ('override trainer.optimizer.lr=1e-3', 'default')
    """
    path = find_config(name_or_path)
    tree = _read_tree(path)
    problems: list[str] = []
    applied = apply_overrides(tree, overrides, problems)

    def origin(key: str) -> str:
        return _origin(key, applied, str(path))

    config = _parse_section(Config, tree, "", origin, problems)
    if not problems:
        invalid = [problem for check in (find_invalid_values, *checks) for problem in check(config)]
        problems = [f"{key} = {as_written(value)} {must} ({origin(key)})" for key, value, must in invalid]
    if problems:
        raise UserError(_joined("the configuration is not valid", problems))
    config = dataclasses.replace(config, overridden=frozenset(key for key, _ in applied))
    return config, find_sources(config, tree, applied, str(path))


def config_from_dict(tree: dict[str, Any], source: str) -> Config:
    """The configuration from nested dictionaries such as `Config.to_dict` gives.

    Args:
        tree: Absent keys have their defaults.
        source: A file name, for error messages.

    Raises:
        UserError: A key is unknown, or a value has the wrong type.
    """
    problems: list[str] = []
    config = _parse_section(Config, tree, "", lambda key: source, problems)
    if problems:
        raise UserError(_joined(f"{source} is not a configuration of this program", problems))
    return config


def config_from_file(file: Path) -> Config:
    """The configuration in a YAML file, such as the `config.yaml` of a run.

    Raises:
        OSError: The file can't be read.
        UserError: It is not a configuration.
    """
    return config_from_dict(_read_tree(file), str(file))


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as nested dictionaries. Raises UserError naming file and line if it does not parse."""
    return {**plain_values(_read_tree(path))}


def _read_tree(path: Path) -> dict[str, Any]:
    """What `read_yaml` gives, where plain scalars keep their spelling."""
    try:
        tree = parse_yaml(path.read_bytes().decode("utf-8"), keep_spelling=True)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not valid YAML: it is not UTF-8") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no sections", fix="expected model:, trainer: and general:")
    return tree


def _joined(title: str, problems: list[str]) -> str:
    if len(problems) > MOST_PROBLEMS:
        problems = [*problems[:MOST_PROBLEMS], f"and {len(problems) - MOST_PROBLEMS:,} more"]
    return f"{title}: {problems[0]}" if len(problems) == 1 else "\n  ".join([f"{title}:", *problems])


def _origin(key: str, overrides: Sequence[tuple[str, str]], file: str) -> str:
    """Where a value comes from, for a message: the last override of its key, of a section above or of a key below, or
    else the file."""
    for name, override in reversed(overrides):
        if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}."):
            return f"override {short_repr(override)}"
    return file


# ------------------------------------------------------------------------------------------------ types


def _parse_section(section: Any, tree: Any, prefix: str, origin: Origin, problems: list[str]) -> Any:
    """An instance of the dataclass `section` from nested dictionaries. Problems are added to `problems`, not raised."""
    if _is_null(tree):
        tree = {}
    if not isinstance(tree, dict):
        problems.append(f"{prefix or 'the file'} must be a section of keys, not {as_written(tree)} ({origin(prefix)})")
        return section()
    hints, other_keys = _keys_of(section)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if key not in hints and other_keys is not None:
            values.setdefault(other_keys, {})[str(key)] = plain_values(value, as_text=key in TEXT_OPTIONS)
        elif key not in hints:
            nearest = ""
            if len(problems) < MOST_PROBLEMS:
                nearest = _similar_keys(path, [f"{prefix}.{name}" if prefix else name for name in hints])
            problems.append(f"unknown key {short_repr(path)} ({origin(path)}){nearest}")
        else:
            converted = _convert(hints[key], value, path, origin, problems)
            is_path = key in _paths_of(section) and isinstance(converted, str)  # anything else is one of the problems
            values[key] = expand_home(converted) if is_path else converted
    return section(**values)


def _similar_keys(path: str, siblings: list[str]) -> str:
    """The suggestion for a key that is not there: the keys of which it is the end, or else the most similar one."""
    known = [*_keys(Config)]
    complete = [key for key in known if key.endswith(f".{path}")]
    if 0 < len(complete) <= MOST_SUGGESTED:
        return f"; did you mean {' or '.join(map(repr, complete))}?"
    return did_you_mean(path, siblings + known)


@functools.cache
def _keys_of(section: Any) -> tuple[dict[str, Any], str | None]:
    """The types of the keys of a section, and the field for keys whose existence the checks of `load_config` find
    out."""
    hints = typing.get_type_hints(section)
    hints.pop("overridden", None)
    other_keys = next((entry.name for entry in dataclasses.fields(section) if "other_keys" in entry.metadata), None)
    if other_keys is not None:
        del hints[other_keys]
    return hints, other_keys


@functools.cache
def _paths_of(section: Any) -> frozenset[str]:
    """The keys of a section that are paths or may be."""
    return frozenset(entry.name for entry in dataclasses.fields(section) if entry.metadata.get("is_path"))


_cached_origin = functools.cache(get_origin)
_is_section = functools.cache(dataclasses.is_dataclass)


def _convert(kind: Any, value: Any, path: str, origin: Origin, problems: list[str]) -> Any:
    """`value` as `kind` (a section, a tuple of them, a Literal, an Optional or a scalar)."""
    if _is_section(kind):
        return _parse_section(kind, value, path, origin, problems)
    generic = _cached_origin(kind)
    if isinstance(value, PlainScalar) and generic is not types.UnionType:
        value = plain_values(value, as_text=kind is str or generic is Literal)
    if generic is types.UnionType:
        return None if _is_null(value) else _convert(get_args(kind)[0], value, path, origin, problems)
    if generic is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{path} must be a list, not {as_written(value)} ({origin(path)})")
            return ()
        inner = get_args(kind)[0]
        return tuple(_convert(inner, item, f"{path}.{i}", origin, problems) for i, item in enumerate(value))
    if generic is Literal:
        if value not in get_args(kind):
            choices = " or ".join(map(repr, get_args(kind)))
            problems.append(f"{path} = {as_written(value)} is not supported, only {choices} ({origin(path)})")
        return value
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is int and type(value) is int and abs(value) >= 2**63:
        problems.append(f"{path} = {as_written(value)} is too large for a whole number ({origin(path)})")
        return 0
    if kind in (float, str) and type(value) in (int, float):
        try:
            return kind(value)
        except (OverflowError, ValueError):
            problems.append(f"{path} = {as_written(value)} has too many digits ({origin(path)})")
            return kind()
    if kind is str and isinstance(value, str) and not _can_be_a_name(value):
        problems.append(f"{path} = {as_written(value)} has characters that no name has ({origin(path)})")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        problems.append(f"{path} must be {names[kind]}, not {as_written(value)} ({origin(path)})")
    return value


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, PlainScalar) and value.value is None)


def as_written(value: Any) -> str:
    """A value as users write it: what is left out is empty.

    >>> as_written(None), as_written(True), as_written("a")
    ('empty', 'true', "'a'")
    """
    value = plain_values(value)
    return "empty" if value is None else str(value).lower() if isinstance(value, bool) else short_repr(value)


def _can_be_a_name(text: str) -> bool:
    """Whether a text can be the name of a file: without control characters, and of characters that have bytes."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return not any(character < " " or character == "\x7f" for character in text)


def _keys(section: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values."""
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{name}.")
        elif name != "overridden":
            yield prefix + name
