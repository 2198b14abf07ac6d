"""What a folder of results keeps of the runs and evaluations of these scripts.

    python examples/reproduce/collect.py OUT RESULTS

Each line of these files begins with the name of the run:

- RESULTS/runs.jsonl: the lines of metrics.jsonl, but those of the training loss alone
- RESULTS/starts.jsonl: when and on what the run was started, with the versions
- RESULTS/evaluations.jsonl: what `stochastok eval --json` printed
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from stochastok_cli.training.loggers.jsonl import read_metrics, read_starts


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out, results = map(Path, sys.argv[1:])
    runs = sorted((out / "checkpoints").glob("*/metrics.jsonl"))
    starts = sorted((out / "checkpoints").glob("*/starts.jsonl"))
    evaluations = sorted((out / "evaluations").glob("*/*.json"))
    if not runs:
        sys.exit(f"error: {out}/checkpoints holds no run")
    results.mkdir(parents=True, exist_ok=True)
    rows = ({"run": file.parent.name, **row} for file in runs for row in read_metrics(file) if not only_training(row))
    write(results / "runs.jsonl", rows)
    rows = ({"run": file.parent.name, **asdict(start)} for file in starts for start in read_starts(file)[0])
    write(results / "starts.jsonl", rows)
    named = (({"run": file.stem, "evaluation": file.parent.name}, row) for file in evaluations for row in lines(file))
    write(results / "evaluations.jsonl", ({**name, **row} for name, row in named))


def lines(file: Path) -> Iterable[dict]:
    return map(json.loads, file.read_text(encoding="utf-8").splitlines())


def only_training(row: dict) -> bool:
    return all(key == "iteration" or key.startswith("train/") for key in row)


def write(file: Path, rows: Iterable[dict]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
