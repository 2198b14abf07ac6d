"""The tokenizations in which addition is trained and evaluated, each a function of canonical ids.

A form takes documents that lie one after the other, `(ids, lengths, index of the first)`, and returns the ids
(vocabulary's dtype) and lengths (int64) of the same documents tokenized otherwise, as `StochasTok.documents` does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

Documents = tuple[np.ndarray, np.ndarray]
Convert = Callable[[np.ndarray, np.ndarray, int], Documents]
_ALPHABET = b"0123456789$+="


class Form(NamedTuple):
    convert: Convert
    options: dict[str, Any]  # what decides the result, for the manifest


def addition_forms(vocabulary: Vocabulary, seed: int) -> dict[str, Form]:
    """All forms by name, the canonical one first; bpe_dropout where the vocabulary has a merge list.

    Raises UserError if the vocabulary lacks a character of addition.
    """
    forms = {
        "base": Form(lambda ids, lengths, first_index: (ids, lengths), {}),
        "stochastok": Form(StochasTok(vocabulary, p=1.0, seed=seed).documents, {"method": "stochastok", "p": 1.0}),
        "character": Form(_characters(vocabulary), {}),
    }
    if vocabulary.merges:
        dropout = StochasTok(vocabulary, p=0.1, method="bpe-dropout", seed=seed)
        forms["bpe_dropout"] = Form(dropout.documents, {"method": "bpe-dropout", "p": 0.1})
    return forms


def _characters(vocabulary: Vocabulary) -> Convert:
    """One id a character, of the few that addition is written with."""
    id_of = np.zeros(256, vocabulary.dtype)
    for byte in _ALPHABET:
        ids = vocabulary.encode(chr(byte))
        if len(ids) != 1 or vocabulary.token_bytes(ids[0]) != bytes([byte]):
            raise UserError(
                f"the tokenizer {vocabulary.name!r} has no token {chr(byte)!r}", fix="addition needs one a character"
            )
        id_of[byte] = ids[0]

    def characters(ids: np.ndarray, lengths: np.ndarray, first_index: int) -> Documents:
        ends = np.concatenate([[0], np.cumsum(vocabulary.widths[ids])])[np.cumsum(lengths)]
        return id_of[np.frombuffer(vocabulary.decode_bytes(ids.tolist()), np.uint8)], np.diff(ends, prepend=0)

    return characters
