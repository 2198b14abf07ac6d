"""Speed of `unigram` with and without `nbest`, one thread, interleaved: the preparation of a vocabulary, and the draws.

Usage: python benchmarks/bench_unigram.py     (trains a SentencePiece model of up to 8,000 pieces on the bundled sample)
The baseline of the ratio is the draw among all segmentations. The best of five rounds is printed.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sentencepiece

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.tokenization.methods.unigram import best_segmentations
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice

METHODS = ["unigram", "unigram:nbest=8", "unigram:nbest=64", "unigram:nbest=512"]
DOCUMENT = 1_000  # tokens


def main():
    if sys.argv[1:]:
        sys.exit(__doc__)
    texts = [text for batch, _ in open_source("sample").batches() for text in batch]
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "model"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(line for text in texts for line in text.splitlines() if line),
            model_prefix=str(prefix),
            vocab_size=8_000,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        vocabulary = load_vocabulary(f"{prefix}.model")
        ids = np.tile(vocabulary.encode_batch(texts)[0], 20)
    segmentation_lattice(vocabulary)
    best_segmentations(vocabulary, frozenset(), 0.1, 2)  # compiles
    for nbest in (8, 64, 512):
        start = time.perf_counter()
        _, best = best_segmentations(vocabulary, frozenset(), 0.1, nbest)
        elapsed, size = time.perf_counter() - start, sum(array.nbytes for array in best) / 2**20
        print(f"the {nbest} best of {vocabulary.size:,} pieces: {elapsed:.3f} s, {size:.1f} MiB")
    lengths = np.full(len(ids) // DOCUMENT, DOCUMENT)
    some = ids[: lengths.sum()]
    for p in (0.1, 1.0):
        print(f"{len(lengths):,} documents of {DOCUMENT:,} tokens, p = {p}")
        expanders = [StochasTok(vocabulary, p=p, method=method) for method in METHODS]
        seconds = dict.fromkeys(METHODS, float("inf"))
        for _ in range(5):
            for method, expand in zip(METHODS, expanders, strict=True):
                start = time.perf_counter()
                expand.documents(some, lengths)
                seconds[method] = min(seconds[method], time.perf_counter() - start)
        for method in METHODS:
            ratio = seconds[METHODS[0]] / seconds[method]
            print(f"{method:18} {len(some) / seconds[method] / 1e6:7.1f} M tokens/s  {ratio:.2f} x")


if __name__ == "__main__":
    main()
