"""The family of expansions that draws segmentations: each law against exact enumeration."""

import contextlib
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice
from stochastok_cli.tokenization.split_table import split_table
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.tokenization.test_expansion import exact_law
from tests.tokenization.toys import ids_of, toy_vocabulary

HUGS = toy_vocabulary("h", "u", "g", "b", "m", "hu", "ug", "hug", "bug", "hugs", "s", "gs", "ugs")
GAPS = toy_vocabulary("a", "b", "c", "abc", "ca", "abca", "d", "cd")  # abc has segmentations of one and of three pieces
GPT2 = load_vocabulary("gpt2")
METHODS = ["stochastok-uni", "uniform-k", "uniform", "grampa", "grampa:temperature=-2,min_length=2"]


def segmentations(vocabulary: Vocabulary, token: int) -> list[tuple[int, ...]]:
    """All segmentations of a token, by recursion over its first piece."""
    if vocabulary.is_special(token):
        return [(token,)]
    entries = [i for i in range(vocabulary.size) if not vocabulary.is_special(i)]

    def of(text: bytes) -> list[tuple[int, ...]]:
        if not text:
            return [()]
        return [
            (i, *rest) for i in entries if text.startswith(p := vocabulary.pieces[i]) for rest in of(text[len(p) :])
        ]

    return of(vocabulary.pieces[token])


def refinements(vocabulary: Vocabulary, ids: list[int]) -> list[tuple[tuple[int, ...], ...]]:
    return list(product(*(segmentations(vocabulary, token) for token in ids)))


def joined(parts):
    return tuple(i for part in parts for i in part)


def splits_of(parts):
    return tuple(len(part) - 1 for part in parts)


def law_of_uniform(vocabulary, ids, p):
    law = defaultdict(float)
    for parts in refinements(vocabulary, ids):
        weight = 1.0
        for token, part in zip(ids, parts, strict=True):
            probability = p / len(segmentations(vocabulary, token))
            weight *= probability + (1 - p if part == (token,) else 0.0)
        law[joined(parts)] += weight
    return law


def law_of_uniform_k(vocabulary, ids, p):
    wanted = int(len(ids) * p)
    sums = {sum(splits_of(parts)) for parts in refinements(vocabulary, ids)}
    k = max(s for s in sums if s <= wanted)
    law = defaultdict(float)
    chosen = [parts for parts in refinements(vocabulary, ids) if sum(splits_of(parts)) == k]
    for parts in chosen:
        law[joined(parts)] += 1 / len(chosen)
    return law


def law_of_stochastok_uni(vocabulary, ids, p):
    """The joint law of the tokens' numbers of splits under Algorithm 2, then uniform within them."""
    counts = defaultdict(float)
    for sequence, weight in exact_law(split_table(vocabulary), ids, int(len(ids) * p)).items():
        covered, place = [], 0
        for token in ids:
            text, pieces = b"", 0
            while text != vocabulary.pieces[token]:
                text += vocabulary.pieces[sequence[place]]
                place, pieces = place + 1, pieces + 1
            covered.append(pieces - 1)
        counts[tuple(covered)] += weight
    by_counts = defaultdict(list)
    for parts in refinements(vocabulary, ids):
        by_counts[splits_of(parts)].append(joined(parts))
    law = defaultdict(float)
    for key, weight in counts.items():
        for result in by_counts[key]:
            law[result] += weight / len(by_counts[key])
    return law


def law_of_grampa(vocabulary, ids, p, temperature=1.0, min_length=1):
    """Walks over the pieces of each token, by the paper's path counts, in the order of the authors' code."""
    entries = [i for i in range(vocabulary.size) if not vocabulary.is_special(i)]

    def paths(text):
        return sum(paths(text[len(vocabulary.pieces[i]) :]) for i in pieces_of(text)) if text else 1

    def pieces_of(text):
        prefixes = sorted(
            (i for i in entries if text.startswith(vocabulary.pieces[i])), key=lambda i: -len(vocabulary.pieces[i])
        )
        lengths = [len(vocabulary.pieces[i]) for i in prefixes]
        return [i for i, n in zip(prefixes, lengths, strict=True) if n >= min(min_length, lengths[0])]

    def walks(text):
        if not text:
            return {(): 1.0}
        weights = {i: paths(text[len(vocabulary.pieces[i]) :]) ** (1 / temperature) for i in pieces_of(text)}
        law = {}
        for i, weight in weights.items():
            for rest, probability in walks(text[len(vocabulary.pieces[i]) :]).items():
                law[(i, *rest)] = weight / sum(weights.values()) * probability
        return law

    law = {(): 1.0}
    for token in ids:
        own = {parts: p * probability for parts, probability in walks(vocabulary.pieces[token]).items()}
        own[(token,)] = own.get((token,), 0.0) + 1 - p
        law = {(*a, *b): x * y for a, x in law.items() for b, y in own.items()}
    return law


