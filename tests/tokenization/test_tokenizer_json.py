"""Tokenizers of other families: what a token spells is judged by what it decodes to, in context."""

import gzip
import itertools
import json
import pickle
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.tokenization.split_table import split_table
from tests.tokenization.tiny_tokenizers import byte_level, sentencepiece_bpe, unigram, wordpiece, write

WORDS = st.text(alphabet=st.sampled_from("abcdefghiklmnoprstuwy  ,.'é—日"), max_size=60)


def sentences() -> list[str]:
    packed = (resources.files("stochastok_cli") / "assets" / "sample.txt.gz").read_bytes()
    return gzip.decompress(packed).decode().split("\n\n")[:800]


def llama2_style() -> Tokenizer:
    """BPE over characters with ▁ for a space and byte fallback."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(sentences(), trainers.BpeTrainer(vocab_size=700, show_progress=False))
    content = json.loads(trained.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}}
    vocab |= {piece: 259 + i for i, piece in enumerate(content["vocab"])}
    merges = [tuple(pair) for pair in content["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def t5_style() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return tokenizer


def bert_style() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return tokenizer


FAMILIES = {"llama2": llama2_style, "t5": t5_style, "bert": bert_style}


def test_added_tokens_whose_letters_the_decoder_takes_for_bytes_are_left_alone():
    """Of a byte-level tokenizer: it reads an added `é` as the byte E9, and `Ġ` as a space."""
    tokenizer = Tokenizer.from_str(load_vocabulary("gpt2")._encoder.tokenizer_json({"<|endoftext|>": 50256}))
    tokenizer.add_tokens(["é", "über", "Ġhello", "plainly"])
    added = [tokenizer.token_to_id(text) for text in ("é", "über", "Ġhello", "plainly")]
    for method in ("stochastok", "uniform"):
        expand = StochasTok.from_pretrained(tokenizer, p=1.0 if method == "uniform" else 3.0, method=method)
        assert [i in expand.vocabulary.never_split for i in added] == [True, True, True, False]
        for text in ("the café was", "an über hello", "plainly said"):
            ids = tokenizer.encode(text).ids
            for seed in range(20):
                assert tokenizer.decode(expand(ids, seed).tolist()) == tokenizer.decode(ids)


def test_what_a_tokenizer_cuts_and_fills_is_no_part_of_a_vocabulary():
    tokenizer = Tokenizer.from_str(load_vocabulary("sample2k")._encoder.tokenizer_json({"<|endoftext|>": 2047}))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    expand = StochasTok.from_pretrained(tokenizer)
    before = pickle.dumps(expand)
    expand.vocabulary.encode("the words of a sentence that is longer than that")
    assert pickle.dumps(expand) == before
    assert tokenizer.truncation["max_length"] == 5


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    file = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    tokenizer = FAMILIES[request.param]()
    tokenizer.save(str(file))
    return request.param, tokenizer, load_vocabulary(file)


@pytest.mark.parametrize("method", ["stochastok", "stochastok-uni", "uniform-k", "uniform"])
def test_decoding_by_the_tokenizer_itself_is_unchanged(family, method):
    _, tokenizer, vocabulary = family

    @settings(max_examples=60, deadline=None)
    @given(text=WORDS, p=st.floats(0, 1), seed=st.integers(0, 50))
    def holds(text, p, seed):
        ids = vocabulary.encode(text)
        expanded = StochasTok(vocabulary, p=p, method=method, seed=seed)(ids).tolist()
        decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False)  # noqa: E731
        assert decode(expanded) == decode(ids)

    holds()


def test_tokens_really_split(family):
    name, tokenizer, vocabulary = family
    ids = vocabulary.encode("the gentleman was walking with his daughters")
    assert len(StochasTok(vocabulary, p=2)(ids)) > len(ids)
    table = split_table(vocabulary)
    id_of = {vocabulary.pieces[i]: i for i in range(vocabulary.size) if not vocabulary.is_special(i)}
    token = id_of[b" th"] if b" th" in id_of else id_of[b" the"]
    assert any(vocabulary.pieces[a].startswith(b" ") for a, _ in table.of(token))
    assert vocabulary.end_of_text == tokenizer.token_to_id({"bert": "[SEP]"}.get(name, "</s>"))


def test_a_byte_token_is_a_byte_and_not_its_spelling(tmp_path):
    llama2_style().save(str(tmp_path / "tokenizer.json"))
    vocabulary = load_vocabulary(tmp_path)
    assert vocabulary.token_bytes(3 + 0xE2) == b"\xe2"
    assert vocabulary.decode(vocabulary.encode("日本")) == " 日本"  # not in the vocabulary: six byte tokens
    assert {3 + b for b in "日".encode()} <= set(vocabulary.encode("日"))


def test_what_decodes_by_its_neighbours_is_left_alone(tmp_path):
    """BERT's clean-up joins `'s` to the word before it, which `'` and `##s` alone would not be."""
    words = ["[UNK]", "[SEP]", "it", "'", "##s", "'s", "word", "wor", "##d", "."]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = split_table(load_vocabulary(tmp_path))
    assert table.of(words.index("'s")) == []
    assert table.of(words.index("word")) == [(words.index("wor"), words.index("##d"))]


