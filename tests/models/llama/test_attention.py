import pytest
import torch

from stochastok_cli.models.base import KeyValueCache
from stochastok_cli.models.llama.attention import causal_mask, rotary_table, rotate
from tests.models.small_models import random_ids, sharp_model, small_config


def test_rotation_depends_on_relative_positions_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16)
    table = rotary_table(16, 200)

    def product(query_position: int, key_position: int) -> float:
        at = [rotate(x, table[:, p : p + 1]) for x, p in ((q, query_position), (k, key_position))]
        return (at[0] * at[1]).sum().item()

    assert product(5, 2) == pytest.approx(product(150, 147), abs=1e-3)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-2)


def test_rotation_keeps_lengths_and_type():
    x = torch.randn(2, 3, 10, 8)
    table = rotary_table(8, 10)
    torch.testing.assert_close(rotate(x, table).norm(dim=-1), x.norm(dim=-1))
    assert rotate(x.bfloat16(), table).dtype == torch.bfloat16


def test_causal_masks():
    device = torch.device("cpu")
    assert causal_mask(None, 0, 4, device) is None
    assert causal_mask(None, 9, 1, device) is None
    after_cache = causal_mask(None, 1, 2, device)
    assert after_cache is not None
    assert after_cache.tolist() == [[True, True, False], [True, True, True]]
    packed = causal_mask(torch.tensor([[0, 0, 2, 2]]), 0, 4, device)
    assert packed is not None
    assert packed.shape == (1, 1, 4, 4)
    assert packed[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("pieces", [[30], [1] * 30, [12, 1, 1, 16], [29, 1]])
def test_cache_gives_the_hidden_states_of_the_whole_sequence(model, pieces):
    ids = random_ids(2, 30)
    cache = KeyValueCache()
    hidden = torch.cat([model(piece, cache=cache) for piece in ids.split(pieces, dim=1)], dim=1)
    assert cache.length == 30
    torch.testing.assert_close(hidden, model(ids), atol=1e-5, rtol=1e-5)


def test_cache_keeps_the_chosen_sequences(model):
    ids = random_ids(4, 20)
    cache = KeyValueCache()
    model(ids[:, :15], cache=cache)
    cache.keep(torch.tensor([3, 1]))
    torch.testing.assert_close(model(ids[[3, 1], 15:], cache=cache), model(ids[[3, 1]])[:, 15:], atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
def test_cuda_attention_equals_the_cpus(dtype, packed):
    model = sharp_model(small_config())
    ids = random_ids(2, 40)
    segment_start = torch.tensor([[0] * 13 + [13] * 27, [0] * 40]) if packed else None
    expected = model(ids, segment_start)
    model.cuda()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        hidden = model(ids.cuda(), None if segment_start is None else segment_start.cuda()).cpu()
    error = (hidden - expected).norm() / expected.norm()
    assert error < (1e-3 if dtype == torch.float32 else 0.05)
