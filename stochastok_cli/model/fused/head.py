"""The loss on the head and its gradients, with no pass over the logits for their softmax.

Logits are shifted by the label's, `l_y = h · W[y]`, which is one cheap product of rows, computed first, instead of by
their maximum, which would need all of them. Then the logits' product itself can finish the work: its epilogue writes

    E = exp(l - l_y), 0 at the label and at the padding of the vocabulary, and its sums over rows, s

    loss = w log(1 + s)        dh = w (E W / (1 + s) - s / (1 + s) W[y])        dW = Eᵀ (w h / (1 + s)) + label rows

for a token of weight w: two more plain products. `l - l_y` is cut at 64, where E, its sum over the vocabulary and all
products of them are still far from the end of bfloat16's range: a token that is off by more than that counts as 64.

With `fp8` the logits' product, and it alone, takes rows of 8-bit floats (e4m3), each divided by a scale of its own that
brings its largest entry to the end of their range; the labels' logits are of the same numbers.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from stochastok_cli.model.fused.products import add_product
from stochastok_cli.model.fused.swiglu import tile_of

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
    block: tl.constexpr, rows: tl.constexpr, fp8: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    inside = (row < row_count)[:, None] & (column < width)[None, :]
    target = tl.load(target_ptr + row, mask=row < row_count, other=0).to(tl.int64)
    hidden = tl.load(hidden_ptr + row.to(tl.int64)[:, None] * width + column[None, :], mask=inside, other=0.0)
    weight = tl.load(weight_ptr + target[:, None] * width + column[None, :], mask=inside, other=0.0)
    logit = tl.sum(hidden.to(tl.float32) * weight.to(tl.float32), 1)
    if fp8:
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
    row_count, vocab: tl.constexpr, padded: tl.constexpr, depth: tl.constexpr, fp8: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, group: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = block_n // 2
    row_tiles, column_tiles = tl.cdiv(row_count, block_m), padded // block_n
    for t in tl.range(tl.program_id(0), row_tiles * column_tiles, tl.num_programs(0), flatten=True):
        m, n = tile_of(t, row_tiles, column_tiles, group)
        logits = tl.zeros([block_m, block_n], tl.float32)
        for k in range(0, depth, block_k):
            logits = tl.dot(hidden_desc.load([m * block_m, k]), weight_desc.load([n * block_n, k]).T, logits)
        row = m * block_m + tl.arange(0, block_m)
        if fp8:
            logits *= tl.load(hidden_scale_ptr + row, mask=row < row_count, other=0.0)[:, None]
            logits *= tl.load(weight_scale_ptr + n * block_n + tl.arange(0, block_n))[None, :]
        label_logit = tl.load(label_logit_ptr + row, mask=row < row_count, other=0.0)
        label = tl.load(target_ptr + row, mask=row < row_count, other=0) - n * block_n
        columns = vocab - n * block_n
        left, right = tl.split(tl.permute(tl.reshape(logits, (block_m, 2, half)), (0, 2, 1)))
        left = _shifted_exp(left, label_logit, label, columns)
        exp_desc.store([m * block_m, n * block_n], left.to(exp_desc.dtype))
        total = tl.sum(left, 1)
        right = _shifted_exp(right, label_logit, label - half, columns - half)
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
        self.programs = 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
        self.exp = torch.empty(chunk, self.padded, dtype=dtype, device=device)
        self.scaled = torch.empty(chunk, depth, dtype=dtype, device=device)
        self.partial = torch.empty(self.padded // TILE["block_n"] * chunk, device=device)
        self.weight_grad = torch.empty(self.padded, depth, device=device)
        self.label_logit, self.total = torch.empty(2, chunk, device=device)
        if fp8:
            self.hidden_fp8 = torch.empty(chunk, depth, dtype=torch.float8_e4m3fn, device=device)
            self.weight_fp8 = torch.empty(self.padded, depth, dtype=torch.float8_e4m3fn, device=device)
        self.hidden_scale = torch.empty(chunk if fp8 else 1, device=device)
        self.weight_scale = torch.empty(self.padded if fp8 else 1, device=device)

    def __call__(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, grad: Tensor, weight_grad: Tensor
    ) -> Tensor:
        """The losses, float32 `[M]`, of which the sum counts; `grad` `[M, D]` is written, `weight_grad` added to.

        `hidden` `[M, D]`, `weight` `[padded V, D]` with zeros in the padding, `targets` int32 and `token_weights`
        float32 `[M]`, `weight_grad` float32 `[V, D]`.
        """
        losses = torch.empty_like(token_weights)
        self.weight_grad.zero_()
        if self.fp8:
            _rows_to_fp8(weight, self.weight_fp8, self.weight_scale)
        for first in range(0, len(hidden), self.chunk):
            part = slice(first, first + self.chunk)
            self._chunk(hidden[part], weight, targets[part], token_weights[part], grad[part], losses[part])
        weight_grad += self.weight_grad[: self.vocab]
        return losses

    def _chunk(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, grad: Tensor, losses: Tensor,
    ) -> None:  # fmt: skip
        rows, width = hidden.shape
        block, grid, tile = triton.next_power_of_2(width), (triton.cdiv(rows, ROWS),), FP8_TILE if self.fp8 else TILE
        exp, scaled = self.exp[:rows], self.scaled[:rows]
        left, right = hidden, weight
        if self.fp8:
            left, right = self.hidden_fp8[:rows], self.weight_fp8
            _rows_to_fp8(hidden, left, self.hidden_scale)
        scales = self.hidden_scale, self.weight_scale
        _label_logits[grid](
            left, right, *scales, targets, self.label_logit, rows, width, block, ROWS, self.fp8, num_warps=4
        )
        parts = self.padded // tile["block_n"]
        _exp_logits[(min(self.programs, triton.cdiv(rows, tile["block_m"]) * parts),)](
            TensorDescriptor.from_tensor(left, [tile["block_m"], tile["block_k"]]),
            TensorDescriptor.from_tensor(right, [tile["block_n"], tile["block_k"]]),
            TensorDescriptor.from_tensor(exp, [tile["block_m"], tile["block_n"] // 2]),
            *scales, targets, self.label_logit, self.partial, rows, self.vocab, self.padded, width, self.fp8, **tile,
            num_warps=8, num_stages=4,
        )  # fmt: skip
        _loss_and_scaled[grid](
            hidden, self.partial, token_weights, self.total, scaled, losses, rows, parts, width, block, ROWS,
            num_warps=4,
        )  # fmt: skip
        torch.mm(exp, weight, out=grad)
        # In a buffer with the padding's rows: an odd number of rows sends the product to a kernel half as fast.
        add_product(self.weight_grad, exp.T, scaled)
        _finish_gradients[grid](
            hidden, weight, targets, token_weights, self.total, grad, self.weight_grad, rows, width, block, ROWS,
            num_warps=4,
        )  # fmt: skip


def _rows_to_fp8(x: Tensor, out: Tensor, scale: Tensor) -> None:
    rows, width = x.shape
    _to_fp8[(triton.cdiv(rows, ROWS),)](x, out, scale, rows, width, triton.next_power_of_2(width), ROWS, num_warps=4)
