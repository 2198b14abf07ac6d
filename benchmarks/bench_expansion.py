"""Speed of the split table and of every expansion method: one thread on documents of two lengths, two to files.

Usage: python benchmarks/bench_expansion.py [FILE.bin]     (uint16 gpt2 ids; else the bundled sample is tokenized)
Compiled code is warmed up first. The baseline is the algorithm of the paper on a plain Python list.
"""

import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.data.expand import expand
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.tokenization.methods import require_method, usable_methods
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice
from stochastok_cli.tokenization.split_table import split_table


def seconds(function, repeat=3):
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def plain_python(splits, ids, p):
    ids = list(ids)
    for _ in range(int(len(ids) * p)):
        i = random.randrange(len(ids))
        if splits[ids[i]]:
            ids[i : i + 1] = random.choice(splits[ids[i]])
    return ids


def main():
    if sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    gpt2 = load_vocabulary("gpt2")
    gpt2.encode("warm up")
    print(f"split table of gpt2: {seconds(lambda: split_table.__wrapped__(gpt2)):.3f} s")
    segmentation_lattice(gpt2)
    print(f"lattice of segmentations of gpt2: {seconds(lambda: segmentation_lattice.__wrapped__(gpt2), 1):.3f} s")
    if len(sys.argv) > 1:
        ids = np.fromfile(sys.argv[1], np.uint16)
    else:
        texts = [text for batch, _ in open_source("sample").batches() for text in batch]
        ids = np.tile(gpt2.encode_batch(texts)[0], 30)
    table = split_table(gpt2)
    splits = [table.of(token) for token in range(gpt2.size)]
    for length in (1_000, 50_000):
        lengths = np.full(len(ids) // length, length)
        some = ids[: lengths.sum()]
        few = some[: 2 * length].tolist()
        start = time.perf_counter()
        for i in (0, length):
            plain_python(splits, few[i : i + length], 0.1)
        slow = len(few) / (time.perf_counter() - start)
        print(f"\n{len(lengths):,} documents of {length:,} tokens, p = 0.1; plain Python: {slow / 1e6:.2f} M tokens/s")
        for method in usable_methods(gpt2):
            stochastok = StochasTok(gpt2, p=_p_of(method), method=method)
            stochastok.documents(some[:length], lengths[:1])
            out, _ = stochastok.documents(some, lengths)
            speed = len(some) / seconds(partial(stochastok.documents, some, lengths))
            growth = len(out) / len(some)
            print(f"{method:16} {speed / 1e6:8.1f} M tokens/s  {speed / slow:8.1f} x  growth {growth:.3f}")
    to_files(gpt2, ids)


def _p_of(method):
    return 0.1 if require_method(method).takes_p else None


def to_files(gpt2, ids):
    """Each method by two threads, checksums and manifest included."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        np.tile(ids, 8).tofile(corpus / "train.bin")
        ids[:100_000].tofile(corpus / "val.bin")
        tokens = len(Corpus(corpus).ids("train"))
        print(f"\n{tokens / 1e6:.0f} M tokens to finished files, two threads")
        for method in usable_methods(gpt2):
            start = time.perf_counter()
            expand(Corpus(corpus), p=_p_of(method), method=method, num_proc=2)
            print(f"{method:16} {tokens / (time.perf_counter() - start) / 1e6:8.1f} M tokens/s")


if __name__ == "__main__":
    main()
