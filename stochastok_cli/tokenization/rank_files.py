r"""Vocabularies from the ranks of a byte-level BPE: `.tiktoken` files, Mistral's tekken.json and `tiktoken.Encoding`.

A file of ranks has neither the pattern that divides text nor the special tokens. They are known for the published
encodings below, by the name of the file or by `pattern`.
"""

import base64
import binascii
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.errors import UserError, did_you_mean, first_line
from stochastok_cli.tokenization.encoders import TiktokenEncoder, one_line_errors
from stochastok_cli.tokenization.vocabulary import CUT_TEXTS, END_OF_TEXT, Vocabulary, pieces_by_id, require_dense

if TYPE_CHECKING:
    import tiktoken

_GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"""
    r"""\s+(?!\S)|\s"""
)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


class Published(NamedTuple):
    """What belongs to a published file of ranks.

    pattern: divides text into pretokens.
    ranks: the number of ranks in the published file.
    special: the special tokens of that file; with other numbers of ranks there is end-of-text alone.
    form: the Unicode normalization form of text, such as NFC; empty if text stays as it is.
    """

    pattern: str
    ranks: int
    special: dict[str, int]
    form: str = ""


def _numbered(first: int, *names: str) -> dict[str, int]:
    return {name: first + i for i, name in enumerate(names)}


PUBLISHED = {
    "gpt2": Published(_GPT2, 50_256, _numbered(50_256, END_OF_TEXT)),
    "cl100k": Published(
        _CL100K,
        100_256,
        _numbered(100_257, END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
        | {"<|endofprompt|>": 100_276},
    ),
    "o200k": Published(_O200K, 199_998, {END_OF_TEXT: 199_999, "<|endofprompt|>": 200_018}),
    "qwen": Published(
        _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
        151_643,
        _numbered(151_643, END_OF_TEXT, "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))),
        "NFC",
    ),
    "qwen35": Published(
        _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
        .replace(r"]?\p{L}+", r"]?[\p{L}\p{M}]+")
        .replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),
        248_044,
        _numbered(248_044, END_OF_TEXT, "<|im_start|>", "<|im_end|>"),
        "NFC",
    ),
    "llama3": Published(
        _LLAMA3,
        128_000,
        _numbered(
            128_000,
            "<|begin_of_text|>",
            "<|end_of_text|>",
            *(f"<|reserved_special_token_{i}|>" for i in range(2)),
            "<|finetune_right_pad_id|>",
            "<|reserved_special_token_2|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
            *(f"<|reserved_special_token_{i}|>" for i in range(3, 248)),
        ),
    ),
}
"""The published encodings by the name that `pattern` takes."""

_STEMS = {"r50k_base": "gpt2", "cl100k_base": "cl100k", "o200k_base": "o200k", "qwen3_6": "qwen35"}
_OTHER_ENDS_OF_TEXT = ("<|end_of_text|>", "</s>")
# The special tokens of tekken.json before its version 7, which does not list them.
_OLD_TEKKEN = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
_OLD_TEKKEN += ["[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"]
_OLD_TEKKEN += ["[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
# A pattern must match them all: control characters and punctuation, a combining mark, symbols, a private character.
_CHARACTERS = [*map(chr, range(128)), "\u0301", "\u20ac", "\U0001f600", "\u200d", "\u2028", "\ue000"]


def vocabulary_from_ranks(
    name: str,
    ranks: dict[bytes, int],
    special: Mapping[str, int],
    encoder: Callable[[], TiktokenEncoder],
    pretokenizes_like_gpt2: bool = False,
    end_of_text: str | None = None,
) -> Vocabulary:
    """The vocabulary of a byte-level BPE in the form that tiktoken uses.

    Args:
        name: what the vocabulary is called.
        ranks: the id of each token by its bytes (tiktoken's `mergeable_ranks`).
        special: the id of each special token by its name.
        encoder, pretokenizes_like_gpt2: see `Vocabulary`.
        end_of_text: the name of the special token that ends a document; by default `<|endoftext|>` or another usual
            name.

    Raises:
        UserError: if there is no such special token, or a special token has the id of an entry.
    """
    require_dense([*ranks.values(), *special.values()], name)
    pieces = pieces_by_id(dict.fromkeys(special.values(), b"") | {rank: piece for piece, rank in ranks.items()}, name)
    not_ordinary = [i for i, piece in enumerate(pieces) if not piece]
    special_names = {i: text for text, i in special.items()}
    for i in not_ordinary:
        pieces[i] = special_names.get(i, f"<|unused_{i}|>").encode()
    wanted = [end_of_text] if end_of_text is not None else [END_OF_TEXT, *_OTHER_ENDS_OF_TEXT]
    end = next((text for text in wanted if text in special), None)
    if end is None:
        has = f"; it has {', '.join([*special][:8])}{' …' * (len(special) > 8)}" if special else ""
        raise UserError(
            f"the tokenizer {name!r} has no {wanted[0]} token to end a document with{has}",
            fix="name one of its special tokens (--end-of-text, end_of_text=)",
        )
    return Vocabulary(
        name=name,
        pieces=pieces,
        special=not_ordinary,
        end_of_text=special[end],
        encoder=encoder,
        pretokenizes_like_gpt2=pretokenizes_like_gpt2,
    )


def vocabulary_from_encoding(
    encoding: "tiktoken.Encoding", name: str, end_of_text: str | None = None, form: str = ""
) -> Vocabulary:
    """The vocabulary of a `tiktoken.Encoding`.

    Args:
        encoding: the encoding.
        name: what the vocabulary is called.
        end_of_text: see `vocabulary_from_ranks`.
        form: the Unicode normalization form of text, such as NFC.
    """
    ranks, special = encoding._mergeable_ranks, encoding._special_tokens
    encoder = functools.partial(TiktokenEncoder, encoding, form=form)
    return vocabulary_from_ranks(name, ranks, special, encoder, end_of_text=end_of_text)


def are_ranks(content: bytes) -> bool:
    """Whether a file holds the ranks of a tiktoken encoding."""
    return re.match(rb"(?:[A-Za-z0-9+/]+={0,2} \d+\r?\n){1,3}", content[:10_000]) is not None


def read_ranks(file: Path, name: str, pattern: str | None = None, end_of_text: str | None = None) -> Vocabulary:
    """The vocabulary of a `.tiktoken` file.

    Args:
        file: lines of a token in base64 and its rank.
        name: what the vocabulary is called.
        pattern: the name of a published encoding whose pattern divides text, or a regular expression; by default it is
            known by the file's name.
        end_of_text: see `vocabulary_from_ranks`.

    Raises:
        UserError: for a file that is damaged, and a pattern that is not given or not a regular expression.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(
                f"{file}: line {number} is not a token in base64 and its rank", fix="copy it anew"
            ) from None
    key = pattern or _STEMS.get(file.stem, file.stem)
    published = PUBLISHED.get(key)
    if published is None and (pattern is None or not re.search(r"[\\|()\[\]]", pattern)):
        raise UserError(
            f"{file} has the ranks of an encoding alone, without the pattern that divides text"
            if pattern is None
            else f"no pattern is known by the name {pattern!r}{did_you_mean(pattern, PUBLISHED)}",
            fix=f"name it (--pattern, pattern=): {', '.join(PUBLISHED)}, or a regular expression",
        )
    if published is None:
        published = Published(key, -1, {})
    special = published.special
    if len(ranks) != published.ranks:
        special = {end_of_text or END_OF_TEXT: max(ranks.values(), default=-1) + 1}
    return _vocabulary(name, published.pattern, ranks, special, end_of_text, published.form)


def read_tekken(file: Path, content: dict[str, Any], name: str, end_of_text: str | None = None) -> Vocabulary:
    """The vocabulary of Mistral's tekken.json: special tokens first, then as many ranks as its configuration says.

    Args:
        file: the file, for errors.
        content: its JSON object.
        name: what the vocabulary is called.
        end_of_text: see `vocabulary_from_ranks`.
    """
    try:
        config = content["config"]
        num_special = config["default_num_special_tokens"]
        size = config["default_vocab_size"]
        ranks = {base64.b64decode(e["token_bytes"]): e["rank"] + num_special for e in content["vocab"]}
        ranks = {piece: i for piece, i in ranks.items() if i < size}
        listed = content.get("special_tokens") or [{"rank": i, "token_str": text} for i, text in enumerate(_OLD_TEKKEN)]
        special = {f"<SPECIAL_{i}>": i for i in range(len(listed), num_special)}
        special |= {token["token_str"]: token["rank"] for token in listed}
        pattern = str(config["pattern"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{file} is not a tekken.json: {reason}", fix="copy it anew") from None
    return _vocabulary(name, pattern, ranks, special, end_of_text)


def _vocabulary(
    name: str, pattern: str, ranks: dict[bytes, int], special: dict[str, int], end_of_text: str | None, form: str = ""
) -> Vocabulary:
    import tiktoken

    missing = next((byte for byte in range(256) if bytes([byte]) not in ranks), None)
    if missing is not None:
        raise UserError(f"{name} has no token for the byte {missing:#04x}", fix="every byte needs one")
    try:
        with one_line_errors(["a"]):
            encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
            encoding.encode_ordinary("a")
    except Exception as error:  # tiktoken passes on whatever its reader of regular expressions raises
        raise UserError(f"{name}: tiktoken can't use its pattern {pattern[:60]!r}: {first_line(error)}") from None
    require_lossless(encoding, name)
    return vocabulary_from_encoding(encoding, name, end_of_text, form)


def require_lossless(encoding: "tiktoken.Encoding", name: str) -> None:
    """Raises UserError if an encoding loses text that its pattern does not match, which tiktoken passes over."""
    for text in [*CUT_TEXTS, *_CHARACTERS]:
        with one_line_errors([text]):
            rest = encoding.decode_bytes(encoding.encode_ordinary(text))
        if rest != text.encode():
            raise UserError(
                f"{name}: its pattern {encoding._pat_str[:60]!r} leaves text out: of {text!r} there remains "
                f"{rest.decode(errors='replace')!r}",
                fix=r"let it match whatever else there is, with |[\s\S] at its end",
            )
