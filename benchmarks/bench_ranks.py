"""Training on several GPUs against one: speed, losses, resuming on another number of them, and a rank that dies.

    python benchmarks/bench_ranks.py --ranks 1,2,4,8 trainer.dataset.name=openwebtext-tokenized
    python benchmarks/bench_ranks.py --ranks 1,2 --config quickstart --iterations 40 general.device=cpu …     (a trial)

Runs `stochastok train` as torchrun starts it, with the configuration's own batch, and reads what the runs have logged:
tokens a second is the median of the logs but for the first two, efficiency is that over ranks times the first line's,
and losses are compared log by log with the first line's. Everything is written to a temporary folder.

On GPUs, each of them also trains by itself, all at once: cards of one host differ, and ranks wait for the slowest. So
the last column is the efficiency against as many cards as slow as the slowest.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from stochastok_cli.training.loggers.jsonl import read_metrics


class Runs:
    """Runs of one configuration in a folder of their own."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options

    def start(self, name: str, ranks: int, iterations: int, gpu: int | None = None) -> subprocess.Popen[str]:
        every = max(self.options.iterations // 20, 1)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
            "-m", "stochastok_cli", "train", "--config", self.options.config, "--run-name", name, "--quiet",
            f"general.paths.checkpoint_dir={self.folder}", f"trainer.training.max_iters={iterations}",
            f"trainer.training.log_interval={every}", "trainer.training.eval_interval=1000000",
            "trainer.training.eval_iters=8", "trainer.eval=[]", *self.options.overrides,
        ]  # fmt: skip
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpus[gpu] if gpus != [""] else str(gpu)}
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **visible}
        )

    def run(self, name: str, ranks: int, iterations: int) -> None:
        self.finish(name, self.start(name, ranks, iterations))

    @staticmethod
    def finish(name: str, process: subprocess.Popen[str]) -> None:
        _, error = process.communicate()
        if process.returncode:
            sys.exit(f"{name} failed with {process.returncode}:\n{error}")

    def logged(self, name: str, what: str) -> dict[int, float]:
        """A metric of a run by the iterations at which it was logged."""
        lines = read_metrics(self.folder / name / "metrics.jsonl")
        return {line["iteration"]: line[what] for line in lines if what in line}

    def largest_difference(self, name: str, other: str) -> float:
        """Of the losses of two runs, relative, at the iterations that both have logged."""
        losses, others = self.logged(name, "train/loss"), self.logged(other, "train/loss")
        return max(abs(losses[i] - others[i]) / others[i] for i in losses.keys() & others.keys())

    def speed(self, name: str) -> float:
        """Tokens a second."""
        return median(list(self.logged(name, "train/tokens_per_second").values())[2:])


def cards_alone(runs: Runs, count: int) -> list[float]:
    """Tokens a second of each card by itself, while the others train too."""
    started = {f"card-{gpu}": runs.start(f"card-{gpu}", 1, runs.options.iterations, gpu) for gpu in range(count)}
    for name, process in started.items():
        runs.finish(name, process)
    return [runs.speed(name) for name in started]


def scaling(runs: Runs, ranks: list[int]) -> None:
    alone = cards_alone(runs, min(max(ranks), torch.cuda.device_count())) if max(ranks) > 1 else []
    if alone:
        print(f"each card alone, tokens/s: {', '.join(f'{speed:,.0f}' for speed in alone)}")
    print("ranks      tokens/s  efficiency  largest difference of the loss  against the slowest card")
    first = None
    for n in ranks:
        runs.run(f"ranks-{n}", n, runs.options.iterations)
        speed = runs.speed(f"ranks-{n}")
        first = first or (n, speed)
        efficiency = speed / n / (first[1] / first[0])
        difference = runs.largest_difference(f"ranks-{n}", f"ranks-{ranks[0]}")
        slowest = f"{speed / n / min(alone[:n]):12.3f}" if alone else ""
        print(f"{n:5} {speed:13,.0f} {efficiency:11.3f} {difference:11.1e}{slowest:>33}", flush=True)


def resuming(runs: Runs, few: int, many: int) -> None:
    for before, after in ((many, few), (few, many)):
        name, half = f"from-{before}-to-{after}", runs.options.iterations // 2
        runs.run(name, before, half)
        runs.run(name, after, runs.options.iterations)
        difference = runs.largest_difference(name, f"ranks-{few}")
        print(f"{before} ranks for {half} iterations, then {after}: largest difference of the loss {difference:.1e}")


def dying(runs: Runs, ranks: int) -> None:
    process = runs.start("dying", ranks, 1_000_000)
    metrics = runs.folder / "dying" / "metrics.jsonl"
    while not (metrics.is_file() and "train/loss" in metrics.read_text()):
        if process.poll() is not None:
            sys.exit(f"dying ended by itself:\n{process.communicate()[1]}")
        time.sleep(0.1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    began = time.monotonic()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, error = process.communicate()
    errors = [line for line in error.splitlines() if line.startswith("error:")]
    print(f"one of {ranks} ranks killed: all have ended after {time.monotonic() - began:.1f} s; {'; '.join(errors)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default="1,2", help="the first is what the others are compared with")
    parser.add_argument("--config", default="pretraining")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    ranks = [int(n) for n in options.ranks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), options)
        scaling(runs, ranks)
        if len(ranks) > 1:
            resuming(runs, ranks[0], ranks[-1])
            dying(runs, ranks[-1])


if __name__ == "__main__":
    main()
