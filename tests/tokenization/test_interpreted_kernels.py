"""Kernels that run interpreted, with tables for few ids, give the bytes that compiled kernels give."""

import copy

import numpy as np
import pytest

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.tokenization import expansion
from stochastok_cli.tokenization.methods import require_method, usable_methods
from stochastok_cli.tokenization.methods.kernels import random as kernels
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice
from stochastok_cli.tokenization.split_table import split_table
from tests.tokenization.tiny_tokenizers import unigram, wordpiece, write

TEXTS = [
    "It is a truth universally acknowledged, that 1234567 isn't 42.",
    "",
    "a/s  sa <s>\n\n       caf\u00e9 \u65e5\u672c",
    "ababab abc",
]
METHODS = {
    "sample2k": [
        *usable_methods(load_vocabulary("sample2k")),
        "grampa:temperature=5,min_length=2",
        "mix:grampa(temperature=2)=0.5,bpe-dropout=0.3,by=pretoken",
        "patok:contract_prop=0.5,prefixes=un+acknow,suffixes=ed+ly",
    ],
    "unigram": ["unigram", "unigram:alpha=0.3,nbest=3", "stochastok", "uniform-k", "longest-first"],
    "wordpiece": ["maxmatch-dropout", "longest-first", "stochastok-uni", "grampa"],
}


@pytest.mark.parametrize(("name", "method"), [(name, method) for name in METHODS for method in METHODS[name]])
def test_interpreted_kernels_give_the_bytes_of_compiled_ones(name, method, tmp_path, monkeypatch):
    if name == "sample2k":
        vocabulary = load_vocabulary(name)
    else:
        vocabulary = load_vocabulary(write(tmp_path, unigram() if name == "unigram" else wordpiece()))
    documents = [[*vocabulary.encode(text), vocabulary.end_of_text] for text in TEXTS]
    ids, lengths = np.concatenate([np.array(document, np.int64) for document in documents]), [*map(len, documents)]
    takes_p = require_method(method).takes_p

    def expand(*, few: bool) -> list[list[int]]:
        monkeypatch.setattr(expansion, "may_interpret", lambda num_ids: few)
        # Tables are cached by vocabulary: a copy makes its own.
        stochastok = StochasTok(copy.copy(vocabulary), 0.7 if takes_p else None, method, seed=5)
        return [part.tolist() for i in range(3) for part in stochastok.documents(ids, np.array(lengths), i)]

    compiled = expand(few=False)
    assert expand(few=True) == compiled
    with kernels.interpreted():  # with tables of the whole vocabulary, too
        assert expand(few=False) == compiled


def test_tables_of_few_ids_are_rows_of_the_whole_tables():
    vocabulary = load_vocabulary("sample2k")
    few = frozenset([*vocabulary.encode("It is a truth universally acknowledged"), vocabulary.end_of_text])
    splits, some_splits = split_table(vocabulary), split_table(vocabulary, only=few)
    lattice, some_lattice = segmentation_lattice(vocabulary), segmentation_lattice(vocabulary, only=few)
    assert some_lattice.tokens.tolist() == sorted(few)
    assert 0 < len(some_splits.left) < len(splits.left) / 4
    reachable, ahead = set(), {*few}
    while ahead:
        reachable |= ahead
        ahead = {part for token in ahead for parts in splits.of(token) for part in parts} - reachable
    assert [some_splits.of(token) for token in reachable] == [splits.of(token) for token in reachable]
    for token in few:
        assert some_lattice.counts(token).tolist() == lattice.counts(token).tolist()
        assert some_lattice.max_splits[token] == lattice.max_splits[token]


def test_a_process_interprets_so_many_ids_and_no_more(monkeypatch):
    monkeypatch.setattr(kernels, "_num_interpreted", 0)
    monkeypatch.setattr(kernels, "_numba", kernels.functools.cache(lambda: None))
    assert kernels.may_interpret(kernels.MAX_INTERPRETED - 10)
    assert not kernels.may_interpret(11)
    assert kernels.may_interpret(10)
    assert not kernels.may_interpret(1)
