"""The picture of what StochasTok does: one sentence in its canonical tokenization and in samples, as an SVG.

Usage: python benchmarks/plot_expansion.py docs/expansion.svg ["A sentence"]
"""

import html
import sys
from pathlib import Path

from stochastok_cli import StochasTok, load_vocabulary

SAMPLES, P = 4, 0.4
COLORS = ("#c8e6c9", "#bbdefb", "#ffe0b2", "#e1bee7", "#fff9c4")
WIDTH, LEFT, ROW, CHARACTER = 820, 110, 38, 9.65  # pixels


def main(target: Path, text: str) -> None:
    vocabulary = load_vocabulary("gpt2")
    expand = StochasTok(vocabulary, p=P, seed=0)
    canonical = vocabulary.encode(text)
    rows = [("canonical", canonical)] + [(f"sample {i + 1}", expand(canonical, i).tolist()) for i in range(SAMPLES)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * len(rows) + 8}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="16">',
        f'<rect width="{WIDTH}" height="{ROW * len(rows) + 8}" fill="#ffffff"/>',
    ]
    for k, (label, ids) in enumerate(rows):
        y, x = 6 + k * ROW, float(LEFT)
        parts.append(f'<text x="4" y="{y + 20}" fill="#555555" font-size="13">{label}</text>')
        for i, token in enumerate(ids):
            piece = vocabulary.decode([token])
            width = len(piece) * CHARACTER
            color = COLORS[i % len(COLORS)]
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width - 1.5:.1f}" height="28" rx="4" fill="{color}"/>')
            shown = html.escape(piece.replace(" ", "\u00a0"))
            parts.append(f'<text x="{x:.1f}" y="{y + 20}" textLength="{width - 1.5:.1f}" fill="#1b1b1b">{shown}</text>')
            x += width
        parts.append(f'<text x="{x + 10:.1f}" y="{y + 20}" fill="#555555" font-size="13">{len(ids)} tokens</text>')
    target.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    main(
        Path(sys.argv[1]),
        sys.argv[2] if len(sys.argv) > 2 else "An unbelievable strawberry tokenization, letter by letter",
    )
