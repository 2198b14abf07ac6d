"""BPE-dropout against an oracle written from the paper, and its pretokens against the regular expression."""

import functools
import unicodedata
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.tokenization.pretokenizers import character_classes, mark_gpt2_pretokens
from tests.tokenization.toys import toy_vocabulary

GPT2 = load_vocabulary("gpt2")
TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("ab 'sdtlvre\n\t\r12.,—é日 "), st.characters(exclude_categories=["Cs", "Cn"]))
)


def exact_law(vocabulary, pretoken: bytes, p: float) -> dict[tuple[int, ...], float]:
    """The distribution over results for one pretoken, by the paper's algorithm: every step, every dropping."""
    rank = {pair: i for i, pair in enumerate(vocabulary.merges)}

    @functools.cache
    def law(parts: tuple[bytes, ...]) -> dict[tuple[bytes, ...], float]:
        applicable = sorted((rank[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in rank)
        result: dict[tuple[bytes, ...], float] = defaultdict(float)
        result[parts] += p ** len(applicable)
        for number, (_, i) in enumerate(applicable):
            for end, weight in law((*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :])).items():
                result[end] += p**number * (1 - p) * weight
        return result

    ids = {vocabulary.pieces[i]: i for i in range(vocabulary.size)}
    return {tuple(ids[part] for part in end): w for end, w in law(tuple(bytes([b]) for b in pretoken)).items() if w}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("text", [" example", "banana", "  ", "aaaaaa"])
@pytest.mark.parametrize("name", ["gpt2", "sample2k"])
def test_the_law_is_the_papers(name, text, p):
    vocabulary = load_vocabulary(name)
    law = exact_law(vocabulary, text.encode(), p)
    assert sum(law.values()) == pytest.approx(1)
    ids, n = vocabulary.encode(text), 20_000
    expand = StochasTok(vocabulary, p=p, method="bpe-dropout", seed=3)
    out, lengths = expand.documents(np.tile(ids, n), np.full(n, len(ids)))
    seen = Counter(tuple(document.tolist()) for document in np.split(out, np.cumsum(lengths)[:-1]))
    assert set(seen) <= set(law)
    common = [s for s in law if n * law[s] >= 5]
    observed, expected = [seen[s] for s in common], [n * law[s] for s in common]
    if n - sum(expected) >= 5:
        observed, expected = [*observed, n - sum(observed)], [*expected, n - sum(expected)]
    if len(expected) > 1:
        assert chisquare(observed, [e * sum(observed) / sum(expected) for e in expected]).pvalue > 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "gpt2",
        "sample2k",
        pytest.param("cl100k_base", marks=pytest.mark.slow),
        pytest.param("o200k_base", marks=pytest.mark.slow),
        "saved gpt2",
    ],
)
def test_without_dropping_it_is_byte_pair_encoding(name, tmp_path_factory):
    vocabulary = GPT2
    if name == "saved gpt2":
        folder = tmp_path_factory.mktemp("saved")
        vocabulary.save_tokenizer(folder)
        vocabulary = load_vocabulary(folder)
    elif name != "gpt2":
        vocabulary = load_vocabulary(name)

    without_dropping, into_bytes = (StochasTok(vocabulary, p=p, method="bpe-dropout") for p in (0, 1))

    @settings(max_examples=100, deadline=None)
    @given(text=TEXT, p=st.floats(0, 1))
    def holds(text, p):
        ids = [*vocabulary.encode(text), vocabulary.end_of_text]
        assert without_dropping(ids).tolist() == ids
        dropped = StochasTok(vocabulary, p=p, method="bpe-dropout")(ids)
        assert vocabulary.decode_bytes(dropped) == vocabulary.decode_bytes(ids)
        assert len(into_bytes(ids)) == len(text.encode()) + 1

    holds()


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_pretokens_are_the_patterns(texts):
    raw = [text.encode() for text in texts]
    text = np.frombuffer(b"".join(raw) + b"\0", np.uint8)
    cut = np.zeros(len(text), np.uint8)
    mark_gpt2_pretokens(text, np.cumsum([len(r) for r in raw]), character_classes(), cut)
    expected, place = set(), 0
    for part in texts:
        for pretoken in GPT2.pretokens(part):
            expected.add(place)
            place += len(pretoken)
    assert set(np.flatnonzero(cut).tolist()) == expected


