import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stochastok_cli.models.llama.fused.attention_tiles import SHARED_MEMORY

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.slow
def test_products_compile_for_an_h100_with_this_triton_and_fit_its_shared_memory(tmp_path):
    """Gluon changes from one version of Triton to the next, and its interpreter does not run it."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    command = [sys.executable, "-m", "tests.models.llama.fused.compile_products"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    shared_memory = json.loads(result.stdout)
    assert len(shared_memory) == 14
    for kernel, size in shared_memory.items():
        assert 0 < size <= SHARED_MEMORY, kernel
