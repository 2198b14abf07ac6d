"""Speed of the split table and of every expansion method: one thread on documents of two lengths, two to files.

    python benchmarks/bench_expansion.py
    python benchmarks/bench_expansion.py --tokenizer bert/tokenizer.json --methods maxmatch-dropout --no-files

Without FILE.bin the bundled sample is tokenized. Compiled code is warmed up first. In memory, methods take turns, and
the best of three rounds counts, in seconds of processor time of one thread. The baseline is the algorithm of the paper
on a plain Python list. Files are written with gpt2 only.
"""

import argparse
import random
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.data.expand import expand
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.tokenization.methods import require_method, split_methods, usable_methods
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice
from stochastok_cli.tokenization.split_table import split_table


def seconds(function, repeat=3):
    return min(seconds_once(function) for _ in range(repeat))


def seconds_once(function):
    start = time.thread_time()
    function()
    return time.thread_time() - start


def plain_python(splits, ids, p):
    ids = list(ids)
    for _ in range(int(len(ids) * p)):
        i = random.randrange(len(ids))
        if splits[ids[i]]:
            ids[i : i + 1] = random.choice(splits[ids[i]])
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", metavar="FILE.bin", help="gpt2 ids as uint16")
    parser.add_argument("--tokenizer", default="gpt2")
    parser.add_argument("--methods", help="a list with commas; default: all that the tokenizer allows")
    parser.add_argument("--copies", type=int, default=30, help="copies of the bundled sample")
    parser.add_argument("--no-files", action="store_true", help="measure in memory only")
    arguments = parser.parse_args()
    vocabulary = load_vocabulary(arguments.tokenizer)
    methods = split_methods(arguments.methods) if arguments.methods else usable_methods(vocabulary)
    vocabulary.encode("warm up")
    print(f"split table: {seconds(lambda: split_table.__wrapped__(vocabulary)):.3f} s")
    segmentation_lattice(vocabulary)
    print(f"lattice of segmentations: {seconds(lambda: segmentation_lattice.__wrapped__(vocabulary), 1):.3f} s")
    if arguments.file:
        ids = np.fromfile(arguments.file, np.uint16)
    else:
        texts = [text for batch, _ in open_source("sample").batches() for text in batch]
        ids = np.tile(vocabulary.encode_batch(texts)[0], arguments.copies)
    table = split_table(vocabulary)
    splits = [table.of(token) for token in range(vocabulary.size)]
    for length in (1_000, 50_000):
        lengths = np.full(len(ids) // length, length)
        some = ids[: lengths.sum()]
        few = some[: 2 * length].tolist()
        start = time.thread_time()
        for i in (0, length):
            plain_python(splits, few[i : i + length], 0.1)
        slow = len(few) / (time.thread_time() - start)
        print(f"\n{len(lengths):,} documents of {length:,} tokens, p = 0.1; plain Python: {slow / 1e6:.2f} M tokens/s")
        expansions = {method: StochasTok(vocabulary, p=_p_of(method), method=method) for method in methods}
        growth = {}
        for method, expansion in expansions.items():
            expansion.documents(some[:length], lengths[:1])
            growth[method] = len(expansion.documents(some, lengths)[0]) / len(some)
        best = dict.fromkeys(methods, float("inf"))
        for _ in range(3):
            for method, expansion in expansions.items():
                best[method] = min(best[method], seconds_once(partial(expansion.documents, some, lengths)))
        for method in methods:
            speed = len(some) / best[method]
            print(f"{method:16} {speed / 1e6:8.1f} M tokens/s  {speed / slow:8.1f} x  growth {growth[method]:.3f}")
    if not arguments.no_files and vocabulary.name == "gpt2":
        to_files(ids, methods)


def _p_of(method):
    return 0.1 if require_method(method).takes_p else None


def to_files(ids, methods):
    """Each method by two threads, checksums and manifest included."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        np.tile(ids, 8).tofile(corpus / "train.bin")
        ids[:100_000].tofile(corpus / "val.bin")
        tokens = len(Corpus(corpus).ids("train"))
        print(f"\n{tokens / 1e6:.0f} M tokens to finished files, two threads")
        for method in methods:
            start = time.perf_counter()
            expand(Corpus(corpus), p=_p_of(method), method=method, num_proc=2)
            print(f"{method:16} {tokens / (time.perf_counter() - start) / 1e6:8.1f} M tokens/s")


if __name__ == "__main__":
    main()
