"""For all tests: no test reaches the network, the Hub is a server of our own.

Libraries read the environment when they are imported, so it is set here, before any test is; subprocesses inherit it.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hub_server import TOKEN, HubServer

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read at its first import, which a library of any test may be the one to make

_home = tempfile.TemporaryDirectory(prefix="hf-home-")
_server = HubServer()
os.environ.update(
    HF_ENDPOINT=_server.url,
    HF_TOKEN=TOKEN,
    HF_HOME=_home.name,
    HF_HUB_DISABLE_XET="1",  # or a push asks for a storage that the server is not
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    OMP_NUM_THREADS="1",  # the models are too small for more, and tests run side by side
)


hypothesis.settings.register_profile("tests", deadline=None)  # no test depends on how fast the machine is
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests with the marker `gpu` where there is no GPU; `gpu(interpreted=True)` only with `-m gpu`.

    A conftest.py further below has been called before, and pytest's own selection by markers comes after.
    """
    selected = config.option.markexpr.strip() == "gpu"
    skipped = []
    for item in items:
        marker = item.get_closest_marker("gpu")
        if marker is not None and (selected or not marker.kwargs.get("interpreted")):
            skipped.append(item)
    if skipped:
        import torch

        if not torch.cuda.is_available():
            for item in skipped:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    """`main` sets a handler, with which processes that a pool forks later would not end by SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def hub_server() -> HubServer:
    """The Hub of this test, empty. Repositories of different tests need different names: the clients keep caches."""
    _server.reset()
    return _server
