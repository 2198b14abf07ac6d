"""Processor time that commands take to start, in multiples of that of `import numpy`.

All commands run in turns, so that other load on the machine falls on all of them, and each in a process of its own.

    python benchmarks/bench_startup.py --rounds 15
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from stochastok_cli.config import load_config

RUNS = 300
PARAGRAPH = "It is a truth universally acknowledged, that a single man must be in want of a wife.\n\n"


def processor_seconds(command: list[str]) -> float:
    """The processor time of a command, user and system together."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def pressing_tab(*words: str) -> list[str]:
    """What a command begins with in bash's request for completions of the last word."""
    request = {"_STOCHASTOK_COMPLETE": "complete_bash", "COMP_CWORD": len(words)}
    return [
        "env",
        *(f"{name}={value}" for name, value in request.items()),
        "COMP_WORDS=" + "\n".join(("stochastok", *words)),
    ]


def write_runs(folder: Path) -> None:
    """Runs of 300 records each: 270 of training, and an evaluation after every ninth."""
    generator = random.Random(0)
    logged = ("loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_second")
    training = [f"train/{name}" for name in logged]
    evaluation = [f"validation/{name}" for name in ("loss", "perplexity", "bits_per_byte")]
    evaluation += [f"mcq/arc/{name}" for name in ("accuracy", "normalized_accuracy", "path_confidence")]
    for i in range(RUNS):
        run = folder / f"pretraining-openwebtext-tokenized-stochastok0.1-seed{i}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(load_config("pretraining", [f"general.seed={i}"]).to_yaml())
        with open(run / "metrics.jsonl", "w") as file:
            for k in range(1, 271):
                for names in (training, evaluation) if k % 9 == 0 else (training,):
                    record = {"iteration": 100 * k, **{name: 3 * generator.random() for name in names}}
                    file.write(json.dumps(record) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each command runs")
    rounds = parser.parse_args().rounds
    stochastok = [sys.executable, "-m", "stochastok_cli"]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "tiny.txt"
        text.write_text(PARAGRAPH * 40)
        tokenize = [*stochastok, "tokenize", str(text), "--data-dir", folder, "--quiet"]
        subprocess.run(tokenize, check=True, stdout=subprocess.DEVNULL)
        many = Path(folder) / "runs"
        write_runs(many)
        commands = {
            "import numpy": [sys.executable, "-c", "import numpy"],
            "--help": [*stochastok, "--help"],
            "expand --text": [*stochastok, "expand", "--text", "It is a truth"],
            "expand tiny-tokenized": [*stochastok, "expand", "tiny-tokenized", "--data-dir", folder, "--force"],
            "train, a typo": [*stochastok, "train", "--config", "pretraining", "trainer.optmizer.lr=1"],
            "train --show-config": [*stochastok, "train", "--config", "pretraining", "--show-config"],
            "runs, none": [*stochastok, "runs", str(Path(folder) / "data_as_memmaps")],
            f"runs, {RUNS}": [*stochastok, "runs", str(many)],
            f"runs, {RUNS}, --metric": [*stochastok, "runs", str(many), "--metric", "train/loss"],
            "TAB after expand": [*pressing_tab("expand", "--data-dir", folder, ""), *stochastok],
            "TAB after train trainer.": [*pressing_tab("train", "trainer."), *stochastok],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):  # the first round fills caches
            for name, command in commands.items():
                times[name].append(processor_seconds(command))
    medians = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<26} {seconds:.3f} s  {seconds / medians['import numpy']:.1f} x import numpy")


if __name__ == "__main__":
    main()
