"""Where each value of a configuration comes from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from stochastok_cli.config.schema import Config


class Source(NamedTuple):
    """Where a value comes from.

    Attributes:
        kind: `default` of the schema, a `file`, an `override`, or what a run takes it from.
        name: The file, the override, or the folder of the checkpoint, dataset or run; empty for a default.
    """

    kind: Literal["default", "file", "override", "checkpoint", "dataset", "run"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


def values_by_key(config: Config) -> dict[str, Any]:
    """All values by their dotted keys, in the order of the YAML file; `trainer.eval.0.evaluator` of a list's entry.

    >>> values_by_key(Config())["trainer.optimizer.lr"]
    0.0006
    """
    return dict(_values(config.to_dict(), ""))


def _values(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            value = {str(index): entry for index, entry in enumerate(value)}
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def find_sources(
    config: Config, tree: Mapping[str, Any], overrides: Sequence[tuple[str, str]], file: str
) -> dict[str, Source]:
    """The source of each value.

    Args:
        config: The configuration that `tree` describes.
        tree: The content of a file, with the overrides applied to it.
        overrides: The dotted key and the whole text of each override, in the order in which they were applied.
        file: The file's path.
    """
    sources = {}
    for key in values_by_key(config):
        override = next((text for name, text in reversed(overrides) if f"{key}.".startswith(f"{name}.")), None)
        if not _is_set(key, tree):
            sources[key] = Source("default")
        elif override is not None:
            sources[key] = Source("override", override)
        else:
            sources[key] = Source("file", file)
    return sources


def _is_set(key: str, tree: Any) -> bool:
    """Whether nested dictionaries and lists have a value of a dotted key, which may be null."""
    for name in key.split("."):
        if isinstance(tree, list | tuple) and name.isdigit() and int(name) < len(tree):
            tree = tree[int(name)]
        elif isinstance(tree, Mapping) and name in tree:
            tree = tree[name]
        else:
            return False
    return True
