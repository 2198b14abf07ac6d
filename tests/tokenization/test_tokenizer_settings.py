"""Every setting of a tokenizer is followed or refused by name; no text is lost, no special id comes from text."""

import copy
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import Notice
from stochastok_cli.tokenization.loaders import vocabulary_for
from tests.tokenization.tiny_tokenizers import (
    added_token,
    byte_level,
    changed,
    metaspace,
    sentencepiece_bpe,
    unigram,
    wordpiece,
    write,
)

END = added_token(259, "<|endoftext|>")
PUNCTUATED = "a </s> a <|endoftext|> [SEP] [UNK] <unk> <pad> a[SEP]"


def bpe_ending_in(entry: str) -> dict:
    """Byte-level BPE whose end-of-text token is an entry that its merges make."""
    content = byte_level()
    return changed(content, added_tokens=[END, added_token(content["model"]["vocab"][entry], entry)])


SPECIAL_IN_TEXT = {
    "unigram": (unigram(), {}),
    "unigram with bytes": (unigram(byte_tokens=True), {}),
    "bpe of characters": (sentencepiece_bpe(), {}),
    "bpe of characters, ignoring merges": (sentencepiece_bpe(ignore_merges=True), {}),
    "wordpiece": (wordpiece("WhitespaceSplit"), {}),
    "byte-level, ignoring merges": (
        changed(
            byte_level(ignore_merges=True),
            pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ),
        {},
    ),
    "byte-level, merged": (bpe_ending_in("abc"), {"eos_token": "abc"}),
    "not marked as special": (
        changed(byte_level(), added_tokens=[END, added_token(260, "</s>", special=False, rstrip=True)]),
        {"eos_token": {"content": "</s>"}},
    ),
    "named in the configuration alone": (
        changed(byte_level(), added_tokens=[added_token(260, "</s>", special=False)]),
        {"eos_token": "</s>", "added_tokens_decoder": {"259": {"content": "<|endoftext|>", "special": True}}},
    ),
}


@pytest.mark.parametrize("kind", SPECIAL_IN_TEXT)
def test_no_special_id_but_unknown_comes_out_of_text(kind, tmp_path):
    content, config = SPECIAL_IN_TEXT[kind]
    vocabulary = load_vocabulary(write(tmp_path / "t", content, config))
    for text in (PUNCTUATED, "<|endoftext|>", "</s>", "[SEP]", "abc", "xyz abc", "</s>  </s>"):
        ids = vocabulary.encode(text)
        assert not (vocabulary.special - {vocabulary.unknown}).intersection(ids)
        assert vocabulary.end_of_text not in ids
        for threads in (1, 2):
            batch, lengths = vocabulary.encode_batch([text, text], threads)
            assert batch.tolist() == ids + ids and lengths.tolist() == [len(ids)] * 2
        if vocabulary.unknown is None:
            assert vocabulary.decode(ids) == text


@pytest.mark.parametrize(
    ("kind", "text", "ids"),
    [
        ("unigram", "a </s> a", [9, 3, 4, 5, 6, 7, 9]),
        ("unigram with bytes", "a </s> a", [9, 3, 4, 5, 6, 7, 9]),
        ("bpe of characters", "a </s> a", [8, 2, 10, 6, 8]),
        ("byte-level, merged", "abcab", [256, 99, 256]),
        ("not marked as special", "a</s>  b", [*b"a</s>  b"]),
        ("wordpiece", "a [SEP]", [2, 4, 8, 9]),
    ],
)
def test_the_name_of_a_special_token_is_spelled(kind, text, ids, tmp_path):
    assert load_vocabulary(write(tmp_path / "t", *SPECIAL_IN_TEXT[kind])).encode(text) == ids


def test_a_corpus_of_such_names_has_the_documents_that_its_manifest_counts(tmp_path):
    (tmp_path / "text.txt").write_text("a </s> a\n\n</s>\n\na a\n\n</s></s>")
    tokenizer = write(tmp_path / "t", unigram())
    made = tokenize(tmp_path / "text.txt", tokenizer=tokenizer, data_dir=tmp_path, val_fraction=0.25)
    for split, recorded in made.manifest.splits.items():
        ids = np.fromfile(made.path / f"{split}.bin", "<u2")
        assert (len(ids), np.count_nonzero(ids == 1)) == (recorded.tokens, recorded.documents)


