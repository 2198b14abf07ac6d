"""The tiles of the attention kernels: what there is to tune on a GPU.

`FORWARD`, `DQ` and `DKDV` have tiles by the width h of the heads and by how many query heads of a group a tile takes.
Heads that share keys and values are rows of one product (columns for dk and dv), so that keys and values are loaded
once for all of them: a group of 4 heads loads a quarter of what 4 heads alone do. `choose` takes the tile with most
heads that the group allows.

A tile must leave room in the registers of a multiprocessor (64 K of 32 bits; at most 255 a thread) and in its shared
memory, of which a program can have 227 KiB. Sums are float32 in registers. Operands are 16-bit numbers in shared
memory; a loop over blocks holds those of `num_stages` blocks at once, so that the next ones are loaded while one is
computed. `*_shared_memory` adds them up.

The tiles were the fastest on an H200 with dropout (docs/results.md); `benchmarks/bench_attention.py --try` looks for
faster ones.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

SHARED_MEMORY = 227 * 1024
"""Bytes that a program can have on GPUs of compute capability 9."""
OPERAND_BYTES = 2


@dataclass(frozen=True)
class Tile:
    """The sizes of one kernel's tile.

    Attributes:
        block_q: Queries of each head.
        block_k: Keys.
        num_warps: Warps of a program.
        num_stages: Blocks of the inner loop whose operands are in shared memory at once.
        max_registers: Registers of a thread; None: the compiler decides.
        unrolled: For dk and dv, how many products, each of the tile's heads, a step of the loop has at most. The
            overhead of a step is paid once for all of them.
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None
    unrolled: int = 1


TilesOfHeads = dict[int, Tile]
"""Tiles by the number of query heads in each."""

# In the forward pass and for dq a program takes a block of queries, for dk and dv a block of keys, which `block_q`
# divides.
FORWARD: dict[int, TilesOfHeads] = {
    32: {1: Tile(64, 64, 4, 2, 96), 4: Tile(32, 32, 4, 3)},
    64: {1: Tile(64, 64, 4, 2, 128), 2: Tile(32, 64, 4, 2, 128)},
    128: {1: Tile(64, 32, 4, 3), 2: Tile(128, 64, 8, 3)},
}
DQ: dict[int, TilesOfHeads] = {
    32: {1: Tile(128, 32, 4, 3, 128), 2: Tile(64, 32, 4, 3, 128), 4: Tile(32, 32, 4, 3, 128)},
    64: {1: Tile(64, 64, 4, 2, 128), 2: Tile(32, 64, 4, 2, 128)},
    128: {1: Tile(64, 64, 4, 2), 2: Tile(32, 64, 4, 2)},
}
DKDV: dict[int, TilesOfHeads] = {
    32: {1: Tile(32, 64, 4, 2, 128, unrolled=4)},
    64: {1: Tile(32, 64, 4, 3), 2: Tile(16, 64, 4, 3, unrolled=2)},
    128: {1: Tile(64, 64, 4, 2), 2: Tile(32, 64, 4, 2)},
}

HEAD_DIMS = tuple(FORWARD)
LENGTH_MULTIPLE = 64
"""Windows are a multiple of so many tokens: those of the smallest tiles."""


def choose(tiles: TilesOfHeads, length: int, group: int) -> tuple[int, Tile]:
    """The heads of a tile, and the tile, for windows of `length` and groups of `group` heads. A tile has fewer rows and
    warps where whole ones don't make up a window."""
    heads = max(n for n in tiles if group % n == 0)
    tile = tiles[heads]
    block_q, block_k = math.gcd(tile.block_q, length), math.gcd(tile.block_k, length)
    warps = tile.num_warps * max(heads * block_q, block_k) // max(heads * tile.block_q, tile.block_k)
    return heads, replace(tile, block_q=block_q, block_k=block_k, num_warps=max(4, warps))


def launch_options(tile: Tile) -> dict[str, Any]:
    """The keyword arguments of a kernel whose loops take their stages from the launch."""
    return {
        "block_q": tile.block_q, "block_k": tile.block_k, "num_warps": tile.num_warps, "num_stages": tile.num_stages,
        "maxnreg": tile.max_registers,
    }  # fmt: skip


def forward_shared_memory(tile: Tile, head_dim: int, heads: int) -> int:
    """Bytes: the queries, and the keys with their hashes and values of each stage."""
    return _rows_shared_memory(tile, head_dim, OPERAND_BYTES * head_dim * heads * tile.block_q)


def dq_shared_memory(tile: Tile, head_dim: int, heads: int) -> int:
    """Bytes: queries and the gradients of outputs, and the keys with their hashes and values of each stage."""
    return _rows_shared_memory(tile, head_dim, OPERAND_BYTES * head_dim * 2 * heads * tile.block_q)


def _rows_shared_memory(tile: Tile, head_dim: int, rows: int) -> int:
    return rows + tile.num_stages * tile.block_k * (OPERAND_BYTES * 2 * head_dim + 4)


def dkdv_shared_memory(tile: Tile, head_dim: int, heads: int) -> int:
    """Bytes: keys and values, and the queries and gradients of `heads` heads in each stage, with three numbers a row
    (`lse`, `delta` and the hash)."""
    operands = OPERAND_BYTES * head_dim * (2 * tile.block_k + tile.num_stages * heads * 2 * tile.block_q)
    return operands + tile.num_stages * heads * 3 * 4 * tile.block_q


def heads_of_step(tile: Tile, head_dim: int, heads: int, group: int) -> int:
    """How many query heads of a group the kernel of dk and dv takes in each step: as many products of `heads` heads as
    the tile allows and have room in shared memory."""
    candidates = (heads * n for n in range(tile.unrolled, 0, -1) if group % (heads * n) == 0)
    return next((n for n in candidates if dkdv_shared_memory(tile, head_dim, n) <= SHARED_MEMORY), heads)
