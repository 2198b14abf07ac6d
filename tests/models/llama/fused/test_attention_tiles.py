"""The table of tiles: every tile has room on a GPU, and tiles make up every window."""

import pytest

from stochastok_cli.models.llama.fused import attention_tiles
from stochastok_cli.models.llama.fused.attention_tiles import DKDV, DQ, FORWARD, HEAD_DIMS, SHARED_MEMORY

GROUPS = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32]


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("length", [64, 192, 1024])
def test_tiles_make_up_a_window_and_have_room(head_dim, length):
    forward, dq, dkdv = (attention_tiles.fit_window(table[head_dim], length) for table in (FORWARD, DQ, DKDV))
    for tile in (forward, dq, dkdv):
        assert length % tile.block_q == length % tile.block_k == 0
        assert tile.num_warps * 32 * (tile.max_registers or 255) <= 65536
    for tile in (forward, dq):
        assert tile.block_q % tile.block_k == 0
        assert tile.block_q >= 16 * tile.num_warps  # each warp has rows of its own
    assert dkdv.block_k % dkdv.block_q == 0 and dkdv.block_k >= 16 * dkdv.num_warps
    assert attention_tiles.forward_shared_memory(forward, head_dim) <= SHARED_MEMORY
    assert attention_tiles.dq_shared_memory(dq, head_dim) <= SHARED_MEMORY
    for group in GROUPS:
        heads = attention_tiles.heads_at_once(dkdv, head_dim, group)
        assert group % heads == 0
        assert attention_tiles.dkdv_shared_memory(dkdv, head_dim, heads) <= SHARED_MEMORY


def test_groups_are_divided_only_where_they_have_no_room():
    def heads_at_once(head_dim, group):
        return attention_tiles.heads_at_once(DKDV[head_dim], head_dim, group)

    assert [heads_at_once(32, group) for group in GROUPS] == [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 16]
    assert [heads_at_once(64, group) for group in GROUPS] == [1, 2, 3, 4, 5, 6, 7, 8, 12, 8, 8]
    assert [heads_at_once(128, group) for group in GROUPS] == [1, 2, 3, 4, 1, 3, 1, 4, 4, 4, 4]


def test_kibibytes_of_the_table():
    """Those of the module's docstring, without the hashes and other numbers of rows."""
    sizes = {
        h: (
            attention_tiles.forward_shared_memory(FORWARD[h], h) // 1024,
            attention_tiles.dq_shared_memory(DQ[h], h) // 1024,
            attention_tiles.dkdv_shared_memory(DKDV[h], h, 4) // 4096 * 4,
        )
        for h in HEAD_DIMS
    }
    assert sizes == {32: (20, 20, 40), 64: (40, 40, 80), 128: (128, 128, 192)}
