"""The loss of a `Llama` and its gradients, chained from the kernels of this package.

B windows of T tokens, N = B T, D the width of hidden states, F that of the feed-forward layers, H query heads and G
key/value heads of width h. Activations, their gradients and the residual stream are bfloat16; sums, statistics of
norms, losses and gradients of weights are float32. Autograd is not used: each layer stores what its gradient needs in
buffers that are allocated once, 113 KB for each token at the shipped sizes. Where these have no room, a layer stores
its input alone, and the backward pass computes the rest again: dropout masks are functions of keys, and come out equal.

On a GPU, the kernels of a step are captured as CUDA graphs after the first call and replayed by the following ones.
"""

import math
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from stochastok_cli.models.cuda_graphs import CapturedKernels, unless_out_of_memory
from stochastok_cli.models.llama.fused import memory, passes
from stochastok_cli.models.llama.fused.batch import Batch, select_loss_tokens
from stochastok_cli.models.llama.fused.buffers import (
    Activations,
    Buffers,
    allocate,
    allocate_one_layer,
    borrow_one_layer,
    free_memory,
    slice_windows,
)
from stochastok_cli.models.llama.fused.captured_step import CapturedStep
from stochastok_cli.models.llama.fused.head import VOCAB_ALIGNMENT, FusedHead, head_losses
from stochastok_cli.models.llama.fused.norm import NUM_PARTIAL_SUMS
from stochastok_cli.models.llama.model import Llama

MAX_HEAD_ROWS = 122_880  # tokens whose logits are held at once: 12.4 GB at the shipped sizes
MAX_CAPTURED_MICRO_BATCHES = 4  # of more, each keeps the GPU busy for long, and the graphs would be large


