"""Log-likelihoods against the definition, and batches that change nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation import likelihood
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.models.small_models import sharp_model, small_config


def log_likelihoods(model: Llama, pairs, batch_tokens: int = 16384, **more) -> np.ndarray:
    return LM(model, load_vocabulary("sample2k"), batch_tokens).log_likelihoods(pairs, **more)


def by_definition(model: Llama, context: list[int], continuation: list[int]) -> float:
    """One id at a time: the log-softmax of the logits after everything before it."""
    total = 0.0
    with torch.no_grad():
        for i, target in enumerate(continuation):
            ids = torch.tensor([context + continuation[:i]])
            total += F.log_softmax(model.logits(model(ids))[0, -1].double(), dim=-1)[target].item()
    return total


@pytest.fixture(scope="module")
def pairs() -> list[tuple[list[int], list[int]]]:
    """Lengths of every kind, to the whole window of 48: one id of context, one id of continuation, both long."""
    random = np.random.default_rng(0)
    lengths = [(1, 1), (1, 48), (48, 1), (24, 25), (5, 3), (17, 2), (2, 30), (5, 3), (9, 9)]
    return [(random.integers(2048, size=a).tolist(), random.integers(2048, size=b).tolist()) for a, b in lengths]


def test_out_of_memory_says_what_to_lower(model, vocabulary, monkeypatch):
    def too_much(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(type(model), "forward", too_much)
    lm = LM(model, vocabulary, batch_tokens=3000)
    for use in (lambda: lm.log_likelihoods([([1], [2])]), lambda: lm.generate_greedy([[1]], 2, lambda ids: False)):
        with pytest.raises(UserError, match="memory does not suffice for batches of 3,000 tokens; .* --batch-tokens"):
            use()


def test_scores_equal_the_definition(model, pairs):
    expected = [by_definition(model, *pair) for pair in pairs]
    np.testing.assert_allclose(log_likelihoods(model, pairs), expected, atol=2e-4)


@pytest.mark.parametrize("batch_tokens", [1, 60, 200, 16384])
def test_a_batch_of_mixed_lengths_equals_one_at_a_time(model, pairs, batch_tokens):
    alone = [log_likelihoods(model, [pair])[0] for pair in pairs]
    np.testing.assert_allclose(log_likelihoods(model, pairs, batch_tokens), alone, atol=1e-4)


def test_batches_keep_their_budget_and_take_the_longest_first(model, pairs, monkeypatch):
    shapes = []
    forward = Llama.forward

    def recorded(self, ids):
        shapes.append(tuple(ids.shape))
        return forward(self, ids)

    monkeypatch.setattr(Llama, "forward", recorded)
    log_likelihoods(model, pairs, 100)
    assert all(rows * width <= 100 for rows, width in shapes)
    assert [width for _, width in shapes] == sorted((width for _, width in shapes), reverse=True)
    assert sum(rows for rows, _ in shapes) == len(pairs)


def test_only_the_positions_of_continuations_go_through_the_head(model, pairs, monkeypatch):
    rows = []
    head = likelihood.target_log_likelihoods

    def recorded(model, hidden, index, targets):
        rows.append(len(hidden))
        return head(model, hidden, index, targets)

    monkeypatch.setattr(likelihood, "target_log_likelihoods", recorded)
    log_likelihoods(model, pairs)
    assert sum(rows) == sum(len(continuation) for _, continuation in pairs)


def test_dropout_is_off_and_the_mode_is_given_back(pairs):
    model = sharp_model(small_config(), dropout=0.5).train()
    first, again = log_likelihoods(model, pairs), log_likelihoods(model, pairs)
    np.testing.assert_array_equal(first, again)
    assert model.training
    log_likelihoods(model.eval(), pairs)
    assert not model.training


def test_training_goes_on_after_scoring(pairs):
    model = sharp_model(small_config())
    log_likelihoods(model, pairs)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_that_gives_no_numbers_is_an_error(pairs):
    model = sharp_model(small_config())
    with torch.no_grad():
        model.layers[0].ffn.down.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=rf"no number for {len(pairs)} of {len(pairs)} sequences \(arc\)") as caught:
        log_likelihoods(model, pairs, description="arc")
    assert caught.value.exit_code == FAILED
