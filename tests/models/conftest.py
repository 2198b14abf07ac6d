import pytest

from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> Llama:
    """A small model with weights large enough for attention to matter, in evaluation mode."""
    return sharp_model(small_config(tied=request.param))


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary("sample2k")
