import pytest
import torch

from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.models.small_models import random_ids, sharp_model, small_config

WINDOW = 48


def greedy(model, *arguments, batch_tokens=16384):
    return LM(model, load_vocabulary("sample2k"), batch_tokens).generate_greedy(*arguments)


def never(new_ids):
    return False


def argmax_decoding(model, prompt, steps):
    """One id after the other from the whole sequence, without a cache."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def prompts():
    """Several of each length, not in the order of their lengths."""
    return [random_ids(n, seed=i).tolist() for i, n in enumerate([9, 4, 9, 1, 4, 9, 20])]


def test_cached_decoding_equals_uncached(model, prompts):
    assert greedy(model, prompts, 12, never) == [argmax_decoding(model, prompt, 12) for prompt in prompts]


@pytest.mark.parametrize("batch_tokens", [1, 40, 60])
def test_the_batch_changes_nothing(model, prompts, batch_tokens):
    assert greedy(model, prompts, 8, never, batch_tokens=batch_tokens) == greedy(model, prompts, 8, never)


def test_each_sequence_stops_on_its_own(model, prompts):
    whole = greedy(model, prompts, 12, never)
    length_of = {tuple(answer): i % 4 + 1 for i, answer in enumerate(whole)}

    def stop(new_ids):
        return any(list(answer[: len(new_ids)]) == new_ids and len(new_ids) >= n for answer, n in length_of.items())

    stopped = greedy(model, prompts, 12, stop)
    assert len({len(answer) for answer in stopped}) > 1
    for answer, complete in zip(stopped, whole, strict=True):
        assert answer == complete[: len(answer)]
        assert stop(answer)
        assert not any(stop(answer[:n]) for n in range(1, len(answer)))


def test_ends_with_the_context_window(model):
    prompt = random_ids(WINDOW - 3).tolist()
    assert greedy(model, [prompt], 10, never) == [argmax_decoding(model, prompt, 4)]


def test_of_a_longer_prompt_the_last_ids_are_kept(model):
    prompt = random_ids(WINDOW + 30).tolist()
    assert greedy(model, [prompt], 10, never) == greedy(model, [prompt[-(WINDOW - 10) :]], 10, never)
    assert greedy(model, [prompt], 2 * WINDOW, never) == greedy(model, [prompt[-1:]], 2 * WINDOW, never)


def test_nothing_to_do(model):
    assert greedy(model, [], 5, never) == []
    assert greedy(model, [[1, 2]], 0, never) == [[]]


def test_dropout_is_off_and_the_mode_is_kept(prompts):
    model = sharp_model(small_config(), dropout=0.5).train()
    answers = greedy(model, prompts, 6, never)
    assert model.training
    assert answers == greedy(model.eval(), prompts, 6, never)
    assert not model.training
