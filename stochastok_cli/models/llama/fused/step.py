"""Forward pass, loss and gradients of a `Llama`, chained from the kernels of this room.

Names: B windows of T tokens, N = B T rows, D the width of the residual stream, F that of the feed-forward, H query
heads and G key/value heads of width h. Activations and their gradients are bfloat16, as is the residual stream; sums,
statistics of norms, losses and the weights' gradients are float32. There is no autograd: each layer leaves what its
gradient needs in buffers that are allocated once, 135 KB for each token at the shipped sizes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_backward import attention_backward
from stochastok_cli.models.llama.fused.attention_forward import attention
from stochastok_cli.models.llama.fused.buffers import Buffers, activation_bytes, allocate, first_windows
from stochastok_cli.models.llama.fused.dropout import attention_words, output_stream
from stochastok_cli.models.llama.fused.embedding import embed, embed_backward
from stochastok_cli.models.llama.fused.head import VOCAB_ALIGNMENT, FusedHead, head_losses
from stochastok_cli.models.llama.fused.norm import PARTIAL_SUMS, residual_norm, residual_norm_backward
from stochastok_cli.models.llama.fused.products import add_product
from stochastok_cli.models.llama.fused.rotary import rotate_
from stochastok_cli.models.llama.fused.swiglu import gate_up_swiglu, swiglu_backward
from stochastok_cli.models.llama.model import Block, Llama

HEAD_CHUNK = 122_880  # rows whose logits are held at once: 12.4 GB at the shipped sizes
HEAD_STEP = 4096  # its room grows by so many rows, when the tokens that count grow in number


class LlamaFusedStep:
    """Loss and gradients of `model`, whose parameters it reads and whose `.grad` it adds to, float32 both.

    `dropout` acts where the reference model's does, with masks that `fused.dropout` makes from keys of windows, so the
    results are those of any other division of the windows into calls and micro-batches, up to the order of float32
    sums. `micro_batch` is the largest number of windows whose activations are held at once; where it's None, a call's
    windows are, or as many as fit the device when it comes first. `fp8_logits`: see `fused.head`. `dtype` is another
    for tests alone.
    """

    def __init__(
        self,
        model: Llama,
        dropout: float,
        *,
        micro_batch: int | None = None,
        head_chunk: int = HEAD_CHUNK,
        fp8_logits: bool = False,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        assert 0 <= dropout < 1
        self.model, self.config, self.dropout = model, model.config, dropout
        self.micro_batch, self.head_chunk, self.fp8_logits, self.dtype = micro_batch, head_chunk, fp8_logits, dtype
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self._head: FusedHead | None = None
        self._micro_batches: dict[tuple[int, int], int] = {}
        self._buffers: dict[tuple[int, int], Buffers] = {}
        padding = -self.config.vocab_size % VOCAB_ALIGNMENT
        self.weights: dict[Tensor, Tensor] = {}  # of each matrix, its copy in the type in which products run
        for parameter in self.parameters:
            if parameter.dim() > 1:
                rows = parameter.shape[0] + (padding if parameter is model.head.weight else 0)
                self.weights[parameter] = torch.zeros(rows, parameter.shape[1], dtype=dtype, device=self.device)
        matrices = list(self.weights)
        self._copies = [self.weights[p][: len(p)] for p in matrices], matrices
        self._partial = torch.empty(
            PARTIAL_SUMS if self.device.type == "cuda" else 2, self.config.hidden_dim, device=self.device
        )

    @torch.no_grad()
    def loss_and_gradients(
        self,
        ids: Tensor,
        token_weights: Tensor,
        segment_start: Tensor | None,
        dropout_keys: Tensor,
        *,
        num_loss_tokens: int | None = None,
        layer_is_complete: Callable[[int], None] = lambda layer: None,
    ) -> Tensor:
        """`sum(token_weights * nll)`, a float32 scalar on the device, whose gradients are added to the parameters'.

        `ids` `[B, T + 1]`, `token_weights` float32 `[B, T]`, `segment_start` `[B, T]` as `Llama` takes it,
        `dropout_keys` int64 or uint64 `[B]`: each window's key of dropout. `num_loss_tokens` is the number of token
        weights that are not 0, or more: knowing it, the head computes those tokens only, which for instruction data is
        a small part.
        `layer_is_complete` is called, from the last layer to the first, when nothing will be added to a layer's
        gradients any more. Nothing waits for the device.
        """
        windows, length = self._check_shapes(ids, token_weights)
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._copy_weights()
        keys = dropout_keys.view(torch.int64)
        visible = None if segment_start is None else segment_start.to(torch.int32).contiguous()
        inputs, targets = ids[:, :-1].to(torch.int32).contiguous(), ids[:, 1:].to(torch.int32).contiguous()
        step = self._micro_batch_of(windows, length)
        losses = []
        for first in range(0, windows, step):
            part = slice(first, first + step)
            seen = None if visible is None else visible[part]
            buffers = self._buffers_for(len(keys[part]), length)
            self._forward(buffers, inputs[part].view(-1), seen, keys[part], self.dropout)
            losses.append(
                self._loss(buffers, targets[part].view(-1), token_weights[part].reshape(-1).float(), num_loss_tokens)
            )
            last = first + step >= windows
            self._backward(
                buffers, inputs[part].view(-1), seen, keys[part], layer_is_complete if last else lambda layer: None
            )
        return torch.stack(losses).sum()

    @torch.no_grad()
    def loss(
        self, ids: Tensor, token_weights: Tensor, segment_start: Tensor | None, *, num_loss_tokens: int | None = None
    ) -> Tensor:
        """`sum(token_weights * nll)` without dropout and without gradients: arguments as in `loss_and_gradients`.

        The logits are those of bfloat16 products whatever `fp8_logits` says: the model's, not its training's.
        """
        windows, length = self._check_shapes(ids, token_weights)
        self._copy_weights()
        buffers = self._buffers_for(windows, length)
        visible = None if segment_start is None else segment_start.to(torch.int32).contiguous()
        keys = torch.zeros(windows, dtype=torch.int64, device=self.device)
        inputs, targets = ids[:, :-1].to(torch.int32).contiguous(), ids[:, 1:].to(torch.int32).contiguous()
        self._forward(buffers, inputs.view(-1), visible, keys, 0.0)
        counting = _counting(targets.view(-1), token_weights.reshape(-1).float(), num_loss_tokens)
        hidden = buffers.normed if counting.rows is None else buffers.normed[counting.rows]
        weight = self.weights[self.model.head.weight]
        return head_losses(hidden, weight, counting.targets, counting.weights, self.config.vocab_size).sum()

    def _check_shapes(self, ids: Tensor, token_weights: Tensor) -> tuple[int, int]:
        """B and T."""
        windows, length = token_weights.shape
        assert ids.shape == (windows, length + 1) and length % 64 == 0 and length <= self.config.context_window
        return windows, length

    def _micro_batch_of(self, windows: int, length: int) -> int:
        """How many of a call's windows are taken at once: `micro_batch`, or equal parts that fit the device."""
        if self.micro_batch is not None:
            return self.micro_batch
        if (windows, length) not in self._micro_batches:
            parts = 1
            if self.device.type == "cuda":
                rows, vocab = min(windows * length, self.head_chunk), self.config.vocab_size
                head = rows * (vocab + self.config.hidden_dim) * 2 + vocab * self.config.hidden_dim * 4
                free = (free_memory(self.device) - head) * 0.95  # the rest for small and fragmented things
                parts = math.ceil(activation_bytes(self.config, windows, length) / max(free, 1))
            self._micro_batches[windows, length] = math.ceil(windows / min(parts, windows))
        return self._micro_batches[windows, length]

    def _copy_weights(self) -> None:
        """Rounds the parameters to the copies that the products read."""
        torch._foreach_copy_(*self._copies)

    def _buffers_for(self, windows: int, length: int) -> Buffers:
        if (windows, length) not in self._buffers:
            # What was allocated for another shape is let go first; a call's shorter last micro-batch is a view.
            largest = next((b for (w, t), b in self._buffers.items() if t == length and w > windows), None)
            if largest is None:
                self._buffers.clear()
                self._buffers[windows, length] = allocate(self.config, windows, length, self.dtype, self.device)
            else:
                self._buffers[windows, length] = first_windows(largest, windows, length)
        return self._buffers[windows, length]

    def _forward(
        self, buffers: Buffers, ids: Tensor, segment_start: Tensor | None, keys: Tensor, dropout: float
    ) -> None:
        """From `ids` int32 `[N]` to the last norm's output, `buffers.normed`."""
        model, weights, length = self.model, self.weights, len(ids) // len(keys)
        heads, groups = self.config.core_model.attn.num_heads, self.config.kv_heads
        blocks: list[Block] = list(model.layers)  # type: ignore[arg-type]
        start, y = buffers.layers[0], buffers.y
        embed(
            ids, weights[model.embedding.weight], blocks[0].attention_norm.weight, keys, dropout, length, start.x,
            start.normed, start.rstd,
        )  # fmt: skip
        for i, (block, layer) in enumerate(zip(blocks, buffers.layers, strict=True)):
            torch.mm(layer.normed, weights[block.attention.qkv.weight].T, out=layer.qkv)
            rotate_(layer.qkv, model.rotation, heads, groups, length)
            if dropout > 0:
                attention_words(keys, i, layer.rows, layer.columns)
            attention(layer.qkv, segment_start, layer.rows, layer.columns, dropout, layer.attended, layer.lse)
            torch.mm(layer.attended, weights[block.attention.output.weight].T, out=y)
            residual_norm(
                layer.x, y, block.ffn_norm.weight, keys, output_stream(i), dropout, length, layer.ffn_x,
                layer.ffn_normed, layer.ffn_rstd,
            )  # fmt: skip
            gate_up_swiglu(layer.ffn_normed, weights[block.ffn.gate_up.weight], layer.gate_up, layer.act)
            torch.mm(layer.act, weights[block.ffn.down.weight].T, out=y)
            last = i + 1 == len(blocks)
            after = buffers if last else buffers.layers[i + 1]
            gain = model.norm.weight if last else blocks[i + 1].attention_norm.weight
            residual_norm(layer.ffn_x, y, gain, keys, 0, 0.0, length, after.x, after.normed, after.rstd)

    def _loss(self, buffers: Buffers, targets: Tensor, token_weights: Tensor, num_loss_tokens: int | None) -> Tensor:
        """The loss of a micro-batch; writes `buffers.normed_grad` and adds to the gradient of the head's weight."""
        parameter = self.model.head.weight
        weight, weight_grad = self.weights[parameter], gradient_of(parameter)
        counting = _counting(targets, token_weights, num_loss_tokens)
        head = self._head_for(len(counting.targets))
        if counting.rows is None:
            return head(buffers.normed, weight, targets, token_weights, buffers.normed_grad, weight_grad).sum()
        hidden = buffers.normed[counting.rows]
        grad = torch.empty_like(hidden)
        losses = head(hidden, weight, counting.targets, counting.weights, grad, weight_grad)
        buffers.normed_grad.zero_().index_add_(0, counting.rows, grad)
        return losses.sum()

    def _head_for(self, rows: int) -> FusedHead:
        """The head with room for so many rows at once, or for the largest chunk that is allowed."""
        needed = min(math.ceil(rows / HEAD_STEP) * HEAD_STEP, self.head_chunk)
        if self._head is None or self._head.chunk < needed:
            self._head = None  # before the larger one is allocated
            vocab, width = self.model.head.weight.shape
            self._head = FusedHead(vocab, width, needed, self.dtype, self.device, fp8=self.fp8_logits)
        return self._head

    def _backward(
        self,
        buffers: Buffers,
        ids: Tensor,
        segment_start: Tensor | None,
        keys: Tensor,
        layer_is_done: Callable[[int], None],
    ) -> None:
        """From `buffers.normed_grad` back to the embedding, adding to every other gradient."""
        model, weights, dropout, length = self.model, self.weights, self.dropout, len(ids) // len(keys)
        b, partial = buffers, self._partial
        residual_norm_backward(
            b.normed_grad, b.x, b.rstd, model.norm.weight, None, b.grad, gradient_of(model.norm.weight), partial
        )
        for i in reversed(range(len(b.layers))):
            layer, block = b.layers[i], model.layers[i]
            assert isinstance(block, Block)
            down, gate_up = block.ffn.down.weight, block.ffn.gate_up.weight
            output, qkv = block.attention.output.weight, block.attention.qkv.weight

            add_product(gradient_of(down), b.grad.T, layer.act)
            torch.mm(b.grad, weights[down], out=b.act_grad)
            swiglu_backward(layer.gate_up, b.act_grad, b.gate_up_grad)
            add_product(gradient_of(gate_up), b.gate_up_grad.T, layer.ffn_normed)
            torch.mm(b.gate_up_grad, weights[gate_up], out=b.normed_grad)
            residual_norm_backward(
                b.normed_grad, layer.ffn_x, layer.ffn_rstd, block.ffn_norm.weight, b.grad, b.ffn_grad,
                gradient_of(block.ffn_norm.weight), partial, dy=b.y, keys=keys, stream=output_stream(i),
                dropout=dropout, length=length,
            )  # fmt: skip

            add_product(gradient_of(output), b.y.T, layer.attended)
            torch.mm(b.y, weights[output], out=b.attended_grad)
            attention_backward(
                layer.qkv, layer.attended, b.attended_grad, layer.lse, segment_start, layer.rows, layer.columns,
                model.rotation, dropout, b.delta, b.qkv_grad,
            )  # fmt: skip
            add_product(gradient_of(qkv), b.qkv_grad.T, layer.normed)
            torch.mm(b.qkv_grad, weights[qkv], out=b.normed_grad)
            residual_norm_backward(
                b.normed_grad, layer.x, layer.rstd, block.attention_norm.weight, b.ffn_grad, b.grad,
                gradient_of(block.attention_norm.weight), partial,
            )  # fmt: skip
            layer_is_done(i)
        embed_backward(ids, b.grad, keys, dropout, length, gradient_of(model.embedding.weight))


@dataclass(frozen=True)
class _Counting:
    """The tokens of a micro-batch that the head computes."""

    rows: Tensor | None  # [M] which of the N they are; None for all
    targets: Tensor  # [M] int32
    weights: Tensor  # [M] float32


def _counting(targets: Tensor, weights: Tensor, num_loss_tokens: int | None) -> _Counting:
    """Those of `targets` and `weights` `[N]` whose weights are not 0, of which there are `counted` at most, or all.

    Places beyond the last of them are filled with token 0 at weight 0, which adds nothing.
    """
    if num_loss_tokens is None or num_loss_tokens >= len(targets):
        return _Counting(None, targets, weights)
    found = torch.nonzero_static(weights, size=max(num_loss_tokens, 1), fill_value=-1).squeeze(1)
    rows = found.clamp(min=0)
    return _Counting(rows, targets[rows], weights[rows] * (found >= 0))


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that can still be allocated, those that torch's allocator holds in reserve among them."""
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def gradient_of(parameter: Tensor) -> Tensor:
    """The `.grad` of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad
