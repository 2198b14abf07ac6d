"""What a token is: bundled vocabularies, tiktoken's encodings and tokenizer.json files."""

import functools
import hashlib
import json
import pickle
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import requests
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import MaxRetryError, NewConnectionError

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.encoders import TiktokenEncoder
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import _reason, load_vocabulary, vocabulary_from_ranks
from stochastok_cli.tokenization.merges import merges_from_ranks, read_merges, read_merges_as_ranks
from stochastok_cli.tokenization.samples import sample_tokenizations
from stochastok_cli.tokenization.vocabulary import END_OF_TEXT

KINDS = ["gpt2", "sample2k", "cl100k_base", "gpt2.json"]


@pytest.fixture(scope="module", params=KINDS)
def vocabulary(request, tmp_path_factory):
    if request.param != "gpt2.json":
        return load_vocabulary(request.param)
    folder = tmp_path_factory.mktemp("saved")
    load_vocabulary("gpt2").save_tokenizer(folder)
    return load_vocabulary(folder)


def test_why_an_encoding_could_not_be_fetched_is_said_whole():
    """In the words of the innermost library, which `requests` puts into hundreds of characters."""
    refused = NewConnectionError(
        HTTPSConnection("example.org"), "Failed to resolve 'example.org' ([Errno -3] temporary)"
    )
    error = requests.ConnectionError(MaxRetryError(HTTPSConnectionPool("example.org"), "/" + "x" * 300, refused))
    assert _reason(error) == "Failed to resolve 'example.org' ([Errno -3] temporary)"
    assert _reason(ValueError("a line\nanother")) == "a line"


def test_the_bundled_merges_are_gpt2s():
    file = resources.files("stochastok_cli") / "assets" / "gpt2.bpe"
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("1ce16647")
    gpt2 = load_vocabulary("gpt2")
    assert (gpt2.size, gpt2.end_of_text, gpt2.dtype) == (50257, 50256, np.dtype("uint16"))
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.token_bytes(995) == b" world"


@pytest.mark.parametrize("unknown", [-100, -1, 50257, 2**70])
def test_an_id_that_is_not_in_the_vocabulary_is_refused(unknown):
    """A negative one is none either: the label of an id without a loss is -100."""
    gpt2 = load_vocabulary("gpt2")
    ids = [15496, unknown, 995]
    calls = [lambda: gpt2.decode(ids), lambda: gpt2.decode_bytes(iter(ids)), lambda: gpt2.decode(np.array(ids))]
    calls += [lambda: gpt2.token_text(unknown), lambda: gpt2.token_bytes(unknown)]
    calls += [lambda: StochasTok(gpt2, 0.1)(ids)] if unknown < 2**63 else []
    for call in calls:
        with pytest.raises(UserError, match=f"^the id {unknown} is not in the vocabulary 'gpt2'$"):
            call()
    assert gpt2.decode(np.array([15496, 995], np.uint16)) == gpt2.decode(iter([15496, 995])) == "Hello world"
    assert gpt2.decode([]) == gpt2.decode(np.array([], np.int64)) == ""


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_decoding_gives_the_text_back(vocabulary, text):
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode_bytes(ids) == text.encode()
    assert all(0 <= i < vocabulary.size and not vocabulary.is_special(i) for i in ids)


def test_special_spellings_are_ordinary_text(vocabulary):
    text = "a <|endoftext|> b"
    ids = vocabulary.encode(text)
    assert vocabulary.end_of_text not in ids
    assert vocabulary.decode(ids) == text
    batch, lengths = vocabulary.encode_batch([text, "", text], threads=2)
    assert batch.tolist() == ids + ids
    assert lengths.tolist() == [len(ids), 0, len(ids)]


def test_a_saved_tokenizer_is_the_same_vocabulary(tmp_path):
    transformers = pytest.importorskip("transformers")
    for name in ("gpt2", "sample2k"):
        vocabulary = load_vocabulary(name)
        folder = tmp_path / name
        folder.mkdir()
        vocabulary.save_tokenizer(folder)
        again = load_vocabulary(folder)
        assert again.fingerprint == vocabulary.fingerprint
        assert again.end_of_text == vocabulary.end_of_text
        text = "  It's 1234 o'clock,\n\n\tnaïve — 日本語 \U0001f600  x"
        assert again.encode(text) == vocabulary.encode(text)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert theirs(text)["input_ids"] == vocabulary.encode(text)
        assert theirs.eos_token_id == vocabulary.end_of_text


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base"])
def test_a_saved_tokenizer_cuts_every_text_alike(name, tmp_path_factory):
    vocabulary = load_vocabulary(name)
    folder = tmp_path_factory.mktemp(name)
    vocabulary.save_tokenizer(folder)
    again = load_vocabulary(folder)
    assert again.fingerprint == vocabulary.fingerprint

    @settings(max_examples=300, deadline=None)
    @given(text=st.text(alphabet=st.sampled_from("abX1 2\n\r\t'sS.,—é日 "), max_size=30))
    def holds(text):
        assert again.encode(text) == vocabulary.encode(text)

    holds()


def test_a_saved_tokenizer_keeps_a_special_id_among_the_others(tmp_path):
    """As in p50k_base."""
    pieces = load_vocabulary("sample2k").pieces[:400]
    ranks = {piece: i + (i >= 300) for i, piece in enumerate(pieces)}
    encoding = tiktoken.Encoding("toy", pat_str=r"\S+|\s", mergeable_ranks=ranks, special_tokens={END_OF_TEXT: 300})
    vocabulary = vocabulary_from_ranks("toy", ranks, {END_OF_TEXT: 300}, functools.partial(TiktokenEncoder, encoding))
    vocabulary.save_tokenizer(tmp_path)
    again = load_vocabulary(tmp_path)
    assert (again.end_of_text, again.fingerprint) == (300, vocabulary.fingerprint)
    assert again.encode("there is <|endoftext|>") == vocabulary.encode("there is <|endoftext|>")


def test_a_folder_does_not_stand_in_for_a_bundled_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert load_vocabulary("gpt2").size == 50257
    load_vocabulary("sample2k").save_tokenizer(tmp_path / "gpt2")
    for folder in ("./gpt2", Path("gpt2")):
        ours = load_vocabulary(folder)
        assert (ours.name, ours.size, ours.pretokenizes_like_gpt2) == ("./gpt2", 2048, False)


def test_it_can_be_pickled(tmp_path):
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    for name in ("gpt2", "cl100k_base", tmp_path):
        vocabulary = load_vocabulary(name)
        created = pickle.dumps(vocabulary)
        ids, _ = vocabulary.encode_batch(["some text"])
        assert pickle.dumps(vocabulary) == created
        assert pickle.loads(created).encode("some text") == ids.tolist()


def test_merges_are_recovered_from_ranks():
    text = (resources.files("stochastok_cli") / "assets" / "sample2k.bpe").read_text(encoding="utf-8")
    merges, ranks = read_merges(text), read_merges_as_ranks(text)
    assert [*ranks][256:] == [left + right for left, right in merges]
    assert [*ranks.values()] == [*range(256 + len(merges))]
    assert merges_from_ranks(ranks) == merges


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_tiktoken_encodings_with_gaps_and_wide_ids(name):
    theirs = tiktoken.get_encoding(name)
    ours = load_vocabulary(name)
    assert ours.size == theirs.n_vocab
    assert ours.dtype == np.dtype("uint32")
    assert ours.end_of_text == theirs.eot_token
    text = "An example sentence, 12345 — naïve"
    assert ours.encode(text) == theirs.encode_ordinary(text)
    in_use = theirs._mergeable_ranks.values()
    assert ours.special == set(range(theirs.n_vocab)) - set(in_use)


