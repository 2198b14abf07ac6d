"""The part of a vocabulary that a text needs."""

import functools
from collections.abc import Sequence
from typing import Any

from stochastok_cli.tokenization.vocabulary import Vocabulary


class VocabularyOfText(Vocabulary):
    """The entries of a vocabulary that occur in a content, with ids of their own: few, so that tables are soon made.

    All single bytes and the first merge are among them, so that it is of the same kind as the vocabulary.

    Args:
        vocabulary: the vocabulary.
        content: the bytes.

    Attributes:
        original: the id of each entry in the vocabulary, ascending.
    """

    def __init__(self, vocabulary: Vocabulary, content: bytes):
        longest = max(map(len, vocabulary.pieces))
        texts = {content[i:j] for i in range(len(content)) for j in range(i + 1, min(len(content), i + longest) + 1)}
        texts |= {bytes([byte]) for byte in range(256)}
        for left, right in (vocabulary.merges or [])[:1]:
            texts |= {left, right, left + right}
        self.original = [
            i for i, piece in enumerate(vocabulary.pieces) if piece in texts or i == vocabulary.end_of_text
        ]
        self._own = {i: own for own, i in enumerate(self.original)}
        self._vocabulary = vocabulary

        def own(ids: frozenset[int]) -> list[int]:
            return [self._own[i] for i in ids if i in self._own]

        def no_encoder() -> Any:
            raise AssertionError("the vocabulary of a text encodes by that of its entries")

        super().__init__(
            name=vocabulary.name,
            pieces=[vocabulary.pieces[i] for i in self.original],
            special=own(vocabulary.special),
            unsplittable=own(vocabulary.never_split - vocabulary.special),
            added=own(vocabulary.added),
            end_of_text=self._own[vocabulary.end_of_text],
            encoder=no_encoder,
        )

    def own_ids(self, ids: Sequence[int]) -> list[int]:
        """The ids here of entries of the vocabulary; -1 for those that are not here."""
        return [self._own.get(i, -1) for i in ids]

    def encode(self, text: str) -> list[int]:
        return self.own_ids(self._vocabulary.encode(text))

    def pretokens(self, text: str) -> list[bytes]:
        return self._vocabulary.pretokens(text)

    @functools.cached_property
    def merges(self) -> list[tuple[bytes, bytes]] | None:
        entries = {*self.pieces}
        merges = self._vocabulary.merges
        return merges and [(left, right) for left, right in merges if entries >= {left, right, left + right}]

    @property
    def no_merges_reason(self) -> str:
        return self._vocabulary.no_merges_reason

    @functools.cached_property
    def whole_words(self) -> frozenset[int]:
        return frozenset(self._own[i] for i in self._vocabulary.whole_words if i in self._own)
