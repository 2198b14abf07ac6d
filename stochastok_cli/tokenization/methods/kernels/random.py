"""Compiled random numbers, and how kernels are compiled.

Where numba is missing or switched off (`NUMBA_DISABLE_JIT=1`), the same functions run interpreted.

A kernel carries a SplitMix64 state: it adds `INCREMENT` for each number and reads `mix(state)` or `unit(state)`.
Document `i` of a stream starts from `document_state(key, i)`, so documents are independent of each other and may be
expanded in any order.
"""

from typing import Any

import numpy as np

from stochastok_cli import random_streams

try:
    import numba
except ImportError:  # pragma: no cover - a machine without a compiler for its platform
    numba = None  # type: ignore[assignment]

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
