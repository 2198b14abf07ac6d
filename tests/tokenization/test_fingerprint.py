"""The fingerprint of a vocabulary covers how text is cut; manifests of earlier versions go on opening."""

import json

import pytest

from stochastok_cli import UserError, load_vocabulary
from stochastok_cli.data.memmap import MemmapDataset
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.manifest import same_tokenizer
from stochastok_cli.tokenization.vocabulary import _CUT_OF_BUNDLED
from tests.tokenization.test_verified_gigatoken import GPT2, LLAMA3, QWEN, all_pairs, split
from tests.tokenization.tiny_tokenizers import write

PLAIN = all_pairs(split(QWEN))
OTHERS = {
    "pattern": all_pairs(split(LLAMA3)),
    "another pattern": all_pairs(GPT2),
    "normalizer": all_pairs(split(QWEN), normalizer={"type": "NFC"}),
    "order of merges": all_pairs(split(QWEN), model={}),
    "whole words": all_pairs(split(QWEN), model={"ignore_merges": True}),
}
OTHERS["order of merges"]["model"]["merges"].reverse()


def fingerprint(content: dict, folder) -> str:
    return load_vocabulary(write(folder, content)).fingerprint


@pytest.mark.parametrize("kind", OTHERS)
def test_vocabularies_of_the_same_entries_that_cut_text_differently(kind, tmp_path):
    one, other = fingerprint(PLAIN, tmp_path / "a"), fingerprint(OTHERS[kind], tmp_path / "b")
    assert one.split("-")[0] == other.split("-")[0]
    assert one != other and not same_tokenizer(one, other)
    assert one == fingerprint(PLAIN, tmp_path / "c")


@pytest.mark.parametrize("name", ["gpt2", "sample2k"])
def test_bundled_vocabularies_keep_theirs(name, tmp_path):
    vocabulary = load_vocabulary(name)
    assert _CUT_OF_BUNDLED[vocabulary.fingerprint] == vocabulary._cut_hash()
    vocabulary.save_tokenizer(tmp_path)
    assert load_vocabulary(tmp_path).fingerprint == vocabulary.fingerprint
    if name == "sample2k":  # in which no entry crosses where the two patterns differ
        return
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = split(QWEN)
    other = load_vocabulary(write(tmp_path / "other", content, {"eos_token": "<|endoftext|>"})).fingerprint
    assert other.startswith(f"{vocabulary.fingerprint}-")


def test_manifests_of_earlier_versions(tmp_path):
    (tmp_path / "text.txt").write_text("it's 12.\n\nab 1.\n\na b\n")
    tokenizer = write(tmp_path / "a", PLAIN)
    options = {"tokenizer": str(tokenizer), "data_dir": tmp_path, "val_fraction": 0.4}
    made = tokenize(tmp_path / "text.txt", **options)
    manifest = made.path / "manifest.json"
    text = manifest.read_text()
    whole = load_vocabulary(tokenizer).fingerprint
    assert text.count(whole) == 2  # as the tokenizer, and among the options
    manifest.write_text(text.replace(whole, whole.split("-")[0]))
    assert MemmapDataset(made.path).vocabulary.fingerprint == whole
    assert not tokenize(tmp_path / "text.txt", **options).created
    manifest.write_text(text)
    write(tokenizer, OTHERS["pattern"])
    with pytest.raises(UserError, match="is another one"):
        _ = MemmapDataset(made.path).vocabulary
    with pytest.raises(UserError, match="made with other options: tokenizer"):
        tokenize(tmp_path / "text.txt", **options)
