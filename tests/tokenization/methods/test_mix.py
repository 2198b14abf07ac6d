"""Mixes of methods: the shares, and each document as its method expands it."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.evaluation.robustness import Tokenization, parse_tokenization
from stochastok_cli.tokenization.methods import require_method, split_methods

VOCABULARY = load_vocabulary("sample2k")
TEXT = "An example sentence about elephants"
IDS = VOCABULARY.encode(TEXT)
ENTRIES = {piece for i, piece in enumerate(VOCABULARY.pieces) if not VOCABULARY.is_special(i)}


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
        ("mix:grampa:temperature=2=0.5", r"not stand in parentheses; give mix:grampa\(temperature=2\)=SHARE"),
        ("mix:mix=0.5", "a mix can't be part of a mix"),
        ("mix:mix(uniform=0.5)=0.5", "a mix can't be part of a mix"),
        ("mix:unifrom=0.5", "mix: unknown method 'unifrom'; did you mean 'uniform'"),
        ("mix:uniform=x", "mix: uniform: share = x is not possible"),
        ("mix:uniform=0.5,uniform=0.2", "uniform is given twice"),
        ("mix:grampa=0.5,grampa(temperature=1)=0.2", "mix: grampa is given twice"),
        ("mix:digits=1", r"mix: digits needs arguments; give them in parentheses: mix:digits\(right3\)=SHARE"),
        ("mix:digits(right0)=1", "mix: 'right0' is no rule of digits"),
        ("mix:digits(right3)", r"digits\(right3\) has no share; give mix:digits\(right3\)=SHARE"),
        ("mix:grampa(temperature=2)", "has no share"),
        ("mix:grampa(temperatur=2)=1", "mix: grampa has no argument 'temperatur=2'; did you mean 'temperature'"),
        ("mix:grampa()=1", r"the parentheses of grampa\(\) are empty; give mix:grampa=SHARE"),
        ("mix:grampa(temperature=2=1", "do not stand in parentheses"),
        ("mix:uniform", "uniform has no share"),
        ("mix:uniform=1,by=word", "by = word is not possible; give by=document or by=pretoken"),
        ("mix:uniform=1,by=pretoken,by=document", "by is given twice"),
        ("mix:by=pretoken", "no shares"),
    ],
)
def test_what_is_no_mix(method, reason):
    with pytest.raises(UserError, match=reason):
        require_method(method)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mix:uniform=0.50, stochastok=.25", "mix:stochastok=0.25,uniform=0.5"),
        ("mix:uniform=0.5,by=document", "mix:uniform=0.5"),
        (
            "mix:by=pretoken,uniform=0.5,grampa( min_length=2,temperature=2.0)=.25,grampa(temperature=1)=0.1",
            "mix:grampa=0.1,grampa(temperature=2,min_length=2)=0.25,uniform=0.5,by=pretoken",
        ),
        ("mix:patok(prefixes=mag+ma)=0.5,digits(right3)=0.2", "mix:digits(right3)=0.2,patok(prefixes=ma+mag)=0.5"),
    ],
)
def test_one_spelling(text, name):
    assert require_method(text).name == require_method(name).name == name
    assert split_methods(f"uniform,{text},character") == ["uniform", text.replace(", ", ","), "character"]
    assert parse_tokenization(f"{text}:0.25") == Tokenization(name, 0.25, 8)


def segmentations(text):
    """All ways to divide a text into entries."""
    heads = [n for n in range(1, len(text) + 1) if text[:n] in ENTRIES]
    return [(text[:n], *rest) for n in heads for rest in (segmentations(text[n:]) if n < len(text) else [()])]


def test_the_law_by_pretoken():
    """Two words, each of them by one of two methods or by none, independently of the other."""
    words = [" has", " the"]
    law = Counter({(): 1.0})
    for word in words:
        canonical = tuple(VOCABULARY.pieces[i] for i in VOCABULARY.encode(word))
        ways = segmentations(word.encode())
        assert len(canonical) == 1 and len(ways) > 3
        of_word = Counter({way: 0.5 / len(ways) for way in ways})  # uniform at p = 1
        of_word[tuple(bytes([byte]) for byte in word.encode())] += 0.3
        of_word[canonical] += 0.2
        law = Counter({(*before, *way): a * b for before, a in law.items() for way, b in of_word.items()})
    draws = 30_000
    ids = VOCABULARY.encode("".join(words))
    out = StochasTok(VOCABULARY, 1, "mix:character=0.3,uniform=0.5,by=pretoken", seed=7)([ids] * draws)
    seen = Counter(tuple(VOCABULARY.pieces[i] for i in document) for document in out)
    assert set(seen) <= set(law)
    assert stats.chisquare([seen[way] for way in law], np.array([*law.values()]) * draws).pvalue > 1e-3


def test_pretokens_of_a_method_that_merges():
    """A pretoken is expanded as it would be alone, and none is merged with the next."""
    letters = [VOCABULARY.pieces.index(bytes([byte])) for byte in b" has the has"]
    method = "bpe-dropout"
    draws = 6000
    mixed = StochasTok(VOCABULARY, 0.4, f"mix:{method}=0.5,by=pretoken", seed=1)([letters] * draws)
    alone = StochasTok(VOCABULARY, 0.4, method, seed=2)([letters[:4]] * draws)
    at_start = Counter()
    for document in mixed:
        ends = np.cumsum(VOCABULARY.widths[document]).tolist()
        assert {4, 8, 12} <= {*ends}
        at_start[tuple(document[: ends.index(4) + 1].tolist())] += 1
    expected = Counter(tuple(document.tolist()) for document in alone)
    keys = [way for way in expected if expected[way] > 20]
    table = []
    for way in keys:
        stays = draws / 2 if list(way) == letters[:4] else 0
        table.append((max(at_start[way] - stays, 1), expected[way] / 2))
    assert stats.chi2_contingency(np.array(table)).pvalue > 1e-3


@pytest.mark.parametrize(
    "method",
    [
        "mix:stochastok=0.4,patok(contract_prop=2)=0.3,digits(right3)=0.2,by=pretoken",
        "mix:uniform-k=0.6,grampa(temperature=3)=0.4,by=pretoken",
    ],
)
def test_pretokens_do_not_depend_on_their_batch(method):
    texts = [TEXT, "", "In 1997 it\n\n was  12345, an’t é", "é" * 9]
    documents = [[*VOCABULARY.encode(text), VOCABULARY.end_of_text] for text in texts] + [[]]
    expand = StochasTok(VOCABULARY, 0.7, method, seed=2)
    together = expand(documents * 4, 2**64 - 25)
    for i, ids in enumerate(documents * 4):
        np.testing.assert_array_equal(expand(ids, 2**64 - 25 + i), together[i])
        assert VOCABULARY.decode_bytes(together[i]) == VOCABULARY.decode_bytes(ids)
    assert len({tuple(ids.tolist()) for ids in together[::5]}) == 4
    assert any(len(out) != len(ids) for out, ids in zip(together, documents * 4, strict=True))