@pytest.mark.parametrize(
    ("content", "space"),
    [
        (unigram(byte_tokens=True), " "),
        (sentencepiece_bpe(), " "),
        (changed(sentencepiece_bpe(ignore_merges=True), pre_tokenizer=metaspace("never")), ""),
    ],
)
def test_the_name_of_a_byte_is_no_byte(content, space, tmp_path):
    vocabulary = load_vocabulary(write(tmp_path / "t", content))
    for text in ("a <0x41>", "<0x41>", "é"):
        assert vocabulary.decode(vocabulary.encode(text)) == space + text


BYTES = byte_level()["model"]["vocab"]
WITHOUT_T = {entry: i for entry, i in BYTES.items() if entry != "T"}
FEW_BYTES = {e: i for e, i in sentencepiece_bpe()["model"]["vocab"].items() if e != "<0xC3>"}


def split(pattern: dict, behavior: str) -> dict:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}


def after(step: dict, content: dict) -> dict:
    """The tokenizer with one more pre-tokenizer before its own."""
    return changed(content, pre_tokenizer={"type": "Sequence", "pretokenizers": [step, content["pre_tokenizer"]]})


CTC = {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}
REFUSED = {
    "a missing byte": (changed(byte_level(), model={"vocab": WITHOUT_T}), "no entry for the byte 0x54"),
    "a missing byte, unknown is end-of-text": (
        changed(byte_level(), model={"vocab": WITHOUT_T, "unk_token": "<|endoftext|>"}),
        "would become its end-of-text",
    ),
    "an unknown token that is not there": (
        changed(byte_level(), model={"vocab": WITHOUT_T, "unk_token": "<unk>"}),
        "no unknown token",
    ),
    "a missing byte to fall back on": (
        sentencepiece_bpe(vocab=FEW_BYTES, unk_token=None),
        "no entry for the byte 0xc3",
    ),
    "bpe without unknown": (sentencepiece_bpe(byte_tokens=False, unk_token=None), "no unknown token"),
    "unigram without unknown": (unigram(unk_id=None), "no unknown token"),
    "wordpiece without unknown": (wordpiece(unk_token="[unk]"), "no unknown token"),
    "end_of_word_suffix": (byte_level(end_of_word_suffix="</w>"), r"'</w>' \(end_of_word_suffix\)"),
    "continuing_subword_prefix": (byte_level(continuing_subword_prefix="##"), "continuing_subword_prefix"),
    "a byte-level model over characters": (changed(byte_level(), pre_tokenizer=None), "0 ByteLevel steps"),
    "bytes twice": (after(byte_level()["pre_tokenizer"], byte_level()), "2 ByteLevel steps"),
    "bytes before characters": (after(byte_level()["pre_tokenizer"], unigram()), "1 ByteLevel steps"),
    "text removed": (after(split({"Regex": r"\s+"}, "Removed"), byte_level()), "Split.*removes text"),
    "punctuation removed": (
        after({"type": "Punctuation", "behavior": "Removed"}, unigram()),
        "Punctuation.*removes text",
    ),
    "spaces removed": (
        changed(
            unigram(),
            pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("first")]},
        ),
        "WhitespaceSplit removes text",
    ),
    "letters removed": (after(split({"String": "a"}, "Removed"), wordpiece()), "removes text"),
    "spaces as another letter": (
        changed(unigram(), pre_tokenizer={**metaspace(), "replacement": "_"}),
        "does not fit its decoder",
    ),
    "another decoder": (
        changed(byte_level(), decoder={"type": "Sequence", "decoders": [byte_level()["decoder"], CTC]}),
        "CTC",
    ),
    "a decoder that replaces": (
        changed(
            unigram(),
            decoder={
                "type": "Sequence",
                "decoders": [metaspace(), {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}],
            },
        ),
        "decoder Replace",
    ),
    "bytes that are not joined": (changed(unigram(byte_tokens=True), decoder=metaspace()), "byte_fallback"),
    "an unknown setting": (changed(byte_level(), model={"sampling": 0.1}), "'sampling'"),
    "an id far from all others": (
        changed(byte_level(), model={"vocab": {**BYTES, "far": 400_000_000}}),
        "261 entries.*400,000,000",
    ),
    "an id of two entries": (
        changed(byte_level(), model={"vocab": {**BYTES, "twice": 65}}),
        "2 entries with the id 65",
    ),
    "a gap before an added token": (
        changed(byte_level(), added_tokens=[END, added_token(300, "<x>")]),
        "'<x>' has the id 300",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_setting_that_is_not_followed_is_refused_by_name(kind, tmp_path):
    content, message = REFUSED[kind]
    with pytest.raises(UserError, match=message) as error:
        load_vocabulary(write(tmp_path / "t", content))
    assert "\n" not in str(error.value)


CONFIGURATIONS = {
    "another id": ({"added_tokens_decoder": {"7": {"content": "<|endoftext|>"}}}, "as id 7"),
    "a token more": ({"added_tokens_decoder": {"260": {"content": "<pad>"}}}, "'<pad>' as id 260"),
    "no token": ({"added_tokens_decoder": {"260": 3}}, "as id 260"),
    "no object": ({"added_tokens_decoder": [3]}, "added_tokens_decoder"),
    "an end that is not there": ({"eos_token": "<end>"}, "'<end>'.*no such token"),
    "an end that is no token": ({"eos_token": ["</s>"]}, "eos_token"),
    "a space before the text": ({"add_prefix_space": True}, "add_prefix_space is True"),
}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_configuration_that_disagrees_is_refused(kind, tmp_path):
    config, message = CONFIGURATIONS[kind]
    with pytest.raises(UserError, match=message):
        load_vocabulary(write(tmp_path / "t", byte_level(), config))


def test_lower_case_that_the_files_disagree_on(tmp_path):
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    content = changed(wordpiece(), normalizer={**normalizer, "strip_accents": None, "lowercase": False})
    assert load_vocabulary(write(tmp_path / "t", content, {"do_lower_case": False})).encode("A")
    with pytest.raises(UserError, match="lowercase is True in its tokenizer_config.json and False"):
        load_vocabulary(write(tmp_path / "t", content, {"do_lower_case": True}))


def test_flags_of_the_configuration_count(tmp_path):
    """As in `transformers`: a token that only the configuration marks as special is special."""
    content = changed(byte_level(), added_tokens=[END, added_token(260, "<x>", special=False)])
    assert load_vocabulary(write(tmp_path / "t", content)).encode("a<x>") == [97, 260]
    config = {"added_tokens_decoder": {"260": {"content": "<x>", "special": True}}}
    assert load_vocabulary(write(tmp_path / "t", content, config)).encode("a<x>") == [*b"a<x>"]


def test_unknown_text_is_counted(tmp_path):
    vocabulary = load_vocabulary(
        write(tmp_path / "t", changed(byte_level(), model={"vocab": WITHOUT_T, "unk_token": "xyz"}))
    )
    assert vocabulary.encode("aTb") == [97, 258, 98]
    (tmp_path / "text.txt").write_text("aTb\n\nTT\n\na")
    assert tokenize(tmp_path / "text.txt", tokenizer=vocabulary, data_dir=tmp_path).manifest.unknown_tokens == 3


def test_bytes_that_occur_in_no_text_may_be_missing(tmp_path):
    letters = [entry for entry, i in BYTES.items() if i < 256]
    from stochastok_cli.tokenization.merges import byte_characters

    absent = {byte_characters()[byte] for byte in (0xC0, 0xC1, *range(0xF5, 256))}
    content = changed(byte_level(), model={"vocab": {e: i for e, i in BYTES.items() if e not in absent}})
    assert len(absent.intersection(letters)) == 13
    vocabulary = load_vocabulary(write(tmp_path / "t", content))
    text = "abc é 日本 \U0010ffff xyz"
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert StochasTok(vocabulary, p=0, method="bpe-dropout")(ids).tolist() == ids


def test_sampling_of_a_unigram_model_is_switched_off_with_a_note(tmp_path):
    tokenizer = Tokenizer.from_str(json.dumps(unigram()))
    tokenizer.model = models.Unigram(unigram()["model"]["vocab"], unk_id=2, alpha=0.2)
    with pytest.warns(Notice, match=r"samples its segmentations \(alpha 0.2\); this is switched off"):
        vocabulary = vocabulary_for(tokenizer)
    assert len({tuple(tokenizer.encode("a a a a a").ids) for _ in range(50)}) > 1
    assert len({tuple(vocabulary.encode("a a a a a")) for _ in range(50)}) == 1
    assert tokenizer.model.alpha == pytest.approx(0.2)  # what was given stays as it is
    with pytest.warns(Notice, match="alpha 0.2.*switched off"):
        load_vocabulary(write(tmp_path / "t", unigram(alpha=0.2, nbest_size=8)))


def test_dropout_of_a_model_is_switched_off_with_a_note(tmp_path):
    with pytest.warns(Notice, match="dropout 0.5.*switched off"):
        vocabulary = load_vocabulary(write(tmp_path / "t", byte_level(dropout=0.5)))
    assert {tuple(vocabulary.encode("abc")) for _ in range(20)} == {(257,)}
    vocabulary.save_tokenizer(tmp_path)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).model.dropout is None


