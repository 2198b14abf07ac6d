"""Files that a disk, an editor or somebody else has damaged: success or an error of one line, whatever they hold."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from damaged_files import VALUES, damaged_bytes, damaged_json, damaged_trees, damaged_yaml, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli.artifacts import create_artifact, find_damage
from stochastok_cli.config import Config, config_reference, load_config
from stochastok_cli.data.memmap import SPLITS, Corpus, corpus_manifest
from stochastok_cli.data.resumable_download import PROGRESS, PartialDownload
from stochastok_cli.data.sft_dataset import SHAPES, SFTDataset
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import MANIFEST, FileInfo, Manifest, file_checksum, read_manifest
from stochastok_cli.models import checkpoint_reader
from stochastok_cli.models.checkpoint_reader import OPTIMIZER, STATE
from stochastok_cli.models.intact_checkpoints import require_intact
from stochastok_cli.models.llama_config import config_json, read_model_config
from stochastok_cli.models.weight_files import INDEX, WEIGHTS, find_tensors
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.training import run_dir
from stochastok_cli.training.loggers.jsonl import read_metrics
from stochastok_cli.training.run_dir import METRICS, RunProgress

EXAMPLES = 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A small corpus, which is also instruction data."""

    def build(folder: Path):
        for split in SPLITS:
            np.arange(6, dtype="<u2").tofile(folder / f"{split}.bin")
            np.arange(6, dtype="<u2").tofile(folder / f"{split}_data.bin")
            np.array([[0, 1, 3], [0, 2, 3]], "<u2").tofile(folder / f"{split}_idxs_for_masks.bin")
        (folder / SHAPES).write_text('{"train_size": 2, "val_size": 2}')
        return corpus_manifest("tokenized", load_vocabulary("sample2k"), {}, None)

    return create_artifact(tmp_path_factory.mktemp("data") / "d", {"source": "x"}, build).path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with two checkpoints, whose tensors are not read here."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    for iteration in (2, 4):
        checkpoint = folder / f"step_{iteration}"
        checkpoint.mkdir(parents=True)
        for name in (WEIGHTS, OPTIMIZER):
            (checkpoint / name).write_bytes(b"tensors")
        state = {
            "format": 1,
            "iteration": iteration,
            "evaluation_pending": False,
            "validation_loss": 1.5,
            "data": {"name": "d", "fingerprint": "f"},
            "config": Config().to_dict(),
            "files": {name: file_checksum(checkpoint / name).to_json() for name in (WEIGHTS, OPTIMIZER)},
        }
        (checkpoint / STATE).write_text(json.dumps(state))
    return folder


def open_dataset(folder: Path) -> None:
    for kind in (Corpus, SFTDataset):
        source = kind(folder)
        assert source.vocabulary.size and source.fingerprint and source.end_of_text >= 0
        if isinstance(source, Corpus):
            source.ids("train")
        else:
            source.rows("train"), source.offsets("val")


def refuse_to_make(folder: Path) -> Manifest:
    raise UserError("it would be made again")


@pytest.mark.parametrize("name", [MANIFEST, SHAPES])
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_damaged_datasets(dataset, name, data):
    file = dataset / name
    before = file.read_bytes()
    file.write_bytes(data.draw(damaged_json(before)))
    try:
        refusal(open_dataset, dataset)
        refusal(create_artifact, dataset, {"source": "x"}, refuse_to_make)
    finally:
        file.write_bytes(before)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_a_damaged_checkpoint_does_not_hide_the_one_before(run, data):
    checkpoint = run / "step_4"
    before = (checkpoint / STATE).read_bytes()
    (checkpoint / STATE).write_bytes(data.draw(damaged_json(before)))
    try:
        assert set(checkpoint_reader.checkpoints(run)) in ({2, 4}, {2})
        assert checkpoint_reader.iteration_of(checkpoint) is None or not refusal(
            checkpoint_reader.read_state, checkpoint
        )
        refusal(checkpoint_reader.recorded_files, checkpoint)
        refusal(lambda: require_intact(checkpoint, with_optimizer=True))
    finally:
        (checkpoint / STATE).write_bytes(before)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    content=damaged_bytes(b'{"iteration": 2, "train/loss": 1.5}\n')
    | damaged_json(b'{"iteration": 2, "train/loss": 1.5}')
)
def test_damaged_metrics_are_passed_over(run, content):
    whole = b'{"iteration": 1, "train/loss": null}\n'
    (run / METRICS).write_bytes(whole + content + b"\n" + whole)
    state = checkpoint_reader.read_state(run / "step_4")
    records = read_metrics(run / METRICS)
    assert len(records) >= 2
    assert all(isinstance(value, int | float | None) for record in records for value in record.values())
    run_dir.start_or_resume(run, Config(), RunProgress(run / "step_4", state))
    assert read_metrics(run / METRICS) == [record for record in records if record["iteration"] <= 4]


