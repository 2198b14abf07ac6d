"""Fixtures of the tests of evaluation: the bundled small vocabulary and a small real model."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary("sample2k")


@pytest.fixture(scope="session")
def model() -> Llama:
    """Random weights, a context window of 48 tokens."""
    return sharp_model(small_config())


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to a file of one JSON object a line."""

    def write(rows: Iterable[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    return write
