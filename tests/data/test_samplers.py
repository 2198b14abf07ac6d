"""Windows of a corpus: uniform, independent of the ranks, expanded afresh."""

import numpy as np
import pytest

from stochastok_cli.data.samplers import WindowSampler
from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import splitmix64, uniform_integers
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary

IDS = np.arange(1000, dtype=np.uint16)  # so that an id is its position
VOCABULARY = load_vocabulary("sample2k")


def windows(ids=IDS, context_window=16, **options):
    return WindowSampler(ids, context_window, **{"seed": 0, "purpose": "train", **options})


def test_a_window_is_a_stretch_of_the_corpus():
    batch = windows().batch(3, np.arange(50))
    assert batch.ids.shape == (50, 17)
    assert batch.ids.dtype == np.int64
    assert (np.diff(batch.ids, axis=1) == 1).all()
    assert batch.segment_start is None
    assert batch.token_weights.shape == (50, 16)
    np.testing.assert_allclose(batch.token_weights.sum(axis=1), 1, rtol=1e-6)
    assert batch.num_loss_tokens == 800


def test_a_window_depends_on_seed_purpose_iteration_and_index_and_on_nothing_else():
    whole = windows().batch(7, np.arange(24)).ids
    apart = [
        windows().batch(7, np.arange(first, first + 4)).ids for first in (20, 16, 12, 8, 4, 0)
    ]  # any order, any micro-batches
    np.testing.assert_array_equal(whole, np.concatenate(apart[::-1]))
    for other in (
        windows().batch(8, np.arange(24)),
        windows(seed=1).batch(7, np.arange(24)),
        windows(purpose="val").batch(7, np.arange(24)),
    ):
        assert (other.ids[:, 0] == whole[:, 0]).mean() < 0.2
    assert len(set(whole[:, 0])) > 20  # the windows of a batch differ


def test_starts_are_uniform_over_all_positions():
    num_starts = 1000 - 16
    starts = windows().batch(0, np.arange(100 * num_starts)).ids[:, 0]
    counts = np.bincount(starts, minlength=num_starts)
    assert len(counts) == num_starts  # the last window that fits can be drawn, and none beyond
    chi_square = ((counts - 100) ** 2 / 100).sum()
    assert abs(chi_square - num_starts) < 4 * np.sqrt(2 * num_starts)


def test_a_corpus_of_exactly_one_window_has_one_and_a_shorter_one_is_refused():
    assert (windows(IDS[:17]).batch(0, np.arange(5)).ids == IDS[:17]).all()
    with pytest.raises(UserError, match=r"16 tokens, and one window takes 17; .*model\.context_window"):
        windows(IDS[:16])


def test_a_corpus_that_is_longer_by_one_id_has_two_windows():
    first, second = IDS[:17].tolist(), IDS[1:18].tolist()
    drawn = {tuple(row) for row in windows(IDS[:18]).batch(0, np.arange(64)).ids.tolist()}
    assert drawn == {tuple(first), tuple(second)}


def test_windows_are_expanded_afresh_each_time_and_reproducibly():
    text = np.array(VOCABULARY.encode("The quick brown fox jumps over the lazy dog. " * 60), dtype=np.uint16)
    expand = StochasTok(VOCABULARY, 0.5, seed=1)
    plain, expanded = windows(text, 64), windows(text, 64, expand=expand)
    once = expanded.batch(5, np.arange(2, 8))
    np.testing.assert_array_equal(once.ids, np.concatenate([expanded.batch(5, np.array([i])).ids for i in range(2, 8)]))
    canonical = plain.batch(5, np.arange(2, 8)).ids
    assert once.ids.shape == canonical.shape
    for row, original in zip(once.ids, canonical, strict=True):
        spelled = VOCABULARY.decode_bytes(row)
        assert VOCABULARY.decode_bytes(original).startswith(spelled)  # the same text, cut earlier
        assert len(spelled) < len(VOCABULARY.decode_bytes(original))
    one_place = windows(text[:65], 64, expand=expand)  # the same stretch every time, another expansion each time
    seen = {one_place.batch(i, np.arange(4)).ids[j].tobytes() for i in range(5) for j in range(4)}
    assert len(seen) == 20


