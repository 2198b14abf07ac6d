"""Bits per byte: every token once, the bytes of exactly those tokens, and only data of the model's vocabulary."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from stochastok_cli.artifacts import create_artifact
from stochastok_cli.data.memmap import corpus_manifest
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.evaluators.bits_per_byte import (
    BitsPerByte,
    ScoredText,
    count_bytes,
    evaluate_bits_per_byte,
    load_validation_text,
)
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.evaluation.test_scoring import by_definition
from tests.models.small_models import sharp_model, small_config

DOCUMENTS = ["The cat sat on the garden wall – né? " * 3, "", "And then it rained, all day and all night. " * 4]


def flat_ids(vocabulary: Vocabulary) -> np.ndarray:
    ids = [i for text in DOCUMENTS for i in [*vocabulary.encode(text), vocabulary.end_of_text]]
    return np.array(ids, dtype=vocabulary.dtype)


def save(ids: np.ndarray, vocabulary: Vocabulary, data_dir: Path, name: str = "text-tokenized") -> None:
    def build(folder: Path) -> dict:
        for split in ("train", "val"):
            ids.tofile(folder / f"{split}.bin")
        return corpus_manifest("tokenized", vocabulary, {}, None)

    create_artifact(data_dir / "data_as_memmaps" / name, {}, build)


def test_a_dataset_named_by_its_path_has_metrics_of_its_name(vocabulary, tmp_path):
    save(flat_ids(vocabulary), vocabulary, tmp_path)
    path = str(tmp_path / "data_as_memmaps" / "text-tokenized")
    assert load_validation_text(path, Path("elsewhere"), vocabulary).name == "text-tokenized"
    evaluator = BitsPerByte(benchmarks=(path,))
    evaluator.check()
    assert evaluator.absent_data(Path("elsewhere")) == []
    with pytest.raises(UserError, match="--benchmarks names text-tokenized twice"):
        BitsPerByte(benchmarks=(path, "text-tokenized")).check()


def test_bytes_are_those_of_the_text(vocabulary):
    expected = sum(len(text.encode()) for text in DOCUMENTS)
    ids = flat_ids(vocabulary)
    assert count_bytes(ids, vocabulary) == expected
    assert count_bytes(StochasTok(vocabulary, p=1.0)(ids), vocabulary) == expected


def test_a_uniform_model_needs_log2_of_the_vocabulary_for_every_token(vocabulary):
    model = sharp_model(small_config())
    with torch.no_grad():
        model.head.weight.zero_()
    text = ScoredText("text", flat_ids(vocabulary), 1000)
    expected = math.log2(vocabulary.size) * len(text.ids) / 1000
    assert evaluate_bits_per_byte(LM(model, vocabulary), text).values == {
        "bits_per_byte/text": pytest.approx(expected, rel=1e-6)
    }


def test_every_token_is_scored_once_given_its_window(model, vocabulary):
    """Against the definition, over several windows and a short last one; each begins after the one before."""
    ids = flat_ids(vocabulary)
    assert len(ids) > 2 * 48
    assert len(ids) % 48
    nats, before = 0.0, [vocabulary.end_of_text]
    for start in range(0, len(ids), 48):
        window = ids[start : start + 48].tolist()
        nats -= by_definition(model, before, window)
        before = window[-1:]
    text = ScoredText("text", ids, count_bytes(ids, vocabulary))
    for batch_tokens in (1, 100, 16384):
        value = evaluate_bits_per_byte(LM(model, vocabulary, batch_tokens), text).values["bits_per_byte/text"]
        assert value == pytest.approx(nats / math.log(2) / text.num_bytes, rel=1e-5)


def test_a_folder_is_read_whole_or_its_beginning(vocabulary, tmp_path):
    ids = flat_ids(vocabulary)
    save(ids, vocabulary, tmp_path)
    whole = load_validation_text("text-tokenized", tmp_path, vocabulary)
    np.testing.assert_array_equal(whole.ids, ids)
    assert (whole.name, whole.num_bytes) == ("text-tokenized", count_bytes(ids, vocabulary))
    part = load_validation_text("text-tokenized", tmp_path, vocabulary, num_tokens=20)
    np.testing.assert_array_equal(part.ids, ids[:20])
    assert part.num_bytes == len(vocabulary.decode_bytes(ids[:20].tolist()))


def test_a_vocabulary_read_back_from_a_checkpoint_is_the_same(vocabulary, tmp_path):
    save(flat_ids(vocabulary), vocabulary, tmp_path)
    vocabulary.save_tokenizer(tmp_path)
    assert load_validation_text("text-tokenized", tmp_path, load_vocabulary(tmp_path)).num_bytes


def test_data_of_another_tokenizer_are_refused(vocabulary, tmp_path):
    save(flat_ids(vocabulary), vocabulary, tmp_path)
    with pytest.raises(UserError, match="was made with the tokenizer 'sample2k', which is not the model's"):
        load_validation_text("text-tokenized", tmp_path, load_vocabulary("gpt2"))


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    folder = tmp_path / "data_as_memmaps" / "theirs"  # without a manifest: gpt2
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        np.array([1, 60000, 50256], np.uint16).tofile(folder / f"{split}.bin")
    with pytest.raises(UserError, match="the id 60000 is not in the vocabulary 'gpt2'; the data are damaged"):
        load_validation_text("theirs", tmp_path, load_vocabulary("gpt2"))


def test_a_folder_without_text(vocabulary, tmp_path):
    save(np.full(5, vocabulary.end_of_text, dtype=vocabulary.dtype), vocabulary, tmp_path)
    with pytest.raises(UserError, match=r"val\.bin holds no text to score"):
        load_validation_text("text-tokenized", tmp_path, vocabulary)
    with pytest.raises(UserError, match="no dataset 'text-tokenised'.*did you mean 'text-tokenized'"):
        load_validation_text("text-tokenised", tmp_path, vocabulary)
