"""YAML as configurations are written in, from files and overrides that may hold anything."""

import functools
import re
from collections.abc import Hashable
from typing import Any

import yaml

from stochastok_cli.errors import short_repr

DEEPEST = 100  # lists and mappings in brackets inside one another
MOST_NODES = 100_000  # values of a document, each counted as often as aliases repeat it


def parse_yaml(text: str) -> Any:
    """The value of a YAML document.

    `6e-4` is a number, as in YAML 1.2 and unlike PyYAML's 1.1, and a repeated key is an error.

    Raises ValueError, with the line and the problem in one line, for anything that is not such a document, and for one
    that aliases would expand beyond all bounds.
    """
    try:
        tree = _read_sections(text)
        if tree is not None:
            return tree
        is_plain = _PLAIN.fullmatch(text) is not None
        kind: Any = _FastLoader if is_plain else _Loader
        loader = kind(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if not is_plain and _expanded_size(node, {}) > MOST_NODES:  # a plain text has no aliases and few lines
            raise ValueError(f"it holds more than {MOST_NODES:,} values, or aliases that repeat them as often")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{_one_line(error.problem or error.context or 'it does not parse')}") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError of a date or a number that is not one
        raise ValueError(_one_line(str(error))) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError):  # what PyYAML lets through for `!!int x`
        raise ValueError("a value with a tag is not of the tag's type") from None


_LINE = re.compile(r"( {0,40})([A-Za-z]\w*):(?: ([\w/][\w.+/-]*|[-+.]\d[\w.+/-]*|\.{1,2}/[\w.+/-]*|\[\]))?", re.ASCII)
_LONGEST = 100_000  # characters of a text that is read line by line


def _read_sections(text: str) -> dict[str, Any] | None:
    """The value of a text of nested sections alone, as `Config.to_yaml` mostly writes it, in a fifth of the time.

    Each line is a key, and perhaps one word or an empty list. None for any other text, and for what might be an error.
    """
    if len(text) > _LONGEST:
        return None
    root: dict[str, Any] = {}
    open_sections = [(0, root)]  # with the indentation of their keys
    section: dict[str, Any] | None = None  # that of a last line without a value
    for line in text.removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        indentation, key, value = len(match[1]), match[2], match[3]
        if section is not None:
            if indentation <= open_sections[-1][0]:
                return None  # a key without a value
            open_sections.append((indentation, section))
            section = None
        while indentation < open_sections[-1][0]:
            open_sections.pop()
        depth, parent = open_sections[-1]
        if indentation != depth or key in parent or not isinstance(_scalar(key), str):
            return None
        if value is None:
            section = parent[key] = {}
        else:
            parent[key] = [] if value == "[]" else _scalar(value)
    return root if root and section is None else None


@functools.lru_cache(maxsize=4096)
def _scalar(word: str) -> Any:
    """The value of a word without spaces, quotes and brackets: a number, a truth value, null or text."""
    return _Loader(word).get_single_data()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values below a node and itself, where a value that aliases repeat counts each time.

    Raises ValueError for an alias of a value inside that value.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = -1  # until its own size is known
        children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    if sizes[id(node)] < 0:
        raise ValueError("an alias repeats a value inside itself")
    return sizes[id(node)]


class _UniqueKeys(yaml.constructor.SafeConstructor):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if not isinstance(key, Hashable):
                break  # which the method below refuses
            if key in seen:
                problem = f"the key {short_repr(key)} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Loader(_UniqueKeys, yaml.SafeLoader):
    def fetch_flow_collection_start(self, token_class: Any) -> None:
        if self.flow_level >= DEEPEST:  # PyYAML takes time with the square of the depth
            raise ValueError("its values are nested too deeply")
        super().fetch_flow_collection_start(token_class)


_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _FastLoader(_UniqueKeys, _CLoader):
    """The parser in C, for texts that both parsers surely agree on: about seven times as fast."""


_PLAIN = re.compile(r"(?: {0,40}(?:(?:- ?)?\w+:(?: [\w.+/-]+| \[\])?|- [\w.+/-]+)\n){0,1000}", re.ASCII)
"""What `Config.to_yaml` mostly writes: names, numbers and plain words, each on its line."""

for _kind in (_Loader, _FastLoader):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
