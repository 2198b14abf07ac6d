"""LangGame on disk: what the files hold, that making them again is harmless, and what is refused."""

import json
import sys

import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stochastok_cli.cli import app
from stochastok_cli.data import sft_dataset
from stochastok_cli.data.recipes.base import RECIPES
from stochastok_cli.data.recipes.langgame import make_langgame as make
from stochastok_cli.data.recipes.langgame_generator import LangGame, case_tables
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.data.word_list import read_words
from stochastok_cli.errors import USAGE, UserError
from stochastok_cli.manifest import read_manifest
from stochastok_cli.tokenization.loaders import load_vocabulary

GPT2 = load_vocabulary("gpt2")


def contents(folder):
    """All files below a folder but the manifests, which hold the command."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }


@pytest.mark.parametrize("tokenizer", ["gpt2", "sample2k"])
def test_every_row_is_the_encoded_question_and_answer(tmp_path, tokenizer):
    vocabulary = load_vocabulary(tokenizer)
    made = make(vocabulary, tmp_path, train_size=1500, val_size=1500)
    assert made.path == tmp_path / "data_as_memmaps" / "langgame"
    assert json.loads((made.path / "shapes.json").read_text()) == {"train_size": 1500, "val_size": 1500}
    texts = datasets.load_from_disk(str(tmp_path / "data_as_datasets" / "langgame"))
    longest = 0
    tokens = {"train": 0, "val": 0}
    for split in ("train", "val"):
        # As the reference reads them: types and shapes from shapes.json and the size of the file alone.
        data = np.memmap(made.path / f"{split}_data.bin", np.uint16, "r").reshape(1500, -1)
        offsets = np.memmap(made.path / f"{split}_idxs_for_masks.bin", np.uint16, "r", shape=(1500, 3))
        assert set(texts[split].column_names) == {"question", "options"}
        for row, (start, middle, end), text in zip(data, offsets, texts[split], strict=True):
            assert start == 0
            assert row[:middle].tolist() == vocabulary.encode(text["question"])
            assert row[middle:end].tolist() == vocabulary.encode(text["options"][0])
            assert (row[end:] == vocabulary.end_of_text).all()
            assert all(option[0] == " " and option[1:].isalpha() for option in text["options"])
            longest = max(longest, end)
            tokens[split] += int(end)
    assert data.shape[1] == longest
    assert {split: info.tokens for split, info in made.manifest.splits.items()} == tokens
    rows = SFTDataset(made.path)
    assert rows.vocabulary.fingerprint == vocabulary.fingerprint
    assert (rows.rows("val") == data).all()
    assert (rows.offsets("val") == offsets).all()


def test_a_seed_gives_the_same_bytes(tmp_path):
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(GPT2, tmp_path / folder, train_size=300, val_size=30, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_more_validation_than_training_questions(tmp_path):
    make(GPT2, tmp_path, train_size=5, val_size=20)
    texts = datasets.load_from_disk(str(tmp_path / "data_as_datasets" / "langgame"))
    assert {split: len(texts[split]) for split in texts} == {"train": 5, "val": 20}


def test_a_words_file_is_used_whatever_it_is_called(tmp_path):
    words = ["I", "don't", "éa", "aa", "seed", "deed", "letter", "seventh", "abcdefg", "bbbxyzw", "straße"]
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("\r\n".join(words) + "\n\n", encoding="utf-8-sig", newline="")
    made = make(GPT2, tmp_path, train_size=300, val_size=10, num_options=2, words=tmp_path / "a.txt")
    texts = datasets.load_from_disk(str(tmp_path / "data_as_datasets" / "langgame"))
    assert {option[1:] for row in texts["train"] for option in row["options"]} <= set(words)
    assert made.manifest.made_from.name == "a.txt"
    assert not make(GPT2, tmp_path, train_size=300, val_size=10, num_options=2, words=str(tmp_path / "b.txt")).created


def run(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["stochastok", "make-langgame", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    return stopped.value.code, *capsys.readouterr()


def test_the_command(tmp_path, monkeypatch, capsys):
    size = ("--train-size", 50, "--val-size", 5, "--data-dir", tmp_path)
    folder = tmp_path / "data_as_memmaps" / "langgame"
    code, out, err = run(monkeypatch, capsys, *size)
    assert (code, out) == (0, f"{folder}\n")
    assert "train 50 documents" in err
    assert "Answer:" in err
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.bin")}
    code, out, err = run(monkeypatch, capsys, *size)
    assert (code, out) == (0, f"{folder}\n")
    assert "already there" in err
    code, out, err = run(monkeypatch, capsys, *size, "--seed", 1)
    assert (code, out) == (USAGE, "")
    assert "seed (there 0, now 1)" in err
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.bin")} == before
    code, out, err = run(monkeypatch, capsys, *size, "--seed", 1, "--force", "--json", "--quiet")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["path"] == str(folder)
    assert answer["options"]["seed"] == 1
    assert run(monkeypatch, capsys, *size, "--seed", 1)[0] == 0


def test_another_tokenizer_is_another_folder_of_ids_but_not_of_texts(tmp_path):
    make(GPT2, tmp_path, train_size=50, val_size=5)
    with pytest.raises(UserError, match="tokenizer"):
        make(load_vocabulary("sample2k"), tmp_path, train_size=50, val_size=5)


def test_both_holdouts_in_one_data_directory(tmp_path):
    for name, holdout in (("easy", "short"), ("hard", "long"), ("langgame", "none")):
        made = make(GPT2, tmp_path, name=name, train_size=40, val_size=10, holdout=holdout)
        assert made.path == tmp_path / "data_as_memmaps" / name
        assert made.manifest.kind == "langgame"
        texts = read_manifest(tmp_path / "data_as_datasets" / name)
        assert (texts.kind, texts.recipe) == ("dataset", None if name == "langgame" else "langgame")
        assert not make(GPT2, tmp_path, name=name, train_size=40, val_size=10, holdout=holdout).created


def test_text_that_the_tokenizer_has_no_tokens_for_is_counted(tmp_path, capsys, monkeypatch):
    words = ["[UNK]", "[SEP]", "answer", ":"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]", "[SEP]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    sizes = ["--train-size", "8", "--val-size", "2"]
    argv = ["stochastok", "make-langgame", "--tokenizer", tmp_path, "--data-dir", tmp_path, *sizes]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(SystemExit):
        app.main()
    made = SFTDataset(tmp_path / "data_as_memmaps" / "langgame")
    unknown = sum(int((made.rows(split) == 0).sum()) for split in ("train", "val"))
    assert unknown == made.manifest.unknown_tokens > 50
    assert f"{unknown} tokens replace text that the tokenizer can't represent, which is lost" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cute", "multi_digit_addition", "", ".", "../x", "a\nb"])
def test_names_that_are_taken_or_impossible(tmp_path, name):
    with pytest.raises(UserError, match="is the name of what make-|name of a folder"):
        make(GPT2, tmp_path, name=name, train_size=5, val_size=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "--train-size is 0"),
        ({"val_size": 0}, "--val-size is 0"),
        ({"val_size": -1}, "--val-size is -1"),
        ({"num_options": 1}, "--num-options is 1"),
        ({"num_options": 1001}, "no question 'most of a letter' can be made of these 1,000 words with 1001 options"),
        ({"min_substring": 0}, "--min-substring is 0"),
        ({"min_substring": 4}, "--max-substring 3 is less than --min-substring 4"),
        ({"min_substring": 30, "max_substring": 40}, "no question 'contains'"),
        ({"max_substring": 3, "min_substring": 3, "holdout": "both"}, "--holdout 'both'"),
    ],
)
def test_impossible_settings_write_nothing(tmp_path, options, message):
    with pytest.raises(UserError) as raised:
        make(GPT2, tmp_path, **{"train_size": 5, "val_size": 5, **options})
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "words.txt is empty; give one word a line"),
        (b"\n\n", "words.txt is empty"),
        (
            b"apple\nbanana\ncherries\npear\nfigs\nmilk\n",
            "with 4 options: its answer has 3 letters or fewer, and every other option 6 or more; give",
        ),
        (
            b"apple\npear\nfig\nbanana\n",
            "with 4 options: its answer has 7 letters or more, and every other option 4 or fewer; give",
        ),
        (b"one\ntwo\nthree\n", "no question 'most of a letter' can be made of these 3 words"),
        (b"one\n\ntwo\n", "line 2: blank"),
        (b"one\ntwo\none\n", "line 3: 'one' stands on line 1 already"),
        (b"one\ntwo words\n", "line 2: 'two words'"),
        (b"one,two\n", "line 1: 'one,two'"),
        (b"'tis\n", "line 1"),
        (b"abc1\n", "line 1: 'abc1', which is not one word of letters (U+0031 DIGIT ONE); give one word a line"),
        (b"\xee\x80\x80\n", "which is not one word of letters (U+E000)"),
        (
            b"well--known\n",
            "line 1: 'well--known', which is not one word of letters; give one word a line, with ' and - ",
        ),
        (
            "cafe\u0301\n".encode(),
            "has U+0301 COMBINING ACUTE ACCENT, apart from the letter that it belongs to; compose the",
        ),
        (
            "हिन्दी\n".encode(),
            "'हिन्दी' has U+093F DEVANAGARI VOWEL SIGN I, a mark that makes a letter together with the ",
        ),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_words_files_that_will_not_do(tmp_path, content, message):
    file = tmp_path / "words.txt"
    file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        make(GPT2, tmp_path / "data", words=file)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_a_missing_words_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.txt does not exist"):
        make(GPT2, tmp_path, words=tmp_path / "nothing.txt")


def test_rows_too_long_for_their_offsets_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(sft_dataset, "LONGEST_ROW", 20)
    with pytest.raises(UserError, match="at most 20"):
        make(GPT2, tmp_path, train_size=5, val_size=5)
    assert not (tmp_path / "data_as_memmaps" / "langgame").exists()


def test_questions_that_a_short_word_list_repeats_are_counted(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("\n".join(read_words().words[::24]))
    sizes = {"train": 6000, "val": 200}
    made = make("sample2k", tmp_path, train_size=6000, val_size=200, num_options=2, max_substring=1, words=words)
    game = LangGame(case_tables(read_words(words).words, 2, (1, 1)), 0)
    train, val = (
        [(question.text, question.options[0]) for question in game.questions(split, n)] for split, n in sizes.items()
    )
    trained_on = {*train}
    repeated = sum(question in trained_on for question in val)
    assert made.manifest.val_in_train == repeated > 0
    note = RECIPES["langgame"].notes(made)[0]
    assert note.startswith(f"{repeated} of 200 validation questions are also in training; --disjoint asks nothing in")
