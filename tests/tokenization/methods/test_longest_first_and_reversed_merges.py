"""`longest-first` and `reversed-merges` against plain Python, on real and on tiny vocabularies."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.evaluation.robustness import parse_tokenization
from tests.preloaded_python import run_stochastok
from tests.tokenization.methods.test_canonical import TEXTS, WORKING
from tests.tokenization.tiny_tokenizers import byte_level, changed, sentencepiece_bpe, unigram, wordpiece, write

GPT2 = load_vocabulary("gpt2")
RULES = ["longest-first", "reversed-merges"]
WORDS = st.sampled_from([" example", "unbelievable", "aaaaaaa", "  \n", " 12345", "日本", "naïve", "it's", "PREJUDICE"])


def longest_first(vocabulary, pretoken: bytes) -> list[bytes]:
    entries = {piece for i, piece in enumerate(vocabulary.pieces) if i not in vocabulary.special}
    parts = []
    while pretoken:
        parts.append(next(pretoken[:n] for n in range(len(pretoken), 0, -1) if pretoken[:n] in entries))
        pretoken = pretoken[len(parts[-1]) :]
    return parts


def reversed_merges(vocabulary, pretoken: bytes) -> list[bytes]:
    rank = {pair: -number for number, pair in enumerate(vocabulary.merges)}
    parts = [bytes([byte]) for byte in pretoken]
    while applicable := [(rank[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in rank]:
        i = min(applicable)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


@pytest.fixture(scope="module", params=["gpt2", "sample2k", "tiny", "words that no merge makes", "as Llama 3"])
def vocabulary(request, tmp_path_factory):
    if request.param in ("gpt2", "sample2k"):
        return load_vocabulary(request.param)
    content = byte_level(merges=[["a", "b"], ["ab", "c"], ["b", "c"]]) if request.param == "tiny" else None
    if content is not None:  # `abc` is made of `ab` and `c`, and `bc` is merged before `ab` in the reverse order
        content["model"]["vocab"]["bc"] = 260
    folder = tmp_path_factory.mktemp("t")
    return load_vocabulary(write(folder, content or WORKING[request.param], {"eos_token": "<|endoftext|>"}))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.filterwarnings("ignore::stochastok_cli.errors.Notice")
def test_every_text_against_plain_python(vocabulary, rule):
    oracle = {"longest-first": longest_first, "reversed-merges": reversed_merges}[rule]
    once = StochasTok(vocabulary, method=rule)

    @settings(max_examples=60, deadline=None)
    @given(texts=st.lists(st.one_of(TEXTS, st.lists(WORDS, max_size=4).map("".join)), min_size=1, max_size=3))
    def holds(texts):
        documents = [[*vocabulary.encode(text), vocabulary.end_of_text] for text in texts]
        for ids, text, out in zip(documents, texts, once(documents), strict=True):
            expected = [part for pretoken in vocabulary.pretokens(text) for part in oracle(vocabulary, pretoken)]
            assert [vocabulary.pieces[i] for i in out[:-1]] == expected and out[-1] == vocabulary.end_of_text
            assert vocabulary.decode_bytes(out) == vocabulary.decode_bytes(ids)
            np.testing.assert_array_equal(once(out), out)

    holds()


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 50256), max_size=30))
def test_any_ids_decode_to_the_same_bytes(rule, ids):
    assert GPT2.decode_bytes(StochasTok(GPT2, method=rule)(ids)) == GPT2.decode_bytes(ids)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("longest-first", "strawberry thesaurus", "stra|wb|erry| the|sa|urus"),  # gpt2: st|raw|berry| the|s|aurus
        ("reversed-merges", "strawberry example", "s|tr|a|wb|e|rr|y| e|xa|mp|le"),
    ],
)
def test_examples(rule, text, expected):
    out = StochasTok(GPT2, method=rule)(GPT2.encode(text))
    assert "|".join(GPT2.token_text(i) for i in out) == expected


@pytest.mark.parametrize("rule", RULES)
def test_tokens_that_stay(rule):
    ids = [*GPT2.encode(" elephants PREJUDICE"), GPT2.end_of_text, GPT2.encode("日")[0]]
    stays = StochasTok(GPT2, method=rule, keep="ele|JUD")(ids).tolist()
    assert stays[0] == ids[0] and stays[-2:] == ids[-2:]


def test_longest_first_of_other_tokenizers(tmp_path):
    """WordPiece does the same; of others, an entry behind which a word can't be completed is passed over."""
    pieces = wordpiece(vocab={entry: i for i, entry in enumerate(["[UNK]", "[SEP]", "a", "##b", "ab", "##bc", "##c"])})
    vocabulary = load_vocabulary(write(tmp_path / "wordpiece", pieces))
    ids = vocabulary.encode("abc ab abbc abx a")
    assert vocabulary.unknown in ids
    assert StochasTok(vocabulary, method="longest-first")(ids).tolist() == ids
    assert StochasTok(vocabulary, method="longest-first")([2, 5, 1, 4, 3]).tolist() == [4, 6, 1, 4, 3]
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -9.0), ("a", -1.0), ("sa", -1.0)]
    scores += [("▁as", -9.0), ("s", -1.0), ("▁asa", -30.0), ("as", -9.0)]
    for name, content in (("unigram", unigram(vocab=scores)), ("bpe", sentencepiece_bpe())):
        vocabulary = load_vocabulary(write(tmp_path / name, content))
        ids = vocabulary.encode("asas a sa")
        out = StochasTok(vocabulary, method="longest-first")(ids)
        assert vocabulary.decode_bytes(out) == vocabulary.decode_bytes(ids)
        shown = "|".join(vocabulary.token_text(i) for i in out)
        assert shown == {"unigram": " asa|s| a| |sa", "bpe": " a|s|a|s| a| |s|a"}[name]
    vocabulary = load_vocabulary(write(tmp_path / "stuck", unigram(vocab=[*scores[:5], *scores[6:9]])))
    ids = vocabulary.encode("asa")
    out = StochasTok(vocabulary, method="longest-first")(ids)  # behind ` as` there would be no entry
    assert [vocabulary.token_text(i) for i in out] == [" a", "sa"]


def test_what_is_refused(tmp_path):
    lacking = changed(
        byte_level(),
        model={"vocab": {e: i for e, i in byte_level()["model"]["vocab"].items() if e != "T"}, "unk_token": "xyz"},
    )
    vocabulary = load_vocabulary(write(tmp_path / "t", lacking))
    for rule in RULES:
        with pytest.raises(UserError, match=f"{rule} needs a token for every byte.*none for 0x54"):
            StochasTok(vocabulary, method=rule)
        with pytest.raises(UserError, match=f"{rule} is a fixed rule, which has no p"):
            StochasTok(GPT2, 0.5, rule)
        with pytest.raises(UserError, match=f"{rule} takes no arguments"):
            StochasTok(GPT2, method=f"{rule}:x=1")
    with pytest.raises(UserError, match=r"reversed-merges needs the merge list .* its model is WordPiece"):
        StochasTok(load_vocabulary(write(tmp_path / "w", wordpiece())), method="reversed-merges")


def test_on_the_command_line():
    assert parse_tokenization("longest-first").name == "longest-first"
    shown = run_stochastok("expand", "--text", "strawberry", "--method", "longest-first", "--samples", "1", "--json")
    assert '"stra", "wb", "erry"' in shown.stdout
    refused = run_stochastok("expand", "--text", "In 1997", "--method", "reversed-merges", "-p", "0.5")
    assert (refused.returncode, "has no p; drop its p" in refused.stderr) == (2, True)
