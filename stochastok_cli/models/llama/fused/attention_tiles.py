"""The tiles of the attention kernels, by the width h of the heads: what there is to tune on a GPU.

A tile must leave room in the registers of a multiprocessor (64 K of 32 bits; at most 255 a thread) and in its shared
memory, of which a program can have 227 KiB. Sums are float32 in registers: a `rows x h` sum takes `rows h / (32 warps)`
registers of each thread. Operands are 16-bit numbers in shared memory; a loop over blocks holds those of `num_stages`
blocks at once, so that the next ones are loaded while one is computed. `*_shared_memory` adds them up, in KiB:

    h      forward                 dq                        dk and dv, for groups of 4 heads
    32     4 + 2 x 8  =  20        8 + 3 x 4   =  20         8 + 2 x 4 x 4   =  40
    64     8 + 2 x 16 =  40        16 + 3 x 8  =  40         16 + 2 x 4 x 8  =  80
    128    32 + 3 x 32 = 128       64 + 2 x 32 = 128         64 + 2 x 4 x 16 = 192

At h = 32 the matrix products are so small that exponentials and hashes take most of the time, and more resident
programs are better than larger tiles. Hence the limits on registers: with them 5 (forward), 6 (dq) and 4 (dk and dv)
programs of 4 warps share a multiprocessor. These tiles were measured on an H100.

At h = 128 the products take most of the time, and a tile of 64 rows would load the operands of the other side twice as
often as one of 128. So tiles have 128 rows of the side whose sums are held: queries in the forward pass and for dq,
keys for dk and dv. 8 warps hold 16 rows each, and the weights pass from one product to the next in registers. Sums take
64 registers of a thread in the forward pass and for dq, and 128 for dk and dv; scores and their gradient take 32 or 16
each. One program fills a multiprocessor. Compiled (Triton 3.9), they take 170 registers in the forward pass, 189 for
dq and all 255 for dk and dv, with no more than 24 bytes of a thread in memory. Their speed has not been measured.
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
        block_q: Queries.
        block_k: Keys.
        num_warps: Warps of a program.
        num_stages: Blocks of the inner loop whose operands are in shared memory at once.
        max_registers: Registers of a thread; None: the compiler decides.
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None


# In the forward pass and for dq a program takes a block of queries, and `block_k` divides `block_q`. For dk and dv it
# takes a block of keys, and `block_q` divides `block_k`.
FORWARD = {32: Tile(64, 64, 4, 2, 96), 64: Tile(64, 64, 4, 2), 128: Tile(128, 64, 8, 3)}
DQ = {32: Tile(64, 32, 4, 3, 80), 64: Tile(64, 32, 4, 3), 128: Tile(128, 64, 8, 2)}
DKDV = {32: Tile(32, 64, 4, 2, 128), 64: Tile(32, 64, 4, 2), 128: Tile(32, 128, 8, 2)}

HEAD_DIMS = tuple(FORWARD)
LENGTH_MULTIPLE = 64
"""Windows are a multiple of so many tokens: those of the smallest tiles."""


def fit_window(tile: Tile, length: int) -> Tile:
    """The tile, or one of half the rows and half the warps where whole tiles don't make up a window of `length`."""
    block_q, block_k = math.gcd(tile.block_q, length), math.gcd(tile.block_k, length)
    warps = tile.num_warps * max(block_q, block_k) // max(tile.block_q, tile.block_k)
    return replace(tile, block_q=block_q, block_k=block_k, num_warps=warps)


def launch_options(tile: Tile) -> dict[str, Any]:
    """The keyword arguments of a kernel whose loops take their stages from the launch."""
    return {
        "block_q": tile.block_q, "block_k": tile.block_k, "num_warps": tile.num_warps, "num_stages": tile.num_stages,
        "maxnreg": tile.max_registers,
    }  # fmt: skip


def forward_shared_memory(tile: Tile, head_dim: int) -> int:
    """Bytes: the queries, and the keys with their hashes and values of each stage."""
    keys = tile.num_stages * tile.block_k * (OPERAND_BYTES * 2 * head_dim + 4)
    return OPERAND_BYTES * head_dim * tile.block_q + keys


def dq_shared_memory(tile: Tile, head_dim: int) -> int:
    """Bytes: queries and the gradients of outputs, and the keys with their hashes and values of each stage."""
    keys = tile.num_stages * tile.block_k * (OPERAND_BYTES * 2 * head_dim + 4)
    return OPERAND_BYTES * head_dim * 2 * tile.block_q + keys


def dkdv_shared_memory(tile: Tile, head_dim: int, heads: int) -> int:
    """Bytes: keys and values, and the queries and gradients of `heads` heads in each stage, with three numbers a row
    (`lse`, `delta` and the hash)."""
    operands = OPERAND_BYTES * head_dim * (2 * tile.block_k + tile.num_stages * heads * 2 * tile.block_q)
    return operands + tile.num_stages * heads * 3 * 4 * tile.block_q


def heads_at_once(tile: Tile, head_dim: int, group: int) -> int:
    """How many query heads of a group the kernel of dk and dv takes in each step: the most that have room."""
    divisors = (n for n in range(group, 0, -1) if group % n == 0)
    return next((n for n in divisors if dkdv_shared_memory(tile, head_dim, n) <= SHARED_MEMORY), 1)
