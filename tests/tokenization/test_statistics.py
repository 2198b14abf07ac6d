"""The report on what an expansion does."""

import numpy as np
import pytest

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.errors import Notice
from stochastok_cli.tokenization.growth import match_growth
from stochastok_cli.tokenization.methods import require_method, usable_methods
from stochastok_cli.tokenization.statistics import compare_methods, diversity, mattr, renyi_efficiency, token_entropy

GPT2 = load_vocabulary("gpt2")


@pytest.fixture(scope="module")
def documents():
    texts = next(open_source("sample").batches())[0][:300]
    return GPT2.encode_batch(texts)


@pytest.mark.parametrize("method", [name for name in usable_methods(GPT2) if require_method(name).takes_p])
def test_the_figures_of_a_method(documents, method):
    ids, lengths = documents
    expand = StochasTok(GPT2, p=0.2, method=method)
    row = diversity(expand, ids, lengths)
    out = expand.documents(ids, lengths)[0]
    assert row.growth == len(out) / len(ids)
    assert 0 < row.touched < 0.4
    assert 1 < row.segmentations <= row.possible
    assert 0.1 < row.entropy < 4


def test_nothing_happens_at_p_zero(documents):
    row = diversity(StochasTok(GPT2, p=0.0), *documents)
    assert (row.growth, row.touched, row.segmentations, row.entropy) == (1.0, 0.0, 1.0, 0.0)


def test_touched_tokens_by_hand():
    ids = np.array(GPT2.encode(" example") * 4)
    expand = StochasTok(GPT2, p=0.5, method="uniform-k", seed=1)
    row = diversity(expand, ids, np.array([4]))
    whole = expand(ids).tolist().count(ids[0])
    assert row.touched == 1 - whole / 4


@pytest.mark.parametrize("method", [name for name in usable_methods(GPT2) if require_method(name).takes_p])
def test_p_for_a_growth(documents, method):
    ids, lengths = documents
    expand = StochasTok(GPT2, match_growth(GPT2, method, 1.1, ids, lengths).p, method)
    sizes = [len(expand.documents(ids, lengths, 1000 * i)[0]) for i in range(1, 11)]
    assert np.mean(sizes) / len(ids) == pytest.approx(1.1, abs=0.003)


def test_p_for_a_small_growth_is_that_of_the_expectation(documents):
    """`uniform` replaces each token with probability p, so the expected growth is linear in p."""
    ids, lengths = documents
    everything = StochasTok(GPT2, 1.0, "uniform")
    most = np.mean([len(everything.documents(ids, lengths, 1000 * i)[0]) for i in range(20)]) / len(ids)
    p = match_growth(GPT2, "uniform", 1.005, ids, lengths).p
    assert p == pytest.approx(0.005 / (most - 1), rel=0.03)


def test_p_for_no_growth(documents):
    assert match_growth(GPT2, "stochastok", 1.0, *documents).p == 0


def test_p_for_a_growth_with_tokens_left_alone(documents):
    ids, lengths = documents
    how = {"keep": "^ ", "seed": 3}
    p = match_growth(GPT2, "stochastok", 1.1, ids, lengths, **how).p
    assert diversity(StochasTok(GPT2, p, **how), ids, lengths).growth == pytest.approx(1.1, abs=0.003)
    assert p > match_growth(GPT2, "stochastok", 1.1, ids, lengths).p


def test_a_growth_that_no_p_gives(documents):
    with pytest.raises(UserError, match="no p makes"):
        match_growth(GPT2, "uniform", 40.0, *documents)


FEW = [GPT2.encode(text) for text in ("unbelievable", "remarkable times", "extraordinary walking houses", " some")]
FEW = np.concatenate(FEW), np.array([len(ids) for ids in FEW])


def growth_of(expand: StochasTok, ids: np.ndarray, lengths: np.ndarray) -> float:
    """The mean growth of a hundred expansions."""
    sizes = [len(expand.documents(ids, lengths, i * len(lengths))[0]) for i in range(100)]
    return sum(sizes) / 100 / len(ids)


