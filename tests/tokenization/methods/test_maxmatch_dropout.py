"""MaxMatch-dropout against exact enumeration, and against WordPiece itself."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stochastok_cli import StochasTok, UserError, load_vocabulary
from tests.tokenization.tiny_tokenizers import wordpiece, write

ENTRIES = [
    "[UNK]",
    "[SEP]",
    "a",
    "##b",
    "##c",
    "ab",
    "##bc",
    "abc",
    "##cb",
    "xyz",
    "xy",
    "##z",
    "##zq",
    "x",
    "b",
    "c",
    "-",
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    content = wordpiece(vocab={entry: i for i, entry in enumerate(ENTRIES)})
    return load_vocabulary(write(tmp_path_factory.mktemp("wordpiece"), content))


def exact_law(word: str, p: float, start: int = 0) -> dict[tuple[str, ...], float]:
    """The distribution of the pieces of a word, by recursion over its positions."""
    if start == len(word):
        return {(): 1.0}
    law: dict[tuple[str, ...], float] = {}
    matches = []
    for end in range(len(word), start, -1):
        piece = ("##" if start else "") + word[start:end]
        if piece in ENTRIES and (rest := exact_law(word, p, end)):
            matches.append((piece, rest))
    reached = 1.0
    for number, (piece, rest) in enumerate(matches):
        taken = reached * (1 - p if number < len(matches) - 1 else 1)
        reached -= taken
        for pieces, probability in rest.items():
            law[piece, *pieces] = law.get((piece, *pieces), 0) + taken * probability
    return law


@pytest.mark.parametrize("word", ["abc", "abcb", "xyz", "abcbc"])
@pytest.mark.parametrize("p", [0.3, 0.7])
def test_the_law(vocabulary, word, p):
    law = exact_law(word, p)
    assert len(law) > 1 and sum(law.values()) == pytest.approx(1)
    ids, draws = vocabulary.encode(word), 20_000
    out = StochasTok(vocabulary, p, "maxmatch-dropout", seed=4)([ids] * draws)
    seen = Counter(tuple(ENTRIES[i] for i in document) for document in out)
    assert set(seen) <= set(law)
    expected = np.array([*law.values()]) * draws
    assert stats.chisquare([seen[pieces] for pieces in law], expected).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("aabbccxyzq -é"), max_size=30), index=st.integers(0, 9))
def test_every_text(vocabulary, text, index):
    ids = [*vocabulary.encode(text), vocabulary.end_of_text]
    assert StochasTok(vocabulary, 0, "maxmatch-dropout")(ids).tolist() == ids
    draw = StochasTok(vocabulary, 0.5, "maxmatch-dropout", seed=1)
    out = draw(ids, index)
    assert vocabulary.decode_bytes(out) == vocabulary.decode_bytes(ids)
    np.testing.assert_array_equal(draw(ids, index), out)
    np.testing.assert_array_equal(draw([ids, ids], index)[0], out)


def test_tokens_that_stay_and_long_words(vocabulary):
    ids = vocabulary.encode("abc xyz " + "ab" + "cb" * 45)
    out = StochasTok(vocabulary, 1, "maxmatch-dropout", keep="^ xyz")(ids).tolist()
    pieces = [ENTRIES[i] for i in out]
    assert pieces[:4] == ["a", "##b", "##c", "xyz"] and set(pieces[4:]) == {"a", "##b", "##c"} and len(out) == 96


def test_other_vocabularies_are_refused():
    with pytest.raises(UserError, match="maxmatch-dropout needs a WordPiece vocabulary, which 'gpt2' is not"):
        StochasTok(load_vocabulary("gpt2"), 0.1, "maxmatch-dropout")


def test_ids_that_are_not_in_use_have_no_bytes_but_a_place(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path / "t", wordpiece(vocab={"[UNK]": 0, "[SEP]": 1, "a": 40})))
    ids = [7] * 5000
    assert StochasTok(vocabulary, 0.5, "maxmatch-dropout")(ids).tolist() == ids