def test_text_that_a_vocabulary_can_not_spell_is_counted(family, tmp_path):
    name, tokenizer, vocabulary = family
    (tmp_path / "text.txt").write_text("\n\n".join(["日本 and 日", "It is a word.", "日"]))
    made = tokenize(tmp_path / "text.txt", tokenizer=vocabulary, data_dir=tmp_path)
    unknown = {"llama2": None, "t5": "<unk>", "bert": "[UNK]"}[name]  # llama2 has bytes to fall back on
    assert vocabulary.unknown == tokenizer.token_to_id(unknown or "<unk>")
    assert made.manifest.unknown_tokens == (3 if unknown else None)


def test_bpe_dropout_is_refused_where_there_are_no_bytes_to_start_from(family):
    _, _, vocabulary = family
    with pytest.raises(UserError, match="merge list"):
        StochasTok(vocabulary, p=0.1, method="bpe-dropout")


@pytest.mark.parametrize("make", [byte_level, unigram, sentencepiece_bpe, wordpiece])
def test_a_tokenizer_json_is_parsed_once_and_kept_as_it_is(make, tmp_path, monkeypatch):
    file = write(tmp_path, make()) / "tokenizer.json"
    parsed, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text, **options: parsed.append(text) or loads(text, **options))
    vocabulary = load_vocabulary(file)
    encoder = vocabulary._encoder
    for _ in range(2):
        written = [vocabulary.fingerprint, encoder.unknown(), encoder.merges(), encoder.scores(), encoder.whole_words()]
        text = vocabulary.tokenizer_json()
    saved = Tokenizer.from_file(str(file)).to_str()
    assert parsed.count(saved) == 1
    assert text == json.dumps(loads(saved), ensure_ascii=False)
    again = pickle.loads(pickle.dumps(vocabulary))
    assert again.tokenizer_json() == text
    assert written[:2] == [again.fingerprint, again.unknown]


def test_a_kind_that_is_not_supported_is_named(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="WordLevel"):
        load_vocabulary(tmp_path)


def test_a_tokenizer_on_the_hub_by_its_name(hub_server, tmp_path):
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    hub_server.repos["models/someone/tokenizer"] = hub_server.add_dataset("someone/tokenizer", files)
    expand = StochasTok.from_pretrained("someone/tokenizer", p=1.0)
    assert expand.vocabulary.fingerprint == load_vocabulary("sample2k").fingerprint
    with pytest.raises(UserError, match="someone/absent"):
        StochasTok.from_pretrained("someone/absent")


def test_from_pretrained_takes_tokenizers_and_names(family):
    _, tokenizer, vocabulary = family
    before = tokenizer.to_str()
    assert StochasTok.from_pretrained(tokenizer).vocabulary.fingerprint == vocabulary.fingerprint
    assert tokenizer.to_str() == before
    assert StochasTok.from_pretrained("gpt2", p=0.3).vocabulary.name == "gpt2"
    with pytest.raises(UserError, match="no fast tokenizer"):
        StochasTok.from_pretrained(3)


def test_a_continuation_gets_no_second_space(family):
    """Llama 2's tokenizer puts a space before every text; before " word" that would be two, never seen in training."""
    _, _, vocabulary = family
    ids = vocabulary.encode_continuation(" was")
    assert vocabulary.decode_bytes(ids) == b" was"
    assert load_vocabulary("gpt2").encode_continuation(" was") == load_vocabulary("gpt2").encode(" was")


def test_continuations_are_encoded_together_as_alone(family):
    texts = [" was", "was", "", " ", "  two words", " 日本 naïve", " <s> </s>", "\n line", " \n", " was"]
    _, _, vocabulary = family
    for coder in (vocabulary, load_vocabulary("gpt2")):
        for threads in (1, 2):
            for chosen in (texts, [], ["was"]):
                ids, lengths = coder.encode_continuations(chosen, threads)
                alone = [coder.encode_continuation(text) for text in chosen]
                assert (ids.dtype, lengths.dtype) == (coder.dtype, np.int64)
                assert ids.tolist() == [*itertools.chain(*alone)]
                assert lengths.tolist() == [len(part) for part in alone]
