"""Milliseconds to draw one micro-batch of training windows, as they are and expanded on the fly, on one CPU core.

    python benchmarks/bench_windows.py TEXT --windows 2 --context-window 4096

A background thread draws the next windows while a GPU computes, so that expansion costs training time only where
drawing takes longer than an iteration. Both sides draw in turns; the medians are printed as a line of JSON.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.data.samplers import WindowSampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file, from which the windows are drawn")
    parser.add_argument("--tokenizer", default="gpt2")
    parser.add_argument("--windows", type=int, default=8, help="windows of a micro-batch")
    parser.add_argument("--context-window", type=int, default=2048, help="tokens of a window")
    parser.add_argument("--method", default="stochastok")
    parser.add_argument("--p", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    vocabulary = load_vocabulary(arguments.tokenizer)
    ids = np.asarray(vocabulary.encode(arguments.text.read_text(encoding="utf-8")), np.uint32)
    expansion = StochasTok(vocabulary, arguments.p, arguments.method, round_budget="randomly")
    samplers = {
        name: WindowSampler(ids, arguments.context_window, seed=0, purpose="train", expand=expand)
        for name, expand in (("plain", None), ("expanded", expansion))
    }
    index = np.arange(arguments.windows)
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for iteration in range(arguments.rounds + 1):  # the first compiles
        for name, sampler in samplers.items():
            began = time.perf_counter()
            sampler.batch(iteration, index)
            times[name].append((time.perf_counter() - began) * 1e3)
    medians = {f"{name}_ms": round(statistics.median(values[1:]), 3) for name, values in times.items()}
    print(json.dumps({"windows": arguments.windows, "context_window": arguments.context_window, **medians}))


if __name__ == "__main__":
    main()
