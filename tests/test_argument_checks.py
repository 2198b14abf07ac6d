"""The Python API refuses arguments of other types before anything is written, and takes NumPy scalars."""

import inspect
import json

import numpy as np
import pytest

import stochastok_cli
from stochastok_cli import UserError, argument_checks
from stochastok_cli.manifest import MANIFEST
from stochastok_cli.tokenization.loaders import load_vocabulary

FUNCTIONS = (
    "tokenize",
    "tokenize_instructions",
    "expand",
    "export",
    "make_langgame",
    "make_addition",
    "make_cute",
    "pull_corpus",
    "generate",
    "evaluate",
    "StochasTok",
)
RECIPES = ("make_langgame", "make_addition", "make_cute")
SEEDED = ("tokenize", "tokenize_instructions", "expand", *RECIPES, "generate", "StochasTok")
THREADED = ("tokenize", "tokenize_instructions", "expand")
OTHERS = ("progress", "encode", "expand_split", "on_prompt", "on_text", "on_result", "ranks")
OTHERS += ("checkpoints", "evaluators", "tokenizations")
"""Parameters that are no number, text, path, True or False."""
OF_ANY_TYPE = {("evaluate", "tokenizer"), ("pull_corpus", "tokenizer")}  # the latter is opened after a request
GPT2 = load_vocabulary("gpt2")
A_SEED = "seed is {}; it must be a whole number"
THREADS = "num_proc is {}; it must be {}at least 1, or None"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    text = "\n\n".join(f"A short document with the number {i}" for i in range(20))
    source = tmp_path_factory.mktemp("texts") / "texts.txt"
    source.write_text(text)
    return stochastok_cli.tokenize(source, tokenizer="sample2k", data_dir=source.parent, val_fraction=0.2).path


def call(function, corpus, data_dir, /, **arguments):
    """Calls a function with arguments that are possible, but for those that are given."""
    of_function = {
        "tokenize": {"source": corpus.parent.parent / "texts.txt", "tokenizer": "sample2k", "val_fraction": 0.2},
        "tokenize_instructions": {"source": "rows.jsonl", "prompt_column": "a", "completion_column": "b"},
        "expand": {"corpus": corpus},
        "export": {"dataset": corpus, "format": "arrow"},
        "make_langgame": {"train_size": 8, "val_size": 4, "tokenizer": "sample2k"},
        "make_cute": {"train_size": 8, "val_size": 4, "tokenizer": "sample2k"},
        "make_addition": {"num_digits": 1, "tokenizer": "gpt2"},
        "pull_corpus": {"name": "nothing"},
        "generate": {"checkpoint": "nothing"},
        "evaluate": {"checkpoints": "nothing", "evaluators": "alignment"},
        "StochasTok": {"vocabulary": GPT2},
    }[function]
    where = {} if function in ("StochasTok", "generate") else {"data_dir": data_dir}
    return getattr(stochastok_cli, function)(**{**of_function, **where, **arguments})


def parameters():
    for function in FUNCTIONS:
        for name in inspect.signature(getattr(stochastok_cli, function)).parameters:
            if name not in OTHERS and (function, name) not in OF_ANY_TYPE:
                yield function, name


@pytest.mark.parametrize(("function", "name"), parameters())
def test_every_argument_of_another_type_is_refused_and_nothing_is_written(function, name, corpus, tmp_path):
    with pytest.raises(UserError, match="object object at"):
        call(function, corpus, tmp_path, **{name: object()})
    assert list(tmp_path.iterdir()) == []


