"""The registry of architectures, and what `CausalLM` tells of a model."""

import dataclasses
import json

import pytest
import torch
import transformers

from stochastok_cli.config import ModelConfig
from stochastok_cli.errors import UserError
from stochastok_cli.models.base import load_model, model_specs, register_model, spec_for, spec_of
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.models.huggingface_spec import HUGGINGFACE
from stochastok_cli.models.llama import LLAMA
from stochastok_cli.models.llama.model import Llama
from tests.models.small_models import random_ids, sharp_model, small_config


@pytest.fixture
def llama_folder(vocabulary, tmp_path):
    LLAMA.save(sharp_model(small_config()), tmp_path, vocabulary)
    return tmp_path


def change_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_registered_architectures():
    assert model_specs().items() >= {"llama": LLAMA, "huggingface": HUGGINGFACE}.items()
    with pytest.raises(ValueError, match="'llama'"):
        register_model(dataclasses.replace(LLAMA))


def test_the_architecture_of_a_folder(llama_folder):
    assert spec_for(llama_folder) is LLAMA
    assert isinstance(load_model(llama_folder), Llama)
    change_config(llama_folder, rms_norm_eps=1e-5)  # of the same family, but not one that our network computes
    assert spec_for(llama_folder) is HUGGINGFACE
    assert isinstance(load_model(llama_folder), HuggingFaceModel)
    change_config(llama_folder, model_type="gpt2")
    assert spec_for(llama_folder) is HUGGINGFACE
    (llama_folder / "config.json").write_text('{"model_type": "llama",')
    with pytest.raises(UserError, match=r"config.json.*line 1"):
        spec_for(llama_folder)
    (llama_folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json is missing"):
        spec_for(llama_folder)


def test_the_architecture_of_a_model():
    model = sharp_model(small_config())
    assert spec_of(model) is spec_of(torch.compile(model)) is LLAMA


def test_numbers_of_parameters_and_operations():
    """The figures of the shipped model: 47,203,328 parameters, of which 8,704 are gains of norms."""
    model = Llama(ModelConfig())
    assert model.num_parameters() == 47_203_328
    assert model.num_matrix_parameters() == 47_203_328 - 17 * 512
    assert model.flops_per_token(512) == 6 * model.num_matrix_parameters() + 6 * 8 * 512 * 512
    untied = Llama(dataclasses.replace(ModelConfig(), embedding_weight_tying=False))
    assert untied.num_parameters() == model.num_parameters() + 50257 * 512
    assert untied.flops_per_token(512) == model.flops_per_token(512)


# ------------------------------------------------------------------------------------------------ the wrapper


@pytest.mark.parametrize("tied", [True, False])
def test_the_wrapper_counts_as_the_network_of_our_own(vocabulary, tmp_path, tied):
    model = sharp_model(small_config(tied=tied))
    LLAMA.save(model, tmp_path, vocabulary)
    wrapped = HUGGINGFACE.load(tmp_path)
    assert wrapped.context_window == model.context_window
    assert wrapped.vocab_size == model.vocab_size
    assert wrapped.num_parameters() == model.num_parameters()
    assert wrapped.flops_per_token(48) == model.flops_per_token(48)
    assert len(wrapped.blocks) == len(model.blocks) == 3
    assert all(wrapped.attention_of(block) is not None for block in wrapped.blocks)


def test_the_wrapper_reads_what_it_writes(vocabulary, tmp_path):
    config = transformers.GPT2Config(vocab_size=2048, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    config.save_pretrained(tmp_path)
    hyperparameters = HUGGINGFACE.read_config(tmp_path)
    assert (hyperparameters.context_window, hyperparameters.vocab_size) == (64, 2048)
    torch.manual_seed(1)
    model = HUGGINGFACE.build(hyperparameters, 0.0)
    HUGGINGFACE.save(model, tmp_path, vocabulary)
    other = HUGGINGFACE.build(hyperparameters, 0.0)
    ids = random_ids(2, 16)
    with torch.no_grad():
        assert not torch.equal(other.logits(other(ids)), model.logits(model(ids)))
        HUGGINGFACE.load_weights(other, tmp_path)
        assert torch.equal(other.logits(other(ids)), model.logits(model(ids)))
        doubled = {name: 2 * tensor for name, tensor in model.state_dict().items()}
        HUGGINGFACE.save(model, tmp_path, vocabulary, doubled)
        HUGGINGFACE.load_weights(other, tmp_path)
        assert torch.equal(other.head_weight, 2 * model.head_weight)
