"""Vocabularies from Hugging Face `tokenizer.json` files: the bytes of each entry, judged by what it decodes to.

Three ways of writing bytes as entries are known: byte-level (GPT-2, Llama 3, Qwen), SentencePiece (`▁` for a space,
`<0xE2>` for a byte: Llama 2, T5), and WordPiece (`##` for the continuation of a word: BERT). An entry whose decoding
depends on its neighbors counts as special: it is never split, and no token is split into it.
"""

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.encoders import TokenizersEncoder
from stochastok_cli.tokenization.merges import byte_characters
from stochastok_cli.tokenization.vocabulary import END_OF_TEXT, Vocabulary

if TYPE_CHECKING:
    import tokenizers

_OTHER_ENDS_OF_TEXT = ("<|end_of_text|>", "</s>", "<|im_end|>", "<eos>", "[SEP]")
_SPACE = "▁"


def read_tokenizer_json(file: Path, name: str) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`. A `tokenizer_config.json` beside it names the end-of-text token.

    Args:
        file: the path of the `tokenizer.json`.
        name: what the vocabulary is called.

    Raises:
        UserError: for a file that is not a `tokenizer.json`, and for a kind of tokenizer that is not supported.
    """
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        content = json.loads(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file} is not a tokenizer.json: {str(error).splitlines()[0][:200]}") from None
    config = file.with_name("tokenizer_config.json")
    try:
        named: Any = json.loads(config.read_text(encoding="utf-8")).get("eos_token") if config.is_file() else None
    except (ValueError, AttributeError):
        raise UserError(f"{config} is damaged", fix="remove it, or copy it anew") from None
    end_of_text = named.get("content") if isinstance(named, dict) else named
    return vocabulary_from_tokenizer(tokenizer, content, name, end_of_text)


def vocabulary_from_tokenizer(
    tokenizer: "tokenizers.Tokenizer", content: dict[str, Any], name: str, end_of_text: str | None = None
) -> Vocabulary:
    """The vocabulary of a `tokenizers` tokenizer.

    Args:
        tokenizer: the tokenizer; its truncation and padding are switched off.
        content: its `tokenizer.json`.
        name: what the vocabulary is called.
        end_of_text: the name of the token that ends a document; if None, one of the usual names.

    Raises:
        UserError: for a kind of tokenizer that is not supported, and for one without an end-of-text token.
    """
    encoding = _entry_encoding(content, name)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    entries = tokenizer.get_vocab(with_added_tokens=True)
    added = {token["id"]: token for token in content.get("added_tokens", [])}
    special = {i for i, token in added.items() if token["special"]}
    pieces = [b""] * (max(entries.values()) + 1)
    for entry, i in entries.items():
        pieces[i] = entry.encode() if i in added else _TO_BYTES[encoding](entry)
    unknown = content["model"].get("unk_token")
    if unknown in entries:
        special.add(entries[unknown])
    for i in [i for i, piece in enumerate(pieces) if not piece]:
        special.add(i)
        pieces[i] = f"<|unused_{i}|>".encode()
    if encoding == "byte-level":  # its decoder reads the letters of an added token as bytes
        special |= {i for i in added if tokenizer.decode([i], skip_special_tokens=False).encode() != pieces[i]}
    else:
        special |= _depending_on_neighbors(tokenizer, pieces, special)
    end = _end_of_text_id(entries, end_of_text, name)
    return Vocabulary(
        name=name,
        pieces=pieces,
        special=special | {end},
        end_of_text=end,
        encoder=functools.partial(TokenizersEncoder, tokenizer),
    )


def _entry_encoding(content: dict[str, Any], name: str) -> str:
    """How the entries of a tokenizer are written: `byte-level`, `sentencepiece` or `wordpiece`."""
    model, decoder = content["model"], json.dumps(content.get("decoder"), ensure_ascii=False)
    kind = model.get("type")
    if kind == "BPE" and '"ByteLevel"' in decoder:
        return "byte-level"
    if kind in ("BPE", "Unigram") and _SPACE in decoder:
        return "sentencepiece"
    if kind == "WordPiece" and (content.get("decoder") or {}).get("prefix") == "##":
        return "wordpiece"
    raise UserError(
        f"{name} holds a {kind} tokenizer whose way of decoding is not supported",
        fix="byte-level BPE, SentencePiece (▁) BPE and Unigram, and WordPiece (##) are",
    )


def _bytes_of_byte_level(entry: str) -> bytes:
    return bytes(_BYTE_OF[c] for c in entry) if all(c in _BYTE_OF for c in entry) else entry.encode()


def _bytes_of_sentencepiece(entry: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", entry)
    return bytes.fromhex(byte[1]) if byte else entry.replace(_SPACE, " ").encode()


def _bytes_of_wordpiece(entry: str) -> bytes:
    """An entry that begins a word has a space before it, even the first word of a text, until it is decoded."""
    return entry[2:].encode() if entry.startswith("##") else b" " + entry.encode()


_BYTE_OF = {character: byte for byte, character in enumerate(byte_characters())}
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


def _end_of_text_id(entries: dict[str, int], end_of_text: str | None, name: str) -> int:
    for entry in [end_of_text, END_OF_TEXT, *_OTHER_ENDS_OF_TEXT]:
        if entry in entries:
            return entries[entry]
    raise UserError(
        f"{name} has no end-of-text token",
        fix="name it: as eos_token of the tokenizer, or in a tokenizer_config.json beside its tokenizer.json",
    )