LAWS = {
    "grampa": law_of_grampa,
    "uniform": law_of_uniform,
    "uniform-k": law_of_uniform_k,
    "stochastok-uni": law_of_stochastok_uni,
}


def check_law(vocabulary, ids, p, method, n):
    definition = require_method(method)
    check_draws(LAWS[definition.family](vocabulary, ids, p, **definition.values), vocabulary, ids, p, method, n)


def check_draws(law, vocabulary, ids, p, method, n):
    assert sum(law.values()) == pytest.approx(1)
    expand = StochasTok(vocabulary, p=p, method=method, seed=11)
    out, lengths = expand.documents(np.tile(ids, n), np.full(n, len(ids)))
    seen = Counter(tuple(document.tolist()) for document in np.split(out, np.cumsum(lengths)[:-1]))
    assert set(seen) <= set(law)
    common = [s for s in law if n * law[s] >= 5]  # the rare results together, as the test's approximation asks
    rest = n - sum(seen[s] for s in common), n * (1 - sum(law[s] for s in common))
    observed, expected = [seen[s] for s in common], [n * law[s] for s in common]
    if rest[1] >= 5:
        observed, expected = [*observed, rest[0]], [*expected, rest[1]]
    if len(expected) > 1:
        total = sum(observed) / sum(expected)
        assert chisquare(observed, [e * total for e in expected]).pvalue > 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("pieces", "p"), [(("hugs",), 1.0), (("hug", "bug"), 0.5), (("hugs", "m", "hug"), 0.7), (("hugs", "hugs"), 1.0)]
)
def test_laws_on_the_papers_vocabulary(method, pieces, p):
    check_law(HUGS, ids_of(HUGS, *pieces), p, method, 30_000)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("text", "p"), [(" an", 1.0), pytest.param(" cat sat", 0.5, marks=pytest.mark.slow), ("The cat", 1.0)]
)
def test_laws_on_gpt2(method, text, p):
    check_law(GPT2, GPT2.encode(text), p, method, 30_000)


@pytest.mark.parametrize(
    "arguments", ["temperature=4", "temperature=0.5", "min_length=3", "temperature=3,min_length=2"]
)
def test_laws_of_grampa(arguments):
    check_law(HUGS, ids_of(HUGS, "hugs", "bug"), 0.8, f"grampa:{arguments}", 30_000)
    with pytest.raises(UserError, match="temperature must not be 0"):
        StochasTok(HUGS, 1.0, "grampa:temperature=0")


@pytest.mark.slow
@pytest.mark.parametrize("min_length", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5, -2.0])
def test_the_law_of_grampa_in_the_code_of_its_authors(temperature, min_length):
    pytest.importorskip("modest.formats.tsv", reason="tktkt imports modest-bauwenst")
    grampa = pytest.importorskip("tktkt.models.random.grampa")
    from tktkt.interfaces.identifiers import NoSpecials, Vocab

    entries = [piece.decode() for i, piece in enumerate(HUGS.pieces) if not HUGS.is_special(i)]
    theirs = grampa.GRaMPa(
        preprocessor=None,
        vocab=Vocab(entries, NoSpecials(), unk_id=0),
        probabilities_to_probabilities=grampa.PowerNormalisation(temperature),
        minimal_token_length=min_length,
    )
    for token in ids_of(HUGS, "hugs", "bug"):
        law = {}
        for parts in segmentations(HUGS, token):
            with contextlib.suppress(AssertionError):  # a piece that is too short
                law[parts] = theirs.getJointProbability([HUGS.pieces[part].decode() for part in parts])
        assert law_of_grampa(HUGS, [token], 1.0, temperature, min_length) == pytest.approx(law)
        check_draws(law, HUGS, [token], 1.0, f"grampa:temperature={temperature},min_length={min_length}", 20_000)


