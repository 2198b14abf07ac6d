"""Arguments of methods: their spelling, what is refused, and that they reach every place that takes a method."""

import numpy as np
import pytest

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.data.expand import expand, expanded_name
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.evaluation.robustness import Tokenization, parse_tokenization
from stochastok_cli.tokenization.methods import METHODS, expansion_label, register_method, require_method, split_methods
from tests.extending.toy_method import TOY_FIXED, TOY_LONG
from tests.preloaded_python import run_stochastok

VOCABULARY = load_vocabulary("sample2k")
del METHODS["toy"]  # which the import has registered


@pytest.fixture(autouse=True)
def toys():
    register_method(TOY_LONG)
    register_method(TOY_FIXED)
    yield
    del METHODS["toy-long"], METHODS["toy-fixed"]


@pytest.mark.parametrize(
    ("text", "name", "label"),
    [
        ("toy-long", "toy-long", "toy-long0.3"),
        ("toy-long:min_bytes=4,factor=1", "toy-long", "toy-long0.3"),
        ("toy-long:factor=2.0, min_bytes=06", "toy-long:min_bytes=6,factor=2", "toy-long-min_bytes-6-factor-2-0.3"),
        ("toy-long:factor=-0.0", "toy-long:factor=0", "toy-long-factor-0-0.3"),
        ("uniform", "uniform", "uniform0.3"),
    ],
)
def test_one_spelling_for_equal_arguments(text, name, label):
    assert require_method(text).name == require_method(name).name == name
    assert expansion_label(text, 0.3) == label
    assert StochasTok(VOCABULARY, 0.3, text).key == StochasTok(VOCABULARY, 0.3, name).key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("toy-lang:min_bytes=3", "unknown method 'toy-lang'; did you mean 'toy-long'"),
        ("toy-long:", "no arguments follow the colon"),
        ("toy-long:min_byte=3", "toy-long has no argument 'min_byte=3'; did you mean 'min_bytes'"),
        ("toy-long:min_bytes", "toy-long: the argument min_bytes has no value; give min_bytes=VALUE"),
        ("toy-long:3", "toy-long has no argument '3'; give min_bytes=VALUE, factor=VALUE"),
        ("toy-long:min_bytes=3,min_bytes=4", "toy-long: min_bytes is given twice"),
        ("toy-long:min_bytes=0", "toy-long: min_bytes = 0 is not possible; give a whole number from 1"),
        ("toy-long:min_bytes=2.5", "give a whole number from 1"),
        (f"toy-long:min_bytes={10**400}", "give a whole number from 1 up to 2^63 - 1"),
        (f"grampa:min_length={10**400}", "give a whole number from 1 up to 1000"),
        (f"patok:across=-{10**400}", "give a whole number from 0 up to 1"),
        (f"toy-long:factor={10**400}", "give a number from 0 up to 10"),
        ("toy-long:factor=nan", "give a number from 0 up to 10"),
        ("toy-long:factor=11", "give a number from 0 up to 10"),
        ("uniform:p=1", "uniform takes no arguments"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(UserError) as caught:
        require_method(text)
    assert message in str(caught.value)


def test_a_list_of_methods():
    assert split_methods("uniform, toy-long:min_bytes=3,factor=2,stochastok") == [
        "uniform",
        "toy-long:min_bytes=3,factor=2",
        "stochastok",
    ]


def test_in_names_of_tokenizations():
    assert parse_tokenization("toy-long:min_bytes=3:0.5", 2) == Tokenization("toy-long:min_bytes=3", 0.5, 2)
    fixed = parse_tokenization("toy-fixed")
    assert (fixed, fixed.name) == (Tokenization("toy-fixed", None, 1), "toy-fixed")
    for text, message in [
        ("toy-fixed:0.5", "is a fixed rule, which has no p"),
        ("toy-long:min_bytes=3", "is not METHOD:P"),
        ("toy-long:min_byte=3:0.5", "did you mean 'min_bytes'"),
    ]:
        with pytest.raises(UserError, match=message):
            parse_tokenization(text)
    with pytest.raises(UserError, match="every sample is the same"):
        parse_tokenization("toy-fixed", 3)


def test_a_fixed_rule_has_no_p():
    with pytest.raises(UserError, match="toy-fixed is a fixed rule, which has no p; drop its p"):
        StochasTok(VOCABULARY, 0.1, "toy-fixed")
    assert expanded_name("x", "toy-fixed", None) == "x-toy-fixed"
    assert StochasTok(VOCABULARY, method="toy-fixed").p == 1


def test_expanding_a_corpus(tmp_path):
    tokenize("sample", tokenizer=VOCABULARY, data_dir=tmp_path)
    made = expand("sample-tokenized", method="toy-long:factor=1,min_bytes=6", p=0.5, data_dir=tmp_path)
    again = expand("sample-tokenized", method="toy-long:min_bytes=6", p=0.5, data_dir=tmp_path)
    assert (made.path, made.path.name) == (again.path, "sample-tokenized-toy-long-min_bytes-6-0.5")
    assert made.manifest.options["method"] == "toy-long:min_bytes=6"
    fixed = expand("sample-tokenized", method="toy-fixed", data_dir=tmp_path)
    assert (fixed.path.name, fixed.manifest.options["p"]) == ("sample-tokenized-toy-fixed", None)
    sizes = [np.fromfile(folder / "val.bin", np.uint16).size for folder in (made.path, fixed.path)]
    assert sizes[0] < sizes[1]


def test_on_the_command_line():
    refused = run_stochastok("expand", "--text", "An example", "--method", "uniform:q=1")
    assert (refused.returncode, "uniform takes no arguments" in refused.stderr) == (2, True)
