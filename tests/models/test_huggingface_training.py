"""Training computes the loss and the gradients of `transformers`, and packed examples never see each other."""

import pytest
import torch
import transformers

from stochastok_cli.data.samplers import Batch
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.training.backends import sum_of_window_losses
from tests.models.huggingface_families import CONFIGS, random_model

UNPACKABLE = {"bloom", "opt"}


@pytest.fixture(scope="module", params=CONFIGS)
def family(request) -> str:
    return request.param


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_those_of_transformers(family):
    model = random_model(family)
    ids = torch.randint(2048, (3, 17), generator=torch.Generator().manual_seed(1))
    theirs = model(ids, labels=ids).loss
    theirs.backward()
    expected = gradients(model)
    model.zero_grad(set_to_none=True)
    ours = HuggingFaceModel(model, 64)
    assert ours.training_unsupported() is None
    loss = sum_of_window_losses(ours, ours, Batch(ids, None, torch.full((3, 16), 1 / 16), 48)) / 3
    loss.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=0)
    actual = gradients(model)
    assert actual.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-6 * largest)


def test_packed_examples_have_the_loss_that_they_have_alone(family):
    model = HuggingFaceModel(random_model(family), 64)
    if family in UNPACKABLE:
        assert "does not keep packed examples apart" in model.packing_unsupported()
        return
    assert model.packing_unsupported() is None
    lengths, rows = [5, 1, 9, 2], 2
    ids = torch.randint(2048, (rows, sum(lengths)), generator=torch.Generator().manual_seed(2))
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).repeat_interleave(torch.tensor(lengths))
    with torch.no_grad():
        packed = model(ids, starts.expand(rows, -1).int())
        alone = torch.cat([model(part) for part in ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-4 * alone.abs().max().item())


class SquaredLogits(transformers.LlamaForCausalLM):
    """A model whose logits are no known function of its last hidden states."""

    def forward(self, *arguments, **options):
        out = super().forward(*arguments, **options)
        out.logits = out.logits.square()
        return out


def test_a_head_that_is_not_understood_is_evaluated_and_not_trained():
    inner = SquaredLogits(CONFIGS["llama3_tied"]).eval()
    model = HuggingFaceModel(inner, 64)
    ids = torch.arange(6)[None]
    torch.testing.assert_close(model.logits(model(ids)), inner(ids).logits)
    assert "the output head of SquaredLogits" in model.training_unsupported()
