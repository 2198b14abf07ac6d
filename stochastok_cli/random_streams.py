"""Every random number of the package comes from here.

A stream is named by `(seed, purpose, *index)`. No generator carries a state from one use to the next, so a result
depends neither on the number of workers nor on where an interrupted run was resumed.

SplitMix64 (Steele, Lea and Flood 2014) is defined here once: `mix` is plain Python on NumPy integers, which
`tokenization/methods/kernels/random.py` compiles for the expansion kernels. The GPU kernels of dropout need 32-bit
words and use another function (`models/llama/fused/dropout.py`).
"""

import hashlib

import numpy as np

CORPUS_SEED = 489

# SplitMix64: the increment of the state from one output to the next, and the constants of the output function.
SPLITMIX64_INCREMENT = np.uint64(0x9E37_79B9_7F4A_7C15)
_MULTIPLIER_1 = np.uint64(0xBF58_476D_1CE4_E5B9)
_MULTIPLIER_2 = np.uint64(0x94D0_49BB_1331_11EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


def derive_key(seed: int, purpose: str, *index: int) -> int:
    """A 64-bit key for `(seed, purpose, index)`; different names give different keys, as hashes do."""
    name = f"{seed}/{purpose}/{'/'.join(map(str, index))}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A fresh counter-based generator (Philox, Salmon et al. 2011) for `(seed, purpose, index)`."""
    name = f"{seed}/{purpose}/{'/'.join(map(str, index))}".encode()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def corpus_permutation(documents: int, seed: int = CORPUS_SEED) -> np.ndarray:
    """The permutation by which `datasets.train_test_split` divides a corpus into validation and training documents.

    A negative seed is hashed, for NumPy's generators take none.

    Returns:
        int64 array `[documents]`.
    """
    if seed < 0:
        seed = derive_key(seed, "corpus split")
    return np.random.default_rng(seed).permutation(documents)


def mix(z):
    """The output function of SplitMix64, a permutation of the 64-bit integers.

    Args:
        z: a state, or an array of states, uint64. Integers wrap; NumPy warns about that for scalars, not for arrays.

    Returns:
        uint64 of the shape of `z`.
    """
    z = (z ^ (z >> _SHIFT_1)) * _MULTIPLIER_1
    z = (z ^ (z >> _SHIFT_2)) * _MULTIPLIER_2
    return z ^ (z >> _SHIFT_3)


def splitmix64(state: int) -> int:
    """Applies `mix` to the lowest 64 bits of a Python integer.

    The first outputs for the seed 1234567, as published with the algorithm:

    >>> [splitmix64(1234567 + i * int(SPLITMIX64_INCREMENT)) for i in (1, 2)]
    [6457827717110365317, 3203168211198807973]
    """
    return int(mix(np.array([state % 2**64], dtype=np.uint64))[0])


def random_bits(seed: int, purpose: str, *index: int, counters: np.ndarray) -> np.ndarray:
    """64 random bits for each counter: a pure function of `(seed, purpose, index, counter)`.

    Args:
        seed, purpose, index: name the stream.
        counters: integers >= 0, any shape.

    Returns:
        uint64 of the shape of `counters`.
    """
    key = np.array([derive_key(seed, purpose, *index)], dtype=np.uint64)  # an array, so that the sum may wrap
    return mix(key + mix(np.asarray(counters).astype(np.uint64)))


def uniform_integers(seed: int, purpose: str, *index: int, counters: np.ndarray, bound: int) -> np.ndarray:
    """For each counter an integer uniform over `range(bound)`: a pure function of `(seed, purpose, index, counter)`.

    Bounds are far below 2^64 here, so taking the remainder favors no integer by more than one part in 2^64 / bound.

    Args:
        seed, purpose, index: name the stream.
        counters: integers >= 0, any shape.
        bound: the first integer that is not drawn.

    Returns:
        int64 of the shape of `counters`.
    """
    return (random_bits(seed, purpose, *index, counters=counters) % np.uint64(bound)).astype(np.int64)
