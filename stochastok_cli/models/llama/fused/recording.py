"""A sequence of kernels as CUDA graphs, so that the host launches hundreds of them by a few calls.

A fused step has some 350 kernels. Launched one by one from Python they take the host 13 ms, which is more than the GPU
needs for a few windows, and leave gaps of about 2 µs between them.
"""

import gc
from collections.abc import Callable, Iterator

import torch


class Recording:
    """What a function launches on the GPU, in parts, to be launched again on tensors at the same addresses.

    Args:
        launch: Launches kernels on the current stream, all of which have run before, and yields between the parts. It
            must not wait for the GPU. Nothing of it runs while it is recorded.
    """

    def __init__(self, launch: Iterator[int]) -> None:
        self._parts: list[tuple[torch.cuda.CUDAGraph, int | None]] = []
        pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        gc.collect()  # as `torch.cuda.graph` does: what is freed meanwhile may not call CUDA
        torch.cuda.empty_cache()  # temporary tensors of a recording have memory of their own
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            part: int | None = 0
            while part is not None:
                graph = torch.cuda.CUDAGraph()
                # Other threads may pin memory meanwhile, as the one that draws batches does.
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    part = next(launch, None)
                finally:
                    graph.capture_end()
                self._parts.append((graph, part))

    def launch(self, after_part: Callable[[int], None]) -> None:
        """Launches everything on the current stream. `after_part` is called with what was yielded between the parts."""
        for graph, part in self._parts:
            graph.replay()
            if part is not None:
                after_part(part)
