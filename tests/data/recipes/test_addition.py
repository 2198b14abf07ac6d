"""Addition: the texts, their split, and the same text in every form on disk."""

import json
import re
import sys
from itertools import chain

import datasets
import numpy as np
import pytest

from stochastok_cli.cli import app
from stochastok_cli.data.recipes.addition import ADDITION
from stochastok_cli.data.recipes.addition import make_addition as make
from stochastok_cli.data.recipes.addition_data import pair_codes, pair_texts
from stochastok_cli.errors import USAGE, Notice, UserError
from stochastok_cli.evaluation.evaluators.math_generation import load_addition
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary

GPT2 = load_vocabulary("gpt2")
FORMS = ("base", "stochastok", "character", "bpe_dropout")


def bins(data_dir, form):
    """The ids of train and val as the reference reads them."""
    folder = data_dir / "data_as_memmaps" / f"multi_digit_addition_{form}"
    return {split: np.memmap(folder / f"{split}.bin", np.uint16, "r") for split in ("train", "val")}


def pairs(text):
    """The pairs of a text as numbers, every character accounted for."""
    matches = re.findall(r"\$(0|[1-9]\d*)\+(0|[1-9]\d*)=(\d+)", text)
    assert "".join(f"${a}+{b}={c}" for a, b, c in matches) == text
    return [(int(a), int(b), c) for a, b, c in matches]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("addition")
    make(GPT2, folder, num_digits=2)
    return folder


