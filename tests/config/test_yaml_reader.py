"""Plain texts are read by the parser in C: what that gives is what PyYAML's own parser gives."""

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stochastok_cli.config import load_config, yaml_reader

WORDS = "1 -1 +2 .5 1.5 1e3 6e-4 0x1f 017 0o17 1_000 2020-01-01 true on null a.b a-b ./a ../b /c/d [] inf a1 007"
ODD = "1:30 -.5 2020-99-99 0b2 ~ - -- --- ... . a+ -a [1] 'a' a:b .inf .nan"
LISTED = ["1", "---", "-a", "2020-01-01", "null", "...", "+"]
keys = st.sampled_from([*"abcdefgh", "e1", "x_1"])
trees = st.recursive(
    st.sampled_from(WORDS.split()) | st.lists(st.sampled_from(LISTED), min_size=1, max_size=3),
    lambda values: st.dictionaries(keys, values, min_size=1, max_size=4),
    max_leaves=9,
)
others = [
    "on: 1",
    "null: 1",
    "1: 1",
    "a : 1",
    "- 1",
    "z: - 1",
    "z: b c",
    "z:\t1",
    "z: 1\x0c",
    "z: 1\r",
    "",
    " z: 1",
    "z:",
]
others += [f"z: {word}" for word in ODD.split()]


def rendered(tree: dict, indentation: int = 0) -> list[str]:
    lines = []
    for key, value in tree.items():
        below = rendered(value, indentation + 2) if isinstance(value, dict) else []
        below = below or [" " * indentation + f"- {item}" for item in value] if isinstance(value, list) else below
        lines += [" " * indentation + f"{key}:" + ("" if below else f" {value}"), *below]
    return lines


def read(parse, text: str) -> str:
    """The value of a text, or the kind of its error."""
    try:
        return repr(parse(text))
    except (yaml.YAMLError, ValueError) as error:
        return "not a date" if type(error) is ValueError else "error"


@given(st.dictionaries(keys, trees, min_size=1, max_size=4), st.sampled_from(others), st.data())
def test_a_plain_text_is_what_pyyaml_reads(tree, other, data):
    lines = rendered(tree)
    plain = "\n".join(lines) + "\n"
    assert yaml_reader._PLAIN.fullmatch(plain)
    assert read(yaml_reader._read_plain, plain) == read(single_data, plain)
    lines.insert(data.draw(st.integers(0, len(lines))), other)
    changed = "\n".join(lines) + "\n"
    expected = read(single_data, changed)
    with contextlib.suppress(ValueError):
        assert repr(yaml_reader.parse_yaml(changed)) == expected
        return
    assert expected in ("error", "not a date")


def single_data(text: str) -> object:
    return yaml_reader._Loader(text).get_single_data()


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a:\n  b: 1\n c: 2\n"])
def test_what_is_wrong_with_a_plain_text_is_said(text):
    assert yaml_reader._PLAIN.fullmatch(text)
    with pytest.raises(ValueError, match="line 2: the key 'a' stands twice|line 3: "):
        yaml_reader.parse_yaml(text)


def test_a_configuration_is_such_a_text():
    config = load_config("pretraining")
    assert config.trainer.eval
    assert yaml_reader._PLAIN.fullmatch(config.to_yaml())
    assert yaml_reader._read_plain(config.to_yaml()) == yaml.safe_load(config.to_yaml())
