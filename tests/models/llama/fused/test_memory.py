"""How many windows are computed at once, and whether activations are computed again: a function of the free bytes."""

import math

import pytest
import torch

from stochastok_cli.errors import UserError
from tests.models.llama.fused.reference_kernels import fused_config

CONFIG, LENGTH, HEAD_ROWS = fused_config(layers=6), 64, 4096


def _choose(windows, free, length=LENGTH, **options):
    from stochastok_cli.models.llama.fused import memory

    chosen = memory.choose_micro_batches(CONFIG, windows, length, math.ceil(free / memory.USABLE), HEAD_ROWS, **options)
    return chosen.size, chosen.recompute


@pytest.mark.parametrize("recompute", [False, True])
def test_buffers_grow_with_the_windows(recompute):
    from stochastok_cli.models.llama.fused import memory
    from stochastok_cli.models.llama.fused.buffers import allocate, num_bytes

    buffers = allocate(CONFIG, 8, LENGTH, torch.bfloat16, torch.device("cpu"), recompute=recompute)
    assert num_bytes(buffers) == 8 * memory.window_bytes(CONFIG, LENGTH, recompute=recompute)


def test_activations_are_computed_again_where_micro_batches_would_be_small():
    from stochastok_cli.models.llama.fused import memory

    stored, again = (memory.window_bytes(CONFIG, LENGTH, recompute=recompute) for recompute in (False, True))
    layer = memory.window_bytes(fused_config(layers=1), LENGTH)
    # The input of every further layer, and 1 / RMS of its rows.
    assert again == layer + 5 * LENGTH * (CONFIG.hidden_dim * 2 + 4)
    head = memory.head_bytes(CONFIG, HEAD_ROWS)

    assert _choose(1000, 1000 * stored + head) == (1000, False)
    assert _choose(1000, 999 * stored + head) == (500, False)  # equal parts
    enough = memory.ENOUGH_TOKENS // LENGTH
    assert _choose(8 * enough, enough * stored + head) == (enough, False)
    assert _choose(8 * enough - 8, enough * stored + head) == (enough - 1, False)  # because there is room for enough
    size, recompute = _choose(8 * enough, (enough - 1) * stored + head)
    assert recompute and size == 8 * enough // math.ceil(8 * enough / ((enough - 1) * stored // again))
    assert _choose(4, 4 * stored + head) == (4, False)  # all of a small batch
    assert _choose(4, 4 * stored + head, recompute=True) == (4, True)


def test_activations_are_not_computed_again_where_that_makes_no_room():
    from stochastok_cli.models.llama.fused import memory

    stored, again = (memory.window_bytes(CONFIG, LENGTH, recompute=recompute) for recompute in (False, True))
    head = memory.head_bytes(CONFIG, HEAD_ROWS)
    assert stored < 3 * again
    assert _choose(3, stored + head) == (2, True)
    few = fused_config(layers=2)
    stored, again = (memory.window_bytes(few, LENGTH, recompute=recompute) for recompute in (False, True))
    free = (stored + head) / memory.USABLE + 1
    assert stored < 2 * again
    assert memory.choose_micro_batches(few, 2, LENGTH, free, HEAD_ROWS) == memory.MicroBatches(1, False, HEAD_ROWS)


def test_what_does_not_fit_is_told_in_numbers():
    from stochastok_cli.models.llama.fused import memory

    length = 8192
    needed = memory.window_bytes(CONFIG, length, recompute=True) + memory.head_bytes(CONFIG, HEAD_ROWS)
    assert memory.choose_micro_batches(CONFIG, 3, length, needed, HEAD_ROWS) == memory.MicroBatches(1, True, HEAD_ROWS)
    with pytest.raises(UserError) as error:
        memory.choose_micro_batches(CONFIG, 3, length, needed - 1, HEAD_ROWS)
    assert error.value.exit_code == 1
    gib = f"{needed / 2**30:.1f} GiB"
    assert f"one window of 8,192 tokens needs {gib}" in str(error.value) and f"{gib} are free" in str(error.value)
    with pytest.raises(UserError, match=r"the loss of one window of 8,192 tokens needs .* 0\.0 GiB are free"):
        memory.choose_forward_size(CONFIG, 3, length, 0)


def test_fewer_logits_are_held_where_activations_are_computed_again():
    from stochastok_cli.models.llama.fused import memory

    many = 10 * memory.RECOMPUTE_HEAD_ROWS
    assert memory.choose_micro_batches(CONFIG, 4, LENGTH, math.inf, many).max_head_rows == many
    chosen = memory.choose_micro_batches(CONFIG, 4, LENGTH, math.inf, many, recompute=True)
    assert chosen.max_head_rows == memory.RECOMPUTE_HEAD_ROWS


def test_a_forward_pass_takes_as_many_windows_as_have_room():
    from stochastok_cli.models.llama.fused import memory

    forward = memory.forward_bytes(CONFIG, LENGTH)
    assert forward < memory.window_bytes(CONFIG, LENGTH) / 4
    for free, size in [(forward, 1), (30 * forward, 26), (math.inf, 102)]:
        assert memory.choose_forward_size(CONFIG, 102, LENGTH, free / memory.USABLE) == size
    assert memory.choose_forward_size(CONFIG, 2200, LENGTH, math.inf) == 734  # 1,024 windows have 65,536 tokens
