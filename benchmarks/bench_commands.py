"""`stochastok tokenize` and `stochastok expand` as whole processes, beside a plain script on tiktoken.

Usage: python benchmarks/bench_commands.py CORPUS.jsonl [MORE.jsonl …] [--times 10] [--tokens 400000000]

The corpus is written `--times` over, each document with a first line of its own. Both sides read the same file and
write the same bytes, which is checked. Seconds are of the wall clock, memory is the peak resident size.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = """
import json, sys, numpy as np, tiktoken
from stochastok_cli import load_vocabulary   # for the bundled ranks: tiktoken would download them
encode = load_vocabulary("gpt2")._codec._encoding.encode_ordinary
source, folder = sys.argv[1:]
documents = [[*encode(json.loads(line)["text"]), 50256] for line in open(source, encoding="utf-8")]
order = np.random.default_rng(489).permutation(len(documents))
val = -(-len(documents) // 100)
for name, chosen in (("train", order[val:]), ("val", order[:val])):
    with open(f"{folder}/{name}.bin", "wb") as out:
        for i in chosen:
            np.array(documents[i], dtype=np.uint16).tofile(out)
"""


def run(command):
    """Wall-clock seconds and peak memory (bytes) of a command, and its stdout."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    shown = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - start, usage.ru_maxrss * 1024, shown.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=400_000_000)
    parser.add_argument("--skip-plain", action="store_true")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        source = work / "corpus.jsonl"
        with open(source, "w", encoding="utf-8") as out:
            for copy in range(options.times):
                for file in options.corpus:
                    with open(file, encoding="utf-8") as lines:
                        for number, line in enumerate(lines):
                            text = f"copy {copy} of {number}\n{json.loads(line)['text']}"
                            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        size = source.stat().st_size
        print(f"{size / 1e6:.0f} MB of JSONL")
        stochastok = [sys.executable, "-m", "stochastok_cli"]
        ours, memory, path = run([*stochastok, "tokenize", str(source), "--data-dir", str(work), "--quiet"])
        print(f"stochastok tokenize: {ours:.1f} s, {size / ours / 1e6:.0f} MB/s, {memory / 2**20:.0f} MiB")
        if not options.skip_plain:
            (work / "plain").mkdir()
            plain, plain_memory, _ = run([sys.executable, "-c", PLAIN, str(source), str(work / "plain")])
            print(f"a plain loop of tiktoken: {plain:.1f} s, {plain_memory / 2**20:.0f} MiB; ratio {plain / ours:.1f}")
            for name in ("train.bin", "val.bin"):
                assert (work / "plain" / name).read_bytes() == (Path(path) / name).read_bytes(), name
            print("identical bytes")
        train = Path(path) / "train.bin"
        big = work / "data_as_memmaps" / "big"
        big.mkdir()
        content = train.read_bytes()
        with open(big / "train.bin", "wb") as out:
            for _ in range(-(-options.tokens * 2 // len(content))):
                out.write(content)
        shutil.copy(Path(path) / "val.bin", big)
        tokens = (big / "train.bin").stat().st_size // 2
        for method in ("stochastok", "uniform"):
            command = [
                *stochastok,
                "expand",
                "big",
                "-p",
                "0.1",
                "--method",
                method,
                "--data-dir",
                str(work),
                "--quiet",
            ]
            ours, memory, made = run(command)
            print(
                f"stochastok expand --method {method}: {tokens / 1e6:.0f} M tokens in {ours:.1f} s, "
                f"{tokens / ours / 1e6:.0f} M tokens/s, {memory / 2**20:.0f} MiB"
            )
            shutil.rmtree(made)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