@pytest.mark.parametrize("p", [0.4, 1.0])
def test_uniform_where_a_byte_has_two_entries(p):
    """As Llama 2's `▁` and `<0x20>`."""
    duplicates = toy_vocabulary("a", "a", "b", "ab")
    for ids in ([0], [1, 2], [3, 0]):
        check_law(duplicates, ids, p, "uniform", 8_000)


def test_uniform_k_of_a_long_token_and_a_huge_p():
    ids = [int(np.argmax(GPT2.widths))]
    out = StochasTok(GPT2, p=1000, method="uniform-k")(ids)
    assert len(out) == GPT2.widths[ids[0]]
    assert GPT2.decode(out) == GPT2.decode(ids)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75, 1.0, 1.25, 2.0, 9.0])
def test_uniform_k_where_numbers_of_splits_have_gaps(p):
    """As many splits as there can be up to K, and uniform over those refinements."""
    for pieces in [("abc", "abca", "d", "abc"), ("abc", "cd"), ("abc",), ("a", "d")]:
        check_law(GAPS, ids_of(GAPS, *pieces), p, "uniform-k", 8_000)


def test_uniform_k_makes_as_many_splits_as_the_tokens_can_have_together():
    """Where several types of tokens have gaps, and occur often; by enumeration of the sums."""
    gaps = toy_vocabulary("a", "b", "c", "abc", "abca", "abcab", "ca", "bcabc", "abcabca", "d", "cd")
    own = [{len(parts) - 1 for parts in segmentations(gaps, token)} for token in range(gaps.size)]
    with_gaps = [token for token in range(gaps.size) if len(own[token]) <= max(own[token])]
    assert len({frozenset(own[token]) for token in with_gaps}) >= 2
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(150):
        ids = random.choice(random.choice([0, *with_gaps], size=3), random.integers(1, 25))
        sums, wanted = {0}, int(random.integers(2 * len(ids)))
        for token in ids:
            sums = {a + b for a in sums for b in own[token]}
        expand = StochasTok(gaps, p=9, method="uniform-k", max_splits=wanted)
        made = max(s for s in sums if s <= wanted)
        assert len(expand(ids)) - len(ids) == made
        missed += made < min(wanted, max(sums))
    assert missed > 5


def test_uniform_k_on_a_document_long_enough_for_a_rest():
    """The tail that makes up the rest covers only part of this document; the law of the sums of its thirds is exact."""
    ids = GPT2.encode(" walking") * 60
    counts = segmentation_lattice(GPT2).counts(ids[0])[1:]

    def sums(tokens):
        law = np.ones(1)
        for _ in range(tokens):
            law = np.convolve(law, counts / counts.sum())
        return law

    wanted, n = int(len(ids) * 0.4), 4_000
    head, tail = sums(20), sums(40)
    law = np.array([head[a] * tail[wanted - a] for a in range(wanted + 1) if a < len(head)])
    law /= law.sum()
    out, lengths = StochasTok(GPT2, p=0.4, method="uniform-k", seed=3).documents(np.tile(ids, n), np.full(n, len(ids)))
    assert set(lengths.tolist()) == {len(ids) + wanted}
    size = len(GPT2.pieces[ids[0]])
    widths = np.array([len(piece) for piece in GPT2.pieces])
    seen = Counter()
    for document in out.reshape(n, -1):
        places = np.cumsum(widths[document])
        seen[int(np.searchsorted(places, 20 * size)) + 1 - 20] += 1  # splits in the first third
    common = np.flatnonzero(n * law >= 5)
    observed = np.array([seen[int(a)] for a in common])
    assert chisquare(observed, law[common] / law[common].sum() * observed.sum()).pvalue > 1e-4


