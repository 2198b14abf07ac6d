"""Vocabularies from SentencePiece models (`tokenizer.model`, `spiece.model`): encoded by SentencePiece itself.

`transformers` converts the model to a `tokenizer.json`, which checkpoints carry and which names the bytes of each
piece. Its ids are compared with SentencePiece's when the model is loaded, and a difference is a note.
"""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stochastok_cli.errors import Notice, UserError, first_line
from stochastok_cli.tokenization.encoders import concatenated, one_line_errors, reading_errors
from stochastok_cli.tokenization.tokenizer_json import vocabulary_from_tokenizer
from stochastok_cli.tokenization.tokenizers_encoder import SavedTokenizer, TokenizersEncoder, interruptible
from stochastok_cli.tokenization.verified_gigatoken import trial_texts
from stochastok_cli.tokenization.vocabulary import Vocabulary

_CONTROL, _USER_DEFINED = 3, 4
_INSTALL = "pip install 'stochastok[sentencepiece]'"


class SentencePieceEncoder(TokenizersEncoder):
    """Encodes text by SentencePiece. All else is that of the `tokenizers` tokenizer that its model was converted to.

    Args:
        model: the content of the model's file.
        saved: the converted tokenizer.
        never: see `TokenizersEncoder`.
    """

    def __init__(self, model: bytes, saved: SavedTokenizer, never: frozenset[int]):
        super().__init__(saved, never)
        self._model = model

    @functools.cached_property
    def _processor(self) -> Any:
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_proto=self._model)

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text], 1)[0].tolist()

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        for text in texts:
            with one_line_errors([text]):
                text.encode()
        encode = functools.partial(self._processor.encode, list(texts), num_threads=threads)
        return concatenated([np.array(ids, np.uint32) for ids in interruptible(encode)])


def read_sentencepiece(file: Path, name: str, end_of_text: str | None = None) -> Vocabulary:
    """The vocabulary of a SentencePiece model.

    Args:
        file: the model.
        name: what the vocabulary is called.
        end_of_text: the piece that ends a document; by default the model's own (`</s>`).

    Raises:
        UserError: for a file that is no such model, one that can't be converted, and without the extra `sentencepiece`.
    """
    model = file.read_bytes()
    try:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
        from tokenizers import AddedToken
        from transformers.convert_slow_tokenizer import SpmConverter, generate_merges  # noqa: F401

        convert = SpmConverter.build_tokenizer_from_spm_proto
    except (ImportError, AttributeError) as error:
        raise UserError(f"a SentencePiece model needs more packages ({first_line(error)})", fix=_INSTALL) from None
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model)
        processor = SentencePieceProcessor(model_proto=model)
    except Exception as error:  # protobuf and SentencePiece raise types of their own
        raise UserError(f"{file} is not a SentencePiece model: {first_line(error)}", fix="copy it anew") from None
    pieces = list(proto.pieces)
    if proto.trainer_spec.model_type not in (1, 2):
        raise UserError(f"{file} is a SentencePiece model of words or characters", fix="Unigram and BPE are supported")
    is_bpe = proto.trainer_spec.model_type == 2
    entries = {piece.piece: i for i, piece in enumerate(pieces)} if is_bpe else [(p.piece, p.score) for p in pieces]
    with reading_errors(file, "SentencePiece model"):
        tokenizer = convert(proto, entries)
    special = [piece.piece for piece in pieces if piece.type == _CONTROL] + [proto.trainer_spec.unk_piece]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    if end_of_text is None and processor.eos_id() >= 0:
        end_of_text = pieces[processor.eos_id()].piece
    encoder = functools.partial(SentencePieceEncoder, model)
    vocabulary = vocabulary_from_tokenizer(tokenizer, name, end_of_text, encoder=encoder)
    _compare(vocabulary._encoder, file)
    return vocabulary


def _compare(encoder: Any, file: Path) -> None:
    """Warns if the converted tokenizer gives other ids than SentencePiece."""
    texts = trial_texts(encoder._content)
    both = [encoder.encode_batch(texts, 1), encoder._encode_batch(texts)]
    ids, others = (np.split(all_ids, np.cumsum(lengths)[:-1]) for all_ids, lengths in both)
    differing = [text for text, a, b in zip(texts, ids, others, strict=True) if not np.array_equal(a, b)]
    if differing:
        warnings.warn(
            f"{file}: SentencePiece encodes text; the tokenizer.json of checkpoints, which transformers makes of it, "
            f"gives other ids for {len(differing):,} of {len(texts):,} texts, such as {differing[0][:40]!r}",
            Notice,
            stacklevel=2,
        )
