"""Dropout masks that are pure functions of (window, site, row, column), one multiplication an element.

Every row and every column of a mask has a 32-bit word, odd, hashed from the window's 64-bit key, the number of its
stream and its index. An element is kept where the product of its two words, modulo 2^32, is at least p * 2^32:

    keep[r, c] = row_word[r] * column_word[c] mod 2^32 >= p * 2^32

An odd factor permutes the odd residues, so for any row, over the columns' hashes, the product is uniform, and for any
column over the rows'. Two rows of one mask depend on each other only if the ratio of their words modulo 2^32 is a
fraction of small integers: fewer than one pair in a million correlates by more than 0.01, and another pair in another
mask, because every mask (window, layer, place) has words of its own. Philox would take some forty multiplications for
four elements, in loops that are already bound by their arithmetic.

The masks do not depend on how windows are put together into micro-batches, nor on who computes them.
"""

import triton
import triton.language as tl
from torch import Tensor

EMBEDDING = 0  # the stream of the rows of a place; the next one is that of its columns


def attention_stream(layer: int) -> int:
    """The stream of a layer's attention weights: rows are `head * T + query`, columns `kv_head * T + key`."""
    return 4 * layer + 2


def output_stream(layer: int) -> int:
    """The stream of a layer's attention output: rows are positions, columns are entries of the residual stream."""
    return 4 * layer + 4


def drop_threshold(dropout: float) -> int:
    """The products below which an element is dropped."""
    return int(dropout * 2**32)


@triton.jit
def mix(x):
    """A permutation of uint32 in which every bit of the input moves every bit of the output (lowbias32, C. Wellons)."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def words(key, stream, index):
    """Odd uint32 words, of the shape of `index`, from a window's int64 `key`, a `stream` and indices below 2^32."""
    low = mix(key.to(tl.uint32) + mix(stream.to(tl.uint32)))
    high = mix((key >> 32).to(tl.uint32) + low)
    return mix(mix(index.to(tl.uint32) + low) ^ high) | 1


@triton.jit
def keep(row_words, column_words, threshold: tl.constexpr):
    """The mask `[rows, columns]` of words `[rows]` and `[columns]`."""
    return row_words[:, None] * column_words[None, :] >= threshold


@triton.jit(do_not_specialize=["stream"])
def _attention_words(
    keys_ptr, rows_ptr, columns_ptr, stream, heads: tl.constexpr, kv_heads: tl.constexpr, length: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    head, window = tl.program_id(0), tl.program_id(1)
    key = tl.load(keys_ptr + window)
    position = tl.arange(0, block)
    if head < heads:
        word = words(key, stream, head * length + position)
        out = rows_ptr + (window * heads + head) * length + position
    else:
        word = words(key, stream + 1, (head - heads) * length + position)
        out = columns_ptr + (window * kv_heads + head - heads) * length + position
    tl.store(out, word.to(tl.int32, bitcast=True), mask=position < length)


def attention_words(keys: Tensor, layer: int, rows: Tensor, columns: Tensor) -> None:
    """Writes the words of a layer's attention masks: `rows` int32 `[B, H, T]`, `columns` int32 `[B, G, T]`.

    They are read by the forward and both backward kernels, whose inner loops would otherwise hash them again. Query
    heads that share a key/value head share its column words, so that the kernel which walks over them loads them once.
    """
    windows, heads, length = rows.shape
    kv_heads = columns.shape[1]
    _attention_words[(heads + kv_heads, windows)](
        keys, rows, columns, attention_stream(layer), heads, kv_heads, length, triton.next_power_of_2(length),
        num_warps=4,
    )  # fmt: skip
