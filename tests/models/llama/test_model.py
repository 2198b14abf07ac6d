import dataclasses
import itertools
import math

import pytest
import torch

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.llama.model import Llama
from tests.models.small_models import random_ids, sharp_model, small_config


def test_shipped_configuration_has_the_number_of_parameters_of_the_paper():
    with torch.device("meta"):
        assert Llama(ModelConfig()).num_parameters() == 47_203_328


def test_untied_model_has_one_more_matrix():
    with torch.device("meta"):
        untied = Llama(dataclasses.replace(ModelConfig(), embedding_weight_tying=False))
    assert untied.num_parameters() == 47_203_328 + 50257 * 512


@pytest.mark.parametrize("tied", [True, False])
def test_initialization_follows_pytorchs_defaults(tied):
    torch.manual_seed(0)
    config = small_config(tied=tied)
    model = Llama(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == 1).all(), name
        elif name == "embedding.weight" and not tied:
            assert parameter.std().item() == pytest.approx(1, rel=0.02)
        else:
            bound = 1 / math.sqrt(parameter.shape[1])
            assert 0.98 * bound < parameter.abs().max().item() <= bound, name
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name


def test_tied_embedding_is_the_heads_weight():
    assert (model := Llama(small_config(tied=True))).embedding.weight is model.head_weight
    assert (model := Llama(small_config(tied=False))).embedding.weight is not model.head_weight


def test_same_seed_gives_the_same_model():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(Llama(small_config()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_padding_on_the_right_changes_nothing_before_it(model):
    ids = random_ids(2, 20)
    padded = torch.cat((ids, torch.full((2, 11), 5)), dim=1)
    torch.testing.assert_close(model(padded)[:, :20], model(ids), atol=1e-5, rtol=1e-5)


def test_packed_examples_have_the_hidden_states_that_they_have_alone(model):
    lengths = [[7, 1, 22, 10], [16, 24]]
    ids = random_ids(2, 40)
    segment_start = torch.zeros(2, 40, dtype=torch.int32)
    segments = []
    for row, sizes in enumerate(lengths):
        for size, end in zip(sizes, itertools.accumulate(sizes), strict=True):
            segment_start[row, end - size : end] = end - size
            segments.append((row, slice(end - size, end)))
    packed = model(ids, segment_start)
    for row, part in segments:
        torch.testing.assert_close(packed[row, part], model(ids[row : row + 1, part])[0], atol=1e-5, rtol=1e-5)


def test_segment_start_zero_is_plain_causal_attention(model):
    ids = random_ids(2, 30)
    torch.testing.assert_close(model(ids, torch.zeros(2, 30, dtype=torch.int32)), model(ids), atol=1e-5, rtol=1e-5)


def test_dropout_depends_on_the_global_generator_alone():
    model = sharp_model(small_config(), dropout=0.3).train()
    ids = random_ids(2, 30)
    segment_start = torch.zeros(2, 30, dtype=torch.int32)
    for arguments in [(ids,), (ids, segment_start)]:
        torch.manual_seed(1)
        one = model(*arguments)
        two = model(*arguments)
        torch.manual_seed(1)
        assert torch.equal(model(*arguments), one)
        assert not torch.equal(two, one)


def test_dropout_is_off_in_evaluation_mode():
    ids = random_ids(2, 30)
    assert torch.equal(sharp_model(small_config(), dropout=0.3)(ids), sharp_model(small_config())(ids))


def test_dropout_acts_on_the_embeddings():
    model = sharp_model(small_config(), dropout=0.5).train()
    inputs = []
    model.layers[0].register_forward_pre_hook(lambda layer, arguments: inputs.append(arguments[0]))
    ids = random_ids(2, 30)
    model(ids)
    kept = inputs[0] != 0
    assert 0.45 < kept.float().mean() < 0.55
    torch.testing.assert_close(inputs[0][kept], 2 * model.embedding(ids)[kept])


def test_dropout_acts_on_the_attention_weights_too():
    model = sharp_model(small_config(), dropout=0.5).train()
    attention = model.layers[0].attention
    x = torch.randn(1, 30, 64)
    torch.manual_seed(0)
    on_both = attention(x, model.rotation[:, :30], None, None)
    # Where the output's mask keeps an element, it differs from the projection of attention without dropout.
    without_dropout = attention.eval()(x, model.rotation[:, :30], None, None)
    kept = on_both != 0
    assert 0.4 < kept.float().mean() < 0.6
    assert not torch.allclose(on_both[kept], 2 * without_dropout[kept], atol=1e-3)


def test_runs_under_bfloat16_autocast(model):
    ids = random_ids(2, 30)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(ids)
        model.logits(hidden)
    assert hidden.dtype == torch.float32
    error = (hidden - model(ids)).norm() / model(ids).norm()
    assert 0 < error < 0.05


def test_every_parameter_gets_a_gradient(model):
    model(random_ids(2, 30)).pow(2).mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == (set() if model.config.embedding_weight_tying else {"head.weight"})


def test_compiles_as_one_graph(model):
    ids = random_ids(2, 30)
    segment_start = torch.zeros(2, 30, dtype=torch.int32)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(ids), model(ids))
    assert torch.equal(compiled(ids, segment_start), model(ids, segment_start))
