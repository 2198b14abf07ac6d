"""Samples of the tokenizations of one text, for people to look at."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stochastok_cli.errors import Notice, count_of
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary


class LabeledTokenization(NamedTuple):
    """One tokenization of a text: a label, its ids, and the text of each id."""

    label: str
    ids: list[int]
    tokens: list[str]


def sample_tokenizations(text: str, expansions: Sequence[StochasTok], samples: int) -> list[LabeledTokenization]:
    """The canonical tokenization of a text, and samples of it by each expansion (as in Figure 2 of the paper).

    Args:
        text: the text.
        expansions: at least one, all of the same vocabulary.
        samples: how many of each.

    Returns:
        One entry labeled `canonical`, then `samples` entries of each expansion: `sample 1` … for a single expansion,
        `<method> 1` … for several. A fixed rule has one tokenization of each text, and one entry: `<method>`.

    A `Notice` says where a method makes no attempt because the text is short, and where the tokenizer loses text.

    >>> from stochastok_cli import StochasTok, load_vocabulary
    >>> expand = StochasTok(load_vocabulary("gpt2"), p=0.0)
    >>> [(label, tokens) for label, _, tokens in sample_tokenizations("An example", [expand], 1)]
    [('canonical', ['An', ' example']), ('sample 1', ['An', ' example'])]
    """
    vocabulary = expansions[0].vocabulary
    canonical = vocabulary.encode(text)
    note_lost_text(vocabulary, canonical)
    _note_no_attempts(expansions, len(canonical))
    labeled = [("canonical", canonical)]
    for expand in expansions:
        if not expand.definition.takes_p:
            labeled.append((expand.method, expand(canonical, 0).tolist()))
            continue
        label = expand.method if len(expansions) > 1 else "sample"
        labeled += [(f"{label} {i + 1}", expand(canonical, i).tolist()) for i in range(samples)]
    return [LabeledTokenization(label, ids, [vocabulary.token_text(i) for i in ids]) for label, ids in labeled]


def note_lost_text(vocabulary: Vocabulary, ids: Sequence[int]) -> None:
    """Gives a `Notice` if ids of a text stand for what the tokenizer can't represent."""
    unknown = 0 if vocabulary.unknown is None else list(ids).count(vocabulary.unknown)
    if unknown:
        what = count_of(unknown, "token replaces", "tokens replace")
        warnings.warn(f"{what} text that {vocabulary.name} can't represent, which is lost", Notice, stacklevel=3)


def _note_no_attempts(expansions: Sequence[StochasTok], tokens: int) -> None:
    """Gives a `Notice` for the methods that make floor(n p) attempts to split something, where that is none."""
    by_p: dict[float, list[str]] = {}
    if not tokens:
        return
    for expand in expansions:
        if (
            expand.p > 0
            and expand.definition.p_counts_splits
            and not expand.split_budget(np.array([tokens]), np.uint64(0))
        ):
            by_p.setdefault(expand.p, []).append(expand.method)
    for p, methods in by_p.items():
        split = f"{methods[0]} splits" if len(methods) == 1 else f"{', '.join(methods)} split"
        warnings.warn(
            f"{p:g} × {count_of(tokens, 'token')} is less than one split, so {split} nothing; "
            f"give -p {_smallest_p(tokens):g} or more",
            Notice,
            stacklevel=3,
        )


def _smallest_p(tokens: int) -> float:
    """The smallest p that makes a split in a text, 1 / tokens, rounded up in its second or third digit.

    >>> _smallest_p(1), _smallest_p(3), _smallest_p(12)
    (1.0, 0.34, 0.084)
    """
    scale = 10 ** (len(str(tokens)) + 1)
    return -(-scale // tokens) / scale
