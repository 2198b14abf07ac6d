"""cl100k_base and o200k_base from the copies that llama-index-core carries, so that no test needs the network."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def cached_encodings():
    spec = importlib.util.find_spec("llama_index.core")
    assert spec is not None and spec.origin is not None, "the extra `test` is not installed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(Path(spec.origin).parent / "_static" / "tiktoken_cache"))
        yield
