"""gigatoken stands in for tokenizers only where it gives the same ids, whatever the text."""

import itertools
import json
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli import load_vocabulary
from stochastok_cli.tokenization import gigatoken_encoder, tokenizers_encoder, verified_gigatoken
from stochastok_cli.tokenization.merges import byte_characters
from stochastok_cli.tokenization.rank_files import PUBLISHED
from tests.tokenization.tiny_tokenizers import added_token, byte_level, changed, sentencepiece_bpe, write

GPT2 = byte_level()["pre_tokenizer"]
LLAMA3, QWEN, QWEN35, O200K = (PUBLISHED[name].pattern for name in ("llama3", "qwen", "qwen35", "o200k"))
ALPHABET = "'sStTrelvmdk aAbB12.!/<>_\n\r\téÉß\u0301½²日かд😀\u00a0\u2028ſKǅʰ"
END = added_token(0, "<|endoftext|>")


def split(*patterns: str, behavior: str = "Isolated", invert: bool = False, add_prefix_space: bool = False) -> dict:
    steps = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert} for pattern in patterns
    ]
    letters = {**GPT2, "use_regex": False, "add_prefix_space": add_prefix_space}
    return {"type": "Sequence", "pretokenizers": [*steps, letters]}


def all_pairs(pre_tokenizer: dict, added: list[dict] | None = None, **parts) -> dict:
    """A tokenizer that merges each two letters of an alphabet, so that boundaries of pretokens show in its ids."""
    letters = byte_characters()
    written = ["".join(letters[byte] for byte in letter.encode()) for letter in ALPHABET]
    merges, entries = [], ["<|endoftext|>", *letters]
    for letter in written:
        merges += [(letter[:i], letter[i]) for i in range(1, len(letter))]
    merges += itertools.product(written, written)
    merges += [("\u0120" + "a", "b"), ("1" + "2", "1"), ("\u0120\u0120", "\u0120\u0120")]
    entries += dict.fromkeys(a + b for a, b in merges if a + b not in letters)
    entries += ["bsa", "\u0120tad"]  # which no merge makes
    content = changed(byte_level(), pre_tokenizer=pre_tokenizer, **parts)
    numbers = {entry: i for i, entry in enumerate(entries)}
    content["model"] |= {"vocab": numbers, "merges": list(dict.fromkeys(merges))}
    content["added_tokens"] = [END, *({**token, "id": len(entries) + i} for i, token in enumerate(added or []))]
    return content


def ordinary(*contents: str, **flags: bool) -> list[dict]:
    return [added_token(0, content, special=False, **flags) for content in contents]


NFC = {"type": "NFC"}
FAST = {
    "GPT-2": all_pairs(GPT2),
    "Llama 3": all_pairs(split(LLAMA3), model={"ignore_merges": True}),
    "Qwen 2": all_pairs(split(QWEN), normalizer=NFC),
    "Qwen 3": all_pairs(split(QWEN), [added_token(0, "<s>"), *ordinary("<a>", "</a>")], normalizer=NFC),
    "Qwen 3.5": all_pairs(split(QWEN35), normalizer=NFC),
    "o200k": all_pairs(split(O200K)),
    "NFKC": all_pairs(split(LLAMA3), normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}]}),
    "NFD": all_pairs(GPT2, normalizer={"type": "NFD"}),
    "whole words": all_pairs(GPT2, ordinary("<a>", single_word=True)),
    "white space lost": all_pairs(GPT2, ordinary("<a>", lstrip=True, rstrip=True)),
    "hidden by a special token": all_pairs(GPT2, [added_token(0, "<a>"), *ordinary("a>b")]),
    "found first": all_pairs(GPT2, [*ordinary("<a>"), *ordinary("b<a", normalized=True)]),
    "tokens in normalized text": all_pairs(split(QWEN), ordinary("<a>", "<a>b", normalized=True), normalizer=NFC),
}
# gigatoken reads these too, and gives other ids
DIFFERENT = {
    "inverted": all_pairs(split(LLAMA3, invert=True)),
    "one pretoken": all_pairs({**GPT2, "use_regex": False}),
    "divided again": all_pairs({"type": "Sequence", "pretokenizers": [split(LLAMA3)["pretokenizers"][0], GPT2]}),
    "a space before each pretoken": all_pairs(split(LLAMA3, add_prefix_space=True)),
    "an unknown token": all_pairs(GPT2, model={"unk_token": "bsa"}),
}
# gigatoken does not read these
UNKNOWN = {
    "another pattern": all_pairs(split(r"\p{N}{1,4}|\p{L}+|.")),
    "another normalizer": all_pairs(GPT2, normalizer={"type": "Lowercase"}),
    "SentencePiece": sentencepiece_bpe(),
}
WORDS = ["it's", "I'LL", "'S", "'ſ", "12121", "    ", "<a>", "<s>", "<a>b", "a>b", "b<a", "<|endoftext|>", "</a>"]
WORDS += ["bsa", " tad", "\r\n\r\n", "\u0378", "\U0001fae8", "क्षि", "\u1161", "각", "Å", "ﬁ", "<a>\u0338", "\x00"]
TEXT = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(ALPHABET),
        st.sampled_from(ALPHABET),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=20,
).map("".join)


