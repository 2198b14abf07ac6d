"""How many windows a fused step computes at once: pure functions of sizes and of the bytes that are free."""

import functools
import math

import torch

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.llama.fused.buffers import allocate, allocate_one_layer, num_bytes
from stochastok_cli.models.llama.fused.head import VOCAB_ALIGNMENT

HEAD_ROWS_MULTIPLE = 4096  # the head's buffers grow by so many tokens
USABLE = 0.95  # of the free memory; the rest is for small tensors and fragmentation
FORWARD_TOKENS = 32_768  # of a forward pass alone at once: more are not faster


def head_rows(rows: int, max_head_rows: int) -> int:
    """Of how many tokens the head holds logits at once, when it gets `rows` of them."""
    return min(math.ceil(rows / HEAD_ROWS_MULTIPLE) * HEAD_ROWS_MULTIPLE, max_head_rows)


@functools.cache
def window_bytes(config: ModelConfig, length: int) -> int:
    """Bytes of the bfloat16 buffers of one window in training. Weights, gradients and the head are not included."""
    return num_bytes(allocate(config, 1, length, torch.bfloat16, torch.device("meta")))


def forward_bytes(config: ModelConfig, length: int) -> int:
    """Bytes of one window in a forward pass alone, with the head's sums over each tile of the vocabulary."""
    buffers = allocate_one_layer(config, 1, length, torch.bfloat16, torch.device("meta"))
    return num_bytes(buffers) + length * 4 * math.ceil(config.vocab_size / VOCAB_ALIGNMENT)


def head_bytes(config: ModelConfig, rows: int) -> int:
    """Bytes of the head's buffers for `rows` tokens at once: exponentials of logits, hidden states, and gradients."""
    return rows * (config.vocab_size + config.hidden_dim) * 2 + config.vocab_size * config.hidden_dim * 4


def micro_batch_size(config: ModelConfig, windows: int, length: int, free: float, max_head_rows: int) -> int:
    """How many of a call's windows are computed at once in training: in equal parts, where not all have room.

    Args:
        config: The model.
        windows: Windows of the call.
        length: Tokens of a window.
        free: Bytes that the device has free for buffers and the head.
        max_head_rows: The most tokens whose logits are held at once.
    """

    def needed(size: int) -> int:
        return size * window_bytes(config, length) + head_bytes(config, head_rows(size * length, max_head_rows))

    parts = next((n for n in range(1, windows) if needed(math.ceil(windows / n)) <= USABLE * free), windows)
    return math.ceil(windows / parts)


def forward_size(config: ModelConfig, windows: int, length: int, free: float) -> int:
    """How many of a call's windows go through a forward pass at once; arguments as of `micro_batch_size`."""
    most = int(min(FORWARD_TOKENS // length, USABLE * free / forward_bytes(config, length)))
    return math.ceil(windows / math.ceil(windows / max(most, 1)))
