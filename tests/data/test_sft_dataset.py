"""Rows of questions and answers: written, read back, read as the reference wrote them, and damaged."""

import json
from itertools import chain

import numpy as np
import pytest

from stochastok_cli.artifacts import create_artifact
from stochastok_cli.data.sft_dataset import LONGEST_ROW, Examples, SFTDataset, write_sft_dataset
from stochastok_cli.errors import FAILED, USAGE, UserError
from stochastok_cli.manifest import Manifest, SplitInfo
from stochastok_cli.tokenization.loaders import load_vocabulary

GPT2 = load_vocabulary("gpt2")
PAIRS = {
    "train": [([1, 2, 3], [4]), ([5], [6, 7]), ([8, 9, 10, 11], [12, 13])],
    "val": [([], [14]), ([15], [])],
}


def examples(pairs):
    questions, answers = zip(*pairs, strict=True)
    return Examples(
        np.array(list(chain.from_iterable(questions)), np.uint16),
        np.array([len(ids) for ids in questions]),
        np.array(list(chain.from_iterable(answers)), np.uint16),
        np.array([len(ids) for ids in answers]),
    )


def write(folder):
    return write_sft_dataset(
        folder,
        {"train": [examples(PAIRS["train"][:2]), examples(PAIRS["train"][2:])], "val": [examples(PAIRS["val"])]},
        GPT2,
    )


def test_rows_are_padded_to_the_longest_of_both_splits(tmp_path):
    assert write(tmp_path) == {"train": SplitInfo(3, 13), "val": SplitInfo(2, 2)}
    e = 50256
    train = np.fromfile(tmp_path / "train_data.bin", np.uint16).reshape(3, 6)
    assert train.tolist() == [[1, 2, 3, 4, e, e], [5, 6, 7, e, e, e], [8, 9, 10, 11, 12, 13]]
    assert np.fromfile(tmp_path / "val_data.bin", np.uint16).reshape(2, 6).tolist() == [[14] + [e] * 5, [15] + [e] * 5]
    offsets = np.fromfile(tmp_path / "train_idxs_for_masks.bin", np.uint16).reshape(3, 3)
    assert offsets.tolist() == [[0, 3, 4], [0, 1, 3], [0, 4, 6]]
    assert json.loads((tmp_path / "shapes.json").read_text()) == {"train_size": 3, "val_size": 2}


def test_a_folder_without_a_manifest_is_the_references(tmp_path):
    write(tmp_path)
    rows = SFTDataset(tmp_path)
    assert rows.manifest is None
    assert rows.vocabulary.name == "gpt2"
    assert rows.dtype == np.uint16
    assert rows.num_rows == {"train": 3, "val": 2}
    assert rows.rows("train").shape == (3, 6)
    for split, pairs in PAIRS.items():
        for row, (start, middle, end), (question, answer) in zip(
            rows.rows(split), rows.offsets(split), pairs, strict=True
        ):
            assert (row[start:middle].tolist(), row[middle:end].tolist()) == (question, answer)


def test_an_empty_split_is_read(tmp_path):
    write(tmp_path)
    (tmp_path / "val_data.bin").write_bytes(b"")
    (tmp_path / "val_idxs_for_masks.bin").write_bytes(b"")
    (tmp_path / "shapes.json").write_text('{"train_size": 3, "val_size": 0}')
    assert len(SFTDataset(tmp_path).rows("val")) == len(SFTDataset(tmp_path).offsets("val")) == 0


def test_a_row_longer_than_an_offset_can_say_is_refused(tmp_path):
    fits = examples([([1] * (LONGEST_ROW - 2), [2, 3])])
    write_sft_dataset(tmp_path, {"train": [fits], "val": [fits]}, GPT2)
    assert SFTDataset(tmp_path).offsets("val").tolist() == [[0, 65_533, 65_535]]
    longer = examples([([1] * (LONGEST_ROW - 1), [2, 3])])
    with pytest.raises(UserError, match="65,536 ids"):
        write_sft_dataset(tmp_path, {"train": [fits], "val": [longer]}, GPT2)


def read_both(folder):
    rows = SFTDataset(folder)
    return rows.rows("train"), rows.offsets("train")


def cut(file, count):
    file.write_bytes(file.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("damage", "message", "code"),
    [
        (lambda folder: cut(folder / "train_data.bin", 1), "cut short", FAILED),
        (lambda folder: cut(folder / "train_data.bin", 2), "no 3 equal rows", FAILED),
        (lambda folder: cut(folder / "train_idxs_for_masks.bin", 6), "no 3 equal rows", FAILED),
        (lambda folder: (folder / "train_data.bin").unlink(), "does not exist", USAGE),
        (lambda folder: (folder / "shapes.json").unlink(), "has no shapes.json", USAGE),
        (lambda folder: (folder / "shapes.json").write_text("{"), "shapes.json is damaged", FAILED),
        (lambda folder: (folder / "shapes.json").write_text("{}"), "shapes.json is damaged", FAILED),
    ],
)
def test_damage_is_named(tmp_path, damage, message, code):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError) as raised:
        read_both(tmp_path)
    assert message in str(raised.value)
    assert raised.value.exit_code == code


def test_damage_is_found_by_the_manifest(tmp_path):
    folder = tmp_path / "rows"
    create_artifact(folder, {}, lambda temporary: Manifest(splits=write(temporary)))
    cut(folder / "val_idxs_for_masks.bin", 6)
    with pytest.raises(UserError, match="val_idxs_for_masks.bin has 6 bytes, not 12"):
        SFTDataset(folder)
