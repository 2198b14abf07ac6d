"""What `stochastok expand` prints of a text and of a report."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.streams import escaped
from stochastok_cli.errors import count_of

if TYPE_CHECKING:
    from stochastok_cli.tokenization.samples import LabeledTokenization
    from stochastok_cli.tokenization.statistics import Diversity


def print_page(file: Path, written: bool, as_json: bool) -> None:
    """Prints the path of a page, or one JSON object."""
    if as_json:
        print(json.dumps({"path": str(file), "made": written}))
        return
    progress.note(f"made {file}, which any browser opens" if written else f"already there, the same: {file}")
    options.print_line(file)


def print_tokenizations(tokenizations: "list[LabeledTokenization]", as_json: bool) -> None:
    """A line for each tokenization, with each token on a background color of its own, or with bars between tokens."""
    if as_json:
        print(json.dumps([tokenization._asdict() for tokenization in tokenizations]))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    # A terminal of 8 or 16 colors shows these as one, and others show none.
    has_color = console.color_system in ("256", "truecolor") and not console.no_color
    backgrounds = ("on #c8e6c9", "on #bbdefb", "on #ffe0b2", "on #e1bee7", "on #fff9c4")
    width = max(len(label) for label, _, _ in tokenizations)
    for label, ids, tokens in tokenizations:
        line = Text(f"{label:<{width}} {len(ids):>3} tokens  ", style="dim")
        for i, token in enumerate(tokens):
            separator = "" if has_color or i == 0 else "|"
            style = f"black {backgrounds[i % len(backgrounds)]}" if has_color else ""
            line.append(separator + escaped(token), style=style)
        console.print(line)


def _row_as_json(row: "Diversity") -> dict[str, Any]:
    """A row of the report; with --match-growth also the growth that was asked for, and whether there is a p for it."""
    match = row.match
    figures = {name: value for name, value in asdict(row).items() if name not in ("match", "words")}
    if match is None:
        return figures
    return {**figures, "target_growth": match.target, "mean_growth": match.growth, "target_met": match.is_met}


def print_report(rows: "list[Diversity]", sample: str, as_json: bool) -> None:
    """A table with a row for each method."""
    if as_json:
        print(json.dumps([_row_as_json(row) for row in rows]))
        return
    from stochastok_cli.cli.text_table import print_table, print_title

    headings = ("method", "p", "growth", "touched", "seen", "possible", "bits each", "bits/id", "Rényi", "MATTR")
    cells = [
        (
            row.method,
            "" if row.p is None else repr(row.p).removesuffix(".0"),
            f"{row.growth:.3f}",
            f"{row.touched:.1%}",
            f"{row.segmentations:.1f}",
            f"{row.possible:.1f}",
            f"{row.entropy:.2f}",
            f"{row.token_entropy:.2f}",
            f"{row.renyi_efficiency:.3f}",
            f"{row.mattr:.3f}",
        )
        for row in rows
    ]
    words = count_of(rows[0].words, "common word")
    print_title(f"{sample}; seen, possible, bits each: segmentations of {words}")
    entries = [
        (method, [pair for pair in zip(headings[1:], values, strict=True) if pair[1]]) for method, *values in cells
    ]
    print_table(headings, cells, entries, numbers=True)
