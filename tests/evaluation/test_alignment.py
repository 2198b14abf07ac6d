"""Activations against hooks in the network, and distances against their definition."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.data.word_list import WordList, read_words
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.activations import last_activations
from stochastok_cli.evaluation.evaluators.alignment import (
    Alignment,
    complete,
    evaluate_alignment,
    prompt_tokenizations,
    tokenize_words,
)
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.run import load_evaluators, run_evaluators
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.progress import no_progress
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.chat_tokenizers import save_tokenizer_with_bos
from tests.models.small_models import sharp_model, small_config

UNIFORM = Tokenization("uniform", 1.0, 4)


@pytest.fixture(scope="module")
def cut(vocabulary):
    return tokenize_words(read_words(), vocabulary, UNIFORM, 12, 48)


def test_words_and_their_tokenizations(cut, vocabulary):
    assert len(set(cut.words)) == 12
    for word, (canonical, *others) in zip(cut.words, cut.tokenizations, strict=True):
        assert canonical == [vocabulary.end_of_text, *vocabulary.encode(f" {word}")]
        assert others and len({tuple(ids) for ids in (canonical, *others)}) == 1 + len(others)
        assert all(vocabulary.decode(ids[1:]) == f" {word}" for ids in others)
    assert tokenize_words(read_words(), vocabulary, UNIFORM, 5, 48).words == cut.words[:5]


def test_words_that_can_not_be_cut(vocabulary):
    with pytest.raises(UserError, match=r"uniform:0.0 cuts none of the 1 words in another way; give a larger p"):
        tokenize_words(WordList(["river"], "x"), vocabulary, Tokenization("uniform", 0.0, 3), None, 48)
    with pytest.raises(UserError, match=r"digits:right3 cuts none of the 1 words in another way; take another method"):
        tokenize_words(WordList(["river"], "x"), vocabulary, Tokenization("digits:right3", None, 3), None, 48)
    reason = "the tokenizer 'sample2k' has no smaller tokens for any of them"
    with pytest.raises(UserError, match=f"uniform:1.0 cuts none of the 1 words in another way: {reason}"):
        tokenize_words(WordList(["Ω"], "x"), vocabulary, Tokenization("uniform", 1.0, 3), None, 48)


@pytest.mark.parametrize("batch_tokens", [1, 16384])
def test_activations_are_what_the_feed_forwards_read(model, vocabulary, cut, batch_tokens):
    sequences = [ids for ways in cut.tokenizations for ids in ways]
    output = last_activations(LM(model, vocabulary, batch_tokens), sequences)
    for sequence, states in zip(sequences, output, strict=True):
        seen: list[torch.Tensor] = []

        def keep(_, inputs, seen=seen):
            seen.append(inputs[0][0, -1])

        hooks = [layer.ffn_norm.register_forward_pre_hook(keep) for layer in model.layers]
        with torch.no_grad():
            model(torch.tensor([sequence]))
        for hook in hooks:
            hook.remove()
        np.testing.assert_allclose(states, torch.stack(seen).numpy(), atol=1e-4)


def alignment(model, vocabulary, cut, name):
    return evaluate_alignment(LM(model, vocabulary), cut, name)


def mean_distance(points) -> float:
    return np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)])


def test_distances_by_definition(model, vocabulary, cut):
    output = alignment(model, vocabulary, cut, "uniform1.0")
    curves = {curve.key: curve.points for curve in output.curves}
    states = last_activations(LM(model, vocabulary), [ids for ways in cut.tokenizations for ids in ways])
    by_word = np.split(states, np.cumsum([len(ways) for ways in cut.tokenizations])[:-1])
    for layer in range(3):
        inside = np.mean([mean_distance(word[:, layer]) for word in by_word])
        between = mean_distance([word[0, layer] for word in by_word])
        name = f"alignment/uniform1.0/layer_{layer + 1}"
        assert output.values[f"{name}/distance"] == pytest.approx(inside, rel=1e-4)
        assert output.values[f"{name}/relative"] == pytest.approx(inside / between, rel=1e-4)
    assert [point["x"] for point in curves["alignment/uniform1.0"]] == [1, 2, 3]
    assert [point["word"] for point in curves["alignment/uniform1.0/pca"]] == [
        word for word, ways in zip(cut.words, cut.tokenizations, strict=True) for _ in ways
    ]


def test_as_an_evaluator_of_training(tmp_path, vocabulary):
    model = sharp_model(small_config(), dropout=0.5).train()
    evaluators = load_evaluators([EvaluatorConfig("alignment", 6)], tmp_path, vocabulary, 48)
    lm = LM(model, vocabulary)
    metrics = run_evaluators(lm, evaluators).values
    assert metrics == run_evaluators(lm, evaluators).values and model.training
    assert [evaluator.sample_counts for evaluator in evaluators] == [{"alignment/uniform1.0": 6}]
    assert set(metrics) == {f"alignment/uniform1.0/layer_{i}/{m}" for i in (1, 2, 3) for m in ("distance", "relative")}


def test_words_of_a_file_that_holds_none(vocabulary):
    with pytest.raises(UserError, match="words.txt holds no words; one word a line"):
        tokenize_words(WordList([], "words.txt"), vocabulary, UNIFORM, None, 48)


def test_of_a_single_word_no_distance_is_relative_to_others(vocabulary):
    cut = tokenize_words(WordList(["wonderful"], "x"), vocabulary, UNIFORM, None, 48)
    output = alignment(sharp_model(small_config()), vocabulary, cut, "x")
    assert output.values["alignment/x/layer_1/distance"] > 0
    assert not any(name.endswith("relative") for name in output.values)


def test_a_model_that_gives_no_numbers(vocabulary, cut):
    model = sharp_model(small_config())
    with torch.no_grad():
        model.embedding.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="no number"):
        alignment(model, vocabulary, cut, "x")


def test_completions_of_a_prompt_in_several_tokenizations(model, vocabulary):
    first, *others = complete(LM(model, vocabulary), "The old house", UNIFORM)
    ids = vocabulary.encode("The old house")
    assert first["tokens"] == [vocabulary.decode([i]) for i in ids]
    [answer] = LM(model, vocabulary).generate_greedy([ids], 24, lambda new: new[-1] == vocabulary.end_of_text)
    assert first["completion"] == vocabulary.decode([i for i in answer if i != vocabulary.end_of_text])
    assert others and all("".join(one["tokens"]) == "The old house" for one in others)
    with pytest.raises(UserError, match="--prompt is empty"):
        complete(LM(model, vocabulary), "", UNIFORM)


def test_a_prompt_that_does_not_fit_is_refused_when_it_is_loaded(vocabulary, tmp_path):
    evaluator = Alignment(prompt="The old house", num_samples=3)
    longest = max(len(ids) for _, ids in prompt_tokenizations("The old house", vocabulary, UNIFORM))
    assert evaluator.load(vocabulary, longest, tmp_path, no_progress)
    with pytest.raises(UserError, match=f"--prompt has {longest} tokens in one .* window is {longest - 1}; give a sh"):
        evaluator.load(vocabulary, longest - 1, tmp_path, no_progress)


def test_what_a_tokenizer_puts_before_texts_begins_words_and_prompts(vocabulary, tmp_path):
    bos = save_tokenizer_with_bos(tmp_path)
    with_bos = load_vocabulary(tmp_path)
    [tokenizations] = tokenize_words(WordList(["wonderful"], "x"), with_bos, UNIFORM, None, 48).tokenizations
    assert {ids[0] for ids in tokenizations} == {bos} and bos != with_bos.end_of_text
    assert all(with_bos.decode(ids[1:]) == " wonderful" for ids in tokenizations)
    shortest = min(map(len, tokenizations))
    [fitting] = tokenize_words(WordList(["wonderful"], "x"), with_bos, UNIFORM, None, shortest + 3).tokenizations
    assert fitting == [ids for ids in tokenizations if len(ids) <= shortest + 3]
    prompts = prompt_tokenizations("The old house", with_bos, UNIFORM)
    assert len(prompts) > 1 and all(before == [bos] for before, _ in prompts)
    model = sharp_model(small_config(vocab_size=with_bos.size))
    lm = LM(model, with_bos)
    first = complete(lm, "The old house", UNIFORM)[0]
    assert "".join(first["tokens"]) == "The old house"
    [answer] = lm.generate_greedy(
        [[bos, *with_bos.encode("The old house")]], 24, lambda new: new[-1] == with_bos.end_of_text
    )
    assert first["completion"] == with_bos.decode([i for i in answer if i != with_bos.end_of_text])
    assert lm.generate_greedy([with_bos.encode("The old house")], 24, lambda _: False) != [answer]


def test_distances_are_no_right_or_wrong_answers(model, vocabulary, cut):
    metrics = alignment(model, vocabulary, cut, "uniform1.0").metrics
    assert {metric.outcome_range for metric in metrics} == {None}
    equal = dataclasses.replace(metrics[0], outcomes=np.ones(12))
    assert equal.interval is None  # a bootstrap would claim certainty
