"""The table of tiles: every tile has room on a GPU, and tiles make up every window and every group of heads."""

import pytest

from stochastok_cli.models.llama.fused import attention_tiles
from stochastok_cli.models.llama.fused.attention_tiles import DKDV, DQ, FORWARD, HEAD_DIMS, SHARED_MEMORY, choose

GROUPS = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32]


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("length", [64, 192, 1024])
@pytest.mark.parametrize("group", GROUPS)
def test_tiles_make_up_a_window_and_a_group_and_have_room(head_dim, length, group):
    for table in (FORWARD, DQ, DKDV):
        heads, tile = choose(table[head_dim], length, group)
        assert length % tile.block_q == length % tile.block_k == group % heads == 0
        assert tile.num_warps * 32 * (tile.max_registers or 255) <= 65536
        rows = tile.block_k if table is DKDV else heads * tile.block_q
        assert rows >= 16 * tile.num_warps  # each warp has rows of its own
        if table is DKDV:
            assert tile.block_k % tile.block_q == 0
            of_step = attention_tiles.heads_of_step(tile, head_dim, heads, group)
            assert group % of_step == of_step % heads == 0
            assert attention_tiles.dkdv_shared_memory(tile, head_dim, of_step) <= SHARED_MEMORY
    heads, tile = choose(FORWARD[head_dim], length, group)
    assert attention_tiles.forward_shared_memory(tile, head_dim, heads) <= SHARED_MEMORY
    heads, tile = choose(DQ[head_dim], length, group)
    assert attention_tiles.dq_shared_memory(tile, head_dim, heads) <= SHARED_MEMORY


def test_heads_of_one_group_share_a_tile():
    assert [choose(FORWARD[32], 512, group)[0] for group in GROUPS] == [1, 1, 1, 4, 1, 1, 1, 4, 4, 4, 4]
    assert [choose(FORWARD[64], 512, group)[0] for group in GROUPS] == [1, 2, 1, 2, 1, 2, 1, 2, 2, 2, 2]


def test_windows_of_a_few_tokens_have_smaller_tiles_of_fewer_warps():
    heads, tile = choose(FORWARD[128], 192, 2)
    assert (heads, tile.block_q, tile.block_k, tile.num_warps) == (2, 64, 64, 4)
    assert choose(FORWARD[128], 256, 2)[1] == FORWARD[128][2]


def test_a_step_has_as_many_heads_as_the_tile_allows():
    def heads_of_step(head_dim, group):
        heads, tile = choose(DKDV[head_dim], 512, group)
        return attention_tiles.heads_of_step(tile, head_dim, heads, group)

    assert [heads_of_step(32, group) for group in GROUPS] == [1, 2, 3, 4, 1, 3, 1, 4, 4, 4, 4]
    assert [heads_of_step(64, group) for group in GROUPS] == [1, 2, 1, 4, 1, 2, 1, 4, 4, 4, 4]
    assert [heads_of_step(128, group) for group in GROUPS] == [1, 2, 1, 2, 1, 2, 1, 2, 2, 2, 2]


def test_a_step_has_fewer_heads_where_shared_memory_has_no_room_for_more(monkeypatch):
    tile = attention_tiles.Tile(64, 64, 4, 3, unrolled=4)
    assert attention_tiles.heads_of_step(tile, 64, 1, 4) == 4
    monkeypatch.setattr(attention_tiles, "SHARED_MEMORY", 150 * 1024)
    assert attention_tiles.heads_of_step(tile, 64, 1, 4) == 2
