"""Rotary positions and attention, forward and backward, against autograd through float32 attention."""

import pytest
import torch

from stochastok_cli.models.llama.attention import rotary_table, rotate
from tests.models.llama.fused.reference_kernels import attend, attention_mask, packed_rows, random_keys, relative_error

WINDOWS, HEADS, KV_HEADS, LAYER = 2, 4, 2, 1


def _reference(qkv, rotation, segment_start, mask, length, head_dim, heads, kv_heads):
    qkv = qkv.view(WINDOWS, length, -1, head_dim).transpose(1, 2)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
    out = attend(rotate(q, rotation), rotate(k, rotation), v, segment_start, mask)
    return out.transpose(1, 2).reshape(WINDOWS * length, -1)


def _rotated(qkv, rotation, heads, kv_heads, length):
    """`qkv` as the kernels of attention take it."""
    from stochastok_cli.models.llama.fused.rotary import rotated_qkv

    identity, out = torch.eye(qkv.shape[1], dtype=qkv.dtype, device=qkv.device), torch.full_like(qkv, torch.nan)
    ones = torch.ones(len(qkv), device=qkv.device)
    rotated_qkv(qkv.detach(), identity, ones, rotation, heads, kv_heads, length, out)
    return out


@pytest.mark.parametrize("packed", [False, True], ids=["causal", "packed"])
@pytest.mark.parametrize(
    ("dropout", "head_dim", "length", "heads", "kv_heads"),
    [
        (0.0, 32, 64, HEADS, KV_HEADS),
        (0.2, 32, 192, HEADS, KV_HEADS),
        (0.1, 64, 128, HEADS, KV_HEADS),
        (0.1, 128, 256, 2, 1),
        # Tiles of several heads, and groups of which some heads are left for another step.
        (0.2, 32, 128, 4, 1),
        pytest.param(0.1, 64, 64, 6, 1, marks=pytest.mark.slow),
        # No whole number of tiles of 128 tokens.
        pytest.param(0.0, 128, 192, 2, 2, marks=pytest.mark.slow),
        pytest.param(0.0, 128, 192, 2, 1, marks=pytest.mark.slow),
        pytest.param(0.2, 128, 128, 8, 1, marks=pytest.mark.slow),
    ],
)
def test_attention_and_its_gradient(packed, dropout, head_dim, length, heads, kv_heads, device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.attention_backward import attention_backward
    from stochastok_cli.models.llama.fused.attention_forward import attention_forward
    from stochastok_cli.models.llama.fused.dropout import attention_hashes

    generator = torch.Generator().manual_seed(0)
    width = heads * head_dim
    qkv = 1.5 * torch.randn(WINDOWS * length, (heads + 2 * kv_heads) * head_dim, generator=generator)
    qkv = qkv.to(device, dtype)
    grad = torch.randn(WINDOWS * length, width, generator=generator).to(device, dtype)
    segment_start = packed_rows(WINDOWS, length, device)[0] if packed else None
    keys, rotation = random_keys(WINDOWS, device), rotary_table(head_dim, length).to(device)

    wide = qkv.float().requires_grad_()
    mask = attention_mask(keys, LAYER, heads, kv_heads, length, dropout)
    expected = _reference(wide, rotation, segment_start, mask, length, head_dim, heads, kv_heads)
    expected.backward(grad.float())

    rotated = _rotated(qkv, rotation, heads, kv_heads, length)
    query_hash = torch.empty(WINDOWS, heads, length, dtype=torch.int32, device=device)
    key_hash = torch.empty(WINDOWS, kv_heads, length, dtype=torch.int32, device=device)
    attention_hashes(keys, LAYER, query_hash, key_hash)
    out = torch.empty(WINDOWS * length, width, dtype=dtype, device=device)
    lse, delta = torch.empty(2, WINDOWS, heads, length, device=device)
    attention_forward(rotated, segment_start, query_hash, key_hash, dropout, out, lse)
    assert relative_error(out, expected) < tolerance

    dqkv, rstd = torch.full_like(qkv, torch.nan), torch.rand(len(qkv), generator=generator).to(device) + 0.5
    attention_backward(
        rotated, out, grad, lse, segment_start, query_hash, key_hash, rstd, rotation, dropout, delta, dqkv
    )
    parts, scaled = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], wide.grad * rstd[:, None]
    for name, actual, expected_part in zip("qkv", dqkv.split(parts, 1), scaled.split(parts, 1), strict=True):
        assert relative_error(actual, expected_part) < tolerance, name


@pytest.mark.parametrize(
    ("head_dim", "heads", "kv_heads", "windows"),
    [
        (32, HEADS, KV_HEADS, 2),
        (64, 3, 1, 2),
        (128, 2, 1, 2),
        # Several tiles a program.
        *(pytest.param(head_dim, 3, 1, 128, marks=pytest.mark.gpu) for head_dim in (32, 64, 128)),
    ],
)
def test_projection_and_rotation_with_the_softmax_scale_in_the_queries(
    head_dim, heads, kv_heads, windows, device, dtype, tolerance
):
    from stochastok_cli.models.llama.fused.rotary import LOG2_E, rotated_qkv

    length, width, parts = 192, 128, heads + 2 * kv_heads
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(windows * length, width, generator=generator).to(device, dtype)
    weight = (torch.randn(parts * head_dim, width, generator=generator) / width**0.5).to(device, dtype)
    rotation = rotary_table(head_dim, length).to(device)
    rstd = torch.rand(windows * length, generator=generator).to(device) + 0.5
    expected = (x.float() @ weight.float().T * rstd[:, None]).view(windows, length, parts, head_dim).transpose(1, 2)
    expected[:, : heads + kv_heads] = rotate(expected[:, : heads + kv_heads], rotation)
    expected[:, :heads] *= LOG2_E / head_dim**0.5
    qkv = torch.full((windows * length, parts * head_dim), torch.nan, dtype=dtype, device=device)
    rotated_qkv(x, weight, rstd, rotation, heads, kv_heads, length, qkv)
    assert relative_error(qkv, expected.transpose(1, 2).reshape_as(qkv)) < tolerance
