"""Scores of options after one shared beginning against the same pairs one at a time."""

import numpy as np
import pytest
import torch

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.shared_prefix import FEW_TOKENS, PADDING, batches
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.evaluation.test_scoring import log_likelihoods
from tests.models.small_models import sharp_model, small_config

FEW = FEW_TOKENS["cpu"]


def question_log_likelihoods(model: Llama, pairs, num_options, batch_tokens: int = 16384, **more) -> np.ndarray:
    return LM(model, load_vocabulary("sample2k"), batch_tokens).question_log_likelihoods(pairs, num_options, **more)


def random_questions(
    random: np.random.Generator, questions: int
) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
    """Pairs of questions of all kinds for a window of 48: long and short prefixes, options of one id and of many,
    options that begin alike, that are equal, and one that is the beginning of another."""
    pairs, num_options = [], []
    for _ in range(questions):
        longest = int(random.integers(1, 30))
        context = random.integers(2048, size=int(random.integers(1, 50 - longest))).tolist()
        alike = random.integers(2048, size=int(random.integers(0, longest))).tolist()
        count = int(random.integers(2, 6))
        options = [
            alike + random.integers(2048, size=int(random.integers(1, longest - len(alike) + 1))).tolist()
            for _ in range(count)
        ]
        if random.random() < 0.3:
            options.append(options[0])
        if len(options[0]) > 1:
            options.append(options[0][:-1])
        pairs += [(context, option) for option in options]
        num_options.append(len(options))
    return pairs, num_options


@pytest.mark.parametrize("batch_tokens", [1, 100, 700, 16384])
def test_scores_equal_those_of_single_sequences(model, batch_tokens):
    pairs, num_options = random_questions(np.random.default_rng(batch_tokens), 60)
    alone = np.concatenate([log_likelihoods(model, [pair]) for pair in pairs])
    np.testing.assert_allclose(
        question_log_likelihoods(model, pairs, num_options, batch_tokens), alone, atol=2e-4, rtol=1e-6
    )


def test_sequences_that_fill_the_window(model):
    random = np.random.default_rng(1)
    lengths = [(1, 48), (48, 1), (20, 29), (47, 2), (30, 3), (1, 1)]
    pairs = [
        (context, random.integers(2048, size=b).tolist())
        for context, b in [(random.integers(2048, size=a).tolist(), b) for a, b in lengths]
        for _ in range(2)
    ]
    np.testing.assert_allclose(
        question_log_likelihoods(model, pairs, [2] * 6), log_likelihoods(model, pairs), atol=2e-4, rtol=1e-6
    )


def shapes_read(model, monkeypatch, pairs, num_options, batch_tokens=16384) -> list[tuple[int, int]]:
    shapes = []
    forward = Llama.forward

    def recorded(self, ids, segment_start=None, cache=None):
        shapes.append(tuple(ids.shape))
        return forward(self, ids, segment_start, cache)

    monkeypatch.setattr(Llama, "forward", recorded)
    question_log_likelihoods(model, pairs, num_options, batch_tokens)
    return shapes


def test_a_prefix_is_read_once_and_an_option_of_one_id_not_at_all(model, monkeypatch):
    context = list(range(20))
    pairs = [(context, [5]), (context, [6, 7]), (context, [8, 9, 10])]
    assert shapes_read(model, monkeypatch, pairs, [3]) == [(1, 20), (2, 2)]


def test_the_common_beginning_of_sentences_without_a_prefix_is_read_once(model, monkeypatch):
    pairs = [([0], [*range(1, 9), 20, 21]), ([0], [*range(1, 9), 30, 31])]
    assert shapes_read(model, monkeypatch, pairs, [2]) == [(1, 9), (2, 1)]


def test_there_is_little_padding():
    lengths = np.random.default_rng(0).lognormal(4, 0.5, 3000).astype(int) + 1
    padded = read = 0
    for batch in batches(lengths, np.zeros_like(lengths), 10_000, 16384, FEW):
        width = lengths[batch].max()
        assert len(batch) * width <= 16384
        read += lengths[batch].sum()
        padded += len(batch) * width
    assert read == lengths.sum()
    assert padded < (1 + PADDING) * read
    assert len(list(batches(np.arange(1, 10), np.zeros(9, int), 100, 16384, FEW))) == 1  # filled up
    assert FEW > 81


def test_dropout_is_off_and_the_mode_is_given_back():
    model = sharp_model(small_config(), dropout=0.5).train()
    pairs, num_options = random_questions(np.random.default_rng(3), 5)
    first, again = (question_log_likelihoods(model, pairs, num_options) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert model.training
    model(torch.tensor([[1, 2, 3]])).sum().backward()  # nothing of inference mode is left


def test_a_model_that_gives_no_numbers_is_an_error():
    model = sharp_model(small_config())
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"no number for 2 of 2 sequences \(arc\)") as caught:
        question_log_likelihoods(model, [([1], [2]), ([1], [3, 4])], [2], description="arc")
    assert caught.value.exit_code == FAILED
