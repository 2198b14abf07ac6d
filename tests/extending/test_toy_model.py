"""An architecture that is registered from outside the package is trained and evaluated by the command line."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from stochastok_cli.cli.app import main
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.models.base import KeyValueCache, load_model, spec_for
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.extending.toy_model import TOY, ToyConfig, ToyModel
from tests.models.small_models import random_ids

pytestmark = pytest.mark.slow

TRAINING = {
    "batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_iters": 10,
    "lr_decay_iters": 20,
    "warmup_iters": 0,
    "eval_interval": 10,
    "log_interval": 5,
    "eval_iters": 4,
    "checkpoint_interval": 10,
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with a model of fresh weights; beside it, a dataset and a configuration."""
    vocabulary = load_vocabulary("sample2k")
    tokenize("sample", tokenizer=vocabulary, data_dir=tmp_path / "data")
    tree = {
        "trainer": {
            "dropout_scheduler": {"dropout": 0.1},
            "training": TRAINING,
            "optimizer": {"lr": 1e-2, "min_lr": 1e-2},
            "dataset": {"name": "sample-tokenized"},
            "eval": [{"evaluator": "bits_per_byte", "benchmarks": ["sample-tokenized"], "num_samples": 4}],
        },
        "general": {
            "device": "cpu",
            "paths": {"data_dir": str(tmp_path / "data"), "checkpoint_dir": str(tmp_path / "runs")},
        },
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(tree))
    folder = tmp_path / "toy"
    folder.mkdir()
    torch.manual_seed(0)
    TOY.save(TOY.build(ToyConfig(32, vocabulary.size), 0.0), folder, vocabulary)
    return folder


@pytest.fixture
def stochastok(monkeypatch, capsys):
    """Runs a command in this process and returns its standard output."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["stochastok", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return run


def test_training_and_evaluation(toy, stochastok, tmp_path):
    assert spec_for(toy) is TOY
    train = ["train", "--config", tmp_path / "toy.yaml", "--run-name", "toy", f"trainer.checkpoint_name={toy}"]
    run = Path(stochastok(*train).strip())
    stochastok(*train, "trainer.training.max_iters=20")  # from the checkpoint on
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert len(losses) == 3 and losses[0] > losses[1] > losses[2]
    assert isinstance(load_model(run / "step_20"), ToyModel)

    mcq = tmp_path / "questions.jsonl"
    mcq.write_text(json.dumps({"question": "Which word has 'u'? Answer:", "options": [" cup", " cap", " cop"]}) + "\n")
    common = ["--data-dir", tmp_path / "data", "--device", "cpu", "--json", "--quiet"]
    for evaluator, benchmarks, metric in [
        ("mcq", f"langgame-val={mcq}", "mcq/langgame-val/accuracy"),
        ("bits_per_byte", "sample-tokenized", "bits_per_byte/sample-tokenized"),
    ]:
        out = stochastok("eval", run, "--evaluator", evaluator, "--benchmarks", benchmarks, "--num-samples", 4, *common)
        [line] = out.splitlines()
        result = json.loads(line)
        assert result["iteration"] == 20
        assert metric in result["metrics"]
    assert result["metrics"][metric] == pytest.approx(lines[-1][metric])


def test_cache_and_segments():
    model = TOY.build(ToyConfig(32, 2048), 0.0).eval()
    ids, cache = random_ids(2, 20), KeyValueCache()
    with torch.no_grad():
        whole = model(ids)
        torch.testing.assert_close(torch.cat([model(part, cache=cache) for part in ids.split(7, 1)], 1), whole)
        starts = torch.tensor([0] * 8 + [8] * 12).repeat(2, 1)
        torch.testing.assert_close(model(ids, starts)[:, 8:], model(ids[:, 8:]))
