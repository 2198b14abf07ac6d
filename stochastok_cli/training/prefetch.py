"""Batches on their way to the device: drawn by a background thread while the step before is computed."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.data.samplers import Sampler

AHEAD = 4  # batches drawn before they are needed; a batch of the shipped configuration has 0.4 MB


class DeviceBatch(NamedTuple):
    """A batch as tensors: int64 `ids` `[B, T + 1]`, int32 `segment_start` and float32 `token_weights` `[B, T]`."""

    ids: Tensor
    segment_start: Tensor | None
    token_weights: Tensor
    num_loss_tokens: int


def prefetch(
    windows: Sampler, keys: Iterable[tuple[int, int]], batch_size: int, device: torch.device
) -> Generator[DeviceBatch]:
    """For each key `(iteration, first index)` the batch of `batch_size` windows, on the device.

    Batches are pure functions of their keys, so drawing ahead keeps no state that a resumed run would miss. On CUDA
    they travel from pinned memory without the host waiting.
    """

    def draw(iteration: int, first_index: int) -> DeviceBatch:
        ids, segment_start, token_weights, num_loss_tokens = windows.batch(iteration, first_index, batch_size)
        visible = None if segment_start is None else _pinned(segment_start, device)
        return DeviceBatch(_pinned(ids, device), visible, _pinned(token_weights, device), num_loss_tokens)

    def moved(drawn: "Future[DeviceBatch]") -> DeviceBatch:
        ids, segment_start, token_weights, num_loss_tokens = drawn.result()
        visible = None if segment_start is None else segment_start.to(device, non_blocking=True)
        return DeviceBatch(
            ids.to(device, non_blocking=True), visible, token_weights.to(device, non_blocking=True), num_loss_tokens
        )

    with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
        waiting: deque[Future[DeviceBatch]] = deque()
        for key in keys:
            waiting.append(pool.submit(draw, *key))
            if len(waiting) > AHEAD:
                yield moved(waiting.popleft())
        while waiting:
            yield moved(waiting.popleft())


def _pinned(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor
