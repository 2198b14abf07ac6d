"""Expansion against a slow, readable oracle: in law by enumeration, in bytes by hypothesis."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.random_streams import derive_key, splitmix64
from stochastok_cli.tokenization.methods import require_method, usable_methods
from stochastok_cli.tokenization.split_table import split_table
from tests.tokenization.toys import ids_of, toy_vocabulary

HUGS = toy_vocabulary("h", "u", "g", "b", "m", "hu", "ug", "hug", "bug", "hugs", "s", "gs", "ugs")
GOLDEN = 0x9E37_79B9_7F4A_7C15


def exact_law(table, ids: list[int], attempts: int) -> dict[tuple[int, ...], float]:
    """The distribution over results of Algorithm 2, attempt by attempt, in exact fractions."""
    law = {tuple(ids): Fraction(1)}
    for _ in range(attempts):
        following: dict[tuple[int, ...], Fraction] = {}
        for sequence, weight in law.items():
            for position, token in enumerate(sequence):
                results = [(*sequence[:position], a, b, *sequence[position + 1 :]) for a, b in table.of(token)] or [
                    sequence
                ]
                for result in results:
                    probability = weight / len(sequence) / len(results)
                    following[result] = following.get(result, Fraction(0)) + probability
        law = following
    return {sequence: float(weight) for sequence, weight in law.items()}


def oracle(table, ids: list[int], p: float, seed: int, index: int) -> list[int]:
    """The kernel's own draws, written with Python integers on a plain list that keeps creation order and links."""
    state = splitmix64(derive_key(seed, "expand/stochastok") + splitmix64(index))
    tokens, after = list(ids), [None] * len(ids)

    def bounded(draw, bound):
        product = draw * bound
        return None if product % 2**32 < (2**32 - bound) % bound else product >> 32

    for _ in range(int(len(ids) * p)):
        position = None
        while position is None:
            state += GOLDEN
            bits = splitmix64(state)
            position = bounded(bits >> 32, len(tokens))
        splits = table.of(tokens[position])
        if not splits:
            continue
        choice = bounded(bits % 2**32, len(splits)) if len(splits) > 1 else 0
        while choice is None:
            state += GOLDEN
            choice = bounded(splitmix64(state) % 2**32, len(splits))
        tokens[position], second = splits[choice]
        after.append(after[position])
        after[position] = len(tokens)
        tokens.append(second)
    result = []
    for place in range(len(ids)):
        node = place
        while node is not None:
            result.append(tokens[node])
            node = after[node]
    return result


@pytest.mark.parametrize(
    ("pieces", "p"),
    [(("hugs",), 1.0), (("hugs",), 3.0), (("hug", "bug"), 1.0), (("hugs", "m", "hug"), 0.7), (("hugs", "bug"), 2.5)],
)
def test_the_law_is_algorithm_2s(pieces, p):
    """Chi-square of 40,000 expansions against exact enumeration."""
    from scipy.stats import chisquare

    ids = ids_of(HUGS, *pieces)
    law = exact_law(split_table(HUGS), ids, int(len(ids) * p))
    n = 40_000
    expand = StochasTok(HUGS, p=p, seed=5)
    out, lengths = expand.documents(np.tile(ids, n), np.full(n, len(ids)))
    seen = Counter(tuple(document.tolist()) for document in np.split(out, np.cumsum(lengths)[:-1]))
    assert set(seen) <= set(law)
    assert chisquare([seen[s] for s in law], [n * law[s] for s in law]).pvalue > 1e-4 if len(law) > 1 else True


def test_the_law_on_gpt2():
    from scipy.stats import chisquare

    gpt2 = load_vocabulary("gpt2")
    ids = gpt2.encode(" example sentence")
    law = exact_law(split_table(gpt2), ids, 2)
    n = 60_000
    out, lengths = StochasTok(gpt2, p=1.0, seed=2).documents(np.tile(ids, n), np.full(n, len(ids)))
    seen = Counter(tuple(document.tolist()) for document in np.split(out, np.cumsum(lengths)[:-1]))
    assert set(seen) <= set(law)
    assert chisquare([seen[s] for s in law], [n * law[s] for s in law]).pvalue > 1e-4


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 50256), max_size=60),
    p=st.floats(0, 3),
    seed=st.integers(0, 2**63),
    index=st.integers(0, 2**40),
)
def test_the_kernel_draws_what_the_oracle_draws(ids, p, seed, index):
    gpt2 = load_vocabulary("gpt2")
    expand = StochasTok(gpt2, p=p, seed=seed)
    assert expand(ids, index).tolist() == oracle(expand.splits, ids, p, seed, index)


