"""From a YAML file and `a.b=c` overrides to a checked `Config`."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from stochastok_cli.config.parsing import build
from stochastok_cli.config.schema import Config
from stochastok_cli.config.validation import find_invalid_values
from stochastok_cli.errors import UserError, did_you_mean


class _Loader(yaml.SafeLoader):
    """YAML in which `6e-4` is a number, as in YAML 1.2 and unlike PyYAML's 1.1, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def find_config(name_or_path: str) -> Path:
    """The YAML file of that path, else of that name in `./configs`, else among the copies that ship in the package."""
    stem = name_or_path.removesuffix(".yaml").removesuffix(".yml")
    package = Path(__file__).parent.parent
    folders = [Path("configs"), package / "configs", package.parent / "configs"]
    for candidate in [Path(name_or_path), *(folder / f"{stem}.yaml" for folder in folders)]:
        if candidate.is_file():
            return candidate
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    raise UserError(
        f"no configuration {name_or_path!r}: neither a file nor a name in ./configs or in the package",
        fix=f"known names: {', '.join(known)}{did_you_mean(stem, known).replace(';', ' —')}",
    )


def load_config(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Reads a configuration file and applies `a.b=c` overrides (Hydra's grammar) to it.

    Raises UserError naming every unknown key, wrong type and impossible value at once.
    """
    path = find_config(name_or_path)
    tree = read_yaml(path)
    problems: list[str] = []
    origin: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            problems.append(f"{override!r} is not an override of the form key.path=value")
            continue
        try:
            _assign(tree, key, _parse_value(text))
        except (yaml.YAMLError, ValueError) as error:
            problems.append(f"override {override!r}: {str(error).splitlines()[0]}")
        origin[key] = f"override {override!r}"
    config = build(Config, tree, "", lambda key: _origin_of(key, origin, str(path)), problems)
    if not problems:
        problems += find_invalid_values(config, lambda key: _origin_of(key, origin, str(path)))
    if problems:
        raise UserError(_listed("the configuration is not valid", problems))
    return dataclasses.replace(config, overridden=frozenset(origin))


def config_from_dict(tree: dict[str, Any], where: str) -> Config:
    """The configuration that `Config.to_dict` gave, read back from `where` (a file name for messages)."""
    problems: list[str] = []
    config = build(Config, tree, "", lambda key: where, problems)
    if problems:
        raise UserError(_listed(f"{where} is not a configuration of this program", problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as nested dictionaries. Raises UserError naming file and line if it does not parse."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: {error.problem}", fix="this is not valid YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no sections", fix="expected model:, trainer: and general:")
    return tree


def _listed(what: str, problems: list[str]) -> str:
    return f"{what}: {problems[0]}" if len(problems) == 1 else "\n  ".join([f"{what}:", *problems])


def _parse_value(text: str) -> Any:
    """A value in Hydra's grammar: YAML flow syntax in which no space is needed after the colon of a key."""
    spaced = re.sub(r"\"[^\"]*\"|'[^']*'|(?<=[{,])(\s*[\w.-]+):(?=\S)", lambda m: f"{m[1]}: " if m[1] else m[0], text)
    return yaml.load(spaced, _Loader) if spaced.strip() else None


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if below is None:
            below = tree[parent] = {}
        if not isinstance(below, dict):
            raise ValueError(f"{parent} is a value, not a section")
        tree = below
    tree[last] = value


def _origin_of(key: str, overrides: dict[str, str], file: str) -> str:
    """The override that set `key`, a section above it or a key below it; else the file."""
    for name, override in overrides.items():
        if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}."):
            return override
    return file