@pytest.fixture(autouse=True)
def _from_the_first_text(monkeypatch):
    monkeypatch.setattr(tokenizers_encoder, "_WORTH_GIGATOKEN", 0)


def loaded(content: dict, folder):
    return load_vocabulary(write(folder / "t", content, {"eos_token": "<|endoftext|>"}))


@pytest.mark.parametrize("kind", FAST)
def test_ids_are_those_of_tokenizers(kind, tmp_path_factory):
    vocabulary = loaded(FAST[kind], tmp_path_factory.mktemp("t"))
    encoder = vocabulary._encoder
    assert encoder._gigatoken is not None

    @settings(max_examples=120, deadline=None)
    @given(texts=st.lists(TEXT, min_size=1, max_size=10), threads=st.sampled_from([1, 2]))
    def holds(texts, threads):
        ids, lengths = vocabulary.encode_batch(texts, threads)
        expected = [encoder._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        assert lengths.tolist() == [len(part) for part in expected]
        assert ids.tolist() == [i for part in expected for i in part]

    holds()


@pytest.mark.parametrize("kind", DIFFERENT)
def test_where_gigatoken_would_differ_tokenizers_encodes(kind, tmp_path):
    vocabulary = loaded(DIFFERENT[kind], tmp_path)
    assert vocabulary._encoder._gigatoken is None
    plain = {**vocabulary._encoder._content, "normalizer": None}
    plain["added_tokens"] = [token for token in plain["added_tokens"] if not token["special"]]
    gigatoken = gigatoken_encoder.GigatokenEncoder.from_json(json.dumps(plain))  # so the check is needed
    texts = ["it's 12 ab  a", "a b", "!a", "bsa"]
    ids, _ = vocabulary.encode_batch(texts)
    if kind not in ("inverted", "an unknown token"):  # which are refused unseen
        assert ids.tolist() != gigatoken.encode_batch(texts, 1)[0].tolist()


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_gigatoken_does_not_know_tokenizers_encodes(kind, tmp_path):
    vocabulary = load_vocabulary(write(tmp_path / "t", UNKNOWN[kind]))
    assert vocabulary._encoder._gigatoken is None
    assert vocabulary.encode_batch(["a b", "a"])[0].tolist() == vocabulary.encode("a b") + vocabulary.encode("a")


def test_a_difference_in_the_trial_texts_drops_gigatoken(tmp_path, monkeypatch):
    other = all_pairs(split(QWEN))  # which divides numbers differently
    monkeypatch.setattr(verified_gigatoken, "followed_settings", lambda content: other)
    assert loaded(all_pairs(split(LLAMA3)), tmp_path)._encoder._gigatoken is None


def test_without_gigatoken_tokenizers_encodes(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    vocabulary = loaded(FAST["Llama 3"], tmp_path)
    assert vocabulary._encoder._gigatoken is None
    assert vocabulary.encode_batch(["it's"])[0].tolist() == vocabulary.encode("it's")


def test_few_texts_are_left_to_tokenizers(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizers_encoder, "_WORTH_GIGATOKEN", 10)
    vocabulary = loaded(FAST["Llama 3"], tmp_path)
    vocabulary.encode_batch(["it's"])
    assert "_gigatoken" not in vars(vocabulary._encoder)
    vocabulary.encode_batch(["it's 12"])
    assert vocabulary._encoder._gigatoken is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GPT-2", "Llama 3", "Qwen 3.5", "o200k"])
def test_every_assigned_code_point(kind, tmp_path):
    """In the contexts that tell letters, numbers, marks and white space apart, and after an apostrophe."""
    vocabulary = loaded(FAST[kind], tmp_path)
    odd = verified_gigatoken.odd_for_tokenizers()
    points = [chr(c) for c in range(0x40000) if not odd[c]]
    assert all(unicodedata.category(point) not in ("Cn", "Cs") for point in points)
    texts = [f"it's{c} x'll{c}{c}a '{c} 'l{c} {c}1{c} .{c}\n {c}  {c}A{c}b" for c in points]
    for start in range(0, len(texts), 20_000):
        batch = texts[start : start + 20_000]
        fast, slow = vocabulary.encode_batch(batch, 2), vocabulary._encoder._encode_batch(batch)
        assert np.array_equal(fast[0], slow[0]) and np.array_equal(fast[1], slow[1])
