"""Runs, and what is in their files."""

import json
from collections.abc import Callable
from pathlib import Path

from stochastok_cli.config import Config
from stochastok_cli.training.train import TrainResult, train

TENSORS = ("model.safetensors", "optimizer.safetensors")


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` without the speed, which differs between runs."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "train/tokens_per_second"} for line in lines]


def tensors(checkpoint: Path) -> list[bytes]:
    """The bytes of the weights and of the optimizer's state."""
    return [(checkpoint / name).read_bytes() for name in TENSORS]


def train_at_once_and_in_parts(configured: Callable[..., Config], *options: str) -> tuple[TrainResult, TrainResult]:
    """Trains one run without a stop, whose validation loss falls, and the same in two parts; returns both."""
    straight = train(configured(*options), run_name="straight")
    losses = validation_losses(straight.folder)
    assert losses[-1] < losses[0]
    train(configured(*options, "trainer.training.max_iters=4"), run_name="parts")
    return straight, train(configured(*options), run_name="parts")


def validation_losses(folder: Path) -> list[float]:
    return [line["validation/loss"] for line in metrics(folder) if "validation/loss" in line]


def steps(folder: Path) -> list[str]:
    return sorted((f.name for f in folder.iterdir() if f.name.startswith("step_")), key=lambda n: int(n[5:]))
