"""Why an expansion has split nothing, for people."""

import numpy as np

from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.split_table import split_table


def why_nothing_is_split(expand: StochasTok, used: np.ndarray, longest: int) -> str:
    """The reason why documents stay as they are, and what to do about it.

    Args:
        expand: the expansion, by a method that keeps token boundaries.
        used: integers, the different ids that the documents have.
        longest: the number of tokens of the longest document.

    Returns:
        What goes after "… splits no token of …"; empty for a fixed rule that splits none of the tokens that could be.
    """
    method, vocabulary = expand.definition, expand.vocabulary
    if expand.max_splits == 0:
        return ": --max-splits is 0; give a larger one"
    ids = frozenset(used.tolist())
    can_be_split = {token for token in ids if split_table(vocabulary, only=ids).of(token)}
    if not can_be_split:
        return f": the tokenizer {vocabulary.name!r} has no smaller tokens for any of them"
    if can_be_split <= expand.kept:
        return ": --keep leaves every token alone that can be split; give another pattern"
    if not method.takes_p:
        return ""
    if method.p_counts_splits and not expand.split_budget(np.array([longest]), np.uint64(0))[0]:
        return ": n p is below 1 in documents of n tokens; give a larger p"
    reason = ": no attempt met a token that can be split" if method.p_counts_splits else ""
    return reason + ("; give a larger p" if expand.p < method.max_p else "")
