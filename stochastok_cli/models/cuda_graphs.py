"""A sequence of kernels as CUDA graphs, so that the host launches hundreds of them by a few calls.

A fused step of the shipped model has some 350 kernels, which keep the host busy for 13 ms when Python launches each by
itself.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import torch

from stochastok_cli.errors import Notice

T = TypeVar("T")


class CapturedKernels:
    """What a function launches on the GPU, captured in parts, to be launched again on tensors at the same addresses.

    Args:
        launch: Launches kernels on the current stream, all of which have run before, and yields between the parts. It
            must not wait for the GPU. No kernel runs while it is captured.

    Raises:
        RuntimeError: For instance if the GPU has no memory for it; see `unless_out_of_memory`.
    """

    def __init__(self, launch: Iterator[int]) -> None:
        self._parts: list[tuple[torch.cuda.CUDAGraph, int | None]] = []
        pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # temporary tensors of a graph have memory of their own
        with torch.cuda.stream(_capture_stream(torch.cuda.current_device())):
            part: int | None = 0
            while part is not None:
                graph = torch.cuda.CUDAGraph()
                # Other threads may pin memory meanwhile, as the one that draws batches does.
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    part = next(launch, None)
                except BaseException:
                    with suppress(RuntimeError):  # of a capture that is not complete
                        graph.capture_end()
                    raise
                graph.capture_end()
                self._parts.append((graph, part))

    def replay(self, after_part: Callable[[int], None]) -> None:
        """Launches everything on the current stream. `after_part` is called with what was yielded between the parts."""
        for graph, part in self._parts:
            graph.replay()
            if part is not None:
                after_part(part)


@functools.cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """The stream of all captures on a device: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)


def unless_out_of_memory(capture: Callable[[], T]) -> T | None:
    """What `capture` returns, or None, with a `Notice`, where the GPU has no memory for it."""
    try:
        return capture()
    except RuntimeError as error:  # OutOfMemoryError is one, and so is what CUDA itself raises
        if "out of memory" not in str(error):
            raise
    text = "the GPU has no memory for CUDA graphs, so each kernel is launched by itself: few windows take longer"
    warnings.warn(text, Notice, stacklevel=3)
    return None
