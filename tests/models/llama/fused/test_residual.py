import pytest
import torch

from tests.models.llama.fused.reference_kernels import random_keys, relative_error, residual_mask

STREAM = 8


@pytest.mark.parametrize(
    ("windows", "length", "depth", "width", "dropout"),
    [
        (2, 128, 136, 192, 0.3),  # no whole number of tiles
        (3, 64, 64, 64, 0.3),  # tiles of two windows, and a part of one
        (5, 192, 200, 320, 0.1),
        (2, 128, 136, 192, 0.0),
        # Several tiles a program.
        pytest.param(64, 256, 520, 512, 0.1, marks=pytest.mark.gpu),
        pytest.param(100, 192, 1320, 576, 0.1, marks=pytest.mark.gpu),
        pytest.param(64, 512, 2816, 1024, 0.0, marks=pytest.mark.gpu),
    ],
)
def test_a_projection_is_dropped_and_added_to_the_residual_stream(
    windows, length, depth, width, dropout, device, dtype, tolerance
):
    from stochastok_cli.models.llama.fused.residual import add_projection, square_sum_parts

    generator, rows = torch.Generator().manual_seed(0), windows * length
    x = torch.randn(rows, depth, generator=generator).to(device, dtype)
    weight = (torch.randn(width, depth, generator=generator) / depth**0.5).to(device, dtype)
    residual = torch.randn(rows, width, generator=generator).to(device, dtype)
    keys = random_keys(windows, device)
    total = torch.full((rows, width), torch.nan, dtype=dtype, device=device)
    square_sums = torch.full((rows, square_sum_parts(width)), torch.nan, device=device)
    add_projection(x, weight, residual, keys, STREAM, dropout, length, total, square_sums)

    mask = residual_mask(keys, STREAM, length, width, dropout).view(rows, width)
    added = x.float() @ weight.float().T * mask
    assert relative_error(total, residual.float() + added) < tolerance
    assert relative_error((total.float() - residual.float()), added) < 2 * tolerance
    dropped = mask == 0
    assert dropped.any() == (dropout > 0)
    assert torch.equal(total[dropped], residual[dropped])
    for part, columns in enumerate(total.float().square().split(128, 1)):
        assert relative_error(square_sums[:, part], columns.sum(1)) < 1e-5
