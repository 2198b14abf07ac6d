"""`stochastok tokenize --tokenizer` as a whole process, beside a plain script on the `tokenizers` library.

Usage: python benchmarks/bench_tokenizers.py CORPUS.jsonl --tokenizer FOLDER [--tokenizer MORE …] [--repeats 3]

The plain script encodes all documents by one call of `encode_batch_fast`, or of `encode_batch` (`--encode-batch`), on
all cores. The two sides take turns, read the same file and write the same bytes, which is checked. Seconds are of the
wall clock, imports and the reading of the tokenizer included; the ratio is that of the medians.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stochastok_cli import load_vocabulary

PLAIN = """
import json, sys, numpy as np
from tokenizers import Tokenizer
source, file, folder, end, dtype, method = sys.argv[1:]
tokenizer = Tokenizer.from_file(file)
tokenizer.encode_special_tokens = True
texts = [json.loads(line)["text"] for line in open(source, encoding="utf-8")]
documents = [encoding.ids for encoding in getattr(tokenizer, method)(texts, add_special_tokens=False)]
order = np.random.default_rng(489).permutation(len(documents))
val = -(-len(documents) // 100)
for name, chosen in (("train", order[val:]), ("val", order[:val])):
    with open(f"{folder}/{name}.bin", "wb") as out:
        for i in chosen:
            np.array([*documents[i], int(end)], dtype=dtype).tofile(out)
"""


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path, action="append", required=True, help="a folder with tokenizer.json")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encode-batch", action="store_true")
    options = parser.parse_args()
    megabytes = options.corpus.stat().st_size / 1e6
    method = "encode_batch" if options.encode_batch else "encode_batch_fast"
    for folder in options.tokenizer:
        vocabulary = load_vocabulary(folder)
        work = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            (work / "plain").mkdir()
            ours = [sys.executable, "-m", "stochastok_cli", "tokenize", str(options.corpus), "--tokenizer", str(folder)]
            ours += ["--name", "ours", "--data-dir", str(work), "--quiet", "--force"]
            plain = [sys.executable, "-c", PLAIN, str(options.corpus), str(folder / "tokenizer.json")]
            plain += [str(work / "plain"), str(vocabulary.end_of_text), vocabulary.dtype.str, method]
            times: dict[str, list[float]] = {"ours": [], "plain": []}
            for _ in range(options.repeats):
                times["ours"].append(seconds(ours))
                times["plain"].append(seconds(plain))
            for name in ("train.bin", "val.bin"):
                made = work / "data_as_memmaps" / "ours-tokenized" / name
                assert made.read_bytes() == (work / "plain" / name).read_bytes(), name
            a, b = (statistics.median(times[side]) for side in ("ours", "plain"))
            print(
                f"{folder.name}: {megabytes:.0f} MB, stochastok tokenize {a:.1f} s ({megabytes / a:.1f} MB/s), "
                f"{method} {b:.1f} s ({megabytes / b:.1f} MB/s), ratio {b / a:.1f}; identical bytes\n"
                f"  {json.dumps({side: [round(t, 2) for t in each] for side, each in times.items()})}",
                flush=True,
            )
        finally:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
