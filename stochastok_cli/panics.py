"""Holds back what libraries written in Rust print on stderr when they panic: the error that follows says it.

Rust prints to the file descriptor 2, whatever `sys.stderr` is. In calls that may panic the descriptor leads to a file
in memory. What the file then holds is passed on, except for the message of a panic.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stochastok_cli.errors import is_rust_panic

# With RUST_BACKTRACE a stack follows, and with several threads other panics do.
_PANIC = re.compile(rb"\n?thread '[^\n]*' (?:\(\d+\) )?panicked at .*", re.DOTALL)


class HeldBack:
    """What goes to a file descriptor while calls that may panic run, in any number of threads.

    Attributes:
        is_on: Whether messages are held back. The command line sets it; other programs keep their stderr as it is.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self.is_on = False
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._running = 0  # calls
        self._has_panicked = False
        self._before = self._file = -1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """A context for calls that may panic."""
        if not self.is_on:
            yield
            return
        self._begin()
        try:
            yield
        except BaseException as error:
            self._has_panicked |= is_rust_panic(error)
            raise
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            if self._running == 0:
                if self._file < 0:
                    self._file, self._before = _file_in_memory(), os.dup(self._descriptor)
                os.dup2(self._file, self._descriptor)
            self._running += 1

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running:
                return
            os.dup2(self._before, self._descriptor)
            size = os.lseek(self._file, 0, os.SEEK_CUR)
            if size:
                os.lseek(self._file, 0, os.SEEK_SET)
                text = os.read(self._file, size)
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
                _write(self._descriptor, _PANIC.sub(b"", text) if self._has_panicked else text)
            self._has_panicked = False

    def _after_fork(self) -> None:
        """A forked process has a stderr and a file of its own, and none of the threads that run calls."""
        if self._running:
            os.dup2(self._before, self._descriptor)
        self._lock, self._running, self._has_panicked = threading.Lock(), 0, False
        for opened in {self._before, self._file} - {-1}:
            os.close(opened)
        self._before = self._file = -1


panic_messages_held_back = HeldBack()
"""A context for calls of libraries that may panic."""


def _file_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stderr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, text: bytes) -> None:
    """Writes a message, or drops one that can't be written."""
    try:
        while text:
            text = text[os.write(descriptor, text) :]
    except OSError:
        pass
