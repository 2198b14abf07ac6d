"""The loss on the head and its gradients, with no pass over the logits for their softmax.

Logits are shifted by the label's, `l_y = h · W[y]`, which is one cheap product of rows, computed first, instead of by
their maximum, which would need all of them. Then the logits' product itself can finish the work: its epilogue writes

    E = exp(l - l_y), 0 at the label and at the padding of the vocabulary, and its sums over rows, s

    loss = w log(1 + s)        dh = w (E W / (1 + s) - s / (1 + s) W[y])        dW = Eᵀ (w h / (1 + s)) + label rows

for a token of weight w: two more plain products. Where the loss alone is wanted, E is not written. `l - l_y` is cut at
64, where E, its sum over the vocabulary and all products of them are still far from the end of bfloat16's range: a
token that is off by more than that counts as 64.

With `fp8` the logits' product, and it alone, takes rows of 8-bit floats (e4m3), each divided by a scale of its own that
brings its largest entry to the end of their range; the labels' logits are of the same numbers.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from stochastok_cli.models.llama.fused.products import add_product
from stochastok_cli.models.llama.fused.swiglu import tile_of

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))
LARGEST = tl.constexpr(64 * math.log2(math.e))
ROWS = 8

# 128 x 256 logits, 64 deep: with 8 warps the accumulator takes half of the registers, and four stages of operands
# (192 KiB) fill shared memory. One program a multiprocessor, so the next tile's loads start during this one's epilogue
# (flattened loops); the epilogue goes in two halves, because a whole float32 tile has no room beside the stages.
# 32 row tiles walk over the vocabulary together: their rows (4 MiB) stay in L2 while the weight streams by.
TILE = {"block_m": 128, "block_n": 256, "block_k": 64, "group": 32}
FP8_TILE = {**TILE, "block_k": 128}  # the same bytes
FP8_LARGEST = tl.constexpr(448.0)
VOCAB_ALIGNMENT = TILE["block_n"]

Factor = tuple[Tensor, Tensor | None]
"""A matrix that is multiplied, and the scales of its rows if it is one of 8-bit floats."""


@triton.jit(do_not_specialize=["row_count"])
def _to_fp8(x_ptr, out_ptr, scale_ptr, row_count, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr):
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    inside = (row < row_count)[:, None] & (column < width)[None, :]
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 1) / FP8_LARGEST, 1e-30)
    tl.store(scale_ptr + row, scale, mask=row < row_count)
    tl.store(out_ptr + offset, (x / scale[:, None]).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["row_count"])
def _label_logits(
    hidden_ptr, weight_ptr, hidden_scale_ptr, weight_scale_ptr, target_ptr, out_ptr, row_count, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    inside = (row < row_count)[:, None] & (column < width)[None, :]
    target = tl.load(target_ptr + row, mask=row < row_count, other=0).to(tl.int64)
    hidden = tl.load(hidden_ptr + row.to(tl.int64)[:, None] * width + column[None, :], mask=inside, other=0.0)
    weight = tl.load(weight_ptr + target[:, None] * width + column[None, :], mask=inside, other=0.0)
    logit = tl.sum(hidden.to(tl.float32) * weight.to(tl.float32), 1)
    if hidden_scale_ptr is not None:
        logit *= tl.load(hidden_scale_ptr + row, mask=row < row_count, other=0.0)
        logit *= tl.load(weight_scale_ptr + target, mask=row < row_count, other=0.0)
    tl.store(out_ptr + row, logit, mask=row < row_count)


@triton.jit
def _shifted_exp(logits, label_logit, label, columns):
    """exp(logits - label's), 0 at column `label` and from column `columns` on; all `[rows, ...]`, columns from 0."""
    width: tl.constexpr = logits.shape[1]
    e = tl.math.exp2(tl.minimum(logits * LOG2_E - (label_logit * LOG2_E)[:, None], LARGEST))
    labels = tl.max(((label >= 0) & (label < width)).to(tl.int32), 0)
    if (labels > 0) | (columns < width):  # few tiles have any
        column = tl.arange(0, width)
        e = tl.where((column[None, :] == label[:, None]) | (column[None, :] >= columns), 0.0, e)
    return e


@triton.jit(do_not_specialize=["row_count"])
def _exp_logits(
    hidden_desc, weight_desc, exp_desc, hidden_scale_ptr, weight_scale_ptr, target_ptr, label_logit_ptr, partial_ptr,
    row_count, vocab: tl.constexpr, padded: tl.constexpr, depth: tl.constexpr, block_m: tl.constexpr,
    block_n: tl.constexpr, block_k: tl.constexpr, group: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = block_n // 2
    row_tiles, column_tiles = tl.cdiv(row_count, block_m), padded // block_n
    for t in tl.range(tl.program_id(0), row_tiles * column_tiles, tl.num_programs(0), flatten=True):
        m, n = tile_of(t, row_tiles, column_tiles, group)
        logits = tl.zeros([block_m, block_n], tl.float32)
        for k in range(0, depth, block_k):
            logits = tl.dot(hidden_desc.load([m * block_m, k]), weight_desc.load([n * block_n, k]).T, logits)
        row = m * block_m + tl.arange(0, block_m)
        if hidden_scale_ptr is not None:
            logits *= tl.load(hidden_scale_ptr + row, mask=row < row_count, other=0.0)[:, None]
            logits *= tl.load(weight_scale_ptr + n * block_n + tl.arange(0, block_n))[None, :]
        label_logit = tl.load(label_logit_ptr + row, mask=row < row_count, other=0.0)
        label = tl.load(target_ptr + row, mask=row < row_count, other=0) - n * block_n
        columns = vocab - n * block_n
        left, right = tl.split(tl.permute(tl.reshape(logits, (block_m, 2, half)), (0, 2, 1)))
        left = _shifted_exp(left, label_logit, label, columns)
        if exp_desc is not None:
            exp_desc.store([m * block_m, n * block_n], left.to(exp_desc.dtype))
        total = tl.sum(left, 1)
        right = _shifted_exp(right, label_logit, label - half, columns - half)
        if exp_desc is not None:
            exp_desc.store([m * block_m, n * block_n + half], right.to(exp_desc.dtype))
        tl.store(partial_ptr + n.to(tl.int64) * row_count + row, total + tl.sum(right, 1), mask=row < row_count)


@triton.jit(do_not_specialize=["row_count"])
def _loss_and_scaled(
    hidden_ptr, partial_ptr, token_weight_ptr, total_ptr, scaled_ptr, loss_ptr, row_count, parts, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    inside = (row < row_count)[:, None] & (column < width)[None, :]
    total = tl.zeros([rows], tl.float32)
    for first in range(0, parts, 16):
        part = first + tl.arange(0, 16)
        there = (part < parts)[:, None] & (row < row_count)[None, :]
        offset = part.to(tl.int64)[:, None] * row_count + row[None, :]
        total += tl.sum(tl.load(partial_ptr + offset, mask=there, other=0.0), 0)
    weight = tl.load(token_weight_ptr + row, mask=row < row_count, other=0.0)
    nll = tl.where(total < 1e-3, total - 0.5 * total * total, tl.math.log2(1 + total) * LN_2)
    tl.store(loss_ptr + row, weight * nll, mask=row < row_count)
    tl.store(total_ptr + row, total, mask=row < row_count)
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    hidden = tl.load(hidden_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    scaled = hidden * (weight / (1 + total))[:, None]
    tl.store(scaled_ptr + offset, scaled.to(scaled_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["row_count"])
def _finish_gradients(
    hidden_ptr, weight_ptr, target_ptr, token_weight_ptr, total_ptr, grad_ptr, weight_grad_ptr, row_count,
    width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    inside = (row < row_count)[:, None] & (column < width)[None, :]
    target = tl.load(target_ptr + row, mask=row < row_count, other=0).to(tl.int64)
    token_weight = tl.load(token_weight_ptr + row, mask=row < row_count, other=0.0)
    total = tl.load(total_ptr + row, mask=row < row_count, other=0.0)
    of_others, of_label = token_weight / (1 + total), token_weight * total / (1 + total)
    offset, label_offset = (
        row.to(tl.int64)[:, None] * width + column[None, :],
        target[:, None] * width + column[None, :],
    )
    summed = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + label_offset, mask=inside, other=0.0).to(tl.float32)
    grad = summed * of_others[:, None] - weight * of_label[:, None]
    tl.store(grad_ptr + offset, grad.to(grad_ptr.dtype.element_ty), mask=inside)
    hidden = tl.load(hidden_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    tl.atomic_add(weight_grad_ptr + label_offset, -hidden * of_label[:, None], mask=inside, sem="relaxed")


class FusedHead:
    """The loss on a head of `vocab` entries and depth D, and its gradients, for up to `chunk` rows at a time."""

    def __init__(
        self, vocab: int, depth: int, chunk: int, dtype: torch.dtype, device: torch.device, *, fp8: bool = False
    ) -> None:
        self.vocab, self.chunk, self.fp8 = vocab, chunk, fp8
        self.padded = triton.cdiv(vocab, VOCAB_ALIGNMENT) * VOCAB_ALIGNMENT
        self.exp = torch.empty(chunk, self.padded, dtype=dtype, device=device)
        self.scaled = torch.empty(chunk, depth, dtype=dtype, device=device)
        self.weight_grad = torch.empty(self.padded, depth, device=device)
        self.total = torch.empty(chunk, device=device)

    def __call__(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, grad: Tensor, weight_grad: Tensor
    ) -> Tensor:
        """The losses, float32 `[M]`, of which the sum counts; `grad` `[M, D]` is written, `weight_grad` added to.

        `hidden` `[M, D]`, `weight` `[padded V, D]` with zeros in the padding, `targets` int32 and `token_weights`
        float32 `[M]`, `weight_grad` float32 `[V, D]`.
        """
        losses = torch.empty_like(token_weights)
        self.weight_grad.zero_()
        factor = _rows_to_fp8(weight) if self.fp8 else (weight, None)
        for first in range(0, len(hidden), self.chunk):
            part = slice(first, first + self.chunk)
            self._chunk(hidden[part], weight, factor, targets[part], token_weights[part], grad[part], losses[part])
        weight_grad += self.weight_grad[: self.vocab]
        return losses

    def _chunk(
        self, hidden: Tensor, weight: Tensor, factor: Factor, targets: Tensor, token_weights: Tensor, grad: Tensor,
        losses: Tensor,
    ) -> None:  # fmt: skip
        rows, width = hidden.shape
        block, grid = triton.next_power_of_2(width), (triton.cdiv(rows, ROWS),)
        exp, scaled = self.exp[:rows], self.scaled[:rows]
        partial = _exp_logits_and_sums(
            _rows_to_fp8(hidden) if self.fp8 else (hidden, None), factor, targets, self.vocab, exp
        )
        _loss_and_scaled[grid](
            hidden, partial, token_weights, self.total, scaled, losses, rows, len(partial), width, block, ROWS,
            num_warps=4,
        )  # fmt: skip
        torch.mm(exp, weight, out=grad)
        # In a buffer with the padding's rows: an odd number of rows sends the product to a kernel half as fast.
        add_product(self.weight_grad, exp.T, scaled)
        _finish_gradients[grid](
            hidden, weight, targets, token_weights, self.total, grad, self.weight_grad, rows, width, block, ROWS,
            num_warps=4,
        )  # fmt: skip


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, vocab: int) -> Tensor:
    """The losses alone, float32 `[M]`, of arguments as `FusedHead` takes them; the logits are never in memory."""
    partial = _exp_logits_and_sums((hidden, None), (weight, None), targets, vocab, None)
    return token_weights * partial.sum(0).log1p()


def _exp_logits_and_sums(hidden: Factor, weight: Factor, targets: Tensor, vocab: int, exp: Tensor | None) -> Tensor:
    """Sums of E over the vocabulary's tiles, float32 `[tiles, M]`; writes E to `exp` `[M, padded V]` where it's given.

    `hidden` `[M, D]` and `weight` `[padded V, D]`, both with scales of their rows or both without.
    """
    (left, left_scale), (right, right_scale) = hidden, weight
    (rows, width), padded, device = left.shape, len(right), left.device
    tile = TILE if left_scale is None else FP8_TILE
    tiles = padded // tile["block_n"]
    label_logit, partial = torch.empty(rows, device=device), torch.empty(tiles, rows, device=device)
    _label_logits[(triton.cdiv(rows, ROWS),)](
        left, right, left_scale, right_scale, targets, label_logit, rows, width, triton.next_power_of_2(width), ROWS,
        num_warps=4,
    )  # fmt: skip
    programs = 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
    _exp_logits[(min(programs, triton.cdiv(rows, tile["block_m"]) * tiles),)](
        TensorDescriptor.from_tensor(left, [tile["block_m"], tile["block_k"]]),
        TensorDescriptor.from_tensor(right, [tile["block_n"], tile["block_k"]]),
        None if exp is None else TensorDescriptor.from_tensor(exp, [tile["block_m"], tile["block_n"] // 2]),
        left_scale, right_scale, targets, label_logit, partial, rows, vocab, padded, width, **tile,
        num_warps=8, num_stages=4,
    )  # fmt: skip
    return partial


def _rows_to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` `[M, D]` as 8-bit floats, and the scales of its rows, float32 `[M]`."""
    (rows, width), scale = x.shape, torch.empty(len(x), device=x.device)
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    _to_fp8[(triton.cdiv(rows, ROWS),)](x, out, scale, rows, width, triton.next_power_of_2(width), ROWS, num_warps=4)
    return out, scale
