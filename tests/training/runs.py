"""Reads the files of a run."""

import json
from pathlib import Path

TENSORS = ("model.safetensors", "optimizer.safetensors")


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` without the speed, which differs between runs."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "train/tokens_per_second"} for line in lines]


def tensors(checkpoint: Path) -> list[bytes]:
    """The bytes of the weights and of the optimizer's state."""
    return [(checkpoint / name).read_bytes() for name in TENSORS]


def steps(folder: Path) -> list[str]:
    return sorted((f.name for f in folder.iterdir() if f.name.startswith("step_")), key=lambda n: int(n[5:]))
