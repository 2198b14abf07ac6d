"""SplitMix64 against its definition and published outputs: on Python integers, on arrays, and compiled."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli.random_streams import SPLITMIX64_INCREMENT, derive_key, mix, random_bits, splitmix64
from stochastok_cli.tokenization.methods.kernels import random as compiled


def definition(z: int) -> int:
    """The output function as Steele, Lea and Flood (2014) and Vigna's reference implementation write it."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_the_published_outputs_for_seed_1234567():
    states = [1234567 + i * int(SPLITMIX64_INCREMENT) for i in range(1, 6)]
    assert [splitmix64(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_arrays_integers_and_compiled_code_agree_with_the_definition(states):
    expected = [definition(state) for state in states]
    assert mix(np.array(states, dtype=np.uint64)).tolist() == expected
    assert [splitmix64(state) for state in states] == expected
    assert splitmix64(states[0] + 2**64) == expected[0]
    with np.errstate(over="ignore"):
        assert [int(compiled.mix(np.uint64(state))) for state in states] == expected
        assert [float(compiled.unit(np.uint64(state))) for state in states] == [(z >> 11) / 2**53 for z in expected]


@settings(deadline=None)
@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**63), min_size=1, max_size=10))
def test_bits_of_many_counters_are_those_of_the_kernels(seed, counters):
    """Document `i` of an expansion starts from the same hash of key and index as `random_bits` of counter `i`."""
    bits = random_bits(seed, "x", 7, counters=np.array(counters, dtype=np.uint64))
    key = np.uint64(derive_key(seed, "x", 7))
    with np.errstate(over="ignore"):
        assert bits.tolist() == [int(compiled.document_state(key, np.uint64(i))) for i in counters]