def test_white_space_that_an_added_token_takes_is_said(tmp_path):
    content = changed(byte_level(), added_tokens=[END, added_token(260, "<x>", special=False, rstrip=True)])
    with pytest.warns(Notice, match="white space beside '<x>'"):
        vocabulary = load_vocabulary(write(tmp_path / "t", content))
    assert vocabulary.encode("<x>  a") == [260, 97]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_vocabulary(write(tmp_path / "t", changed(content, added_tokens=[added_token(259, "<|endoftext|>")])))


def test_the_saved_tokenizer_has_the_tokens_that_text_does_not_reach(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path / "t", unigram()))
    vocabulary.save_tokenizer(tmp_path)
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert saved.token_to_id("</s>") == 1
    assert load_vocabulary(tmp_path).fingerprint == vocabulary.fingerprint


def places(value, place=()):
    """The places of all values inside a JSON value but those of most entries of a vocabulary."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for number, key in enumerate(keys):
        if number < 20:
            yield (*place, key)
            yield from places(value[key], (*place, key))


BASES = [byte_level(ignore_merges=True), unigram(byte_tokens=True), sentencepiece_bpe(), wordpiece()]
REPLACEMENTS = [None, 0, -1, 2, 2**31, 4 * 10**8, 1e308, "", "a", "▁", "</s>", "(a+)+$", "\ud800", "\0", [], [1], {}]
REPLACEMENTS += [{"a": 1}, True, "Removed", "always", {"String": "a"}, {"Regex": "("}, {"type": "ByteLevel"}]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::stochastok_cli.errors.Notice")
def test_any_change_of_a_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    content = changed(data.draw(st.sampled_from(BASES)))
    content = json.loads(json.dumps(content))
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, key = data.draw(st.sampled_from(list(places(content))))
        inner = content
        for parent in parents:
            inner = inner[parent]
        inner[key] = copy.deepcopy(data.draw(st.sampled_from(REPLACEMENTS)))  # which the next change may go into
    folder = tmp_path_factory.mktemp("t")
    try:
        vocabulary = load_vocabulary(write(folder, content))
        for text in ("a </s> a", "xyz é日 \n\nabc", "<|endoftext|>[SEP]"):
            assert not (vocabulary.special - {vocabulary.unknown}).intersection(vocabulary.encode(text))
    except UserError as error:
        message = str(error)
    else:
        message = "read"
    assert len(message.splitlines()) == 1 and len(message) < 700
