"""Fixed rules against examples by hand, and what holds for every text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.data.expand import expand
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.evaluation.robustness import parse_tokenization
from tests.preloaded_python import run_stochastok
from tests.tokenization.tiny_tokenizers import unigram, write
from tests.tokenization.toys import ids_of, toy_vocabulary

GPT2 = load_vocabulary("gpt2")
RULES = ["digits:single", "digits:right3", "digits:left3", "digits:right9", "character"]


def parts(rule: str, text: str, vocabulary=GPT2, **options) -> str:
    """The tokens of a text by a rule, with a `|` between them."""
    out = StochasTok(vocabulary, method=rule, **options)(vocabulary.encode(text))
    return "|".join(vocabulary.token_text(i) for i in out)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("digits:right3", "1234678", "1|234|678"),
        ("digits:left3", "1234678", "123|467|8"),
        ("digits:single", "1234678", "1|2|3|4|6|7|8"),
        ("digits:right3", "1234567", "1|234|5|6|7"),  # gpt2 has no 567: digit by digit
        ("digits:right2", "12345", "1|23|45"),
        ("digits:right3", "pay 12345 or 12.50", "pay| |12|345| or| |12|.|50"),  # " 12" is a space and 12
        ("digits:right3", "a1b22 no digits", "a|1|b|22| no| digits"),
        ("digits:right3", "1000<|endoftext|>1000", "1|000|<|endoftext|>|1|000"),
        ("character", " naïve 12", " |n|a|ï|v|e| |1|2"),
    ],
)
def test_examples_by_hand(rule, text, expected):
    before, end, after = text.partition("<|endoftext|>")
    ids = GPT2.encode(before) + ([GPT2.end_of_text] if end else []) + GPT2.encode(after)
    out = StochasTok(GPT2, method=rule)(ids)
    assert "|".join(GPT2.token_text(i) for i in out) == expected


TEXTS = st.text(alphabet=st.sampled_from("0123456789 12.,-aé日½\n"), max_size=30)


@pytest.mark.parametrize("rule", RULES)
def test_what_holds_for_every_text(rule):
    @settings(max_examples=60, deadline=None)
    @given(texts=st.lists(TEXTS, min_size=1, max_size=4), seed=st.integers(0, 5))
    def holds(texts, seed):
        documents = [[*GPT2.encode(text), GPT2.end_of_text] for text in texts]
        once = StochasTok(GPT2, method=rule, seed=seed)
        out = once(documents)
        for ids, text, index in zip(out, texts, range(len(texts)), strict=True):
            assert GPT2.decode_bytes(ids[:-1]) == text.encode() and ids[-1] == GPT2.end_of_text
            np.testing.assert_array_equal(once(ids), ids)
            np.testing.assert_array_equal(StochasTok(GPT2, method=rule)(documents[index], 9), ids)
            digits = [run for run in map(GPT2.token_bytes, ids) if any(c in b"0123456789" for c in run)]
            width = {"digits:right3": 3, "digits:left3": 3, "digits:right9": 9}.get(rule, 1)
            assert all(run.isdigit() and len(run) <= width for run in digits)

    holds()


def test_runs_end_at_documents_and_at_tokens_that_stay():
    ids = GPT2.encode("12")
    out, lengths = StochasTok(GPT2, method="digits:right3").documents(np.array(ids * 2), np.array([1, 1]))
    assert (out.tolist(), lengths.tolist()) == (ids * 2, [1, 1])
    (three,) = GPT2.encode("345")
    assert StochasTok(GPT2, method="digits:right3")([*ids, three]).tolist() == [*ids, three]
    assert StochasTok(GPT2, method="digits:single", keep="3")([*ids, three]).tolist()[-1] == three
    toy = toy_vocabulary("1", "2", "12", "13", "=1", "x")
    texts = [toy.pieces[i].decode() for i in StochasTok(toy, method="digits:single")(ids_of(toy, "12", "13", "=1"))]
    assert texts == ["1", "2", "13", "=1"]  # there is no 3 and no =


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("digits:right3", [" x", " 12", "345"], [" x", " 12", "345"]),
        ("digits:right4", [" x", " 12", "345"], [" x", " 1", "2", "3", "4", "5"]),  # no group of four has an entry
        ("digits:right9", [" 12", "345"], [" 12345"]),
        ("digits:single", [" 12", " 12", "345"], [" 1", "2", " 1", "2", "3", "4", "5"]),
        ("character", [" ab", " x"], [" a", "b", " x"]),
    ],
)
def test_wordpiece_words_keep_their_space(rule, before, after):
    """The vocabulary has no space: the one before a word stays with what follows."""
    vocabulary = toy_vocabulary(" x", " 12", "345", " 12345", " 1", "1", "2", "3", "4", "5", " ab", " a", "b")
    out = StochasTok(vocabulary, method=rule)(ids_of(vocabulary, *before))
    assert [vocabulary.pieces[i].decode() for i in out] == after


def test_entries_with_the_same_bytes_are_those_of_the_tokenizer(tmp_path):
    """`a` and `<0x61>` have the same bytes."""
    vocabulary = load_vocabulary(write(tmp_path, unigram(byte_tokens=True)))
    ids = vocabulary.encode("aa sa")
    out = StochasTok(vocabulary, method="character")(ids)
    assert {vocabulary.token_bytes(i) for i in out} == {b" ", b"a", b"s"}
    assert max(out) < 10  # none of the 256 bytes


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("digits", "digits needs a rule; give digits:single, digits:right3"),
        ("digits:right0", "'right0' is no rule of digits"),
        ("digits:right10", "'right10' is no rule of digits"),
        ("digits:middle", "'middle' is no rule of digits"),
        ("character:x=1", "character takes no arguments"),
    ],
)
def test_what_is_no_rule(method, reason):
    with pytest.raises(UserError, match=reason):
        StochasTok(GPT2, method=method)


def test_one_spelling_and_no_p():
    assert StochasTok(GPT2, method="digits:left1").method == "digits:single"
    with pytest.raises(UserError, match="digits:right3 is a fixed rule, which has no p"):
        StochasTok(GPT2, 0.5, "digits:right3")
    assert parse_tokenization("digits:right3").name == "digits-right3"


def test_on_the_command_line(tmp_path):
    tokenize("sample", tokenizer="sample2k", data_dir=tmp_path)
    made = expand("sample-tokenized", method="digits:single", data_dir=tmp_path)
    assert made.path.name == "sample-tokenized-digits-single"
    shown = run_stochastok("expand", "--text", "In 1997", "--method", "digits:single", "--samples", "1", "--json")
    assert '"1", "9", "9", "7"' in shown.stdout
    refused = run_stochastok("expand", "--text", "In 1997", "--method", "digits:right3", "-p", "0.5")
    assert (refused.returncode, "has no p; drop its p" in refused.stderr) == (2, True)
