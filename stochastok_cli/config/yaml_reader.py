"""YAML as configurations are written in, from files and overrides that may hold anything."""

import contextlib
import functools
import re
from collections.abc import Hashable
from typing import Any

import yaml

from stochastok_cli.errors import one_line, short_repr

DEEPEST = 100  # lists and mappings in brackets inside one another
MOST_NODES = 100_000  # values of a document, each counted as often as aliases repeat it


def parse_yaml(text: str) -> Any:
    """The value of a YAML document.

    `6e-4` is a number, as in YAML 1.2 and unlike PyYAML's 1.1, and a repeated key is an error.

    Raises ValueError, with the line and the problem in one line, for anything that is not such a document, and for one
    that aliases would expand beyond all bounds.
    """
    try:
        if _PLAIN.fullmatch(text):
            with contextlib.suppress(yaml.YAMLError, ValueError):  # the other parser says what is wrong
                return _read_plain(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES:,} values, or aliases that repeat them as often")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{one_line(error.problem or error.context or 'it does not parse')}") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError of a date or a number that is not one
        raise ValueError(one_line(str(error))) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError):  # what PyYAML lets through for `!!int x`
        raise ValueError("a value with a tag is not of the tag's type") from None


_PLAIN = re.compile(r"(?: {0,40}(?:(?:- ?)?\w+:(?: [\w.+/-]+| \[\])?|- [\w.+/-]+)\n){1,1000}", re.ASCII)
"""What `Config.to_yaml` mostly writes: names, numbers and plain words, each on its line."""
_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read_plain(text: str) -> Any:
    """The value of a text of `_PLAIN`, by the parser in C, which agrees there: in a twentieth of the time.

    Raises yaml.YAMLError or ValueError if the text has an error.
    """
    next_event = _CLoader(text).get_event

    def value(event: yaml.Event) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next_event(), yaml.SequenceEndEvent):
                items.append(value(event))
            return items
        mapping: dict[Any, Any] = {}
        while not isinstance(event := next_event(), yaml.MappingEndEvent):
            key = _scalar(event.value)
            if key in mapping:
                raise ValueError(f"the key {short_repr(key)} stands twice")
            mapping[key] = value(next_event())
        return mapping

    next_event()  # the start of the stream
    next_event()  # and of the document
    tree = value(next_event())
    next_event()  # the end of the document
    if not isinstance(next_event(), yaml.StreamEndEvent):
        raise ValueError("there is more than one document")
    return tree


@functools.lru_cache(maxsize=4096)
def _scalar(text: str) -> Any:
    """The value of a plain scalar: a number, a truth value, null or text."""
    loader = _Loader("")
    return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))


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


class _Loader(yaml.SafeLoader):
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

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        if self.flow_level >= DEEPEST:  # PyYAML takes time with the square of the depth
            raise ValueError("its values are nested too deeply")
        super().fetch_flow_collection_start(token_class)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
