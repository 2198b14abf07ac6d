"""gigatoken gives tiktoken's ids, whatever the text."""

import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli.tokenization import gigatoken_encoder
from stochastok_cli.tokenization.loaders import load_vocabulary

UNASSIGNED = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Cn"]
ODD = st.sampled_from(
    ["'s", "'S", "'ll", "'re", "'", "’s", " ", "\n", "\r\n", "a", "Ab", "1", "é", "\u0301", "ſ", "\u180e"]
)
TEXT = st.lists(
    st.one_of(ODD, st.characters(exclude_categories=["Cs"]), st.sampled_from(UNASSIGNED[:5000])), max_size=25
)


@pytest.mark.parametrize("name", ["gpt2", "sample2k", "cl100k_base", "o200k_base"])
def test_ids_are_tiktokens(name):
    vocabulary = load_vocabulary(name)
    tiktoken = vocabulary._encoder._encoding

    @settings(max_examples=150, deadline=None)
    @given(texts=st.lists(TEXT.map("".join), min_size=1, max_size=20), threads=st.sampled_from([1, 2]))
    def holds(texts, threads):
        ids, lengths = vocabulary.encode_batch(texts, threads)
        expected = [tiktoken.encode_ordinary(text) for text in texts]
        assert lengths.tolist() == [len(part) for part in expected]
        assert ids.tolist() == [i for part in expected for i in part]

    holds()
    assert isinstance(vocabulary._encoder._gigatoken, gigatoken_encoder.GigatokenEncoder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_every_code_point_after_a_contraction(name):
    """The known difference: code points that are unassigned after `'s`. All 1.1 million, in both directions."""
    vocabulary = load_vocabulary(name)
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    texts = [f"it's{c} x'll{c}{c}a {c}" for c in points]
    odd = gigatoken_encoder.unassigned_or_surrogate()
    usual = [text for text in texts if not gigatoken_encoder.may_differ(text, odd)]
    assert len(texts) - len(usual) == len(UNASSIGNED)
    sample = usual[:3000] + usual[3000::23]
    ids, lengths = vocabulary.encode_batch(sample, 2)
    expected = [vocabulary._encoder._encoding.encode_ordinary(text) for text in sample]
    assert lengths.tolist() == [len(part) for part in expected]
    assert ids.tolist() == [i for part in expected for i in part]


def test_the_encoder_is_renewed_when_the_process_has_grown(monkeypatch):
    vocabulary = load_vocabulary("gpt2")
    encoder = gigatoken_encoder.GigatokenEncoder.from_ranks(vocabulary._encoder._encoding._mergeable_ranks, "gpt2")
    first = encoder._tokenizer
    once = encoder.encode_batch(["some text"], 1)
    assert encoder._tokenizer is first
    monkeypatch.setattr(gigatoken_encoder, "_MAX_GROWTH", -1)
    again = encoder.encode_batch(["some text"], 1)
    assert encoder._tokenizer is not first
    assert np.array_equal(once[0], again[0])
    monkeypatch.setattr(gigatoken_encoder, "resident_memory", lambda: 0)
    monkeypatch.setattr(gigatoken_encoder, "_MAX_CHARACTERS", 5)
    encoder._renew()
    second = encoder._tokenizer
    encoder.encode_batch(["some text"], 1)
    encoder.encode_batch(["some text"], 1)
    assert encoder._tokenizer is not second


def test_without_gigatoken_the_ids_are_the_same(monkeypatch):
    vocabulary = load_vocabulary("sample2k")
    texts = ["one text", "", "it's\u0378 another — naïve"]
    ids, lengths = vocabulary.encode_batch(texts, 2)
    monkeypatch.setattr(vocabulary._encoder, "_gigatoken", None)
    slow, slow_lengths = vocabulary.encode_batch(texts, 2)
    assert ids.tolist() == slow.tolist()
    assert lengths.tolist() == slow_lengths.tolist()


INTERRUPTED_IMPORT = """
import subprocess
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "awkward.highlevel":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

from stochastok_cli.tokenization.loaders import load_vocabulary

vocabulary = load_vocabulary("sample2k")
sys.meta_path.insert(0, Interrupt())
try:
    vocabulary.encode_batch(["a text"], 2)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interruption_is_not_swallowed():
    """gigatoken imports awkward in its first call and swallows what interrupts that."""
    run = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("interrupted\n", "")
