"""Compiled random numbers, and how kernels are compiled.

Where numba is missing or switched off (`NUMBA_DISABLE_JIT=1`), the same functions run interpreted.

A kernel carries a SplitMix64 state: it adds `INCREMENT` for each number and reads `mix(state)` or `unit(state)`.
Document `i` of a stream starts from `document_state(key, i)`, so documents are independent of each other and may be
expanded in any order.
"""

import warnings
from typing import Any

import numpy as np

from stochastok_cli import random_streams
from stochastok_cli.errors import Notice

try:
    import numba
except ImportError:  # pragma: no cover - a machine without a compiler for its platform
    numba = None  # type: ignore[assignment]
else:
    from numba.core import event

    class _FirstCompilation(event.Listener):
        """Says once that kernels are compiled, which takes some seconds, unless their machine code is cached."""

        def on_start(self, event_started: event.Event) -> None:
            event.unregister("numba:compile", self)
            warnings.warn("compiling kernels, which takes some seconds the first time", Notice, stacklevel=2)

        def on_end(self, event_ended: event.Event) -> None:
            pass

    event.register("numba:compile", _FirstCompilation())

INCREMENT = random_streams.SPLITMIX64_INCREMENT
_SHIFT_TO_53_BITS = np.uint64(11)
_UNIT = 2.0**-53


def compiled(function: Any) -> Any:
    """Compiles `function`; it then runs without the GIL. The machine code is cached where a folder is writable."""
    if numba is None:
        return function
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache
        return numba.njit(nogil=True)(function)


mix = compiled(random_streams.mix)


@compiled
def document_state(key, index):
    """The state that document `index` (uint64) of the stream `key` (uint64) starts from."""
    return mix(key + mix(index))


@compiled
def unit(state):
    """A float64 uniform over [0, 1) in steps of 2^-53, from a SplitMix64 state."""
    return np.float64(mix(state) >> _SHIFT_TO_53_BITS) * _UNIT
