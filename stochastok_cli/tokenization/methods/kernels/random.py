"""Compiled random numbers, and how kernels are compiled.

A kernel is compiled by numba when it is first called, so that numba is imported only where it is needed. On little
data the same functions run interpreted: importing numba takes longer than they do. They also run interpreted where
numba is missing or switched off (`NUMBA_DISABLE_JIT=1`).

A kernel carries a SplitMix64 state: it adds `INCREMENT` for each number and reads `mix(state)` or `unit(state)`.
Document `i` of a stream starts from `document_state(key, i)`, so documents are independent of each other and may be
expanded in any order.
"""

import contextvars
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from stochastok_cli import random_streams
from stochastok_cli.errors import Notice

INCREMENT = random_streams.SPLITMIX64_INCREMENT
_SHIFT_TO_53_BITS = np.uint64(11)
_UNIT = 2.0**-53

MAX_INTERPRETED = 20_000
"""The ids that a process gives to interpreted kernels, before it imports numba."""

_is_interpreted = contextvars.ContextVar("interpreted kernels", default=False)
_lock = threading.Lock()
_num_interpreted = 0


class Kernel:
    """A function that runs compiled, or within `interpreted` as it is. Kernels can call each other in both ways."""

    def __init__(self, function: Callable[..., Any]):
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return (self.function if _is_interpreted.get() else self.dispatcher)(*args)

    @functools.cached_property
    def dispatcher(self) -> Callable[..., Any]:
        """The compiled function. The machine code is cached where a folder is writable."""
        numba = _numba()
        if numba is None:
            return self.function
        try:
            return numba.njit(nogil=True, cache=True)(self.function)
        except RuntimeError:  # no folder for the cache
            return numba.njit(nogil=True)(self.function)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes a kernel for that another one calls."""
        return self.dispatcher._numba_type_  # type: ignore[attr-defined]


def compiled(function: Callable[..., Any]) -> Kernel:
    """Makes a kernel of `function`. Compiled, it runs without the GIL."""
    return Kernel(function)


@functools.cache
def _numba() -> Any:
    """The module numba, or None on a machine without it."""
    try:
        import numba
    except ImportError:  # pragma: no cover - a machine without a compiler for its platform
        return None
    from numba.core import event

    class FirstCompilation(event.Listener):
        """Says once that kernels are compiled, which takes some seconds, unless their machine code is cached."""

        def on_start(self, event_started: event.Event) -> None:
            event.unregister("numba:compile", self)
            warnings.warn("compiling kernels, which takes some seconds the first time", Notice, stacklevel=2)

        def on_end(self, event_ended: event.Event) -> None:
            pass

    event.register("numba:compile", FirstCompilation())
    return numba


def may_interpret(num_ids: int) -> bool:
    """Whether so many more ids are so little data that kernels run faster interpreted than after importing numba."""
    global _num_interpreted
    with _lock:
        if _numba.cache_info().currsize or _num_interpreted + num_ids > MAX_INTERPRETED:
            return False
        _num_interpreted += num_ids
    return True


@contextmanager
def interpreted(value: bool = True) -> Iterator[None]:
    """Within this context, kernels that the thread calls run interpreted, or compiled if `value` is False."""
    token = _is_interpreted.set(value)
    try:
        yield
    finally:
        _is_interpreted.reset(token)


def is_interpreted() -> bool:
    """Whether kernels run interpreted here, on little data."""
    return _is_interpreted.get()


mix = compiled(random_streams.mix)


@compiled
def document_state(key, index):
    """The state that document `index` (uint64) of the stream `key` (uint64) starts from."""
    return mix(key + mix(index))


@compiled
def unit(state):
    """A float64 uniform over [0, 1) in steps of 2^-53, from a SplitMix64 state."""
    return np.float64(mix(state) >> _SHIFT_TO_53_BITS) * _UNIT
