"""Writing a checkpoint in a thread, from copies of its tensors in host memory, while training goes on."""

import threading
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class HostBuffers:
    """Host memory that tensors are copied to. It is allocated once, pinned where the tensors are on a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies tensors of one device, and overwrites the copies of the call before.

        Args:
            tensors: By name, with the same names, shapes and types in each call.

        Returns:
            The copies by name. Names of one tensor share one copy.
        """
        copies: dict[str, Tensor] = {}
        names: dict[tuple[object, ...], str] = {}
        devices = set()
        for name, tensor in tensors.items():
            first = names.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), name)
            if first not in copies:
                copies[first] = self._buffer(first, tensor).copy_(tensor.detach(), non_blocking=True)
                devices.add(tensor.device)
            copies[name] = copies[first]
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return copies

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._buffers:
            on_gpu = tensor.device.type == "cuda"
            self._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=on_gpu)
        return self._buffers[name]


class BackgroundWriter:
    """A thread that writes one checkpoint at a time.

    Attributes:
        weights: The buffers of the weights.
        optimizer_state: The buffers of the optimizer's state.
    """

    def __init__(self) -> None:
        self.weights, self.optimizer_state = HostBuffers(), HostBuffers()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._seconds = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether a write has ended and has not been collected."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, write: Callable[[], None]) -> None:
        """Calls a function in the thread. The write before must have been collected: it reads the same buffers."""
        assert self._thread is None

        def run() -> None:
            began = time.monotonic()
            try:
                write()
            except BaseException as error:  # raised by `collect`
                self._error = error
            self._seconds = time.monotonic() - began

        self._thread = threading.Thread(target=run, name="checkpoint writer")
        self._thread.start()

    def collect(self) -> float | None:
        """Waits for the write that has been started.

        Returns:
            The seconds that it took; None where there is none that has not been collected.

        Raises:
            Exception: What the write has raised.
        """
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._seconds
