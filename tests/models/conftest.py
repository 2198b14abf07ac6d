import pytest

from stochastok_cli.models.llama.model import Llama
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> Llama:
    """A small model with weights large enough for attention to matter, in evaluation mode."""
    return sharp_model(small_config(tied=request.param))