SEEDS = [
    (function, {"seed": seed}, A_SEED.format(repr(seed))) for function in SEEDED for seed in (None, 1.5, "1", True)
]
COUNTS = [
    (function, {"num_proc": given}, THREADS.format(repr(given), kind))
    for function in THREADED
    for given, kind in ((0, ""), (-1, ""), (1.5, "a whole number, "), (True, "a whole number, "))
]
NAMES = [(function, {"name": 3}, "name is 3; it must be a string") for function in RECIPES]
SIZES = [
    (function, {"train_size": size}, f"--train-size is {size!r}; it must be a whole number, at least 1")
    for function in ("make_langgame", "make_cute")
    for size in (1.5, "5", True)
]
FLAGS = [
    (function, {"disjoint": given}, f"disjoint is {given!r}; it must be True or False")
    for function in ("make_langgame", "make_cute")
    for given in ("no", 1, None)
]


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        *SEEDS,
        *COUNTS,
        *NAMES,
        *SIZES,
        *FLAGS,
        ("tokenize", {"limit": 2.5}, "limit is 2.5; it must be a whole number, at least 1, or None"),
        ("tokenize", {"limit": "5"}, "limit is '5'; it must be a whole number, at least 1, or None"),
        ("tokenize", {"limit": True}, "limit is True; it must be a whole number, at least 1, or None"),
        ("tokenize", {"limit": 0}, "limit is 0; it must be at least 1, or None"),
        ("tokenize", {"val_fraction": "0.1"}, "documents is '0.1'; it must be a number in [0, 1)"),
        ("tokenize", {"val_fraction": None}, "documents is None; it must be a number in [0, 1)"),
        ("tokenize", {"val_fraction": True}, "documents is True; it must be a number in [0, 1)"),
        ("tokenize", {"val_fraction": 1}, "documents is 1; it must be in [0, 1)"),
        ("tokenize", {"name": 3}, "name is 3; it must be a string, or None"),
        ("tokenize", {"source": None}, "source is None; it must be a path"),
        (
            "tokenize_instructions",
            {"max_length": 2.5},
            "example is 2.5; it must be a whole number, at least 2, or None",
        ),
        ("tokenize_instructions", {"long_examples": None}, "--long-examples None is not known; give truncate or drop"),
        ("expand", {"keep": 3}, "keep is 3; it must be a string, or None"),
        ("expand", {"out_name": 3}, "out_name is 3; it must be a string, or None"),
        ("expand", {"p": "0.1"}, "p is '0.1'; it must be a number, or None"),
        ("expand", {"p": True}, "p is True; it must be a number, or None"),
        ("export", {"format": None}, "format is None; it must be a string"),
        ("make_addition", {"num_digits": 2.0}, "--num-digits is 2.0; it must be a whole number"),
        ("make_addition", {"num_digits": "2"}, "--num-digits is '2'; it must be a whole number"),
        ("make_addition", {"val_fraction": 0}, "--val-fraction is 0; it must be between 0 and 1"),
        ("generate", {"samples": 0}, "samples is 0; it must be at least 1"),
        ("generate", {"temperature": "1"}, "temperature is '1'; it must be a number"),
        ("StochasTok", {"max_splits": True}, "max_splits is True; it must be a whole number, from 0 to 9,223"),
        ("StochasTok", {"round_budget": "up"}, "round_budget 'up' is not known; give down or randomly"),
    ],
)
def test_the_error_says_what_an_argument_must_be(function, arguments, message, corpus, tmp_path):
    with pytest.raises(UserError) as raised:
        call(function, corpus, tmp_path, **arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("tokenize", {"seed": 3, "val_fraction": 0.25, "limit": 8, "num_proc": 1}),
        ("expand", {"seed": 3, "p": 0.5, "max_splits": 2, "num_proc": 1}),
        ("make_langgame", {"seed": 3, "train_size": 6, "num_options": 3, "disjoint": True}),
        ("make_cute", {"seed": 3, "train_size": 6, "disjoint": False}),
        ("make_addition", {"seed": 3, "num_digits": 1, "val_fraction": 0.25}),
    ],
)
def test_scalars_of_numpy_give_the_bytes_of_numbers_of_python(function, arguments, corpus, tmp_path):
    kinds = {bool: np.bool_, int: np.int64, float: np.float32}
    made = call(function, corpus, tmp_path / "python", **arguments)
    by_numpy = call(function, corpus, tmp_path / "numpy", **{k: kinds[type(v)](v) for k, v in arguments.items()})
    assert by_numpy.manifest.files == made.manifest.files
    options = [json.dumps(json.loads((one.path / MANIFEST).read_text())["options"]) for one in (made, by_numpy)]
    assert options[0] == options[1]


@pytest.mark.parametrize("seed", [-1, 2**70, -(10**30)])
def test_seeds_of_any_size_are_taken(seed, corpus, tmp_path):
    for function in ("tokenize", "expand", "make_addition"):
        assert call(function, corpus, tmp_path, seed=seed).manifest.options["seed"] == seed
    ids = GPT2.encode("An example sentence")
    assert GPT2.decode(stochastok_cli.StochasTok(GPT2, p=1, seed=seed)(ids)) == "An example sentence"


def test_numbers_become_those_of_python():
    whole, real = argument_checks.whole_number("n", np.uint64(3)), argument_checks.real_number("n", np.float64(0.5))
    assert (type(whole), whole, type(real), real) == (int, 3, float, 0.5)
    assert type(argument_checks.real_number("n", 1)) is int  # a manifest holds the 1 that was given
    assert argument_checks.yes_or_no("n", np.False_) is False
    for value in (np.True_, np.float64(1), 1.0, "1", b"1", None, [1]):
        with pytest.raises(UserError, match="n is .*; it must be a whole number"):
            argument_checks.whole_number("n", value)
