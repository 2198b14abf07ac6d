"""The loss of a `Llama` and its gradients, chained from the kernels of this package.

B windows of T tokens, N = B T, D the width of hidden states, F that of the feed-forward layers, H query heads and G
key/value heads of width h. Activations, their gradients and the residual stream are bfloat16; sums, statistics of
norms, losses and gradients of weights are float32. Autograd is not used: each layer stores what its gradient needs in
buffers that are allocated once, 135 KB for each token at the shipped sizes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_backward import attention_backward
from stochastok_cli.models.llama.fused.attention_forward import attention_forward
from stochastok_cli.models.llama.fused.batch import Batch, select_loss_tokens
from stochastok_cli.models.llama.fused.buffers import Buffers, activation_bytes, allocate, free_memory, slice_windows
from stochastok_cli.models.llama.fused.dropout import attention_hashes, output_stream
from stochastok_cli.models.llama.fused.embedding import embed, embed_backward
from stochastok_cli.models.llama.fused.head import VOCAB_ALIGNMENT, FusedHead, head_losses
from stochastok_cli.models.llama.fused.matmul import add_matmul_
from stochastok_cli.models.llama.fused.norm import NUM_PARTIAL_SUMS, residual_norm, residual_norm_backward
from stochastok_cli.models.llama.fused.rotary import rotate_
from stochastok_cli.models.llama.fused.swiglu import gate_up_swiglu, swiglu_backward
from stochastok_cli.models.llama.model import Block, Llama

MAX_HEAD_ROWS = 122_880  # tokens whose logits are held at once: 12.4 GB at the shipped sizes
HEAD_ROWS_MULTIPLE = 4096  # the head's buffers grow by so many tokens


class LlamaFusedStep:
    """Loss and gradients of a model, whose parameters it reads and to whose `.grad` it adds, both float32.

    Dropout acts where that of the model's own modules does, with masks that depend on a key for each window. So the
    results are those of any other division of the windows into calls and micro-batches, up to the order of float32
    sums.

    Args:
        model: The model.
        dropout: The probability with which elements are dropped.
        micro_batch_size: The most windows whose activations are held at once. None: all of a call, or as many as fit
            the device at the first call of its size.
        max_head_rows: The most tokens whose logits are held at once.
        fp8_logits: Whether logits are products of 8-bit floats in training; see `fused.head`.
        dtype: The type of activations. Tests on a CPU use float32.
    """

    def __init__(
        self,
        model: Llama,
        dropout: float,
        *,
        micro_batch_size: int | None = None,
        max_head_rows: int = MAX_HEAD_ROWS,
        fp8_logits: bool = False,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        assert 0 <= dropout < 1
        self.model, self.config, self.dropout = model, model.config, dropout
        self.micro_batch_size, self.max_head_rows = micro_batch_size, max_head_rows
        self.fp8_logits, self.dtype = fp8_logits, dtype
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self._head: FusedHead | None = None
        self._fitting_sizes: dict[tuple[int, int], int] = {}
        self._buffers: dict[tuple[int, int], Buffers] = {}
        padding = -self.config.vocab_size % VOCAB_ALIGNMENT
        self.weights: dict[Tensor, Tensor] = {}  # for each matrix, a copy of the type that the products take
        for parameter in self.parameters:
            if parameter.dim() > 1:
                rows = parameter.shape[0] + (padding if parameter is model.head.weight else 0)
                self.weights[parameter] = torch.zeros(rows, parameter.shape[1], dtype=dtype, device=self.device)
        matrices = list(self.weights)
        self._copies = [self.weights[p][: len(p)] for p in matrices], matrices
        self._partial = torch.empty(
            NUM_PARTIAL_SUMS if self.device.type == "cuda" else 2, self.config.hidden_dim, device=self.device
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
        on_gradients_ready: Callable[[int], None] = lambda block: None,
    ) -> Tensor:
        """Computes `sum(token_weights * nll)` and adds its gradients. The host does not wait for the device.

        Args:
            ids: int `[B, T + 1]`.
            token_weights: float32 `[B, T]`.
            segment_start: int `[B, T]`, as `Llama.forward` takes it.
            dropout_keys: int64 or uint64 `[B]`, one for each window.
            num_loss_tokens: The number of token weights that are not 0, or more. With it, the head computes these
                tokens only, which for instruction data are few.
            on_gradients_ready: Called with the number of each layer, from the last, when nothing more will be added to
                its gradients.

        Returns:
            The loss, a float32 scalar on the device.
        """
        batch = self._prepare(ids, token_weights, segment_start, dropout_keys.view(torch.int64))
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        windows, length = batch.inputs.shape
        size = self._micro_batch_size(windows, length)
        losses = []
        for first in range(0, windows, size):
            micro_batch = batch.windows(slice(first, first + size))
            buffers = self._buffers_for(*micro_batch.inputs.shape)
            self._forward(buffers, micro_batch, self.dropout)
            losses.append(self._head_loss_and_gradients(buffers, micro_batch, num_loss_tokens))
            is_last = first + size >= windows
            self._backward(buffers, micro_batch, on_gradients_ready if is_last else lambda block: None)
        return torch.stack(losses).sum()

    @torch.no_grad()
    def loss(
        self, ids: Tensor, token_weights: Tensor, segment_start: Tensor | None, *, num_loss_tokens: int | None = None
    ) -> Tensor:
        """Computes `sum(token_weights * nll)` without dropout and gradients; arguments as in `loss_and_gradients`.

        Logits are products of bfloat16 numbers even with `fp8_logits`, which is a way of training the model.
        """
        dropout_keys = torch.zeros(len(ids), dtype=torch.int64, device=self.device)
        batch = self._prepare(ids, token_weights, segment_start, dropout_keys)
        buffers = self._buffers_for(*batch.inputs.shape)
        self._forward(buffers, batch, 0.0)
        tokens = select_loss_tokens(batch, num_loss_tokens)
        hidden = buffers.normed if tokens.index is None else buffers.normed[tokens.index]
        weight = self.weights[self.model.head.weight]
        return head_losses(hidden, weight, tokens.targets, tokens.weights, self.config.vocab_size).sum()

    def _prepare(self, ids: Tensor, token_weights: Tensor, segment_start: Tensor | None, dropout_keys: Tensor) -> Batch:
        """Checks the shapes, brings tensors to the types of the kernels, and copies the weights for them."""
        windows, length = token_weights.shape
        assert ids.shape == (windows, length + 1) and length % 64 == 0 and length <= self.config.context_window
        torch._foreach_copy_(*self._copies)
        return Batch(
            inputs=ids[:, :-1].to(torch.int32).contiguous(),
            targets=ids[:, 1:].to(torch.int32).contiguous(),
            token_weights=token_weights.contiguous().float(),
            segment_start=None if segment_start is None else segment_start.to(torch.int32).contiguous(),
            dropout_keys=dropout_keys,
        )

    def _micro_batch_size(self, windows: int, length: int) -> int:
        """How many of a call's windows are computed at once: in equal parts, where not all fit the device."""
        if self.micro_batch_size is not None:
            return self.micro_batch_size
        if (windows, length) not in self._fitting_sizes:
            parts = 1
            if self.device.type == "cuda":
                rows, vocab = min(windows * length, self.max_head_rows), self.config.vocab_size
                head = rows * (vocab + self.config.hidden_dim) * 2 + vocab * self.config.hidden_dim * 4
                free = (free_memory(self.device) - head) * 0.95  # the rest for small tensors and fragmentation
                parts = math.ceil(activation_bytes(self.config, windows, length) / max(free, 1))
            self._fitting_sizes[windows, length] = math.ceil(windows / min(parts, windows))
        return self._fitting_sizes[windows, length]

    def _buffers_for(self, windows: int, length: int) -> Buffers:
        if (windows, length) not in self._buffers:
            # Buffers of another shape are freed first. A call's last micro-batch, if it is smaller, gets views.
            larger = next((b for (w, t), b in self._buffers.items() if t == length and w > windows), None)
            if larger is None:
                self._buffers.clear()
                self._buffers[windows, length] = allocate(self.config, windows, length, self.dtype, self.device)
            else:
                self._buffers[windows, length] = slice_windows(larger, windows, length)
        return self._buffers[windows, length]

    def _forward(self, buffers: Buffers, batch: Batch, dropout: float) -> None:
        """Computes the hidden states after the last norm, `buffers.normed`."""
        model, weights, b = self.model, self.weights, buffers
        length, keys, ids = batch.inputs.shape[1], batch.dropout_keys, batch.inputs.view(-1)
        heads, kv_heads = self.config.core_model.attn.num_heads, self.config.kv_heads
        blocks: list[Block] = list(model.layers)  # type: ignore[arg-type]
        first = b.layers[0]
        embed(
            ids, weights[model.embedding.weight], blocks[0].attention_norm.weight, keys, dropout, length,
            first.residual, first.normed, first.rstd,
        )  # fmt: skip
        for i, (block, layer) in enumerate(zip(blocks, b.layers, strict=True)):
            torch.mm(layer.normed, weights[block.attention.qkv.weight].T, out=layer.qkv)
            rotate_(layer.qkv, model.rotation, heads, kv_heads, length)
            if dropout > 0:
                attention_hashes(keys, i, layer.query_hash, layer.key_hash)
            attention_forward(
                layer.qkv, batch.segment_start, layer.query_hash, layer.key_hash, dropout, layer.attention_out,
                layer.lse,
            )  # fmt: skip
            torch.mm(layer.attention_out, weights[block.attention.output.weight].T, out=b.sublayer_out)
            residual_norm(
                layer.residual, b.sublayer_out, block.ffn_norm.weight, keys, output_stream(i), dropout, length,
                layer.ffn_residual, layer.ffn_normed, layer.ffn_rstd,
            )  # fmt: skip
            gate_up_swiglu(layer.ffn_normed, weights[block.ffn.gate_up.weight], layer.gate_up, layer.ffn_hidden)
            torch.mm(layer.ffn_hidden, weights[block.ffn.down.weight].T, out=b.sublayer_out)
            is_last = i + 1 == len(blocks)
            following = b if is_last else b.layers[i + 1]
            gain = model.norm.weight if is_last else blocks[i + 1].attention_norm.weight
            residual_norm(
                layer.ffn_residual, b.sublayer_out, gain, keys, 0, 0.0, length, following.residual, following.normed,
                following.rstd,
            )  # fmt: skip

    def _head_loss_and_gradients(self, buffers: Buffers, batch: Batch, num_loss_tokens: int | None) -> Tensor:
        """The loss. Writes `buffers.normed_grad` and adds to the gradient of the head's weight."""
        weight, weight_grad = self.weights[self.model.head.weight], _grad(self.model.head.weight)
        tokens = select_loss_tokens(batch, num_loss_tokens)
        head = self._head_for(len(tokens.targets))
        if tokens.index is None:
            losses = head(buffers.normed, weight, tokens.targets, tokens.weights, buffers.normed_grad, weight_grad)
            return losses.sum()
        hidden = buffers.normed[tokens.index]
        grad = torch.empty_like(hidden)
        losses = head(hidden, weight, tokens.targets, tokens.weights, grad, weight_grad)
        buffers.normed_grad.zero_().index_add_(0, tokens.index, grad)
        return losses.sum()

    def _head_for(self, rows: int) -> FusedHead:
        """A head with buffers for so many tokens at once, or for as many as is allowed."""
        needed = min(math.ceil(rows / HEAD_ROWS_MULTIPLE) * HEAD_ROWS_MULTIPLE, self.max_head_rows)
        if self._head is None or self._head.chunk_rows < needed:
            self._head = None  # frees it before the larger one is allocated
            vocab_size, width = self.model.head.weight.shape
            self._head = FusedHead(vocab_size, width, needed, self.dtype, self.device, fp8=self.fp8_logits)
        return self._head

    def _backward(self, buffers: Buffers, batch: Batch, on_gradients_ready: Callable[[int], None]) -> None:
        """From `buffers.normed_grad` back to the embedding; adds to all gradients but that of the head's weight."""
        model, weights, dropout, b, partial = self.model, self.weights, self.dropout, buffers, self._partial
        length, keys, ids = batch.inputs.shape[1], batch.dropout_keys, batch.inputs.view(-1)
        residual_norm_backward(
            b.normed_grad, b.residual, b.rstd, model.norm.weight, None, b.residual_grad, _grad(model.norm.weight),
            partial,
        )  # fmt: skip
        for i in reversed(range(len(b.layers))):
            layer, block = b.layers[i], model.layers[i]
            assert isinstance(block, Block)
            down, gate_up = block.ffn.down.weight, block.ffn.gate_up.weight
            output, qkv = block.attention.output.weight, block.attention.qkv.weight

            add_matmul_(_grad(down), b.residual_grad.T, layer.ffn_hidden)
            torch.mm(b.residual_grad, weights[down], out=b.ffn_hidden_grad)
            swiglu_backward(layer.gate_up, b.ffn_hidden_grad, b.gate_up_grad)
            add_matmul_(_grad(gate_up), b.gate_up_grad.T, layer.ffn_normed)
            torch.mm(b.gate_up_grad, weights[gate_up], out=b.normed_grad)
            residual_norm_backward(
                b.normed_grad, layer.ffn_residual, layer.ffn_rstd, block.ffn_norm.weight, b.residual_grad,
                b.ffn_residual_grad, _grad(block.ffn_norm.weight), partial, dy=b.sublayer_out, dropout_keys=keys,
                stream=output_stream(i), dropout=dropout, length=length,
            )  # fmt: skip

            add_matmul_(_grad(output), b.sublayer_out.T, layer.attention_out)
            torch.mm(b.sublayer_out, weights[output], out=b.attention_out_grad)
            attention_backward(
                layer.qkv, layer.attention_out, b.attention_out_grad, layer.lse, batch.segment_start, layer.query_hash,
                layer.key_hash, model.rotation, dropout, b.delta, b.qkv_grad,
            )  # fmt: skip
            add_matmul_(_grad(qkv), b.qkv_grad.T, layer.normed)
            torch.mm(b.qkv_grad, weights[qkv], out=b.normed_grad)
            residual_norm_backward(
                b.normed_grad, layer.residual, layer.rstd, block.attention_norm.weight, b.ffn_residual_grad,
                b.residual_grad, _grad(block.attention_norm.weight), partial,
            )  # fmt: skip
            on_gradients_ready(i)
        embed_backward(ids, b.residual_grad, keys, dropout, length, _grad(model.embedding.weight))


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
