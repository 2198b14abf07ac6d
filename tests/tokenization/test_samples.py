"""Samples of the tokenizations of one text, and the notes on them."""

import json
import sys

import pytest

from stochastok_cli import StochasTok
from stochastok_cli.cli.app import main
from stochastok_cli.errors import Notice
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.samples import sample_tokenizations
from tests.tokenization.tiny_tokenizers import wordpiece, write


def test_methods_that_make_no_attempt_are_noted(recwarn):
    gpt2 = load_vocabulary("gpt2")
    methods = ("stochastok", "uniform-k", "uniform")
    with pytest.warns(
        Notice, match="p = 0.1 makes no split in 3 tokens with stochastok, uniform-k, which round"
    ) as seen:
        sample_tokenizations("A remarkable sentence", [StochasTok(gpt2, 0.1, method) for method in methods], 1)
    assert len(seen) == 1
    recwarn.clear()
    sample_tokenizations("A remarkable sentence", [StochasTok(gpt2, p, "stochastok") for p in (0.0, 0.5)], 1)
    assert not recwarn.list


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
