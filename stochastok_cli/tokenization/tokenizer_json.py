"""Vocabularies from Hugging Face `tokenizer.json` files: the bytes of each entry, judged by what it decodes to.

Three ways of writing bytes as entries are known: byte-level (GPT-2, Llama 3, Qwen), SentencePiece (`▁` for a space,
`<0xE2>` for a byte: Llama 2, T5), and WordPiece (`##` for the continuation of a word: BERT). An entry whose decoding
depends on its neighbors is never split, and no token is split into it.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError
from stochastok_cli.json_files import read_json
from stochastok_cli.tokenization.automatic_tokenizer import compare_with_transformers
from stochastok_cli.tokenization.encoders import Encoder, reading_errors
from stochastok_cli.tokenization.merges import bytes_of_characters
from stochastok_cli.tokenization.other_formats import other_format
from stochastok_cli.tokenization.tokenizer_settings import (
    SPACE,
    apply_config,
    check_fields,
    entry_encoding,
    has_byte_tokens,
    named_end_of_text,
    notice_settings,
    require_all_text,
    unknown_token,
)
from stochastok_cli.tokenization.tokenizers_encoder import SavedTokenizer, TokenizersEncoder
from stochastok_cli.tokenization.vocabulary import END_OF_TEXT, Vocabulary, pieces_by_id, require_dense

if TYPE_CHECKING:
    import tokenizers

_OTHER_ENDS_OF_TEXT = ("<|end_of_text|>", "</s>", "<|im_end|>", "<eos>", "[SEP]", "<EOT>", "<｜end▁of▁sentence｜>")


def read_tokenizer_json(
    file: Path, name: str, end_of_text: str | None = None, given: dict[str, Any] | None = None
) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, with the `tokenizer_config.json` beside it.

    Args:
        file: the path of the `tokenizer.json`.
        name: what the vocabulary is called.
        end_of_text: the name of the token that ends a document, before that of the configuration.
        given: its JSON object, if it is read already.

    Raises:
        UserError: for a file that is not a `tokenizer.json`, and for a kind of tokenizer that is not supported.
    """
    import tokenizers

    if given is None:
        given = read_json(file, dict[str, Any], fix="copy it anew")
    if not isinstance(given.get("model"), dict):
        raise UserError(f"{file} is not a tokenizer.json{other_format(file, given)}", fix="give a tokenizer.json")
    check_fields(given, name)
    if isinstance(vocabulary := given["model"].get("vocab"), dict):
        require_dense((i for i in vocabulary.values() if isinstance(i, int)), name)
    with reading_errors(file):
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    for token in given.get("added_tokens") or ():
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            raise UserError(
                f"{file}: the added token {token['content'][:60]!r} has the id {token['id']}, and tokenizers gives it "
                f"{tokenizer.token_to_id(token['content'])}",
                fix="ids of added tokens follow those of the vocabulary without a gap",
            )
    config_file = file.with_name("tokenizer_config.json")
    config = read_json(config_file, dict[str, Any], fix="copy it anew") if config_file.is_file() else {}
    vocabulary = vocabulary_from_tokenizer(tokenizer, name, end_of_text, config=config)
    if file.name == "tokenizer.json":
        compare_with_transformers(vocabulary, file.parent, config)
    return vocabulary