def test_a_record_of_metrics_is_a_line(run):
    (run / METRICS).write_bytes(b'{"iteration": 1}\n{\n"iteration": 2}\n{"iteration": 3}{"iteration": 4}\n')
    assert read_metrics(run / METRICS) == [{"iteration": 1}]


def test_damaged_lines_of_metrics_are_counted(run):
    lines = [b'{"iteration": 1, "train/loss": 1.0}', b'{"iteration": 2, "train/loss": "\xff"}', b"[]", b'{"iter']
    (run / METRICS).write_bytes(b"\n".join(lines))
    progress = RunProgress(run / "step_4", checkpoint_reader.read_state(run / "step_4"))
    assert run_dir.start_or_resume(run, Config(), progress) == 3
    assert (run / METRICS).read_bytes() == lines[0] + b"\n"
    assert run_dir.start_or_resume(run, Config(), progress) == 0


COUNTS = b'{"train": {"documents": 1, "tokens": 2}, "val": {"documents": 0, "tokens": 0}}'
PROGRESS_JSON = b'{"source": {"repo": "a"}, "splits": ' + COUNTS + b"}"


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=damaged_json(PROGRESS_JSON))
def test_a_download_begins_anew_where_its_progress_is_damaged(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("pull") / ".d.pull"
    folder.mkdir()
    (folder / PROGRESS).write_bytes(content)
    for split in SPLITS:
        (folder / f"{split}.bin").write_bytes(bytes(4))
    download = PartialDownload(folder)
    download.open({"repo": "a"}, np.dtype("<u2"), folder.parent / "d")
    for split in SPLITS:
        assert 0 <= download.write(split, lambda row: iter([])).tokens <= 2


INDEX_JSON = b'{"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "model-1.safetensors"}}'


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=damaged_json(INDEX_JSON))
def test_damaged_lists_of_weights(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("model")
    (folder / INDEX).write_bytes(content)
    refusal(find_tensors, folder)


CONFIG_YAML = yaml.safe_dump(Config().to_dict()).encode()


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=damaged_yaml(CONFIG_YAML) | damaged_bytes(b"model: &a {hidden_dim: 3}\ntrainer: {eval: [*a, *a]}\n"))
def test_damaged_configurations(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("config") / "c.yaml"
    file.write_bytes(content)
    refusal(load_config, str(file))


KEYS = [key.path.replace("[]", ".0") for key in config_reference()] + [
    "model",
    "a",
    "",
    ".",
    "model..x",
]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    key=st.sampled_from(KEYS),
    value=damaged_bytes(b"[{evaluator: mcq, num_samples: 3, benchmarks: ['arc']}]").map(os.fsdecode)
    | st.sampled_from(VALUES).map(str)
    | st.text(max_size=20),
)
def test_damaged_overrides(key, value):
    refusal(load_config, "pretraining", [f"{key}={value}"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_damaged_configurations_of_models(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("model")
    content = json.dumps(config_json(Config().model, 50256, "float32")).encode()
    (folder / "config.json").write_bytes(data.draw(damaged_json(content)))
    refusal(read_model_config, folder)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    load_vocabulary("sample2k").save_tokenizer(folder)
    return folder


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_damaged_tokenizers(tokenizer, name, data):
    file = tokenizer / name
    before = file.read_bytes()
    tree = json.loads(before)
    large = {key: tree["model"].pop(key) for key in ("vocab", "merges")} if name == "tokenizer.json" else {}
    tree = data.draw(damaged_trees(tree))
    if large and isinstance(tree, dict) and isinstance(tree.get("model"), dict):
        tree["model"] = large | tree["model"]
    file.write_text(json.dumps(tree))
    try:
        refusal(load_vocabulary, tokenizer)
    finally:
        file.write_bytes(before)


def test_errors_name_the_file_and_the_field(dataset):
    file = dataset / MANIFEST
    before = file.read_bytes()
    for change, message in [
        ({"splits": {"train": {"documents": "1"}}}, "splits.train.documents: Expected int, got str"),
        ({"files": {"train.bin": {"bytes": -1}}}, "files.train.bin: bytes can't be -1"),
        ({"dtype": "float64"}, "dtype can't be 'float64'"),
        ({"tokenizer": {"name": "gpt2", "size": 1}}, "tokenizer: Object missing required field fingerprint"),
        ({"options": []}, "options: Expected object, got array"),
    ]:
        file.write_text(json.dumps({**json.loads(before), **change}))
        shown = refusal(read_manifest, dataset)
        assert shown == f"{file} is damaged: {message}; make the folder again with --force"
    file.write_bytes(b"{\n  3")
    assert "is not JSON (line 2, column 3: Expecting property name" in refusal(read_manifest, dataset)
    file.write_bytes(before)


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a//b", "a\0", "\ud800", "x" * 300, "a\\b", "\x1b[31m\n"])
def test_names_of_files_from_outside(dataset, name):
    assert "leads out of" in refusal(find_damage, dataset, {name: FileInfo(1)})
