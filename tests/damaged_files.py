"""Hypothesis strategies of damaged files: valid ones with a value, a key or some bytes changed."""

import copy
import json
from typing import Any

import yaml
from hypothesis import strategies as st

from stochastok_cli.errors import UserError

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**400,
    1.5,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    "a",
    "\0",
    "\ud800",
    "\udcff",
    "../../x",
    "/etc/passwd",
    "x" * 5000,
    "1",
    "\x1b[31m\n",
    [],
    [1],
    ["a", "b"],
    [[]],
    {},
    {"a": 1},
    {"": {}},
    {"bytes": -1},
]

INSERTED = [b"", b"\xff", b"\0", b"[" * 100_000, b'{"a":' * 5000, b"9" * 5000, b"\n", b"'", b"&a", b"*a", b"!!int "]


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a tree of dictionaries and lists."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in _places(value, (*path, key)))]


@st.composite
def damaged_trees(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one to three values replaced, removed, or put under another key."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(tree)))
        if not path:
            return draw(st.sampled_from(VALUES))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "remove", "rename"]))
        value = parent[path[-1]] if change == "rename" else copy.deepcopy(draw(st.sampled_from(VALUES)))
        if change != "replace":
            del parent[path[-1]]
        if change == "replace":
            parent[path[-1]] = value
        elif change == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from([v for v in VALUES if isinstance(v, str)]))] = value
    return tree


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes cut short, with some replaced or inserted, or nested more deeply than a parser can go."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.sampled_from([start, start + 1, start + 5, len(content)]))
    return content[:start] + draw(st.sampled_from(INSERTED)) + content[end:]


def damaged_json(content: bytes) -> st.SearchStrategy[bytes]:
    """A damaged file of JSON."""
    trees = damaged_trees(json.loads(content)).map(lambda tree: json.dumps(tree).encode())
    return trees | damaged_bytes(content)


def damaged_yaml(content: bytes) -> st.SearchStrategy[bytes]:
    """A damaged file of YAML."""
    trees = damaged_trees(yaml.safe_load(content)).map(lambda tree: yaml.safe_dump(tree).encode())
    return trees | damaged_bytes(content)


def refusal(function: Any, *args: Any) -> str:
    """The message of the UserError that a call raises, which must be one bounded line; empty where it succeeds."""
    try:
        function(*args)
    except UserError as error:
        message = str(error)
        assert message
        assert len(message) < 6000, len(message)
        assert "\n" not in message or "not valid:\n  " in message  # a configuration's problems have a line each
        assert all(len(line) < 1500 for line in message.split("\n"))
        return message
    return ""
