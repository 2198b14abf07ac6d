"""Speed of `tokenize` and `expand` in this process against `--executor local`, both sides interleaved.

Usage: python benchmarks/bench_executor.py [MEGABYTES_OF_TEXT] [TASKS] [ROUNDS]     (50, 2, 3)
The files of both sides are compared. Each side is a command of its own, with its start.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = ("plain", "local")


def write_corpus(folder: Path, megabytes: float, files: int = 8) -> None:
    """Writes files of paragraphs of 20 to 400 words from a vocabulary of 20,000, frequent words first (Zipf)."""
    source = random.Random(0)
    words = ["".join(source.choices("etaoinshrdlucmfwyp", k=source.randint(2, 10))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    folder.mkdir()
    for number in range(files):
        with open(folder / f"{number}.txt", "w") as out:
            while out.tell() < megabytes * 1e6 / files:
                out.write(" ".join(source.choices(words, weights, k=source.randint(20, 400))) + "\n\n")


def run(*arguments: str, cwd: Path) -> float:
    """The seconds that a command takes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "stochastok_cli", *arguments, "--force", "--json"]
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Prints the median seconds of both sides, and their ratio."""
    megabytes, tasks, rounds = (float(value) for value in [*sys.argv[1:], *("50", "2", "3")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_corpus(work / "text", megabytes)
        in_tasks = {"plain": (), "local": ("--executor", "local", "--tasks", str(int(tasks)))}
        commands = {"tokenize": (str(work / "text"), "--name", "text"), "expand": ("text-tokenized",)}
        print(f"{megabytes:g} MB of text, {int(tasks)} tasks, median of {int(rounds)} rounds\n")
        print(f"{'command':10} {'plain':>8} {'local':>8}   local / plain")
        for command, arguments in commands.items():
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(int(rounds)):
                for side in SIDES:
                    directory = ("--data-dir", str(work / side))
                    seconds[side].append(run(command, *arguments, *in_tasks[side], *directory, cwd=work))
            plain, local = (statistics.median(seconds[side]) for side in SIDES)
            made = {side: sorted((work / side).glob("data_as_memmaps/*/manifest.json")) for side in SIDES}
            files = {side: [json.loads(file.read_text())["files"] for file in made[side]] for side in SIDES}
            if files["plain"] != files["local"]:
                raise SystemExit(f"{command}: the two sides made different files")
            print(f"{command:10} {plain:7.2f}s {local:7.2f}s   {local / plain:.2f}")


if __name__ == "__main__":
    main()