def test_no_two_windows_are_expanded_by_the_same_random_numbers():
    """Neither in one iteration, however many windows it has, nor in the next ones."""
    text = np.array(VOCABULARY.encode("The quick brown fox jumps over the lazy dog. " * 60)[:65], dtype=np.uint16)
    one_place = windows(text, 64, expand=StochasTok(VOCABULARY, 0.5))
    index = np.array([0, 1, 2, 2**8, 2**16, 2**24, 2**31, 2**32 - 2, 2**32 - 1])
    expanded = np.concatenate([one_place.batch(iteration, index).ids for iteration in (0, 1, 2, 2**8, 2**16)])
    assert len(np.unique(expanded, axis=0)) == len(expanded)


def test_merging_anew_may_shorten_a_window_which_then_takes_more_of_the_corpus():
    text = "The quick brown fox jumps over the lazy dog. " * 60
    ids = StochasTok(VOCABULARY, 1.0, seed=1)(VOCABULARY.encode(text))  # many more than canonical
    drawn = windows(ids, 64, expand=StochasTok(VOCABULARY, 0.01, "bpe-dropout"))
    for iteration in range(20):
        batch = drawn.batch(iteration, np.arange(2, 8))
        assert batch.ids.shape == (6, 65)
        alone = [drawn.batch(iteration, np.array([i])).ids for i in range(2, 8)]
        np.testing.assert_array_equal(batch.ids, np.concatenate(alone))
        assert all(VOCABULARY.decode(row) in text for row in batch.ids)
    assert windows(ids[:90], 64).batch(0, np.arange(1)).ids.shape == (1, 65)
    with pytest.raises(UserError, match=r"shorter than one window of 65 tokens; lower model\.context_window"):
        windows(ids[:70], 64, expand=StochasTok(VOCABULARY, 0, "bpe-dropout")).batch(0, np.arange(1))


def test_the_vectorised_mix_is_the_scalar_one():
    counters = np.array([0, 1, 2**40])
    bound = 2**62  # keeps nearly all bits
    from stochastok_cli.random_streams import derive_key

    expected = [splitmix64((derive_key(3, "x", 9) + splitmix64(int(c))) % 2**64) % bound for c in counters]
    assert uniform_integers(3, "x", 9, counters=counters, bound=bound).tolist() == expected


def test_any_windows_can_be_drawn_together():
    """A rank's windows of an iteration are interleaved with those of other ranks."""
    expand = StochasTok(VOCABULARY, 0.5)
    ids = np.tile(np.array(VOCABULARY.encode("the quick brown fox jumps over the lazy dog")), 40).astype(np.uint16)
    for drawn in (windows(ids), windows(ids, expand=expand)):
        index = np.array([4, 5, 6, 10, 11, 3, 2**33])
        together = drawn.batch(5, index).ids
        apart = [drawn.batch(5, index[i : i + 1]).ids for i in range(len(index))]
        np.testing.assert_array_equal(together, np.concatenate(apart))


def test_an_id_outside_the_vocabulary_is_refused():
    windows = WindowSampler(np.full(100, 7, np.uint16), 8, seed=0, purpose="train", vocab_size=7)
    with pytest.raises(UserError, match="holds the id 7"):
        windows.batch(0, np.arange(2))


@pytest.mark.parametrize("method", ["stochastok", "uniform", "bpe-dropout"])
def test_windows_of_a_schedule_are_those_of_the_p_of_their_iteration_on_any_rank(method):
    ids = np.array(VOCABULARY.encode("An unbelievable sentence of several understandable words. " * 40), np.uint16)
    expand = StochasTok(VOCABULARY, 0.8, method, round_budget="randomly")
    scheduled = windows(ids, expand=expand, p_schedule=lambda iteration: 0.8 - iteration / 10)
    for iteration, p in ((0, 0.8), (4, 0.4), (8, 0.0)):
        whole = scheduled.batch(iteration, np.arange(8)).ids
        constant = windows(ids, expand=StochasTok(VOCABULARY, p, method, round_budget="randomly"))
        np.testing.assert_array_equal(whole, constant.batch(iteration, np.arange(8)).ids)
        np.testing.assert_array_equal(whole[5:], scheduled.batch(iteration, np.arange(5, 8)).ids)
    assert expand.p == 0.8