class LlamaFusedStep:
    """Loss and gradients of a model, whose parameters it reads and to whose `.grad` it adds, both float32.

    Where `.grad` is None, it becomes a tensor that belongs to the step: a later call that finds None overwrites it.

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
        activation_checkpointing: Whether the backward pass computes activations again in any case. Otherwise it does so
            where few or no windows have room: see `memory.choose_micro_batches`.
        dtype: The type of activations. Tests on a CPU use float32.

    Attributes:
        uses_cuda_graphs: Whether the kernels of a step are captured and replayed. May be changed between calls, to
            compare the two.
    """

    uses_cuda_graphs: bool

    def __init__(
        self,
        model: Llama,
        dropout: float,
        *,
        micro_batch_size: int | None = None,
        max_head_rows: int = MAX_HEAD_ROWS,
        fp8_logits: bool = False,
        activation_checkpointing: bool = False,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        assert 0 <= dropout < 1
        self.model, self.config, self.dropout = model, model.config, dropout
        self.micro_batch_size, self.max_head_rows = micro_batch_size, max_head_rows
        self.fp8_logits, self.activation_checkpointing, self.dtype = fp8_logits, activation_checkpointing, dtype
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self.uses_cuda_graphs = self.device.type == "cuda"
        self.windows_at_once, self.recomputes_activations = 0, activation_checkpointing  # in the last call
        self._head: FusedHead | None = None
        self._planned: dict[tuple[int, int], memory.MicroBatches] = {}
        self._buffers: dict[tuple[int, int], Buffers] = {}
        self._captured: CapturedStep | None = None
        self._last_key: Hashable = None  # of the last call that was not a replay
        self._gradients: dict[Tensor, Tensor] = {}
        padding = -self.config.vocab_size % VOCAB_ALIGNMENT
        weights: dict[Tensor, Tensor] = {}
        for parameter in self.parameters:
            if parameter.dim() > 1:
                rows = parameter.shape[0] + (padding if parameter is model.head.weight else 0)
                weights[parameter] = torch.zeros(rows, parameter.shape[1], dtype=dtype, device=self.device)
        width = self.config.hidden_dim
        programs = NUM_PARTIAL_SUMS if self.device.type == "cuda" else 2
        partial = torch.empty(programs, width, device=self.device)
        largest = max(map(len, passes.projections_after_norms(model)))
        product = torch.empty(largest, width, device=self.device)
        self.network = passes.Network(model, weights, product, partial)

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
        """Computes `sum(token_weights * nll)` and adds its gradients.

        The host does not wait for the device but in a call whose kernels are captured.

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
        self._make_gradients()
        windows, length = batch.inputs.shape
        plan = self._micro_batches(windows, length)
        self.windows_at_once, self.recomputes_activations = plan.size, plan.recompute
        addresses = tuple(t.data_ptr() for p in self.parameters for t in (p, passes.grad_of(p)))
        key = windows, length, segment_start is not None, self.dropout, addresses
        if self.uses_cuda_graphs and self._captured is not None and self._captured.key == key:
            torch._foreach_copy_(self._captured.batch.tensors(), batch.tensors())
            self._captured.kernels.replay(on_gradients_ready)
            return self._captured.loss.clone()
        loss = torch.empty((), device=self.device)
        for layer in self._launch(batch, plan, num_loss_tokens, loss):
            on_gradients_ready(layer)
        has_fixed_shapes = num_loss_tokens is None or num_loss_tokens >= windows * length
        is_short = windows <= MAX_CAPTURED_MICRO_BATCHES * plan.size
        # Calls of several kinds in turn are not captured again and again.
        if self.uses_cuda_graphs and has_fixed_shapes and is_short and self._last_key in (None, key):
            self._capture(key, batch, plan)
        self._last_key = key
        return loss

    def _launch(
        self, batch: Batch, plan: memory.MicroBatches, num_loss_tokens: int | None, loss: Tensor
    ) -> Iterator[int]:
        """Launches the kernels of a step. Yields each layer when its gradients are complete; overwrites the loss."""
        self.network.copy_weights()
        (windows, length), size = batch.inputs.shape, plan.size
        parts = []
        for first in range(0, windows, size):
            micro_batch = batch.windows(slice(first, first + size))
            buffers = self._buffers_for(len(micro_batch.inputs), length, plan.recompute)
            passes.forward(self.network, buffers, micro_batch, self.dropout)
            parts.append(self._head_loss_and_gradients(buffers, micro_batch, num_loss_tokens, plan.max_head_rows))
            for layer in passes.backward(self.network, buffers, micro_batch, self.dropout):
                if first + size >= windows:
                    yield layer
        loss.copy_(torch.stack(parts).sum())

    def _capture(self, key: Hashable, batch: Batch, plan: memory.MicroBatches) -> None:
        """Captures the kernels of a step that has just run on a batch of the same shape, if there is memory for it."""
        self._captured = None  # frees the memory of another one

        def capture() -> CapturedStep:
            own, loss = batch.clone(), torch.empty((), device=self.device)
            return CapturedStep(key, CapturedKernels(self._launch(own, plan, None, loss)), own, loss)

        self._captured = unless_out_of_memory(capture)
        self.uses_cuda_graphs = self._captured is not None

    def _make_gradients(self) -> None:
        """Sets gradients that are None to 0. They are the same tensors each time: captured kernels add to them."""
        missing = [parameter for parameter in self.parameters if parameter.grad is None]
        if not missing:
            return
        for parameter in missing:
            if parameter not in self._gradients:
                self._gradients[parameter] = torch.empty_like(parameter)
            parameter.grad = self._gradients[parameter]
        torch._foreach_zero_([self._gradients[parameter] for parameter in missing])

    @torch.no_grad()
    def loss(
        self, ids: Tensor, token_weights: Tensor, segment_start: Tensor | None, *, num_loss_tokens: int | None = None
    ) -> Tensor:
        """Computes `sum(token_weights * nll)` without dropout and gradients; arguments as in `loss_and_gradients`.

        It takes the memory of one layer's activations at most, and none where training holds buffers.

        Logits are products of bfloat16 numbers even with `fp8_logits`, which is a way of training the model.
        """
        dropout_keys = torch.zeros(len(ids), dtype=torch.int64, device=self.device)
        batch = self._prepare(ids, token_weights, segment_start, dropout_keys)
        self.network.copy_weights()
        windows, length = batch.inputs.shape
        size = self._forward_size(windows, length)
        largest = self._forward_activations(size, length)
        losses = []
        for first in range(0, windows, size):
            micro_batch = batch.windows(slice(first, first + size))
            count = len(micro_batch.inputs)
            activations = largest if count == size else slice_windows(largest, count, length)
            passes.forward(self.network, activations, micro_batch, 0.0)
            tokens = select_loss_tokens(micro_batch, num_loss_tokens)
            hidden = activations.normed if tokens.index is None else activations.normed[tokens.index]
            weight = self.network.weights[self.model.head.weight]
            losses.append(head_losses(hidden, weight, tokens.targets, tokens.weights, self.config.vocab_size).sum())
        return torch.stack(losses).sum()

    def _prepare(self, ids: Tensor, token_weights: Tensor, segment_start: Tensor | None, dropout_keys: Tensor) -> Batch:
        """Checks the shapes and brings tensors to the types of the kernels."""
        windows, length = token_weights.shape
        assert ids.shape == (windows, length + 1) and length % 64 == 0 and length <= self.config.context_window
        return Batch(
            inputs=ids[:, :-1].to(torch.int32).contiguous(),
            targets=ids[:, 1:].to(torch.int32).contiguous(),
            token_weights=token_weights.contiguous().float(),
            segment_start=None if segment_start is None else segment_start.to(torch.int32).contiguous(),
            dropout_keys=dropout_keys,
        )

    def _micro_batches(self, windows: int, length: int) -> memory.MicroBatches:
        """How a call's windows are trained on."""
        if (windows, length) not in self._planned:
            size, recompute = min(self.micro_batch_size or windows, windows), self.activation_checkpointing
            plan = memory.MicroBatches(size, recompute, self.max_head_rows)
            if self.micro_batch_size is None and self.device.type == "cuda":
                self._free_buffers()  # what calls of other sizes hold is free
                plan = memory.choose_micro_batches(
                    self.config, windows, length, free_memory(self.device), self.max_head_rows, recompute=recompute
                )
            self._planned[windows, length] = plan
        return self._planned[windows, length]

    def _forward_size(self, windows: int, length: int) -> int:
        """How many of a call's windows go through a forward pass at once: no more than the buffers of training take,
        or, where there are none, than have room."""
        if self.micro_batch_size is not None:
            return min(windows, self.micro_batch_size)
        if (held := self._windows_held(length)) > 0:
            return memory.forward_size(windows, length, held)
        free = free_memory(self.device) if self.device.type == "cuda" else math.inf
        return memory.choose_forward_size(self.config, windows, length, free)

    def _forward_activations(self, windows: int, length: int) -> Activations:
        """Buffers for a forward pass alone. They are those of one layer of training, or else held for the call only."""
        if self._windows_held(length) >= windows:
            return borrow_one_layer(self._buffers_for(windows, length, self.recomputes_activations))
        return allocate_one_layer(self.config, windows, length, self.dtype, self.device)

    def _windows_held(self, length: int) -> int:
        """The windows of this length for which training holds buffers."""
        return max((windows for windows, held_length in self._buffers if held_length == length), default=0)

    def _buffers_for(self, windows: int, length: int, recompute: bool) -> Buffers:
        if (windows, length) not in self._buffers:
            # Buffers of another shape are freed first. A call's last micro-batch, if it is smaller, gets views.
            larger = next((b for (w, t), b in self._buffers.items() if t == length and w > windows), None)
            if larger is None:
                self._free_buffers()
                self._buffers[windows, length] = allocate(
                    self.config, windows, length, self.dtype, self.device, recompute=recompute
                )
            else:
                self._buffers[windows, length] = slice_windows(larger, windows, length)
        return self._buffers[windows, length]

    def _free_buffers(self) -> None:
        self._buffers.clear()
        self._head = None
        self._captured = None

    def _head_loss_and_gradients(
        self, buffers: Buffers, batch: Batch, num_loss_tokens: int | None, max_head_rows: int
    ) -> Tensor:
        """The loss. Writes `buffers.normed_grad` and adds to the gradient of the head's weight."""
        weight, weight_grad = self.network.weights[self.model.head.weight], passes.grad_of(self.model.head.weight)
        tokens = select_loss_tokens(batch, num_loss_tokens)
        head = self._head_for(memory.head_rows(len(tokens.targets), max_head_rows))
        if tokens.index is None:
            losses = head(buffers.normed, weight, tokens.targets, tokens.weights, buffers.normed_grad, weight_grad)
            return losses.sum()
        hidden = buffers.normed[tokens.index]
        grad = torch.empty_like(hidden)
        losses = head(hidden, weight, tokens.targets, tokens.weights, grad, weight_grad)
        buffers.normed_grad.zero_().index_add_(0, tokens.index, grad)
        return losses.sum()

    def _head_for(self, needed: int) -> FusedHead:
        """A head with buffers for so many tokens at once, or for more."""
        if self._head is None or self._head.chunk_rows < needed:
            self._head = None  # frees it before the larger one is allocated
            self._captured = None
            vocab_size, width = self.model.head.weight.shape
            self._head = FusedHead(vocab_size, width, needed, self.dtype, self.device, fp8=self.fp8_logits)
        return self._head