@pytest.mark.parametrize("name", ["sample2k", "gpt2"])
def test_counts_of_segmentations(name):
    vocabulary = load_vocabulary(name)
    lattice = segmentation_lattice(vocabulary)
    short = [t for t in range(vocabulary.size) if len(vocabulary.pieces[t]) <= 4 and not vocabulary.is_special(t)]
    for token in np.random.default_rng(0).choice(short, 12 if name == "gpt2" else 40, replace=False).tolist():
        by_pieces = Counter(len(parts) for parts in segmentations(vocabulary, token))
        assert lattice.counts(token).tolist() == [by_pieces[k] for k in range(len(vocabulary.pieces[token]) + 1)]
        assert lattice.total[lattice.node[token]] == sum(by_pieces.values())
        assert lattice.max_splits[token] == max(by_pieces) - 1
    end = vocabulary.end_of_text
    assert lattice.counts(end).tolist() == [0, 1]


def test_counts_too_large_for_integers_are_still_right():
    """128 spaces: every run length that is an entry may follow every other."""
    spaces = {len(p): t for t, p in enumerate(GPT2.pieces) if p and not p.strip(b" ")}
    lattice = segmentation_lattice(GPT2)
    longest = max(n for n in spaces if n <= 128)
    exact = [[0] * (longest + 1) for _ in range(longest + 1)]
    exact[0][0] = 1
    for n in range(1, longest + 1):
        for k in range(1, n + 1):
            exact[n][k] = sum(exact[n - width][k - 1] for width in spaces if width <= n)
    counts = lattice.counts(spaces[longest])
    for k in range(longest + 1):
        assert counts[k] == pytest.approx(exact[longest][k], rel=1e-13)


def test_pair_splits_do_not_reach_every_segmentation():
    """38.9% of GPT-2's tokens of 2 to 10 characters have segmentations that no sequence of pair splits reaches."""
    table, lattice = split_table(GPT2), segmentation_lattice(GPT2)
    reached: dict[int, set[tuple[int, ...]]] = {}
    order = sorted((t for t in range(GPT2.size) if 2 <= len(GPT2.pieces[t]) <= 6), key=lambda t: len(GPT2.pieces[t]))
    missing = 0
    for token in order:
        results = {(token,)}
        for a, b in table.of(token):
            results |= {(*x, *y) for x in reached.get(a, {(a,)}) for y in reached.get(b, {(b,)})}
        reached[token] = results
        total = lattice.total[lattice.node[token]]
        assert len(results) <= total
        missing += len(results) < total
    assert 0 < missing / len(order) < 0.389  # tokens of up to 6 bytes only, to stay quick


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "sample2k", "cl100k_base"])
def test_decoding_is_unchanged(method, name):
    vocabulary = load_vocabulary(name)

    @settings(max_examples=40, deadline=None)
    @given(text=st.text(max_size=150), p=st.floats(0, 1), seed=st.integers(0, 100))
    def holds(text, p, seed):
        ids = [*vocabulary.encode(text), vocabulary.end_of_text]
        expanded = StochasTok(vocabulary, p=p, method=method, seed=seed)(ids)
        assert vocabulary.decode_bytes(expanded) == vocabulary.decode_bytes(ids)
        assert expanded[-1] == vocabulary.end_of_text
        if method == "uniform-k":
            bytes_ = len(text.encode()) - len(ids) + 1
            assert len(expanded) == len(ids) + min(int(len(ids) * p), bytes_)

    holds()


@pytest.mark.parametrize("method", METHODS)
def test_documents_are_independent(method):
    documents = [GPT2.encode(f"Document {i} about elephants and hundreds of others.") for i in range(30)]
    expand = StochasTok(GPT2, p=0.5, method=method, seed=1)
    out, lengths = expand.documents(np.concatenate(documents), np.array([len(d) for d in documents]), 100)
    for i, document in enumerate(np.split(out, np.cumsum(lengths)[:-1])):
        assert document.tolist() == expand(documents[i], 100 + i).tolist()


def test_a_probability_is_one():
    with pytest.raises(UserError, match="probability"):
        StochasTok(GPT2, p=1.5, method="uniform")
    with pytest.raises(UserError, match="max-splits"):
        StochasTok(GPT2, p=0.5, method="uniform", max_splits=3)
    assert len(StochasTok(GPT2, p=2, method="uniform-k", max_splits=1)(GPT2.encode(" example sentence"))) == 3
