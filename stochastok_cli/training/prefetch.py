"""Batches as tensors on the device, drawn by a background thread while the step before is computed."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.data.samplers import Batch, Sampler

BATCHES_AHEAD = 4  # a batch of the shipped configuration has 0.4 MB, or 3 MB where it is a whole iteration


def prefetch(
    sampler: Sampler, keys: Iterable[tuple[int, np.ndarray]], device: torch.device
) -> Generator[Batch[Tensor]]:
    """Yields the batch of each key `(iteration, window indices)` on the device.

    A batch is a pure function of its key, so drawing ahead makes no state that a resumed run would miss. On CUDA the
    copies start from pinned memory, and the host does not wait for them.
    """

    def draw(iteration: int, index: np.ndarray) -> Batch[Tensor]:
        return sampler.batch(iteration, index).map(lambda array: _pinned(array, device))

    def to_device(drawn: "Future[Batch[Tensor]]") -> Batch[Tensor]:
        return drawn.result().map(lambda tensor: tensor.to(device, non_blocking=True))

    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting: deque[Future[Batch[Tensor]]] = deque()
        for key in keys:
            waiting.append(pool.submit(draw, *key))
            if len(waiting) > BATCHES_AHEAD:
                yield to_device(waiting.popleft())
        while waiting:
            yield to_device(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _pinned(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor
