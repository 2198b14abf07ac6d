"""The tokenizations in which addition is trained and evaluated, each a function of the canonical ids."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

Documents = tuple[np.ndarray, np.ndarray]
"""Documents end to end: their ids (vocabulary's dtype) and the length of each (int64)."""
_CHARACTERS = b"0123456789$+="


class Form(NamedTuple):
    """A tokenization.

    Args:
        tokenize: called as `tokenize(ids, lengths, index of the first document)` with documents in their canonical
            tokenization; returns the ids and lengths in this one, as `StochasTok.documents` does.
        options: what decides the result, for the manifest.
    """

    tokenize: Callable[[np.ndarray, np.ndarray, int], Documents]
    options: dict[str, Any]


def _base(vocabulary: Vocabulary, seed: int) -> Form:
    return Form(lambda ids, lengths, first_index: (ids, lengths), {})


def _stochastok(vocabulary: Vocabulary, seed: int) -> Form:
    return Form(StochasTok(vocabulary, p=1.0, seed=seed).documents, {"method": "stochastok", "p": 1.0})


def _bpe_dropout(vocabulary: Vocabulary, seed: int) -> Form | None:
    if not vocabulary.merges:
        return None
    method = "bpe-dropout"
    return Form(StochasTok(vocabulary, p=0.1, method=method, seed=seed).documents, {"method": method, "p": 0.1})


def _character(vocabulary: Vocabulary, seed: int) -> Form:
    """One id per character, of the few that addition is written with."""
    id_of = np.zeros(256, vocabulary.dtype)
    for byte in _CHARACTERS:
        ids = vocabulary.encode(chr(byte))
        if len(ids) != 1 or vocabulary.token_bytes(ids[0]) != bytes([byte]):
            raise UserError(
                f"the tokenizer {vocabulary.name!r} has no token {chr(byte)!r}", fix="addition needs one a character"
            )
        id_of[byte] = ids[0]

    def tokenize(ids: np.ndarray, lengths: np.ndarray, first_index: int) -> Documents:
        ends = np.concatenate([[0], np.cumsum(vocabulary.widths[ids])])[np.cumsum(lengths)]
        return id_of[np.frombuffer(vocabulary.decode_bytes(ids.tolist()), np.uint8)], np.diff(ends, prepend=0)

    return Form(tokenize, {})


_BUILDERS: dict[str, Callable[[Vocabulary, int], Form | None]] = {
    "base": _base,
    "stochastok": _stochastok,
    "character": _character,
    "bpe_dropout": _bpe_dropout,
}
FORMS = tuple(_BUILDERS)
"""The names of the tokenizations, the canonical one first."""


def addition_forms(vocabulary: Vocabulary, seed: int) -> dict[str, Form]:
    """The tokenizations that a vocabulary has (`bpe_dropout` needs a merge list).

    Raises UserError if it lacks a character that addition is written with.
    """
    forms = {name: make(vocabulary, seed) for name, make in _BUILDERS.items()}
    return {name: form for name, form in forms.items() if form is not None}
