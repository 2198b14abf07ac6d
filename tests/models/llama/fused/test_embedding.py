import pytest
import torch
import torch.nn.functional as F

from stochastok_cli.models.llama.model import NORM_EPS
from tests.models.llama.fused.reference_kernels import random_keys, relative_error, residual_mask

WINDOWS, LENGTH, WIDTH, VOCAB = 2, 64, 192, 20
ROWS = WINDOWS * LENGTH


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_embedding_and_its_gradient(dropout, device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.embedding import embed, embed_backward

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCAB, WIDTH, generator=generator).to(device, dtype)
    gain = torch.rand(WIDTH, generator=generator).to(device) + 0.5
    ids = torch.randint(VOCAB, (ROWS,), generator=generator).int().to(device)  # each many times
    keys = random_keys(WINDOWS, device)
    mask = residual_mask(keys, 0, LENGTH, WIDTH, dropout).view(ROWS, WIDTH)

    x, normed = torch.empty(2, ROWS, WIDTH, dtype=dtype, device=device)
    rstd = torch.empty(ROWS, device=device)
    embed(ids, weight, gain, keys, dropout, LENGTH, x, normed, rstd)
    expected = weight.float()[ids] * mask
    assert relative_error(x, expected) < tolerance
    assert relative_error(normed, F.rms_norm(expected, (WIDTH,), gain, NORM_EPS)) < tolerance

    grad = torch.randn(ROWS, WIDTH, generator=generator).to(device, dtype)
    weight_grad = torch.ones(VOCAB, WIDTH, device=device)
    embed_backward(ids, grad, keys, dropout, LENGTH, weight_grad)
    assert relative_error(weight_grad, 1 + torch.zeros_like(weight_grad).index_add(0, ids, grad * mask)) < tolerance
