"""Samples of the tokenizations of one text, and the notes on them."""

import io
import json
import sys

import numpy as np
import pytest

from stochastok_cli import StochasTok
from stochastok_cli.cli.app import main
from stochastok_cli.errors import USAGE, Notice
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.samples import _smallest_p, sample_tokenizations
from tests.tokenization.tiny_tokenizers import wordpiece, write


def test_methods_that_make_no_attempt_are_noted(recwarn):
    gpt2 = load_vocabulary("gpt2")
    methods = ("stochastok", "uniform-k", "uniform")
    with pytest.warns(
        Notice,
        match="0.1 × 3 tokens is less than one split, so stochastok, uniform-k split nothing; give -p 0.34 or more",
    ) as seen:
        sample_tokenizations("A remarkable sentence", [StochasTok(gpt2, 0.1, method) for method in methods], 1)
    assert len(seen) == 1
    recwarn.clear()
    sample_tokenizations("A remarkable sentence", [StochasTok(gpt2, p, "stochastok") for p in (0.0, 0.5)], 1)
    assert not recwarn.list
    with pytest.warns(Notice, match="0.1 × 1 token is less than one split, so stochastok splits nothing; give -p 1 or"):
        sample_tokenizations("hi", [StochasTok(gpt2, 0.1, "stochastok")], 1)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 9, 10, 11, 99, 100, 101, 1000, 99_999])
def test_the_p_that_is_suggested_makes_a_split(tokens):
    expand = StochasTok(load_vocabulary("gpt2"), _smallest_p(tokens), "uniform-k")
    assert expand.split_budget(np.array([tokens]), np.uint64(0)) == 1
    assert _smallest_p(tokens) < 1.12 / tokens


def test_a_fixed_rule_has_one_entry():
    gpt2 = load_vocabulary("gpt2")

    def labels(*methods):
        expansions = [StochasTok(gpt2, 0.7 if method == "uniform" else None, method) for method in methods]
        return [label for label, *_ in sample_tokenizations("A remarkable sentence", expansions, 2)]

    several = labels("character", "uniform", "digits:right3")
    assert several == ["canonical", "character", "uniform 1", "uniform 2", "digits:right3"]
    assert labels("longest-first") == ["canonical", "longest-first"]


@pytest.mark.parametrize(("text", "problem"), [("", "is empty"), (" ", "has only white space"), ("-", "is empty")])
def test_a_text_without_words_is_refused(text, problem, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stochastok", "expand", "--text", text])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (USAGE, "")
    assert err == f'error: --text {problem}; give a text, as in --text "A sentence"\n'


def test_text_that_is_lost_is_said_to_people_and_to_scripts(tmp_path, monkeypatch, capsys):
    tokenizer = write(tmp_path / "tokenizer", wordpiece())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stochastok", *map(str, arguments), "--tokenizer", str(tokenizer)])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr()

    shown = run("expand", "--text", "日", "--samples", "1")
    assert "[UNK]" in shown.out
    assert "1 token replaces text that" in shown.err
    (tmp_path / "text.txt").write_text("日\n\nab\n\n日", encoding="utf-8")
    made = run("tokenize", tmp_path / "text.txt", "--data-dir", tmp_path, "--quiet", "--json")
    assert (json.loads(made.out)["unknown_tokens"], made.err) == (2, "")
