"""Texts of nested sections are read line by line: what that gives is what PyYAML gives."""

from hypothesis import given
from hypothesis import strategies as st

from stochastok_cli.config import load_config, yaml_reader

WORDS = "1 -1 +2 .5 1.5 1e3 6e-4 0x1f 017 1_000 2020-01-01 true on null a.b a-b ./a ../b /c/d [] inf a1 007"
ODD = "-.5 2020-99-99 0b2 ~ - -- --- ... . a+ -a [1] 'a' a:b .inf .nan"
keys = st.sampled_from([*"abcdefgh", "e1", "x_1"])
trees = st.recursive(
    st.sampled_from(WORDS.split()), lambda values: st.dictionaries(keys, values, min_size=1, max_size=4), max_leaves=9
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
        lines += [" " * indentation + f"{key}:" + ("" if below else f" {value}"), *below]
    return lines


@given(
    st.dictionaries(keys, trees, min_size=1, max_size=4),
    st.sampled_from(["\n", ""]),
    st.sampled_from(others),
    st.data(),
)
def test_sections_are_what_pyyaml_reads(tree, end, other, data):
    lines = rendered(tree)
    text = "\n".join(lines) + end
    expected = yaml_reader._Loader(text).get_single_data()
    assert repr(yaml_reader._read_sections(text)) == repr(expected)
    lines.insert(data.draw(st.integers(0, len(lines))), other)
    text = "\n".join(lines) + end
    try:
        changed = yaml_reader._read_sections(text)
    except ValueError:  # of a date or a number that is not one; the text is then refused
        return
    if changed is not None:
        assert repr(changed) == repr(yaml_reader._Loader(text).get_single_data())


def test_a_configuration_is_such_a_text():
    config = load_config("quickstart")
    assert yaml_reader._read_sections(config.to_yaml()) == config.to_dict()
