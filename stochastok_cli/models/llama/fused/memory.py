"""How many windows a fused step computes at once: pure functions of sizes and of the bytes that are free."""

import functools
import math
from dataclasses import dataclass

import torch

from stochastok_cli.config import ModelConfig
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.llama.fused.buffers import allocate, allocate_one_layer, num_bytes
from stochastok_cli.models.llama.fused.head import VOCAB_ALIGNMENT

HEAD_ROWS_MULTIPLE = 4096  # the head's buffers grow by so many tokens
USABLE = 0.95  # of the free memory; the rest is for small tensors and fragmentation
FORWARD_TOKENS = 65_536  # of a forward pass alone at once: with half as many, launching its kernels takes as long
ENOUGH_TOKENS = 8192  # of a micro-batch: products of fewer rows leave a part of the GPU idle
RECOMPUTE_HEAD_ROWS = 16_384  # tokens whose logits are held at once where activations are computed again


def head_rows(rows: int, max_head_rows: int) -> int:
    """Of how many tokens the head holds logits at once, when it gets `rows` of them."""
    return min(math.ceil(rows / HEAD_ROWS_MULTIPLE) * HEAD_ROWS_MULTIPLE, max_head_rows)


@dataclass(frozen=True)
class MicroBatches:
    """How the windows of a call are trained on.

    Attributes:
        size: Windows at once.
        recompute: Whether the backward pass computes activations again.
        max_head_rows: The most tokens whose logits are held at once.
    """

    size: int
    recompute: bool
    max_head_rows: int


@functools.cache
def window_bytes(config: ModelConfig, length: int, *, recompute: bool = False) -> int:
    """Bytes of the bfloat16 buffers of one window in training. Weights, gradients and the head are not included."""
    return num_bytes(allocate(config, 1, length, torch.bfloat16, torch.device("meta"), recompute=recompute))


def forward_bytes(config: ModelConfig, length: int) -> int:
    """Bytes of one window in a forward pass alone, with the head's sums over each tile of the vocabulary."""
    buffers = allocate_one_layer(config, 1, length, torch.bfloat16, torch.device("meta"))
    return num_bytes(buffers) + length * 4 * math.ceil(config.vocab_size / VOCAB_ALIGNMENT)


def head_bytes(config: ModelConfig, rows: int) -> int:
    """Bytes of the head's buffers for `rows` tokens at once: exponentials of logits, their sums over each tile of the
    vocabulary, hidden states, and gradients."""
    sums = rows * 4 * math.ceil(config.vocab_size / VOCAB_ALIGNMENT)
    return rows * (config.vocab_size + config.hidden_dim) * 2 + sums + config.vocab_size * config.hidden_dim * 4


def choose_micro_batches(
    config: ModelConfig, windows: int, length: int, free: float, max_head_rows: int, *, recompute: bool = False
) -> MicroBatches:
    """How a call's windows are trained on: all at once, or in equal parts where not all have room.

    Where there is no room for `ENOUGH_TOKENS` at once, activations are computed again in the backward pass, and fewer
    logits are held at once, if that makes room for more windows.

    Args:
        config: The model.
        windows: Windows of the call.
        length: Tokens of a window.
        free: Bytes that the device has free for buffers and the head.
        max_head_rows: The most tokens whose logits are held at once.
        recompute: Compute activations again in any case.

    Raises:
        UserError: One window does not have room.
    """

    def needed(size: int, again: bool, head: int) -> int:
        buffers = size * window_bytes(config, length, recompute=again)
        return buffers + head_bytes(config, head_rows(size * length, head))

    def most(again: bool, head: int) -> int:
        """The most windows that have room at once."""
        return next((n for n in range(windows, 0, -1) if needed(n, again, head) <= USABLE * free), 0)

    stored = 0 if recompute else most(False, max_head_rows)
    if stored * length >= min(ENOUGH_TOKENS, windows * length):
        return MicroBatches(in_equal_parts(windows, stored), False, max_head_rows)
    head = min(max_head_rows, RECOMPUTE_HEAD_ROWS)
    recomputed = most(True, head)
    if stored and stored >= recomputed:
        return MicroBatches(in_equal_parts(windows, stored), False, max_head_rows)
    least = needed(1, True, head)
    if least > free:
        raise _out_of_memory(f"training on one window of {length:,} tokens", least, free)
    return MicroBatches(in_equal_parts(windows, max(recomputed, 1)), True, head)


def choose_forward_size(config: ModelConfig, windows: int, length: int, free: float) -> int:
    """How many of a call's windows go through a forward pass at once; arguments as of `choose_micro_batches`.

    Raises UserError where one window does not have room.
    """
    least = forward_bytes(config, length)
    if least > free:
        raise _out_of_memory(f"the loss of one window of {length:,} tokens", least, free)
    return forward_size(windows, length, USABLE * free / least)


def forward_size(windows: int, length: int, limit: float) -> int:
    """How many of `windows` windows of `length` tokens go through a forward pass at once, where `limit` have room."""
    return in_equal_parts(windows, max(int(min(FORWARD_TOKENS // length, limit)), 1))


def in_equal_parts(windows: int, most: int) -> int:
    """The size of equal parts of `windows` windows, of `most` at most. The last one may be smaller."""
    return math.ceil(windows / math.ceil(windows / most))


def _out_of_memory(what: str, needed: int, free: float) -> UserError:
    return UserError(
        f"{what} needs {needed / 2**30:,.1f} GiB of the GPU's memory beside weights, gradients and moments, and "
        f"{free / 2**30:,.1f} GiB are free",
        fix="make model.context_window or the model smaller, spread its parts over more GPUs (trainer.parallel=shard), "
        "or see what else runs on the GPU (nvidia-smi)",
        exit_code=FAILED,
    )
