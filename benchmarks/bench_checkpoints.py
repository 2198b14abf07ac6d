"""Seconds that training stands still for a checkpoint, written at once and in the background (`async_save`).

    python benchmarks/bench_checkpoints.py --device cpu

A model of some 50 M parameters trains on the bundled sample. Runs of both kinds take turns. A checkpoint of the second
kind is also written in the background for some seconds, in which iterations may be slower: those are printed, too. The
first checkpoint, which allocates host memory, and the last one, which a run waits for, are left out of the medians. The
result is one line of JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from stochastok_cli import tokenize, train
from stochastok_cli.config import config_from_dict
from stochastok_cli.training import events

MODEL = {
    "core_model": {"num_layers": 8, "ffn": {"ffn_dim": 2048}, "attn": {"num_heads": 12, "group_size": 1}},
    "hidden_dim": 768,
    "vocab_size": 2048,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind")
    parser.add_argument("--checkpoints", type=int, default=4, help="checkpoints of a run, at least 3")
    parser.add_argument("--interval", type=int, default=10, help="iterations between two of them")
    parser.add_argument("--context-window", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=1, help="windows of an iteration")
    parser.add_argument("--folder", type=Path, help="where to write; by default where temporary files are")
    arguments = parser.parse_args()
    measured: dict[bool, list[events.Saved]] = {False: [], True: []}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    parameters = 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        tokenize("sample", tokenizer="sample2k", data_dir=folder)
        for number in range(arguments.rounds):
            for async_save in (False, True):
                seen: list[events.Event] = []
                began = time.perf_counter()
                config = config_from_dict(_configuration(arguments, folder, async_save), "the benchmark")
                train(config, run_name=f"{number}-{async_save}", listeners=[seen.append])
                seconds[async_save].append(time.perf_counter() - began)
                saved = [event for event in seen if isinstance(event, events.Saved)]
                measured[async_save] += saved[1:-1]
                parameters = next(event.parameters for event in seen if isinstance(event, events.Started))
    still = {key: statistics.median(event.seconds for event in saved) for key, saved in measured.items()}
    result = {
        "parameters": parameters,
        "checkpoints": len(measured[True]),
        "seconds_still": round(still[False], 3),
        "seconds_still_async": round(still[True], 3),
        "ratio": round(still[False] / still[True], 1),
        "seconds_in_background": round(statistics.median(e.background_seconds or 0.0 for e in measured[True]), 3),
        "seconds_of_a_run": round(statistics.median(seconds[False]), 1),
        "seconds_of_a_run_async": round(statistics.median(seconds[True]), 1),
    }
    print(json.dumps(result))


def _configuration(arguments: argparse.Namespace, folder: str, async_save: bool) -> dict[str, object]:
    iterations = arguments.checkpoints * arguments.interval
    training = {
        "batch_size": arguments.batch_size,
        "gradient_accumulation_steps": 1,
        "max_iters": iterations,
        "warmup_iters": 1,
        "eval_interval": 10 * iterations,
        "eval_iters": 1,
        "log_interval": arguments.interval,
        "checkpoint_interval": arguments.interval,
        "keep_checkpoints": 1,
        "async_save": async_save,
    }
    return {
        "model": {**MODEL, "context_window": arguments.context_window},
        "trainer": {"training": training, "dataset": {"name": "sample-tokenized"}, "eval": []},
        "general": {
            "device": arguments.device,
            "paths": {"data_dir": folder, "checkpoint_dir": str(Path(folder) / "checkpoints")},
        },
    }


if __name__ == "__main__":
    main()
