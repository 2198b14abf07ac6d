"""`run_profiler`: a trace of a few iterations that opens in Perfetto, and the kernels that take most time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from stochastok_cli.training.events import Profiled

SKIPPED, WARM_UP, RECORDED = 2, 1, 3  # iterations


@contextmanager
def profiler(
    trace: Path | None, device: torch.device, emit: Callable[[Profiled], None]
) -> Iterator[Callable[[], None]]:
    """Gives a function to be called after each iteration, which records iterations 3 to 5.

    Args:
        trace: The file to write. None: nothing is recorded.
        device: The GPU or CPU that is profiled.
        emit: Receives the event when the trace is written.
    """
    if trace is None:
        yield lambda: None
        return
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]

    def finish(recorded: profile) -> None:
        recorded.export_chrome_trace(str(trace))
        key = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
        emit(Profiled(trace, recorded.key_averages().table(sort_by=key, row_limit=20)))

    timing = schedule(wait=SKIPPED, warmup=WARM_UP, active=RECORDED, repeat=1)
    with profile(activities=activities, schedule=timing, on_trace_ready=finish) as recording:
        yield recording.step
