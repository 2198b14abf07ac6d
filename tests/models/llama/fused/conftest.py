"""The fused kernels run on the GPU where there is a fitting one, else in Triton's interpreter, in float32.

Triton decides at its first import whether it interprets: `tests/conftest.py` says so where there is no GPU. Without
Triton, or where another module was first, every test of this folder is skipped and says why.
"""

import os
import sys

import pytest
import torch

HAS_GPU = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
WHY_NOT = ""

if not HAS_GPU and "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    WHY_NOT = "triton was imported before it could be told to interpret; run this folder by itself"
else:
    with pytest.MonkeyPatch.context() as patch:
        if not HAS_GPU:
            patch.setenv("TRITON_INTERPRET", "1")
        try:
            import stochastok_cli.models.llama.fused.step  # noqa: F401
        except ImportError as error:
            WHY_NOT = f"triton cannot be imported ({error})"


@pytest.fixture(autouse=True)
def _kernels_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    if WHY_NOT:
        pytest.skip(WHY_NOT)
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
    """The largest relative error, ‖found - expected‖ / ‖expected‖, that rounding explains."""
    return 1e-5 if dtype == torch.float32 else 1.5e-2
