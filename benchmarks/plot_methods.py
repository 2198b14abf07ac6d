"""How often each method gives each segmentation of one word: the plot in the README.

Usage: python benchmarks/plot_methods.py docs/methods.svg [" example"]      (needs matplotlib)
All methods at the p that makes the bundled text 1.3 times as long, on documents of a thousand repetitions of the word.
"""

import sys
from collections import Counter

import matplotlib
import numpy as np

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.tokenization.growth import match_growth
from stochastok_cli.tokenization.methods import require_method, usable_methods

matplotlib.use("Agg")
from matplotlib import pyplot

GROWTH, COPIES, DOCUMENTS, SHOWN = 1.3, 1000, 200, 40


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    target, word = sys.argv[1], (sys.argv[2:] or [" example"])[0]
    gpt2 = load_vocabulary("gpt2")
    (token,) = gpt2.encode(word)
    sample, sample_lengths = gpt2.encode_batch(next(open_source("sample").batches())[0][:1000])
    ids, lengths = np.full(COPIES * DOCUMENTS, token), np.full(DOCUMENTS, COPIES)
    methods = [method for method in usable_methods(gpt2) if require_method(method).takes_p]
    figure, axes = pyplot.subplots(len(methods), 1, figsize=(9, 9), sharex=True, sharey=True)
    order = _segmentations(gpt2, token)
    for axis, method in zip(axes, methods, strict=True):
        p = match_growth(gpt2, method, GROWTH, sample, sample_lengths).p
        expand = StochasTok(gpt2, p=p, method=method)
        out, _ = expand.documents(ids, lengths)
        widths = np.array([len(piece) for piece in gpt2.pieces])
        cuts = np.flatnonzero(np.cumsum(widths[out]) % len(word) == 0) + 1
        seen = Counter(tuple(part.tolist()) for part in np.split(out, cuts)[:-1])
        assert len(order) == int(expand.lattice.total[expand.lattice.node[token]])
        frequencies = [seen[s] / len(ids) for s in order]
        reached = sum(frequency > 0 for frequency in frequencies)
        axis.bar(
            range(len(order)), frequencies, color=["#1565c0" if len(s) > 1 else "#90a4ae" for s in order], width=0.9
        )
        axis.set_yscale("log")
        axis.set_title(f"{method}, p = {p:g}: {reached} of {len(order)} segmentations reached", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    labels = ["|".join(gpt2.decode([i]) for i in s) for s in order]
    axes[-1].set_xticks(range(len(order))[:: max(len(order) // SHOWN, 1)])
    axes[-1].set_xticklabels(labels[:: max(len(order) // SHOWN, 1)], rotation=90, fontsize=6)
    figure.supylabel("share of occurrences (log scale)", fontsize=9)
    figure.suptitle(f"Segmentations of “{word}” by each method at equal growth ({GROWTH} x)", fontsize=11)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def _segmentations(vocabulary, token):
    """All segmentations, those of fewer pieces first."""
    entries = {p: i for i, p in enumerate(vocabulary.pieces) if not vocabulary.is_special(i)}

    def of(text):
        if not text:
            return [()]
        heads = [n for n in range(1, len(text) + 1) if text[:n] in entries]
        return [(entries[text[:n]], *rest) for n in heads for rest in of(text[n:])]

    return sorted(of(vocabulary.pieces[token]), key=len)


if __name__ == "__main__":
    main()
