import importlib.metadata
import importlib.util

import pytest
import torch

from stochastok_cli.models.llama.fused.support import unsupported_device


@pytest.mark.parametrize(
    ("device", "capability", "triton", "reason"),
    [
        ("cuda", (9, 0), "3.6.0", None),
        ("cuda", (9, 0), "3.10.0", None),
        ("cuda", (9, 0), "of another name", None),
        ("cuda", (9, 0), "3.5.1", "they need triton 3.6, and 3.5.1 is installed"),
        ("cuda", (9, 0), None, "the package `triton` is not installed"),
        ("cuda", (8, 0), "3.6.0", "their tiles are made for compute capability 9 (H100, H200), and this GPU has 8.0"),
        ("cpu", None, "3.6.0", "they are for NVIDIA GPUs, and the device is 'cpu'"),
    ],
)
def test_devices_and_versions_of_triton(device, capability, triton, reason, monkeypatch):
    def version(name):
        if triton == "of another name":
            raise importlib.metadata.PackageNotFoundError(name)
        return triton

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if triton is None else name)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert unsupported_device(torch.device(device)) == reason