@pytest.mark.parametrize("name", ["gpt2", "sample2k", "cl100k_base"])
def test_decoding_is_unchanged(name):
    vocabulary = load_vocabulary(name)

    @settings(max_examples=60, deadline=None)
    @given(text=st.text(max_size=200), p=st.floats(0, 4), seed=st.integers(0, 1000))
    def holds(text, p, seed):
        ids = vocabulary.encode(text)
        expanded = StochasTok(vocabulary, p=p, seed=seed)(ids)
        assert vocabulary.decode_bytes(expanded) == text.encode()
        assert len(ids) <= len(expanded) <= len(ids) + int(len(ids) * p)

    holds()


def test_p_zero_is_the_identity_and_the_input_stays_as_it_was():
    gpt2 = load_vocabulary("gpt2")
    ids = np.array(gpt2.encode("An example sentence"), dtype=np.uint16)
    before = ids.copy()
    assert StochasTok(gpt2, p=0)(ids).tolist() == before.tolist()
    assert StochasTok(gpt2, p=0.1)([]).tolist() == []
    StochasTok(gpt2, p=4)(ids)
    assert (ids == before).all()


def test_a_cap_on_the_splits_of_a_document():
    gpt2 = load_vocabulary("gpt2")
    ids = gpt2.encode("An example sentence about hundreds of elephants")
    for most in (0, 1, 3):
        assert len(StochasTok(gpt2, p=4, max_splits=most)(ids)) == len(ids) + most


def test_seed_and_index_name_the_result():
    gpt2 = load_vocabulary("gpt2")
    ids = gpt2.encode("An example sentence about hundreds of elephants")
    expand = StochasTok(gpt2, p=1, seed=3)
    assert expand(ids, 7).tolist() == expand(ids, 7).tolist() == StochasTok(gpt2, p=1, seed=3)(ids, 7).tolist()
    assert len({tuple(expand(ids, i).tolist()) for i in range(20)}) > 10
    assert StochasTok(gpt2, p=1, seed=4)(ids, 7).tolist() != expand(ids, 7).tolist()


def test_the_table_still_splits_on_the_second_use():
    """The reference's cached table came back from JSON with string keys and then expanded nothing."""
    gpt2 = load_vocabulary("gpt2")
    ids = gpt2.encode("An example sentence about hundreds of elephants")
    expand = StochasTok(gpt2, p=2)
    assert len(expand(ids)) > len(ids)
    assert len(expand(ids)) > len(ids)
    assert len(StochasTok(gpt2, p=2)(ids)) > len(ids)


@pytest.mark.parametrize("p", [-0.1, float("nan"), float("inf"), 1e18])
def test_an_impossible_p(p):
    with pytest.raises(UserError, match="not possible"):
        StochasTok(HUGS, p=p)


GPT2 = load_vocabulary("gpt2")


@pytest.mark.parametrize(
    "ids", [None, 5, "text", {"a": 1}, [1, None], [995.9], [True], np.zeros((1, 1, 1), int), [[1.5]]]
)
def test_what_is_no_sequence_of_ids_is_refused(ids):
    with pytest.raises(UserError, match="is no sequence of token ids"):
        StochasTok(GPT2)(ids)


@pytest.mark.parametrize("method", usable_methods(GPT2))
@pytest.mark.parametrize("lengths", [[2], [2, 200_000], [2, 2], [4, -1], [1.0, 2.0], [[3]]])
def test_lengths_that_are_not_those_of_the_ids_are_refused(method, lengths):
    expand = StochasTok(GPT2, 0.5 if require_method(method).takes_p else None, method)
    with pytest.raises(UserError, match="lengths of the documents are not those of 3 ids"):
        expand.documents(np.array([1000, 1100, 1200]), np.array(lengths))


@pytest.mark.parametrize(
    "options",
    [
        {"p": "0.1"},
        {"p": 10**400},
        {"p": -(10**5000)},
        {"p": float("nan")},
        {"method": None},
        {"max_splits": -5},
        {"max_splits": 1.5},
        {"max_splits": 2**63},
        {"max_splits": 10**5000},
        {"vocabulary": "gpt2"},
    ],
)
def test_impossible_arguments(options):
    with pytest.raises(UserError, match="is not possible|it must be|is no vocabulary|is no name of a method"):
        StochasTok(**{"vocabulary": GPT2, **options})
    with pytest.raises(UserError, match="the index -1 is not possible"):
        StochasTok(GPT2)([1, 2], -1)


@pytest.mark.parametrize("method", ["stochastok", "stochastok-uni", "uniform-k", "patok"])
def test_the_largest_max_splits_is_no_limit(method):
    ids = GPT2.encode("An example sentence")
    without = StochasTok(GPT2, 3, method)(ids)
    assert StochasTok(GPT2, 3, method, max_splits=2**63 - 1)(ids).tolist() == without.tolist()


