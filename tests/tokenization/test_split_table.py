"""The split table against brute force, and the paper's worked example."""

import numpy as np
import pytest

from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.split_table import split_table
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.tokenization.toys import toy_vocabulary


def brute_force(vocabulary: Vocabulary, token: int) -> set[tuple[int, int]]:
    """All pairs of ordinary entries that concatenate to the token, by trying every first part."""
    piece = vocabulary.token_bytes(token)
    ordinary = [i for i in range(vocabulary.size) if not vocabulary.is_special(i)]
    starts = [i for i in ordinary if piece.startswith(vocabulary.token_bytes(i))]
    ends = [i for i in ordinary if piece.endswith(vocabulary.token_bytes(i))]
    return {(a, b) for a in starts for b in ends if vocabulary.token_bytes(a) + vocabulary.token_bytes(b) == piece}


def test_the_papers_worked_example():
    vocabulary = toy_vocabulary("h", "u", "g", "b", "m", "hu", "ug", "hug", "bug", "hugs")
    table = split_table(vocabulary)
    splits = {
        vocabulary.token_bytes(i).decode(): [(vocabulary.decode([a]), vocabulary.decode([b])) for a, b in table.of(i)]
        for i in range(vocabulary.size)
    }
    assert splits["hug"] == [("h", "ug"), ("hu", "g")]
    assert splits["bug"] == [("b", "ug")]
    assert splits["hu"] == [("h", "u")]
    assert splits["hugs"] == []  # there is no s
    assert splits["h"] == splits["<|endoftext|>"] == []


def test_gpt2_has_as_many_splits_as_the_paper_counts():
    table = split_table(load_vocabulary("gpt2"))
    assert len(table.left) == 108_299
    assert int((np.diff(table.first) > 0).sum()) == 50_000


@pytest.mark.parametrize(
    "name", ["sample2k", "gpt2", "cl100k_base", pytest.param("o200k_base", marks=pytest.mark.slow)]
)
def test_every_split_is_one_and_none_is_missing(name):
    vocabulary = load_vocabulary(name)
    table = split_table(vocabulary)
    assert len(table.first) == vocabulary.size + 1
    owner = np.repeat(np.arange(vocabulary.size), np.diff(table.first))
    for token, a, b in zip(owner.tolist(), table.left.tolist(), table.right.tolist(), strict=True):
        assert vocabulary.pieces[a] + vocabulary.pieces[b] == vocabulary.pieces[token]
    assert not {*owner.tolist(), *table.left.tolist(), *table.right.tolist()} & vocabulary.special
    some = np.random.default_rng(1).choice(vocabulary.size, 20 if vocabulary.size > 3000 else 300, replace=False)
    for token in some.tolist():
        expected = set() if vocabulary.is_special(token) else brute_force(vocabulary, token)
        assert set(table.of(token)) == expected
        assert len(table.of(token)) == len(expected)


def test_tokens_of_the_same_bytes_are_parts_in_every_combination():
    table = split_table(toy_vocabulary("a", "a", "b", "b", "ab"))
    assert table.of(4) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_special_tokens_are_no_parts():
    vocabulary = toy_vocabulary("a", "a<|endoftext|>", "a<")
    for only in (None, frozenset({1})):
        assert split_table(vocabulary, only=only).of(1) == []


def test_kept_tokens_are_not_split_in_a_table_of_few_tokens_either():
    vocabulary = toy_vocabulary("h", "u", "g", "s", "hu", "ug", "hug", "hugs")
    hug, hugs = 6, 7
    whole, few = (split_table(vocabulary, frozenset({hug}), only) for only in (None, frozenset({hug, hugs})))
    assert whole.of(hugs) == few.of(hugs) == [(hug, 3)]
    assert whole.of(hug) == few.of(hug) == []
    assert split_table(vocabulary, frozenset({hug}), frozenset({hugs})).of(hug) == []
