"""Fixtures of the training tests: small data, the configuration of a tiny model, and the command."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from preloaded_python import run_stochastok

from stochastok_cli.config import Config, load_config
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary

TINY = {
    "model": {
        "core_model": {
            "num_layers": 1,
            "ffn": {"ffn_dim": 32},
            "attn": {"num_heads": 2, "group_size": 2},
        },
        "hidden_dim": 16,
        "context_window": 24,
        "vocab_size": 2048,
    },
    "trainer": {
        "dropout_scheduler": {"dropout": 0.1},
        "training": {
            "batch_size": 3,
            "gradient_accumulation_steps": 4,
            "max_iters": 8,
            "lr_decay_iters": 8,
            "warmup_iters": 2,
            "eval_interval": 4,
            "log_interval": 1,
            "eval_iters": 2,
            "checkpoint_interval": 4,
        },
        "optimizer": {"lr": 1e-2, "min_lr": 1e-3},
        "dataset": {"name": "sample-tokenized"},
        "eval": [],
    },
    "general": {"device": "cpu"},
}


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary("sample2k")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A data directory with the bundled sample, tokenized, and a small LangGame. Tests only read it."""
    folder = tmp_path_factory.mktemp("data")
    tokenize("sample", tokenizer=vocabulary, data_dir=folder)
    make_langgame(vocabulary, folder, train_size=300, val_size=20)
    return folder


@pytest.fixture
def config_file(tmp_path: Path, data_dir: Path) -> Path:
    """The tiny configuration as a file, its runs under `tmp_path/runs`."""
    tree = {**TINY, "general": {**TINY["general"], "paths": {"data_dir": str(data_dir), "checkpoint_dir": "runs"}}}
    tree["general"]["paths"]["checkpoint_dir"] = str(tmp_path / "runs")
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def configured(config_file: Path) -> Callable[..., Config]:
    """The tiny configuration with overrides: `configured("trainer.optimizer.lr=1", …)`."""
    return lambda *overrides: load_config(str(config_file), overrides)


@pytest.fixture
def command(config_file: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `stochastok train` with the tiny configuration in a process of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_stochastok("train", "--config", config_file, *arguments, **environment)

    return run


COMMAND = [sys.executable, "-m", "stochastok_cli", "train"]


def with_model(config: Config, **changes) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


@pytest.fixture(autouse=True)
def _plans_measure_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans in this process are made at once: they measure one iteration instead of some seconds of them."""
    monkeypatch.setattr("stochastok_cli.training.plan.SECONDS", 0.0)
