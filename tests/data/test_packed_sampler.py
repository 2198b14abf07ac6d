"""Questions with answers packed into windows: what counts, what is seen, and that ranks draw different examples."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochastok_cli.data.instruction_dataset import MaskedExamples
from stochastok_cli.data.packed_sampler import PackedSampler
from stochastok_cli.data.sft_dataset import SFTExamples
from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import StochasTok, origins
from stochastok_cli.tokenization.loaders import load_vocabulary

PADDING = 9999
VOCABULARY = load_vocabulary("sample2k")


def table(examples):
    """Rows and offsets of `(question ids, answer ids)` pairs, padded as on disk."""
    width = max(len(q) + len(a) for q, a in examples)
    rows = np.full((len(examples), width), PADDING, dtype=np.uint16)
    offsets = np.zeros((len(examples), 3), dtype=np.uint16)
    for i, (question, answer) in enumerate(examples):
        rows[i, : len(question) + len(answer)] = [*question, *answer]
        offsets[i] = 0, len(question), len(question) + len(answer)
    return rows, offsets


def packed(examples, context_window, **options):
    return PackedSampler(SFTExamples(*table(examples)), context_window, **{"seed": 0, "purpose": "train", **options})


def numbered(lengths):
    """Examples in which an id says the example and the place: 100 * example + place."""
    return [([100 * i + j for j in range(q)], [100 * i + q + j for j in range(a)]) for i, (q, a) in enumerate(lengths)]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=8),
    context_window=st.integers(13, 40),
    iteration=st.integers(0, 5),
)
def test_laws_of_packing(lengths, context_window, iteration):
    batch = packed(numbered(lengths), context_window).batch(iteration, np.arange(4))
    assert batch.ids.shape == (4, context_window + 1)
    assert np.isfinite(batch.token_weights).all()
    assert batch.num_loss_tokens == np.count_nonzero(batch.token_weights)
    for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
        t = 0
        counting = []
        while t < len(ids):  # whole examples end to end, without padding; the last may be cut
            example = ids[t] // 100
            question, answer = lengths[example]
            length = min(question + answer, len(ids) - t)
            assert ids[t : t + length].tolist() == [100 * example + j for j in range(length)]
            assert (segment_start[t : t + length] == t).all()  # attention is confined to the example
            counting += range(t + question, t + length)
            t += length
        expected = np.zeros(len(ids))
        expected[counting] = 1 / max(len(counting), 1)
        np.testing.assert_allclose(weights, expected[1:], rtol=1e-6)  # weight t is that of predicting id t + 1


def test_a_window_without_an_answer_counts_nothing():
    batch = packed([(list(range(12)), [])], 12).batch(0, np.arange(3))
    assert not batch.token_weights.any()
    assert batch.num_loss_tokens == 0


def test_examples_are_drawn_uniformly_and_independently_of_how_the_batch_is_divided():
    lengths = [(3, 1)] * 50
    source = packed(numbered(lengths), 40)
    whole = source.batch(2, np.arange(12))
    parts = [source.batch(2, np.arange(first, first + 3)) for first in (9, 3, 0, 6)]
    for part, first in zip(parts, (9, 3, 0, 6), strict=True):
        np.testing.assert_array_equal(part.ids, whole.ids[first : first + 3])
        np.testing.assert_array_equal(part.segment_start, whole.segment_start[first : first + 3])
    assert len({row.tobytes() for row in whole.ids}) == 12  # micro-batches, and so ranks, draw different examples
    drawn = source.batch(0, np.arange(5000)).ids[:, ::4] // 100
    counts = np.bincount(drawn.ravel(), minlength=50)
    expected = drawn.size / 50
    assert abs(((counts - expected) ** 2 / expected).sum() - 50) < 4 * np.sqrt(100)


def test_rows_that_do_not_fit_are_refused_with_what_to_set():
    with pytest.raises(UserError, match=r"longest row .* has 14 ids.* only 13; set model\.context_window to 14"):
        packed(numbered([(3, 1), (10, 4)]), 13)
    with pytest.raises(UserError, match="no rows"):
        PackedSampler(SFTExamples(np.empty((0, 0), np.uint16), np.empty((0, 3), np.uint16)), 8, seed=0, purpose="val")


def test_an_id_beyond_the_vocabulary_is_refused_when_it_is_drawn():
    windows = packed([([1, 2], [7])], 8, vocab_size=7)
    with pytest.raises(UserError, match="the train split holds the id 7, and the vocabulary ends at 6"):
        windows.batch(0, np.arange(1))


def test_merging_anew_may_shorten_an_example():
    """Single bytes, which merges make an eighth: what then does not fill a window stays as it was."""
    ids = [VOCABULARY.encode(letter)[0] for letter in "understanding"]
    expand = StochasTok(VOCABULARY, 0.0, "bpe-dropout")
    assert len(expand(ids)) < 7
    batch = packed([(ids, ids)], 100, expand=expand).batch(0, np.arange(3))
    assert batch.ids.shape == (3, 101)
    assert VOCABULARY.decode(batch.ids[0]).startswith("understanding" * 2)


def test_expansion_changes_ids_and_neither_text_nor_what_counts():
    pairs = [("Which word is the longest? Answer:", " understanding"), ("What contains 'ee'? Answer:", " between")]
    examples = [(VOCABULARY.encode(q), VOCABULARY.encode(a)) for q, a in pairs]
    expand = StochasTok(VOCABULARY, 1.0, seed=1)
    batch = packed(examples, 150, expand=expand).batch(4, np.arange(6))
    again = packed(examples, 150, expand=expand).batch(4, np.arange(3, 4))
    np.testing.assert_array_equal(batch.ids[3:4], again.ids)
    canonical = {tuple(q + a) for q, a in examples}
    for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
        starts = [*np.unique(segment_start), len(ids)]
        for start, end in itertools.pairwise(starts[:-1]):  # all but the last, which is cut
            text, num_loss_tokens = VOCABULARY.decode(ids[start:end]), ids[start:end][weights[start - 1 : end - 1] > 0]
            assert tuple(ids[start:end]) not in canonical
            if start:
                assert (
                    text.removesuffix(VOCABULARY.decode(num_loss_tokens)),
                    VOCABULARY.decode(num_loss_tokens),
                ) in pairs


@pytest.mark.parametrize("method", ["stochastok", "stochastok-uni", "uniform-k", "uniform"])
def test_answers_are_expanded_as_parts_of_their_rows(method):
    """An answer of one token is split as often as that token of a whole row is."""
    question, answer = VOCABULARY.encode("Which word is the longest? Answer:"), VOCABULARY.encode(" between")
    assert len(answer) == 1
    expand = StochasTok(VOCABULARY, 0.3, method, round_budget="randomly")
    batch = packed([(question, answer)], 4 * len(question), expand=expand).batch(0, np.arange(3000))
    split = 0
    for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
        end = np.unique(segment_start)[1]  # of the first example, which is whole in every window
        loss_ids = ids[1:end][weights[: end - 1] > 0]
        assert VOCABULARY.decode(loss_ids) == " between"
        split += len(loss_ids) > 1
    row, last = np.array(question + answer), len(question)
    alone = StochasTok(VOCABULARY, 0.3, method, seed=5, round_budget="randomly")
    rows = [alone(row, i) for i in range(4000)]
    expected = np.mean([(origins(VOCABULARY, row, expanded) == last).sum() > 1 for expanded in rows])
    assert 0.02 < expected < 0.6
    deviation = np.sqrt(expected * (1 - expected) * (1 / len(batch.ids) + 1 / len(rows)))
    assert abs(split / len(batch.ids) - expected) < 4 * deviation


def masked(examples, context_window, **options):
    """A sampler of examples that are lists of `(ids, has a loss)` parts."""
    flat = [[(i, loss) for ids, loss in parts for i in ids] for parts in examples]
    ids, losses = np.array([pair for example in flat for pair in example], dtype=np.int64).reshape(-1, 2).T
    ends = np.cumsum([len(example) for example in flat])
    source = MaskedExamples(ids.astype(np.uint16), losses.astype(np.uint8), ends)
    return PackedSampler(source, context_window, **{"seed": 0, "purpose": "train", **options})


@given(
    parts=st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=6
    ),
    context_window=st.integers(20, 50),
    first=st.integers(0, 3),
)
def test_laws_of_packing_examples_with_several_turns(parts, context_window, first):
    examples, losses = [], []
    for i, lengths in enumerate(parts):
        ends = np.cumsum([n for n, _ in lengths]).tolist()
        examples.append([([100 * i + j for j in range(e - n, e)], x) for (n, x), e in zip(lengths, ends, strict=True)])
        losses.append([loss for n, loss in lengths for _ in range(n)])
    source = masked(examples, context_window)
    batch = source.batch(3, np.arange(4))
    np.testing.assert_array_equal(source.batch(3, np.arange(first, 4)).ids, batch.ids[first:])
    for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
        t, counting = 0, []
        while t < len(ids):
            example = ids[t] // 100
            length = min(len(losses[example]), len(ids) - t)
            assert ids[t : t + length].tolist() == [100 * example + j for j in range(length)]
            assert (segment_start[t : t + length] == t).all()
            counting += [t + j for j in range(1, length) if losses[example][j]]
            t += length
        expected = np.zeros(len(ids))
        expected[counting] = 1 / max(len(counting), 1)
        np.testing.assert_allclose(weights, expected[1:], rtol=1e-6)


TEXT = "Which word is the longest between understanding and something? "
TURNS = [
    (TEXT, False),
    (" understanding between", True),
    (" then something else", False),
    (" another understanding", True),
]
METHODS = [("stochastok", 0.5), ("stochastok-uni", 0.5), ("uniform-k", 0.5), ("uniform", 0.5), ("bpe-dropout", 0.5)]
METHODS.insert(4, ("grampa:temperature=3", 0.5))
METHODS += [("character", None), ("patok:prefixes=un,contract_prop=2", 0.5)]


def turns_of(ids, in_loss):
    """The runs of ids of an example with and without a loss."""
    return [
        (part, bool(loss[0]))
        for part, loss in zip(*(np.split(x, np.flatnonzero(np.diff(in_loss)) + 1) for x in (ids, in_loss)), strict=True)
    ]


@pytest.mark.parametrize("where", ["all", "prompt", "completion"])
@pytest.mark.parametrize(("method", "p"), METHODS)
def test_only_some_parts_are_expanded_and_losses_follow(method, p, where):
    canonical = [(VOCABULARY.encode(text), loss) for text, loss in TURNS]
    end = [VOCABULARY.end_of_text]
    expand = StochasTok(VOCABULARY, p, method, seed=2, round_budget="randomly")
    source = masked([[(end, False), *canonical]], 200, expand=expand, expand_where=where)
    batch = source.batch(1, np.arange(8))
    again = source.batch(1, np.arange(5, 6))
    np.testing.assert_array_equal(batch.ids[5:6], again.ids)
    changed = set()
    for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
        first, stop = 0, np.unique(segment_start)[1]  # the first example, which is whole
        assert ids[first] == VOCABULARY.end_of_text  # special tokens are never split
        in_loss = np.concatenate([[False], weights > 0])[first + 1 : stop]
        turns = turns_of(ids[first + 1 : stop], in_loss)
        assert [(VOCABULARY.decode(part), loss) for part, loss in turns] == TURNS
        for (part, loss), (before, _) in zip(turns, canonical, strict=True):
            if part.tolist() != before:
                changed.add(loss)
    assert changed == {"all": {False, True}, "prompt": {False}, "completion": {True}}[where]


@pytest.mark.parametrize(("method", "p"), METHODS)
def test_every_example_of_a_window_has_a_loss_on_the_text_that_has_one_without_expansion(method, p):
    """Examples that end with a loss, one after another: the next prompt has none."""
    conversations = [TURNS[:2], TURNS, [(" between", False), (" something understanding", True)]]
    examples = [[(VOCABULARY.encode(text), loss) for text, loss in turns] for turns in conversations]
    expand = StochasTok(VOCABULARY, p, method, seed=2, round_budget="randomly")
    batch = masked(examples, 400, expand=expand).batch(0, np.arange(6))
    for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
        starts = np.unique(segment_start)
        assert len(starts) > 3
        in_loss = np.concatenate([[False], weights > 0])
        for start, end in itertools.pairwise(starts):  # all but the last, which is cut
            turns = turns_of(ids[start:end], in_loss[start:end])
            assert [(VOCABULARY.decode(part), loss) for part, loss in turns] in conversations


@pytest.mark.parametrize(("method", "p"), [("stochastok", 0.5), ("bpe-dropout", 0.2)])  # whole examples, and in parts
def test_no_two_examples_are_expanded_by_the_same_random_numbers(method, p):
    """Neither in one window, nor in the next one, nor in the next iteration; a part of one is no other part again."""
    text = VOCABULARY.encode(2 * TEXT)
    expand = StochasTok(VOCABULARY, p, method, round_budget="randomly")
    source = masked([[(text, False), (text, True), (text, False), (text, True)]], 1000, expand=expand)
    parts = []
    for iteration in range(2):
        batch = source.batch(iteration, np.arange(4))
        for ids, segment_start, weights in zip(batch.ids, batch.segment_start, batch.token_weights, strict=True):
            in_loss = np.concatenate([[False], weights > 0])
            for start, end in itertools.pairwise(np.unique(segment_start)):
                parts += [part.tobytes() for part, _ in turns_of(ids[start:end], in_loss[start:end])]
    assert len(set(parts)) == len(parts) > 100


def test_examples_that_become_too_short_for_their_window_come_again():
    """Examples of one length, of which as many are drawn as fill the window without an expansion."""
    letters = [VOCABULARY.pieces.index(bytes([byte])) for byte in b" understanding between something"]
    expand = StochasTok(VOCABULARY, 0, "patok:contract_prop=9")
    source = masked([[(letters[:13], False), (letters[13:], True)]], 100, expand=expand)
    batch = source.batch(0, np.arange(6))
    assert all(len(np.unique(starts)) > 4 for starts in batch.segment_start)
    for ids, starts in zip(batch.ids, batch.segment_start, strict=True):
        ends = [*np.unique(starts)[1:]]
        texts = [VOCABULARY.decode(part) for part in np.split(ids, ends)[:-1]]
        assert set(texts) == {" understanding between something"}
        assert max(np.diff([0, *ends])) < len(letters)


@pytest.mark.parametrize(("method", "p"), METHODS[:5])
def test_p_is_a_proportion_of_the_tokens_that_may_be_expanded(method, p):
    """The completion of an example is expanded as it would be alone."""
    prompt, completion = VOCABULARY.encode(TEXT), VOCABULARY.encode(" understanding between something")
    expand = StochasTok(VOCABULARY, p, method, round_budget="randomly")
    source = masked([[(prompt, False), (completion, True)]], 3 * len(prompt), expand=expand, expand_where="completion")
    batch = source.batch(0, np.arange(1500))
    lengths = [
        (w[: np.unique(s)[1] - 1] > 0).sum() for w, s in zip(batch.token_weights, batch.segment_start, strict=True)
    ]
    alone = StochasTok(VOCABULARY, p, method, seed=5, round_budget="randomly")
    expected = [len(alone(np.array(completion), i)) for i in range(3000)]
    assert np.mean(expected) > len(completion) + 0.2
    deviation = np.sqrt(np.var(lengths) / len(lengths) + np.var(expected) / len(expected))
    assert abs(np.mean(lengths) - np.mean(expected)) <= 4 * deviation


@pytest.mark.parametrize("method", ["stochastok", "bpe-dropout"])
def test_examples_of_a_schedule_are_those_of_the_p_of_their_iteration(method):
    example = [(VOCABULARY.encode(text), loss) for text, loss in TURNS]
    made = {p: StochasTok(VOCABULARY, p, method, round_budget="randomly") for p in (0.8, 0.4)}
    scheduled = masked([example], 200, expand=made[0.8], p_schedule=lambda iteration: 0.8 / (1 + iteration))
    for iteration, p in enumerate(made):
        batch = scheduled.batch(iteration, np.arange(4))
        constant = masked([example], 200, expand=made[p]).batch(iteration, np.arange(4))
        np.testing.assert_array_equal(batch.ids, constant.ids)
        np.testing.assert_array_equal(batch.token_weights, constant.token_weights)
        np.testing.assert_array_equal(batch.ids[2:], scheduled.batch(iteration, np.arange(2, 4)).ids)


def test_examples_that_do_not_fit_name_the_option():
    with pytest.raises(
        UserError, match=r"longest example .* has 9 ids.* only 8; set .* to 9 or more, or make .*--max-l"
    ):
        masked([[([1] * 9, True)]], 8)
