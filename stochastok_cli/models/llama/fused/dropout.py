"""Dropout masks that are pure functions of (window, layer, place, row, column), at one multiplication an element.

Every row and every column of a mask has an odd 32-bit hash of three things: the 64-bit dropout key of the window, the
number of the stream (which stands for a layer and a place in it), and the index of the row or column. An element is
kept where the product of its two hashes, modulo 2^32, is at least p * 2^32:

    keep[r, c] = row_hash[r] * column_hash[c] mod 2^32 >= p * 2^32

Multiplication by an odd factor permutes the odd residues. So the product is uniform over the hashes of columns for any
row, and over those of rows for any column. Two rows of one mask depend on each other only if the ratio of their hashes
modulo 2^32 is a fraction of small integers: the correlation of fewer than one pair in a million exceeds 0.01, and it is
another pair in another mask, because every mask has hashes of its own. Philox would take some forty multiplications
for four elements, in loops that are already bound by arithmetic.

The masks do not depend on how windows are divided into micro-batches, nor on the rank that computes them.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

DROP_ASSEMBLY = tl.constexpr("""{
    .reg .b32 product;
    .reg .pred kept;
    mul.lo.u32 product, $2, $3;
    setp.ge.u32 kept, product, $4;
    selp.f32 $0, $1, 0f00000000, kept;
}""")
"""An element `$1`, or 0 where the product of its hashes `$2` and `$3` is below the threshold `$4`."""

EMBEDDING_STREAM = 0
"""The stream of row hashes of the embedding's mask. For every mask, column hashes have the stream that follows."""


def attention_stream(layer: int) -> int:
    """The stream of a layer's attention weights: rows are `head * T + query`, columns `kv_head * T + key`."""
    return 4 * layer + 2


def output_stream(layer: int) -> int:
    """The stream of a layer's attention output: rows are positions, columns are entries of the hidden state."""
    return 4 * layer + 4


def drop_threshold(dropout: float) -> int:
    """The products below which an element is dropped."""
    return int(dropout * 2**32)


@triton.jit
def lowbias32(x):
    """A permutation of uint32 in which every input bit affects every output bit (lowbias32, C. Wellons 2018)."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def odd_hash(dropout_key, stream, index):
    """Odd uint32 hashes, of the shape of `index`, of a window's int64 key, a stream and indices below 2^32."""
    low = lowbias32(dropout_key.to(tl.uint32) + lowbias32(stream.to(tl.uint32)))
    high = lowbias32((dropout_key >> 32).to(tl.uint32) + low)
    return lowbias32(lowbias32(index.to(tl.uint32) + low) ^ high) | 1


@triton.jit
def keep_mask(row_hash, column_hash, threshold: tl.constexpr):
    """Which elements are kept, bool `[R, C]`, from the hashes of rows `[R]` and columns `[C]`."""
    return row_hash[:, None] * column_hash[None, :] >= threshold


@triton.jit
def drop(x, row_hash, column_hash, threshold: tl.constexpr):
    """Float32 `x` `[R, C]` where it is kept, else 0, from the hashes of rows `[R]` and columns `[C]`.

    The instructions are written out, because the compiler would move the selection behind a conversion of `x` to 16
    bits, where it takes two instructions, or make all comparisons first and pack their results into bits: up to 2.4
    more instructions an element, of some 12. Triton's interpreter has no assembler.
    """
    if _INTERPRETED:
        return tl.where(keep_mask(row_hash, column_hash, threshold), x, 0.0)
    limit = tl.full([1, 1], threshold, tl.uint32)
    return tl.inline_asm_elementwise(
        DROP_ASSEMBLY,
        "=f,f,r,r,r",
        [x, row_hash[:, None], column_hash[None, :], limit],
        dtype=tl.float32,
        is_pure=True,
        pack=1,
    )


def residual_mask_on_cpu(dropout_keys: Tensor, stream: int, length: int, width: int, threshold: int) -> Tensor:
    """What `keep_mask` is for whole windows of hidden states: bool `[B T, D]`, from keys int64 `[B]`."""
    keys = dropout_keys.numpy().view(np.uint64)[:, None]

    def odd_hash(stream: int, size: int) -> np.ndarray:
        mixed = lowbias32.fn
        low = mixed(keys.astype(np.uint32) + mixed(np.array([stream], np.uint32)))
        high = mixed((keys >> np.uint64(32)).astype(np.uint32) + low)
        return mixed(mixed(np.arange(size, dtype=np.uint32) + low) ^ high) | np.uint32(1)

    product = odd_hash(stream, length)[:, :, None] * odd_hash(stream + 1, width)[:, None, :]
    return torch.from_numpy(product >= threshold).flatten(0, 1)


@triton.jit(do_not_specialize=["stream"])
def _attention_hashes(
    dropout_keys_ptr, query_hash_ptr, key_hash_ptr, stream, heads: tl.constexpr, kv_heads: tl.constexpr,
    length: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    head, window = tl.program_id(0), tl.program_id(1)
    dropout_key = tl.load(dropout_keys_ptr + window)
    position = tl.arange(0, block)
    if head < heads:
        hashes = odd_hash(dropout_key, stream, head * length + position)
        out = query_hash_ptr + (window * heads + head) * length + position
    else:
        hashes = odd_hash(dropout_key, stream + 1, (head - heads) * length + position)
        out = key_hash_ptr + (window * kv_heads + head - heads) * length + position
    tl.store(out, hashes.to(tl.int32, bitcast=True), mask=position < length)


def attention_hashes(dropout_keys: Tensor, layer: int, query_hash: Tensor, key_hash: Tensor) -> None:
    """Writes the hashes of a layer's attention masks, which the forward and backward kernels would otherwise recompute.

    Query heads that share a key/value head share the hashes of keys, so that the kernel which goes over these heads
    loads them once.

    Args:
        dropout_keys: int64 `[B]`, the keys of the windows.
        layer: The number of the layer, from 0.
        query_hash: Written, int32 `[B, H, T]`: the rows of the masks.
        key_hash: Written, int32 `[B, G, T]`: the columns.
    """
    windows, heads, length = query_hash.shape
    kv_heads = key_hash.shape[1]
    _attention_hashes[(heads + kv_heads, windows)](
        dropout_keys, query_hash, key_hash, attention_stream(layer), heads, kv_heads, length,
        triton.next_power_of_2(length), num_warps=4,
    )  # fmt: skip
