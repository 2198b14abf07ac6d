"""Every random number of the package comes from here.

A stream is named by `(seed, purpose, *index)`. There is no generator whose state is carried along, so a result
depends neither on the number of workers nor on where an interrupted run was resumed.
"""

import hashlib

import numpy as np

from stochastok_cli.errors import UserError

CORPUS_SEED = 489
_MASK64 = 0xFFFF_FFFF_FFFF_FFFF


def derive_key(seed: int, purpose: str, *index: int) -> int:
    """A 64-bit key, different (as a hash is) for every `(seed, purpose, index)`."""
    name = f"{seed}/{purpose}/{'/'.join(map(str, index))}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A fresh counter-based generator (Philox, Salmon et al. 2011) for `(seed, purpose, index)`."""
    name = f"{seed}/{purpose}/{'/'.join(map(str, index))}".encode()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def corpus_permutation(documents: int, seed: int = CORPUS_SEED) -> np.ndarray:
    """The order in which a corpus is cut into val and train: the one that `datasets.train_test_split` uses.

    Returns an int64 array of shape `(documents,)`.
    """
    if seed < 0:
        raise UserError(f"the seed of the corpus split is {seed}", fix="give one that is not negative")
    return np.random.default_rng(seed).permutation(documents)


def splitmix64(state: int) -> int:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014) at `state`, as an unsigned 64-bit integer.

    The expansion kernels hold a compiled twin of this function.
    """
    z = state & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK64
    return z ^ (z >> 31)


def random_bits(seed: int, purpose: str, *index: int, counters: np.ndarray) -> np.ndarray:
    """For each counter (integers >= 0) 64 random bits, uint64 of its shape: many streams read at once."""
    key = np.array([derive_key(seed, purpose, *index)], dtype=np.uint64)  # integers of an array wrap without a warning
    return _mix(key + _mix(np.asarray(counters).astype(np.uint64)))


def uniform_integers(seed: int, purpose: str, *index: int, counters: np.ndarray, bound: int) -> np.ndarray:
    """For each counter an integer uniform over `range(bound)`, int64 of the shape of `counters` (integers >= 0).

    A pure function of `(seed, purpose, index, counter)`: many streams read at once, one number of each. A bound is
    far below 2^64 here, so that taking the remainder favours no integer by more than one part in 2^64 / bound.
    """
    return (random_bits(seed, purpose, *index, counters=counters) % np.uint64(bound)).astype(np.int64)


def _mix(z: np.ndarray) -> np.ndarray:
    """`splitmix64` on an array of uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return z ^ (z >> np.uint64(31))
