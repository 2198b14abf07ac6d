"""Small vocabularies whose expansions can be enumerated."""

from stochastok_cli.tokenization.vocabulary import Vocabulary


def toy_vocabulary(*pieces: str) -> Vocabulary:
    """A vocabulary of these entries and an end-of-text token behind them, without an encoder."""
    entries = [piece.encode() for piece in pieces]

    def no_encoder():
        raise AssertionError("a toy vocabulary encodes nothing")

    return Vocabulary(
        name="toy",
        pieces=[*entries, b"<|endoftext|>"],
        special=[len(entries)],
        end_of_text=len(entries),
        encoder=no_encoder,
    )


def ids_of(vocabulary: Vocabulary, *pieces: str) -> list[int]:
    return [vocabulary.pieces.index(piece.encode()) for piece in pieces]
