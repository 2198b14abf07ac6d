"""Options that can have no effect are refused before any work."""

import sys

import pytest

from stochastok_cli.cli.app import main, register_subcommands
from stochastok_cli.errors import USAGE

register_subcommands()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its exit code, stdout and stderr."""
    (tmp_path / "text.txt").write_text("one\n\ntwo\n")

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["stochastok", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


HUGE = "99999999999999999999"
MESSAGES = ("tokenize", "x", "--messages-column", "messages")
PROMPTS = ("tokenize", "x", "--prompt-column", "prompt", "--completion-column", "completion")
TRAIN = ("train", "--config", "quickstart")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tokenize", "text.txt", "--repo", "a/b"), "--repo would have no effect without --pull or --push"),
        (("tokenize", "text.txt", "--hf-username", "a"), "--hf-username would have no effect without --pull or --push"),
        (("tokenize", "text.txt", "--private"), "--private would have no effect without --push"),
        (("tokenize", "a/b", "--pull", "--private"), "--private would have no effect without --push"),
        (("tokenize", "a/b", "--pull", "--seed", "3", "--split", "val"), "--split, --seed would have no effect beside"),
        (("tokenize", "text.txt", "--push", "--repo", "a/b/c"), "--repo 'a/b/c' can't be a repository on the Hub"),
        (("tokenize", "text.txt", "--push", "--hf-username", "a/b"), "--hf-username 'a/b' can't be a user"),
        (("tokenize", "text.txt", "--subset", "en"), "text.txt is no dataset on the Hub, and has no subset"),
        (("tokenize", "text.txt", "--split", "test"), "text.txt is no dataset on the Hub, and has no split 'test'"),
        (("tokenize", "text.txt", "--tasks", "3"), "--tasks would have no effect without --executor"),
        (("expand", "x", "--time", "1:00", "--partition", "p"), "--partition, --time would have no effect without"),
        (("tokenize", "x", "--id-column", "id"), "documents by their index in the source; drop it, or add"),
        (("tokenize", "x", "--executor", "local", "--limit", "3"), "--limit would have no effect beside --executor"),
        ((*MESSAGES, "--executor", "local"), "--messages-column would have no effect beside --executor"),
        ((*PROMPTS, "--executor", "ray"), "--prompt-column, --completion-column would have no effect beside --exec"),
        (("expand", "--executor", "local", "--text", "a"), "--text would have no effect beside --executor"),
        (("expand", "--text", "a", "--push", "--report"), "--report, --push would have no effect beside --text"),
        (("expand", "--text", "a", "--match-growth", "1.5"), "--match-growth would have no effect beside --text"),
        (("expand", "x", "--samples", "3"), "--samples would have no effect without --text"),
        (("expand", "x", "--report", "--out-name", "y"), "--out-name would have no effect beside --report"),
        (
            ("expand", "x", "--report", "--match-growth", "1.5", "-p", "0.2"),
            "--expand-prop would have no effect beside",
        ),
        (("expand", "x", "--pull", "--keep", "[0-9]"), "--keep would have no effect beside --pull"),
        (("expand", "x", "--private"), "--private would have no effect without --push"),
        (("make-langgame", "--pull", "--train-size", "5"), "--train-size would have no effect beside --pull"),
        (("make-cute", "--pull", "--tokenizer", "sample2k"), "--tokenizer would have no effect beside --pull"),
        (("make-addition", "--repo", "a/b"), "--repo would have no effect without --pull or --push"),
        ((*TRAIN, "--plan", "--push"), "--push would have no effect beside --plan"),
        ((*TRAIN, "--repo", "a/b"), "--repo would have no effect without --push"),
        ((*TRAIN, "--private", "--hf-username", "a"), "--private would have no effect without --push"),
        ((*TRAIN, "--push", "--run-name", "my run"), "--run-name 'my run' can't be a repository's name on the Hub"),
        (("generate", "a", "b", "--max-new-tokens", HUGE), f"--max-new-tokens {HUGE} is not possible; give at most"),
        (("generate", "a", "b", "--top-k", f"-{HUGE}"), f"--top-k -{HUGE} is not possible; give at most 10^12"),
        (("make-langgame", "--train-size", HUGE), f"--train-size {HUGE} is not possible"),
        (("eval", "a", "--evaluator", "mcq", "--num-samples", HUGE), f"--num-samples {HUGE} is not possible"),
        (("expand", "--text", "a", "--samples", HUGE), "'--samples': Input should be less than or equal to 100000"),
    ],
)
def test_options_without_effect_are_refused(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (USAGE, "")
    assert message in err and err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["text.txt"]


def test_an_executor_without_datatrove(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("stochastok_cli.integrations.datatrove")]:
        monkeypatch.delitem(sys.modules, name)
    for name in {"datatrove", *(name for name in sys.modules if name.startswith("datatrove."))}:
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = run("tokenize", "text.txt", "--executor", "local")
    assert (code, out) == (USAGE, "")
    assert err == "error: --executor needs datatrove; pip install 'stochastok[datatrove]'\n"
