"""The options of `stochastok tokenize`: those that have no effect are refused, and what it prints of examples."""

import json
import sys

import pytest

from stochastok_cli.cli.app import main
from stochastok_cli.errors import USAGE
from stochastok_cli.tokenization.loaders import load_vocabulary

PAIRS = [{"prompt": f"Spell {i}: ", "completion": " ".join("word" * (i % 3 + 1))} for i in range(12)]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command beside a file of prompts and completions; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stochastok", "tokenize", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run_command


COLUMNS = ("pairs.jsonl", "--prompt-column", "prompt", "--completion-column", "completion", "--tokenizer", "sample2k")


def test_completions_are_counted_on_both_streams(run):
    encode = load_vocabulary("sample2k").encode
    long = sum(len(encode(pair["prompt"])) + len(encode(pair["completion"])) + 1 > 12 for pair in PAIRS)
    assert 0 < long < 12
    code, out, err = run(*COLUMNS, "--max-length", "12", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["kind"], result["truncated"]) == ("instruction", long)
    assert result["options"]["max_length"] == 12
    assert f"{long} of 12 rows are truncated to 12 ids" in err
    assert "made pairs: train 11 documents" in err
    code, out, err = run(*COLUMNS, "--max-length", "12")
    assert (code, out) == (0, "data/data_as_memmaps/pairs\n")
    assert "left alone" in err and f"0 rows of its source are left out, {long} truncated" in err


def test_one_document(run, tmp_path):
    (tmp_path / "one.txt").write_text("one")
    code, _, err = run("one.txt", "--tokenizer", "sample2k", "--val-fraction", "0")
    length = len(load_vocabulary("sample2k").encode("one")) + 1
    assert (code, f"made one-tokenized: train 1 document, {length} tokens" in err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*COLUMNS, "--text-column", "prompt"), "--text-column would have no effect for conversations and completions"),
        ((*COLUMNS, "--documents", "file"), "--documents would have no effect for conversations and completions"),
        ((*COLUMNS, "--push"), "--push would have no effect for conversations and completions"),
        ((*COLUMNS, "--pull"), "--prompt-column, --completion-column would have no effect beside --pull"),
        ((*COLUMNS, "--long-examples", "drop"), "--long-examples would have no effect without --max-length"),
        ((*COLUMNS, "--long-examples", "keep", "--max-length", "9"), "'keep' is not known; give truncate or drop"),
        (COLUMNS[:3], "give --messages-column, or --prompt-column and --completion-column"),
        (("sample", "--max-length", "9"), "--max-length would have no effect without --messages-column or --prompt-c"),
        (("pairs.jsonl", "--messages-column", "prompt"), "the tokenizer 'gpt2' has no chat template"),
    ],
)
def test_options_that_do_not_go_together(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (USAGE, "")
    assert message in err and err.count("\n") == 1