def test_an_unknown_method_and_an_id_outside_the_vocabulary():
    with pytest.raises(UserError, match="did you mean 'stochastok'"):
        StochasTok(HUGS, method="stochastic")
    with pytest.raises(UserError, match="not in the vocabulary"):
        StochasTok(HUGS, p=1)([0, 400])


def test_documents_of_a_batch_may_have_different_types():
    """Together, int64 and uint64 are no integers for NumPy, and an empty list has no type."""
    texts = ["An example", "", " sentence"]
    plain = [GPT2.encode(text) for text in texts]
    mixed = [np.array(plain[0], np.int64), [], np.array(plain[2], np.uint64)]
    expand = StochasTok(GPT2, 1)
    assert [ids.tolist() for ids in expand(mixed)] == [expand(ids, i).tolist() for i, ids in enumerate(plain)]
    with pytest.raises(UserError, match="^the id -100 is not in the vocabulary"):
        expand([mixed[2], [0, -100]])


@pytest.mark.parametrize("method", ["stochastok", "stochastok-uni", "uniform-k", "uniform", "bpe-dropout"])
def test_tokens_that_are_to_be_left_alone(method):
    """Numbers, say: every token with a digit stays, the others are split."""
    gpt2 = load_vocabulary("gpt2")
    ids = gpt2.encode("In 1997 about 2500 elephants and 123456 others walked hundreds of kilometres") * 20
    p = 0.9 if method in ("uniform", "bpe-dropout") else 3.0
    out = StochasTok(gpt2, p=p, method=method, keep=r"\d")(ids).tolist()
    numbers = [i for i in ids if any(c.isdigit() for c in gpt2.decode([i]))]
    assert [i for i in out if any(c.isdigit() for c in gpt2.decode([i]))] == numbers
    assert len(out) > len(ids)
    assert gpt2.decode(out) == gpt2.decode(ids)
    with pytest.raises(UserError, match="regular expression"):
        StochasTok(gpt2, keep="(")


def test_a_large_p_ends_in_single_bytes():
    gpt2 = load_vocabulary("gpt2")
    ids = gpt2.encode(" An example sentence")
    assert StochasTok(gpt2, p=900)(ids).tolist() == gpt2.encode(" ") + [
        gpt2.encode(c)[0] for c in "An example sentence"
    ]


@pytest.mark.parametrize("method", ["stochastok", "stochastok-uni", "uniform-k"])
@pytest.mark.parametrize("p", [1e-4, 0.001, 0.003, 0.05, 0.1, 0.5, 1.0, 3.0])
def test_randomly_rounded_budgets_have_the_expected_attempts(method, p):
    """The mean is n p for any length of the windows, and the fractional part is a coin of the index alone."""
    vocabulary, n, windows = load_vocabulary("sample2k"), 513, 40_000
    expand = StochasTok(vocabulary, p, method, seed=3, round_budget="randomly")
    budget = expand.split_budget(np.full(windows, n), np.uint64(7))
    low, fraction = int(n * p), n * p - int(n * p)
    assert set(np.unique(budget)) <= {low, low + 1}
    up = (budget > low).sum()
    expected = np.array([windows * fraction, windows * (1 - fraction)])
    observed = np.array([up, windows - up])
    valid = expected > 0
    assert ((observed - expected)[valid] ** 2 / expected[valid]).sum() < 15  # chi-square, 1 degree of freedom: p < 1e-4
    np.testing.assert_array_equal(expand.split_budget(np.full(3, n), np.uint64(9)), budget[2:5])
    np.testing.assert_array_equal(
        StochasTok(vocabulary, p, method).split_budget(np.array([n]), np.uint64(0)), [int(n * p)]
    )


def test_a_small_p_splits_some_windows():
    """Rounded down, p = 0.001 makes no attempt in a window of 513 ids."""
    vocabulary = load_vocabulary("sample2k")
    ids = np.array((vocabulary.encode("between understanding remarkable sentences ") * 200)[:513], dtype=np.uint16)
    down, randomly = (StochasTok(vocabulary, 0.001, "uniform-k", round_budget=how) for how in ("down", "randomly"))
    windows = np.tile(ids, 2000), np.full(2000, 513)
    assert len(down.documents(*windows)[0]) == 2000 * 513
    splits = len(randomly.documents(*windows)[0]) - 2000 * 513
    assert abs(splits - 2000 * 0.513) < 4 * np.sqrt(2000 * 0.513 * 0.487)


def test_a_stochastok_is_printed_with_its_settings():
    shown = repr(StochasTok(load_vocabulary("sample2k"), 0.1, "uniform"))
    assert shown == "StochasTok(Vocabulary('sample2k', size=2048), p=0.1, method='uniform')"
