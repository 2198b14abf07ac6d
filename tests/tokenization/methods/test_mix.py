"""Mixes of methods: the shares, and each document as its method expands it."""

import numpy as np
import pytest
from scipy import stats

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.tokenization.methods import require_method

VOCABULARY = load_vocabulary("sample2k")
TEXT = "An example sentence about elephants"
IDS = VOCABULARY.encode(TEXT)


def test_the_shares():
    documents = 4000
    out = StochasTok(VOCABULARY, 1, "mix:character=0.3,uniform-k=0.2", seed=5)([IDS] * documents)
    spelled = StochasTok(VOCABULARY, method="character")(IDS).tolist()
    seen = [ids.tolist() == spelled for ids in out], [ids.tolist() == IDS for ids in out]
    counts = [sum(seen[0]), sum(seen[1])]
    counts.append(documents - sum(counts))
    assert stats.chisquare(counts, np.array([0.3, 0.5, 0.2]) * documents).pvalue > 1e-3


def test_documents_do_not_depend_on_their_batch():
    expand = StochasTok(VOCABULARY, 0.8, "mix:stochastok=0.5,uniform=0.4", seed=2)
    together = expand([IDS] * 20, 7)
    for i, ids in enumerate(together):
        np.testing.assert_array_equal(expand(IDS, 7 + i), ids)
        assert VOCABULARY.decode(ids) == TEXT
    assert len({tuple(ids.tolist()) for ids in together}) > 5


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("mix", "no shares; give mix:METHOD=SHARE"),
        ("mix:uniform=0.7,stochastok=0.7", "add up to more than 1"),
        ("mix:grampa:temperature=2=0.5", "mix takes methods without arguments, not 'grampa:temperature=2=0.5'"),
        ("mix:mix=0.5", "mix takes methods without arguments"),
        ("mix:unifrom=0.5", "unknown method 'unifrom'; did you mean 'uniform'"),
        ("mix:uniform=x", "uniform = x is not possible"),
        ("mix:uniform=0.5,uniform=0.2", "uniform is given twice"),
    ],
)
def test_what_is_no_mix(method, reason):
    with pytest.raises(UserError, match=reason):
        require_method(method)


def test_one_spelling():
    assert require_method("mix:uniform=0.50, stochastok=.25").name == "mix:stochastok=0.25,uniform=0.5"
