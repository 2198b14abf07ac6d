"""Fixtures of the tests of evaluation: the bundled small vocabulary and a small real model."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.encoding import EncodedBenchmark, encode
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.models.small_models import sharp_model, small_config

LONG_WINDOW = 200
"""Tokens of the context window that questions of LangGame fit, in any tokenization."""


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary("sample2k")


@pytest.fixture(scope="session")
def model() -> Llama:
    """Random weights, a context window of 48 tokens."""
    return sharp_model(small_config())


@pytest.fixture(scope="session")
def long_model() -> Llama:
    """Random weights, a context window of `LONG_WINDOW` tokens."""
    return sharp_model(small_config(context_window=LONG_WINDOW))


@pytest.fixture(scope="session")
def langgame_folder(tmp_path_factory, vocabulary) -> Path:
    """A data directory with 30 questions of LangGame for training and 30 for validation."""
    folder = tmp_path_factory.mktemp("langgame")
    make_langgame(vocabulary, folder, train_size=30, val_size=30)
    return folder


@pytest.fixture(scope="session")
def encoded(langgame_folder, vocabulary) -> EncodedBenchmark:
    """The 30 validation questions for `long_model`."""
    return encode(load_benchmark("langgame-val", langgame_folder), vocabulary, LONG_WINDOW)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to a file of one JSON object a line."""

    def write(rows: Iterable[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    return write
