"""A sequence of kernels as CUDA graphs, so that the host launches hundreds of them by a few calls.

A fused step of the shipped model has some 350 kernels, which keep the host busy for 13 ms when Python launches each by
itself.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

NO_MEMORY_NOTE = "the GPU has no memory for CUDA graphs, so each kernel is launched by itself: few windows take longer"


class CapturedKernels:
    """What a function launches on the GPU, captured in parts, to be launched again on tensors at the same addresses.

    Args:
        launch: Launches kernels on the current stream, all of which have run before, and yields between the parts. It
            must not wait for the GPU. No kernel runs while it is captured.

    Raises:
        RuntimeError: For instance if the GPU has no memory for it; see `is_out_of_memory`.
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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a capture failed for lack of memory: with torch's OutOfMemoryError, or with an error of CUDA itself."""
    return "out of memory" in str(error)
