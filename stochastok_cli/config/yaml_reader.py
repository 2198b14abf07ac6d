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


class PlainScalar(str):
    """A number, a truth value or null of a YAML document, as it is written there.

    Whoever expects a text takes it for one, so that the name `2024_10` is not 202410.

    Attributes:
        value: What it is where no text is expected.
    """

    value: Any

    def __new__(cls, text: str, value: Any) -> "PlainScalar":
        scalar = super().__new__(cls, text)
        scalar.value = value
        return scalar


def plain_values(tree: Any, *, as_text: bool = False) -> Any:
    """A tree without `PlainScalar`: with the values, or with the texts of all but null.

    >>> scalar = PlainScalar("1e3", 1000.0)
    >>> plain_values([scalar]), plain_values([scalar, PlainScalar("~", None)], as_text=True)
    ([1000.0], ['1e3', None])
    """
    if isinstance(tree, PlainScalar):
        return str(tree) if as_text and tree.value is not None else tree.value
    if isinstance(tree, dict):
        return {plain_values(key): plain_values(value, as_text=as_text) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain_values(value, as_text=as_text) for value in tree]
    return tree


def parse_yaml(text: str, *, keep_spelling: bool = False) -> Any:
    """The value of a YAML document.

    Numbers are those of YAML 1.2's core schema: unlike PyYAML's of 1.1, `6e-4` is one, `010` is ten, and `1:30` and
    dates are text. Underscores may group the digits of decimal ones, as in Hydra. A repeated key is an error.

    Args:
        text: The document.
        keep_spelling: Whether each number, truth value and null becomes a `PlainScalar`.

    Raises ValueError, with the line and the problem in one line, for anything that is not such a document, and for one
    that aliases would expand beyond all bounds.
    """
    try:
        if _PLAIN.fullmatch(text):
            with contextlib.suppress(yaml.YAMLError, ValueError):  # the other parser says what is wrong
                return _read_plain(text, keep_spelling)
        loader = _Loader(text, keep_spelling)
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
    except (yaml.YAMLError, ValueError) as error:  # a ValueError of what a tag calls a date or a number
        raise ValueError(one_line(str(error))) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError):  # what PyYAML lets through for `!!int x`
        raise ValueError(_WRONG_TAG) from None


_PLAIN = re.compile(r"(?: {0,40}(?:(?:- ?)?\w+:(?: [\w.+/-]+| \[\])?|- [\w.+/-]+)\n){1,1000}", re.ASCII)
"""What `Config.to_yaml` mostly writes: names, numbers and plain words, each on its line."""
_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read_plain(text: str, keep_spelling: bool = False) -> Any:
    """The value of a text of `_PLAIN`, by the parser in C, which agrees there: in a twentieth of the time.

    Raises yaml.YAMLError or ValueError if the text has an error.
    """
    next_event = _CLoader(text).get_event

    def value(event: yaml.Event) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value, keep_spelling)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next_event(), yaml.SequenceEndEvent):
                items.append(value(event))
            return items
        mapping: dict[Any, Any] = {}
        while not isinstance(event := next_event(), yaml.MappingEndEvent):
            key = _scalar(event.value, keep_spelling)
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
def _scalar(text: str, keep_spelling: bool) -> Any:
    """The value of a plain scalar: a number, a truth value, null or text."""
    loader = _Loader("", keep_spelling)
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


_WRONG_TAG = "a value with a tag is not of the tag's type"
_WHOLE_NUMBER = re.compile(r"(?:[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+)$")
_OTHER_IN_YAML_1_1 = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "value")}


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str, keep_spelling: bool = False):
        super().__init__(text)
        self.keep_spelling = keep_spelling

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        if self.keep_spelling and isinstance(node, yaml.ScalarNode) and not isinstance(value, str):
            return PlainScalar(node.value, value)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        if not _WHOLE_NUMBER.match(text):
            raise ValueError(_WRONG_TAG)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text if base == 10 else text[2:], base)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if not isinstance(key, Hashable):
                break  # which the method below refuses
            if key in seen:
                problem = f"the key {short_repr(key)} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        if self.flow_level >= DEEPEST:  # PyYAML takes time with the square of the depth
            raise ValueError("its values are nested too deeply")
        super().fetch_flow_collection_start(token_class)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OTHER_IN_YAML_1_1]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    _WHOLE_NUMBER,
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