def vocabulary_from_tokenizer(
    tokenizer: "tokenizers.Tokenizer",
    name: str,
    end_of_text: str | None = None,
    config: dict[str, Any] | None = None,
    encoder: Callable[..., Encoder] = TokenizersEncoder,
) -> Vocabulary:
    """The vocabulary of a `tokenizers` tokenizer.

    Args:
        tokenizer: the tokenizer; its truncation, its padding and the dropout of its model are switched off.
        name: what the vocabulary is called.
        end_of_text: the name of the token that ends a document; if None, the one in `config` or one of the usual names.
        config: its `tokenizer_config.json`.
        encoder: makes the encoder of the `SavedTokenizer` and the ids that no text may be encoded to.

    Raises:
        UserError: for a kind of tokenizer that is not supported, and for one without an end-of-text token.
    """
    import tokenizers

    tokenizer.no_truncation()
    tokenizer.no_padding()
    content = json.loads(tokenizer.to_str())
    saved_tokens = json.dumps(content["added_tokens"])
    encoding = entry_encoding(content, name)
    entries = tokenizer.get_vocab(with_added_tokens=True)
    if config:
        apply_config(content, config, entries, name)
        end_of_text = end_of_text or named_end_of_text(config, name)
    end = _end_of_text(entries, end_of_text, name)
    added = {token["id"]: token for token in content["added_tokens"]}
    special = {i for i, token in added.items() if token["special"]} | {entries[end]}
    unknown = entries.get(unknown_token(content["model"]) or "")
    in_model = {e: i for e, i in entries.items() if i not in added or tokenizer.model.token_to_id(e) is not None}
    require_all_text(content, encoding, {e for e, i in in_model.items() if i not in special}, end, name)
    to_bytes = functools.partial(_TO_BYTES[encoding], has_bytes=has_byte_tokens(content))
    names = {*added, entries[end]}  # which are written as they are
    pieces = pieces_by_id({i: e.encode() if i in names else to_bytes(e) for e, i in entries.items()}, name)
    unused = {i for i, piece in enumerate(pieces) if not piece}
    for i in unused:
        pieces[i] = f"<|unused_{i}|>".encode()
    special |= unused
    notice_settings(content, frozenset(special), name)
    saved = SavedTokenizer(tokenizer, content)
    if content["model"].get("dropout") or json.dumps(content["added_tokens"]) != saved_tokens:
        content["model"].pop("dropout", None)
        with reading_errors(name):
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
        saved = SavedTokenizer(tokenizer)  # `tokenizers` writes it in a form of its own
    from_unknown = set() if unknown in (None, entries[end]) else {unknown}
    if encoding == "byte-level":  # its decoder reads the letters of an added token as bytes
        changed = {i for i in added if tokenizer.decode([i], skip_special_tokens=False).encode() != pieces[i]}
    else:
        changed = _depending_on_neighbors(tokenizer, pieces, special | from_unknown)
    return Vocabulary(
        name=name,
        pieces=pieces,
        special=special | from_unknown,
        unsplittable=changed,
        added=[i for i in added if i not in special],
        end_of_text=entries[end],
        encoder=functools.partial(encoder, saved, frozenset(special - from_unknown)),
    )


def _bytes_of_byte_level(entry: str, has_bytes: bool) -> bytes:
    try:
        return bytes_of_characters(entry)
    except UnicodeEncodeError:  # a letter that stands for no byte
        return entry.encode()


def _bytes_of_sentencepiece(entry: str, has_bytes: bool) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", entry) if has_bytes else None
    return bytes.fromhex(byte[1]) if byte else entry.replace(SPACE, " ").encode()


def _bytes_of_wordpiece(entry: str, has_bytes: bool) -> bytes:
    """An entry that begins a word has a space before it, even the first word of a text, until it is decoded."""
    return entry[2:].encode() if entry.startswith("##") else b" " + entry.encode()


_TO_BYTES = {
    "byte-level": _bytes_of_byte_level,
    "sentencepiece": _bytes_of_sentencepiece,
    "wordpiece": _bytes_of_wordpiece,
}


def _depending_on_neighbors(tokenizer: "tokenizers.Tokenizer", pieces: list[bytes], special: set[int]) -> set[int]:
    """The ids that do not decode to their own bytes between two ordinary words (`'s` when BERT cleans spaces up)."""
    word = next(
        (i for i, piece in enumerate(pieces) if i not in special and piece[:1] == b" " and piece[1:].isalpha()), None
    )
    if word is None:
        return set()
    neighbor = pieces[word].decode()
    candidates = [i for i, piece in enumerate(pieces) if i not in special and not _is_part_of_a_character(piece)]
    decoded = tokenizer.decode_batch([[word, i, word] for i in candidates], skip_special_tokens=False)
    return {
        i
        for i, text in zip(candidates, decoded, strict=True)
        if text.removeprefix(" ") != (neighbor + pieces[i].decode() + neighbor).removeprefix(" ")
    }


def _is_part_of_a_character(piece: bytes) -> bool:
    return len(piece) == 1 and piece[0] >= 0x80


def _end_of_text(entries: dict[str, int], named: str | None, name: str) -> str:
    if named is not None and named not in entries:
        raise UserError(f"{name} names {named[:60]!r} as its end-of-text token, and has no such token")
    for entry in [named] if named is not None else [END_OF_TEXT, *_OTHER_ENDS_OF_TEXT]:
        if entry in entries:
            return entry
    raise UserError(
        f"{name} has no end-of-text token",
        fix="name it: as eos_token of the tokenizer, or in a tokenizer_config.json beside its tokenizer.json",
    )
