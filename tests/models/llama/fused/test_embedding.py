import pytest
import torch

from stochastok_cli.models.llama.model import NORM_EPS
from tests.models.llama.fused.reference_kernels import random_keys, relative_error, residual_mask

WINDOWS, LENGTH, WIDTH, VOCAB = 2, 64, 192, 20
ROWS = WINDOWS * LENGTH


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_embedding_and_its_gradient(dropout, device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.embedding import embed, embed_backward

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCAB, WIDTH, generator=generator).to(device, dtype)
    ids = torch.randint(VOCAB, (ROWS,), generator=generator).int().to(device)  # each many times
    keys = random_keys(WINDOWS, device)
    mask = residual_mask(keys, 0, LENGTH, WIDTH, dropout).view(ROWS, WIDTH)

    x, rstd = torch.empty(ROWS, WIDTH, dtype=dtype, device=device), torch.empty(ROWS, device=device)
    embed(ids, weight, keys, dropout, LENGTH, x, rstd)
    expected = weight.float()[ids] * mask
    assert relative_error(x, expected) < tolerance
    assert relative_error(rstd, (x.float().square().mean(1) + NORM_EPS).rsqrt()) < 1e-5

    grad = torch.randn(ROWS, WIDTH, generator=generator).to(device, dtype)
    weight_grad = torch.ones(VOCAB, WIDTH, device=device)
    embed_backward(ids, grad, keys, dropout, LENGTH, weight_grad)
    assert relative_error(weight_grad, 1 + torch.zeros_like(weight_grad).index_add(0, ids, grad * mask)) < tolerance
