"""Vocabularies from Hugging Face `tokenizer.json` files: what each entry spells, judged by what it decodes to.

Four ways of writing text down in entries are known: byte-level (GPT-2, Llama 3, Qwen), SentencePiece's (`▁` for a
space, `<0xE2>` for a byte: Llama 2, T5), and WordPiece (`##` for what continues a word: BERT). An entry whose decoding
depends on its neighbours is set aside: it is never split, and no token is split into it.
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


def vocabulary_from_json(file: Path, name: str) -> Vocabulary:
    """Raises UserError for a file that is no tokenizer.json or a kind of tokenizer that is not supported."""
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
    return vocabulary_of(tokenizer, content, name, named.get("content") if isinstance(named, dict) else named)


def vocabulary_of(
    tokenizer: "tokenizers.Tokenizer", content: dict[str, Any], name: str, end_of_text: str | None = None
) -> Vocabulary:
    """The vocabulary of a tokenizer whose `tokenizer.json` holds `content`; `end_of_text` is the spelling of the token
    that ends a document, one of the usual ones where None."""
    kind = _kind(content, name)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    spellings = tokenizer.get_vocab(with_added_tokens=True)
    added = {token["id"]: token for token in content.get("added_tokens", [])}
    special = {i for i, token in added.items() if token["special"]}
    pieces = [b""] * (max(spellings.values()) + 1)
    for spelling, i in spellings.items():
        pieces[i] = spelling.encode() if i in added else _SPELL[kind](spelling)
    unknown = content["model"].get("unk_token")
    if unknown in spellings:
        special.add(spellings[unknown])
    for i in [i for i, piece in enumerate(pieces) if not piece]:
        special.add(i)
        pieces[i] = f"<|unused_{i}|>".encode()
    if kind == "byte-level":  # whose decoder takes an added token's letters for bytes
        special |= {i for i in added if tokenizer.decode([i], skip_special_tokens=False).encode() != pieces[i]}
    else:
        special |= _depending_on_neighbours(tokenizer, pieces, special)
    end = _end_of_text(spellings, end_of_text, name)
    return Vocabulary(
        name=name,
        pieces=pieces,
        special=special | {end},
        end_of_text=end,
        encoder=functools.partial(TokenizersEncoder, tokenizer),
    )


def _kind(content: dict[str, Any], where: str) -> str:
    model, decoder = content["model"], json.dumps(content.get("decoder"), ensure_ascii=False)
    kind = model.get("type")
    if kind == "BPE" and '"ByteLevel"' in decoder:
        return "byte-level"
    if kind in ("BPE", "Unigram") and _SPACE in decoder:
        return "sentencepiece"
    if kind == "WordPiece" and (content.get("decoder") or {}).get("prefix") == "##":
        return "wordpiece"
    raise UserError(
        f"{where} holds a {kind} tokenizer whose way of decoding is not supported",
        fix="byte-level BPE, SentencePiece (▁) BPE and Unigram, and WordPiece (##) are",
    )


def _byte_level(spelling: str) -> bytes:
    known = _BYTE_OF
    return bytes(known[c] for c in spelling) if all(c in known for c in spelling) else spelling.encode()


def _sentencepiece(spelling: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", spelling)
    return bytes.fromhex(byte[1]) if byte else spelling.replace(_SPACE, " ").encode()


def _wordpiece(spelling: str) -> bytes:
    """An entry that begins a word has a space before it; the first word of a text too, until it is decoded."""
    return spelling[2:].encode() if spelling.startswith("##") else b" " + spelling.encode()


_BYTE_OF = {character: byte for byte, character in enumerate(byte_characters())}
_SPELL = {"byte-level": _byte_level, "sentencepiece": _sentencepiece, "wordpiece": _wordpiece}


def _depending_on_neighbours(tokenizer: "tokenizers.Tokenizer", pieces: list[bytes], special: set[int]) -> set[int]:
    """The entries that do not decode to their own bytes between two ordinary words (`'s` in BERT's clean-up)."""
    word = next(
        (i for i, piece in enumerate(pieces) if i not in special and piece[:1] == b" " and piece[1:].isalpha()), None
    )
    if word is None:
        return set()
    about = pieces[word].decode()
    candidates = [i for i, piece in enumerate(pieces) if i not in special and not _is_part_of_a_character(piece)]
    decoded = tokenizer.decode_batch([[word, i, word] for i in candidates], skip_special_tokens=False)
    return {
        i
        for i, text in zip(candidates, decoded, strict=True)
        if text.removeprefix(" ") != (about + pieces[i].decode() + about).removeprefix(" ")
    }


def _is_part_of_a_character(piece: bytes) -> bool:
    return len(piece) == 1 and piece[0] >= 0x80


def _end_of_text(spellings: dict[str, int], named: str | None, name: str) -> int:
    for spelling in [named, END_OF_TEXT, *_OTHER_ENDS_OF_TEXT]:
        if spelling in spellings:
            return spellings[spelling]
    raise UserError(
        f"{name} has no end-of-text token",
        fix="name it: as eos_token of the tokenizer, or in a tokenizer_config.json beside its tokenizer.json",
    )