@pytest.mark.parametrize("method", ["stochastok", "uniform-k"])
def test_p_for_a_growth_with_steps_is_the_nearest(method):
    """floor(n p) of few short documents changes at k / n alone: all growths that there are can be enumerated."""
    steps = sorted({k / n for n in FEW[1].tolist() for k in range(2 * n + 1)})
    reachable = [growth_of(StochasTok(GPT2, step * (1 + 1e-12), method), *FEW) for step in steps]
    for target in (1.04, 1.16, 1.35, 1.62):
        match = match_growth(GPT2, method, target, *FEW)
        assert abs(match.growth - target) < min(abs(growth - target) for growth in reachable) + 0.004 * (target - 1)
        assert match.growth == pytest.approx(growth_of(StochasTok(GPT2, match.p, method), *FEW), abs=1e-9)
        assert match.is_met == (abs(match.growth - target) <= max(0.01 * (target - 1), 0.05 / len(FEW[0])))


def test_p_is_not_rounded_across_a_step():
    """1/19 with four digits is below it, and floor(19 p) is then 0."""
    ids, lengths = np.array(GPT2.encode(" unbelievable") * 19 * 40)[: 19 * 40], np.full(40, 19)
    match = match_growth(GPT2, "uniform-k", 1.04, ids, lengths)
    assert (match.p, match.is_met) == (0.05264, False) and match.growth == pytest.approx(1 + 1 / 19)


def test_a_growth_that_is_missed_is_noted():
    methods = ["stochastok", "uniform"]
    with pytest.warns(Notice) as noted:
        rows = compare_methods(GPT2, methods, *FEW, growth=1.04)
    assert not rows[0].match.is_met and rows[0].match.target == 1.04
    texts = [str(note.message) for note in noted]
    assert (
        f"no p of stochastok makes these documents 1.04 times as long: the nearest, p = {rows[0].p}, makes" in texts[0]
    )
    assert f"uniform with p = {rows[1].p} makes these documents 1.04 times as long on average, and" in texts[1]
    assert f"{rows[1].growth:.4f} times with this seed" in texts[1]


@pytest.mark.parametrize("growth", [float("nan"), float("inf"), -1.0, 0.0])
def test_what_is_no_growth(growth):
    with pytest.raises(UserError, match="documents can't grow .* times; give a number above 0"):
        match_growth(GPT2, "stochastok", growth, *FEW)


def test_a_growth_below_one(documents):
    ids = documents[0]
    letters = np.array([GPT2.pieces.index(bytes([byte])) for byte in GPT2.decode_bytes(ids[:400])])
    method = "patok:contract_prop=3"
    p = match_growth(GPT2, method, 0.8, letters, np.array([len(letters)])).p
    row = diversity(StochasTok(GPT2, p, method), letters, np.array([len(letters)]))
    assert row.growth == pytest.approx(0.8, abs=0.01) and p > 0 and 0.3 < row.touched < 1
    with pytest.raises(UserError, match=r"no p makes .* 0.1 times; give 0\.\d+ to"):
        match_growth(GPT2, method, 0.1, letters, np.array([len(letters)]))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("pick @@ed pick @@l @@ed pick @@les", 0.8031528501359657),
        ("pick @@e @@d pick @@l @@e @@d pick @@l @@e @@s", 0.9105681923824472),
    ],
)
def test_renyi_efficiency_is_that_of_tokenization_scorer(tokens, expected):
    """The examples of its README, which are of alpha 3: it divides by the types that occur."""
    ids = np.unique(tokens.split(), return_inverse=True)[1]
    assert renyi_efficiency(ids, alpha=3) == pytest.approx(expected, rel=1e-9)


def test_figures_of_ids_counted_by_hand():
    # Frequencies 1/2, 1/4, 1/4: at alpha 2, H = -log(1/4 + 1/16 + 1/16).
    assert renyi_efficiency(np.array([7, 7, 8, 9]), alpha=2) == pytest.approx(np.log(8 / 3) / np.log(3))
    assert renyi_efficiency(np.array([7, 7])) == 0
    assert token_entropy(np.array([7, 7, 8, 9])) == pytest.approx(1.5)
    assert token_entropy(np.array([], np.int64)) == 0
    ids = np.random.default_rng(0).integers(0, 9, 60)
    windows = [len(set(ids[i : i + 7].tolist())) / 7 for i in range(54)]
    assert mattr(ids, 7) == pytest.approx(np.mean(windows))
    assert mattr(ids) == len(set(ids.tolist())) / 60
