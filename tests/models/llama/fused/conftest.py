"""The fused kernels run on a GPU if there is a suitable one, else in the interpreter of Triton, in float32.

The interpreter can't run the products of `fused.pingpong`: on a CPU, torch computes the same in their place.

Triton reads at its first import whether to interpret: `tests/conftest.py` sets the variable if there is no GPU. Without
Triton, or if it was imported earlier, every test of this folder is skipped with the reason.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

HAS_GPU = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
SKIP_REASON = ""

if not HAS_GPU and "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    SKIP_REASON = "triton was imported before its interpreter was enabled; run this folder by itself"
else:
    with pytest.MonkeyPatch.context() as patch:
        if not HAS_GPU:
            patch.setenv("TRITON_INTERPRET", "1")
        try:
            import stochastok_cli.models.llama.fused.step  # noqa: F401
        except ImportError as error:
            SKIP_REASON = f"triton cannot be imported ({error})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder: `pytest -m gpu` runs the kernels on a GPU."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("gpu") is None:
            item.add_marker(pytest.mark.gpu(interpreted=True))


@pytest.fixture(autouse=True)
def _kernels_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    if SKIP_REASON:
        pytest.skip(SKIP_REASON)
    if not HAS_GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if HAS_GPU else "cpu")


@pytest.fixture
def dtype() -> torch.dtype:
    return torch.bfloat16 if HAS_GPU else torch.float32


@pytest.fixture
def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error, ‖actual - expected‖ / ‖expected‖, that rounding explains."""
    return 1e-5 if dtype == torch.float32 else 1.5e-2