def test_every_pair_stands_once_with_its_sum_reversed(data):
    pairs_by_split = {split: pairs(GPT2.decode(ids.tolist())) for split, ids in bins(data, "base").items()}
    assert {split: len(rows) for split, rows in pairs_by_split.items()} == {"train": 8100, "val": 900}
    everything = [pair for rows in pairs_by_split.values() for pair in rows]
    assert {(a, b) for a, b, _ in everything} == {(code // 100, code % 100) for code in range(1000, 10_000)}
    assert len(everything) == 9000
    assert all(int(answer[::-1]) == a + b and answer[-1] != "0" for a, b, answer in everything)
    first = [a for a, _, _ in pairs_by_split["val"]]
    assert 50 < np.mean(first) < 59  # shuffled: the mean of 10..99 is 54.5, its standard error 0.9


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_the_split_covers_all_codes(digits):
    codes = pair_codes(digits, 0.1, seed=0)
    count = 9 * 10 ** (2 * digits - 1)
    assert len(codes["val"]) == count // 10
    assert (np.sort(np.concatenate([codes["train"], codes["val"]])) == np.arange(count // 9, count // 9 * 10)).all()


def test_texts_of_pairs():
    assert pair_texts(np.array([100_000, 100_900, 999_999]), 3) == (
        ["$100+0=", "$100+900=", "$999+999="],
        ["001", "0001", "8991"],
    )


@pytest.mark.parametrize("tokenizer", ["gpt2", "sample2k"])
def test_base_is_the_deterministic_tokenization_pair_by_pair_and_as_a_whole(tmp_path, tokenizer):
    vocabulary = load_vocabulary(tokenizer)
    make(vocabulary, tmp_path, num_digits=2)
    for ids in bins(tmp_path, "base").values():
        text = vocabulary.decode(ids.tolist())
        one_by_one = [vocabulary.encode(f"${a}+{b}={answer}") for a, b, answer in pairs(text)]
        assert ids.tolist() == list(chain.from_iterable(one_by_one)) == vocabulary.encode(text)


def test_every_form_is_the_same_text(data):
    texts = {split: GPT2.decode(ids.tolist()) for split, ids in bins(data, "base").items()}
    for form in FORMS:
        for split, ids in bins(data, form).items():
            assert GPT2.decode(ids.tolist()) == texts[split]
            assert 50256 not in ids
    for split, ids in bins(data, "character").items():
        assert len(ids) == len(texts[split])


def test_stochastok_expands_blocks_of_a_thousand_ids(data):
    expand = StochasTok(GPT2, p=1.0, seed=0)
    index = 0
    expanded = bins(data, "stochastok")
    for split, ids in bins(data, "base").items():
        blocks = [ids[start : start + 1000] for start in range(0, len(ids), 1000)]
        assert expanded[split].tolist() == np.concatenate([expand(b, index + i) for i, b in enumerate(blocks)]).tolist()
        index += len(blocks)


def test_the_evaluation_dataset(data):
    dataset = datasets.load_from_disk(str(data / "data_as_datasets" / "multi_digit_addition"))
    assert {split: len(dataset[split]) for split in dataset} == {"train": 900, "val": 900}
    columns = [f"t_{part}_{form}" for form in FORMS for part in ("question", "answer")]
    assert dataset["train"].column_names == ["question", "answer", *columns]
    for split, ids in bins(data, "base").items():
        rows = dataset[split].to_list()
        assert GPT2.decode(ids.tolist()).startswith("".join(row["question"] + row["answer"] for row in rows))
        for row in rows:
            for part in ("question", "answer"):
                assert row[f"t_{part}_base"] == GPT2.encode(row[part])
                assert row[f"t_{part}_character"] == [GPT2.encode(character)[0] for character in row[part]]
                assert GPT2.decode(row[f"t_{part}_stochastok"]) == row[part]
        expanded = [row["t_question_stochastok"] != row["t_question_base"] for row in rows]
        assert np.mean(expanded) > 0.3


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_rows_are_cut_from_the_training_stream(data, form):
    """So that the tokenizations of questions have the law of the stream that models train on."""
    dataset = datasets.load_from_disk(str(data / "data_as_datasets" / "multi_digit_addition"))
    for split, ids in bins(data, form).items():
        rows = dataset[split].to_list()
        together = [i for row in rows for part in ("question", "answer") for i in row[f"t_{part}_{form}"]]
        assert together == ids[: len(together)].tolist()
        assert all(GPT2.decode(row[f"t_{part}_{form}"]) == row[part] for row in rows for part in ("question", "answer"))


def test_a_tokenizer_that_joins_question_and_answer_is_refused():
    from stochastok_cli.data.recipes.addition_data import _token_lengths

    assert _token_lengths(np.array(GPT2.encode("$1+2=3$")), np.array([5, 1]), GPT2).tolist() == [5, 1]
    with pytest.raises(UserError, match="joins a part of a question and of an answer in one token"):
        _token_lengths(np.array(GPT2.encode("$11")), np.array([2, 1]), GPT2)


def test_a_seed_gives_the_same_bytes(tmp_path):
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(GPT2, tmp_path / folder, num_digits=1, seed=seed)
    contents = [
        {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in sorted((tmp_path / name).rglob("*"))
            if file.is_file() and file.name != "manifest.json"
        }
        for name in "abc"
    ]
    assert contents[0] == contents[1]
    assert all(contents[0][name] != content for name, content in contents[2].items() if name.endswith("train.bin"))


def test_forms_that_are_the_same_are_noted(tmp_path, recwarn):
    """sample2k has no token of two digits, so there is nothing to split."""
    with pytest.warns(Notice, match=f"{', '.join(FORMS)} are the same ids with the tokenizer 'sample2k'") as seen:
        make("sample2k", tmp_path, num_digits=1)
    assert len(seen) == 1
    recwarn.clear()
    make(GPT2, tmp_path, name="gpt2", num_digits=2)
    assert not recwarn.list


def test_manifests_say_what_was_made_from_what(data):
    base, stochastok = (
        json.loads((data / "data_as_memmaps" / f"multi_digit_addition_{form}" / "manifest.json").read_text())
        for form in ("base", "stochastok")
    )
    assert base["splits"]["val"] == {"documents": 900, "tokens": len(bins(data, "base")["val"])}
    assert stochastok["splits"]["val"] == {"documents": 900, "tokens": len(bins(data, "stochastok")["val"])}
    assert stochastok["made_from"]["name"] == "multi_digit_addition_base"
    assert (stochastok["options"]["p"], stochastok["options"]["seed"]) == (1.0, 0)


def test_most_pairs_may_validate(tmp_path):
    make(GPT2, tmp_path, num_digits=1, val_fraction=0.8)
    dataset = datasets.load_from_disk(str(tmp_path / "data_as_datasets" / "multi_digit_addition"))
    assert {split: len(dataset[split]) for split in dataset} == {"train": 18, "val": 72}


def run(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["stochastok", "make-addition", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    return stopped.value.code, *capsys.readouterr()


def test_the_command(tmp_path, monkeypatch, capsys):
    options = ("--num-digits", 1, "--data-dir", tmp_path)
    path = tmp_path / "data_as_datasets" / "multi_digit_addition"
    code, out, err = run(monkeypatch, capsys, *options)
    assert (code, out) == (0, f"{path}\n")
    assert "multi_digit_addition_character: train" in err
    code, out, err = run(monkeypatch, capsys, *options)
    assert (code, out) == (0, f"{path}\n")
    assert "already there" in err
    code, out, err = run(monkeypatch, capsys, *options, "--seed", 1)
    assert (code, out) == (USAGE, "")
    assert "seed (there 0, now 1)" in err
    code, out, err = run(monkeypatch, capsys, *options, "--seed", 1, "--force", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["path"] == str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_digits": 0}, "--num-digits is 0"),
        ({"num_digits": 5}, "--num-digits is 5: that would be 9,000,000,000 pairs"),
        ({"val_fraction": 0.0}, "--val-fraction is 0.0"),
        ({"val_fraction": 1.0}, "--val-fraction is 1.0"),
        ({"val_fraction": float("nan")}, "--val-fraction is nan"),
        ({"val_fraction": 0.999}, "--val-fraction 0.999 leaves no pair to train on"),
    ],
)
def test_impossible_settings_write_nothing(tmp_path, options, message):
    with pytest.raises(UserError) as raised:
        make(GPT2, tmp_path, **{"num_digits": 1, **options})
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_without_single_digits_is_refused(tmp_path):
    class Encoder:
        def encode(self, text):
            return [0] * len(text)

    vocabulary = Vocabulary(name="toy", pieces=[b"a", b"<end>"], special=[1], end_of_text=1, encoder=Encoder)
    with pytest.raises(UserError, match="'toy' has no token '0'"):
        make(vocabulary, tmp_path, num_digits=1)
    assert not list(tmp_path.iterdir())


def test_several_datasets_in_one_data_directory(data, tmp_path):
    for name, seed in (("first", 0), ("second", 1)):
        made = make(GPT2, tmp_path, name=name, num_digits=2, seed=seed)
        assert made.path == tmp_path / "data_as_datasets" / name
        assert made.manifest.recipe == "multi_digit_addition"
        assert not make(GPT2, tmp_path, name=name, num_digits=2, seed=seed).created
        assert len(ADDITION.notes(made)) == len(FORMS)
        assert load_addition(tmp_path, GPT2, 5, name)[0].prompts != []
    for form in FORMS:  # the same bytes under any name
        folder = tmp_path / "data_as_memmaps" / f"first_{form}"
        assert np.array_equal(np.memmap(folder / "train.bin", np.uint16, "r"), bins(data, form)["train"])
    assert make(GPT2, data, num_digits=2).manifest.recipe is None
    with pytest.raises(UserError, match="there is no .*multi_digit_addition; run stochastok make-addition"):
        load_addition(tmp_path, GPT2)
    for name, message in (("langgame", "is the name of what make-langgame makes"), ("a/b", "can't be the name")):
        with pytest.raises(UserError, match=message):
            make(GPT2, tmp_path, name=name, num_digits=2)
        with pytest.raises(UserError):
            load_addition(tmp_path, GPT2, name=name)