def test_a_million_spaces_before_a_word():
    gpt2 = load_vocabulary("gpt2")
    for run in (" " * 1_200_000, "\n\t " * 400_000 + "  "):
        text = "x" + run + "word"
        ids = gpt2.encode(text)
        assert gpt2.decode(ids) == text
        assert gpt2.token_bytes(ids[-1]) == b" word"
    short = "x" + " " * 150_000 + "word and " + " " * 150_000 + "on"  # cut by us, and within tiktoken's reach whole
    assert gpt2.encode(short) == gpt2._encoder._encoding.encode_ordinary(short)
    for text in ("a" + "\n" * 200_000 + "x", "a" + "\n" * 150_000 + " x", "a" + " " * 130_000, "\t" * 120_000 + "\tx"):
        assert gpt2.encode(text) == gpt2._encoder._encoding.encode_ordinary(text)


def test_texts_that_are_encoded_apart_keep_their_places():
    gpt2 = load_vocabulary("gpt2")
    texts = ["plain", "\U00011de0's", "", "more", "\U00011de0's"]
    ids, lengths = gpt2.encode_batch(texts)
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths))[:-1]] == [gpt2.encode(text) for text in texts]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt22", "did you mean 'gpt2'"),
        ("nothing/tokenizer.json", "does not exist"),
    ],
)
def test_an_unknown_tokenizer_is_one_clear_line(name, message):
    with pytest.raises(UserError, match=message):
        load_vocabulary(name)


def test_a_damaged_tokenizer_json(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text('{"model": 3')
    with pytest.raises(UserError, match="tokenizer.json is damaged: it is not JSON"):
        load_vocabulary(file)


def test_a_tokenizer_json_without_an_end_of_text(tmp_path):
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"] = []
    del content["model"]["vocab"][END_OF_TEXT]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="no end-of-text token"):
        load_vocabulary(tmp_path)


def test_lone_surrogates_are_refused(vocabulary):
    with pytest.raises(UserError, match="surrogate"):
        vocabulary.encode("a\ud800b")
    with pytest.raises(UserError, match="surrogate"):
        vocabulary.encode_batch(["fine", "a\ud800b"], threads=1)


OTHER_FORMATS = {
    "claude.json": ('{"explicit_n_vocab": 9, "pat_str": ".", "bpe_ranks": "! 0 IQ=="}', "js-tiktoken or of Claude"),
    "vocab.json": ('{"a": 0}', "vocabulary without its merges"),
    "ids.json": ('{"a": 0}', "vocabulary without its merges"),
    "tokenizer_config.json": ('{"tokenizer_class": "A"}', "configuration of a tokenizer"),
}


@pytest.mark.parametrize("file", OTHER_FORMATS)
def test_other_formats_are_named(file, tmp_path):
    content, name = OTHER_FORMATS[file]
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=f"{file} is not a tokenizer.json but .*{name}"):
        load_vocabulary(tmp_path / file)
    if file == "vocab.json":
        with pytest.raises(UserError, match=rf"tokenizer.json does not exist \(the folder has {file}"):
            load_vocabulary(tmp_path)
    with pytest.raises(UserError, match="absent.tiktoken does not exist"):
        load_vocabulary(tmp_path / "absent.tiktoken")


def test_bytes_that_are_no_character_are_shown_as_bytes():
    gpt2 = load_vocabulary("gpt2")
    assert [gpt2.token_text(i) for i in gpt2.encode(" 日")] == [r" \xe6", r"\x97", r"\xa5"]
    expand = StochasTok(gpt2, p=0)
    assert "".join(sample_tokenizations("日", [expand], 1)[0].tokens) == r"\xe6\x97\xa5"


def test_a_saved_tokenizer_says_how_many_ids_its_model_takes(tmp_path):
    transformers = pytest.importorskip("transformers")
    load_vocabulary("sample2k").save_tokenizer(tmp_path, 96)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).model_max_length == 96


def test_ids_far_apart_and_shared_ids_of_ranks():
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    for special, message in ((400_000_000, "257 entries.*400,000,000"), (7, "2 entries with the id 7")):
        with pytest.raises(UserError, match=message):
            vocabulary_from_ranks("t", single_bytes, {END_OF_TEXT: special}, lambda: None)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".json", "[" * 300])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(UserError, match=r"unknown tokenizer|does not exist") as refused:
        load_vocabulary(name)
    assert len(str(refused.value)) < 1000