def test_character_classes_are_unicodes():
    classes = character_classes()
    for number, pattern in ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")):
        for c in range(0x20, 0x20000):
            if unicodedata.category(chr(c)) not in ("Cn", "Cs"):
                assert (classes[c] == number) == bool(regex.fullmatch(pattern, chr(c))), hex(c)


def test_bytes_that_are_no_utf8_keep_their_ids():
    half = GPT2.encode("日")[0]  # the first bytes of a character, here without the rest
    before, after = GPT2.encode("An example sentence"), GPT2.encode(" and elephants")
    ids = [*before, half, *after, GPT2.end_of_text, half, GPT2.end_of_text, *before]
    for p in (0.0, 0.5):
        out = StochasTok(GPT2, p=p, method="bpe-dropout", seed=1)(ids).tolist()
        assert out.count(half) == 2
        assert out.count(GPT2.end_of_text) == 2
        assert GPT2.decode_bytes(out) == GPT2.decode_bytes(ids)
    assert StochasTok(GPT2, p=0, method="bpe-dropout")(ids).tolist() == ids


def hanging_together_with_bad_bytes(ids: list[int]) -> list[bool]:
    """Which ids share, directly or through others, a character with an id that has a byte of no character."""
    owner = [i for i, token in enumerate(ids) for _ in GPT2.pieces[token]]
    groups, bad, place = [], set(), 0
    for character in GPT2.decode_bytes(ids).decode(errors="surrogateescape"):
        width = len(character.encode(errors="surrogateescape"))
        groups.append({*owner[place : place + width]})
        if "\udc80" <= character <= "\udcff":
            bad |= groups[-1]
        place += width
    while more := [group for group in groups if group & bad and not group <= bad]:
        bad = bad.union(*more)
    return [i in bad for i in range(len(ids))]


def test_ids_that_share_a_character_with_bad_bytes_are_kept():
    parts = [i for i, piece in enumerate(GPT2.pieces) if piece.decode(errors="ignore").encode() != piece]
    chain = GPT2.pieces.index(b"\xa9\xb6\xe6")  # ends one character and begins the next one
    random = np.random.default_rng(0)
    begin, end = (GPT2.pieces.index(piece) for piece in (b"\xe6", b"\xa9"))
    documents = [[begin, *[chain] * 300, 0], [0, begin, chain, end, GPT2.pieces.index(b"\xb6"), 0]]
    for _ in range(300):
        choices = [*random.choice(parts, 3), *random.integers(256, size=3), *random.integers(50_256, size=2)]
        documents.append(random.choice([chain, begin, end, *choices], random.integers(2, 12)).tolist())
    seen = Counter()
    for ids in documents:
        kept = hanging_together_with_bad_bytes(ids)
        expected = []
        for token, stays in zip(ids, kept, strict=True):
            expected += [token] if stays else [GPT2.pieces.index(bytes([byte])) for byte in GPT2.pieces[token]]
        assert StochasTok(GPT2, p=1, method="bpe-dropout")(ids).tolist() == expected
        seen.update(kept)
    assert min(seen[True], seen[False]) > 300


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 50256), max_size=30), p=st.floats(0, 1))
def test_any_ids_decode_to_the_same_bytes(ids, p):
    assert GPT2.decode_bytes(StochasTok(GPT2, p=p, method="bpe-dropout")(ids)) == GPT2.decode_bytes(ids)


def test_documents_are_independent():
    documents = [GPT2.encode(f"Document {i} about elephants.") for i in range(30)]
    expand = StochasTok(GPT2, p=0.3, method="bpe-dropout", seed=1)
    out, lengths = expand.documents(np.concatenate(documents), np.array([len(d) for d in documents]), 7)
    for i, document in enumerate(np.split(out, np.cumsum(lengths)[:-1])):
        assert document.tolist() == expand(documents[i], 7 + i).tolist()


def test_a_long_pretoken():
    ids = GPT2.encode("ab" * 20_000)
    for p in (0.0, 0.1, 0.9):
        assert GPT2.decode_bytes(StochasTok(GPT2, p=p, method="bpe-dropout")(ids)) == b"ab" * 20_000


def test_a_vocabulary_without_merges_is_refused():
    toy = toy_vocabulary("a", "b", "ab")
    answers = {"merges": lambda self: None, "no_merges_reason": lambda self: "its model is Unigram"}
    toy._make_encoder = lambda: type("Encoder", (), answers)()
    with pytest.raises(UserError, match="merge list.*its model is Unigram"):
        StochasTok(toy, p=0.1, method="bpe-dropout")
