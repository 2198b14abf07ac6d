"""What a token is: its bytes, whether it is special, and how text becomes ids and back.

`load_vocabulary` is the one door: the bundled vocabularies, any tiktoken encoding, or a Hugging Face tokenizer.json.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from stochastok_cli.errors import FAILED, UserError, did_you_mean
from stochastok_cli.tokenization.encoders import Encoder, TiktokenEncoder
from stochastok_cli.tokenization.merges import ranks_from_merges, read_merges

BUNDLED = {"gpt2": "gpt2.bpe", "sample2k": "sample2k.bpe"}
END_OF_TEXT = "<|endoftext|>"


def state_without_caches(of: Any) -> dict[str, Any]:
    """What to pickle of an object: all but its cached properties, which may be large, or no matter of pickles."""
    return {k: v for k, v in vars(of).items() if not isinstance(getattr(type(of), k, None), functools.cached_property)}


class Vocabulary:
    """The entries of a tokenizer.

    Args:
        name: what the user called it.
        pieces: the bytes of each id; for a special token its spelling.
        special: the ids of the special tokens and of those not in use, which no text becomes.
        end_of_text: the id that ends a document.
        codec: makes the encoder when it is first needed (a memmap can be expanded without one).

    It can be pickled, as workers of other libraries need it.
    """

    def __init__(
        self,
        *,
        name: str,
        pieces: list[bytes],
        special: Iterable[int],
        end_of_text: int,
        encoder: Callable[[], Encoder],
    ):
        self.name = name
        self.pieces = pieces
        self.special = frozenset(special)
        self.end_of_text = end_of_text
        self._make_encoder = encoder

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return self._make_encoder()

    @property
    def size(self) -> int:
        """The number of ids; the largest is `size - 1`."""
        return len(self.pieces)

    @property
    def dtype(self) -> np.dtype:
        """The type of ids on disk: little-endian uint16 where every id fits, else uint32."""
        return np.dtype("<u2") if self.size <= 2**16 else np.dtype("<u4")

    @functools.cached_property
    def widths(self) -> np.ndarray:
        """The number of bytes of each id: int64 `(size,)`."""
        return np.array([len(piece) for piece in self.pieces], dtype=np.int64)

    @functools.cached_property
    def text_widths(self) -> np.ndarray:
        """The same, with 0 for special tokens, which spell no text."""
        widths = self.widths.copy()
        widths[sorted(self.special)] = 0
        return widths

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash over every id's bytes, the special ids and the end-of-text id; equal for equal vocabularies."""
        lengths = self.widths.astype("<u4")
        special = np.array([*sorted(self.special), self.end_of_text], dtype="<u4")
        return hashlib.sha256(b"|".join([lengths.tobytes(), special.tobytes(), *self.pieces])).hexdigest()[:32]

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint and size, as a manifest holds them."""
        return {"name": self.name, "fingerprint": self.fingerprint, "size": self.size}

    def encode(self, text: str) -> list[int]:
        """The canonical token ids of `text`; the spelling of a special token is ordinary text."""
        return self._encoder.encode(text)

    def encode_continuation(self, text: str) -> list[int]:
        """The ids of `text` where it follows another text. They differ from `encode` only for tokenizers that put a
        space before every text (Llama 2's): a text that begins with one then gets no second."""
        ids = self.encode(text)
        if text.startswith(" ") and self.decode_bytes(ids) != text.encode():
            without = self.encode(text[1:])
            if self.decode_bytes(without) == text.encode():
                return without
        return ids

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after the other (dtype `self.dtype`) and each text's number of ids (int64)."""
        ids, lengths = self._encoder.encode_batch(texts, threads)
        return ids.astype(self.dtype, copy=False), lengths

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        pieces = self.pieces
        return b"".join([pieces[i] for i in ids])

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id; for a special token its spelling."""
        return self.pieces[token]

    def is_special(self, token: int) -> bool:
        return token in self.special

    @functools.cached_property
    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """The merge list of a byte-level BPE, best rank first; None for another kind of tokenizer."""
        return self._encoder.merges()

    @functools.cached_property
    def unknown(self) -> int | None:
        """The id that stands for what the vocabulary can't spell; None where it can spell everything."""
        return self._encoder.unknown()

    def pretokens(self, text: str) -> list[str]:
        """The pieces of `text` that byte-pair encoding never merges across; they concatenate to it."""
        return self._encoder.pretokens(text)

    @property
    def cuts_like_gpt2(self) -> bool:
        """Whether `pretokens` follows GPT-2's pattern, for which there is compiled code."""
        return self.name in BUNDLED

    def save_tokenizer(self, folder: Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which Hugging Face transformers opens."""
        special = {self.pieces[i].decode(): i for i in sorted(self.special)}
        end = self.pieces[self.end_of_text].decode()
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end,
            "bos_token": end,
            "unk_token": end,
            "pad_token": end,
        }
        config |= {"clean_up_tokenization_spaces": False, "stochastok_vocabulary": self.name}
        (folder / "tokenizer.json").write_text(self._encoder.tokenizer_json(special), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"Vocabulary({self.name!r}, size={self.size})"


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """A vocabulary by the name of a bundled one (`gpt2`, `sample2k`) or of a tiktoken encoding, or from the path of a
    `tokenizer.json` or of a folder that holds one (`./gpt2` where it is called like a bundled one).

    Raises UserError for a name that is unknown or can't be downloaded and for a file that is not supported.

    >>> gpt2 = load_vocabulary("gpt2")
    >>> gpt2.size, gpt2.encode("Hello world"), gpt2.token_bytes(995)
    (50257, [15496, 995], b' world')
    """
    name = str(name_or_path)
    path = Path(name_or_path)
    if name in BUNDLED and isinstance(name_or_path, Path):
        name = f"./{name}"
    if name not in BUNDLED and (path.is_dir() or path.suffix == ".json"):
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{file} does not exist", fix="give a tokenizer.json or a folder that holds one")
        from stochastok_cli.tokenization.tokenizer_json import vocabulary_from_json

        return vocabulary_from_json(file, name)
    return _from_tiktoken(name)


def vocabulary_for(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a name or path (as `load_vocabulary`), of a tokenizer on the Hugging Face Hub by its name
    (`owner/name`), or of a `tokenizers` or fast `transformers` tokenizer, which is copied."""
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    if isinstance(tokenizer, str | Path):
        from stochastok_cli import hub

        if "/" not in str(tokenizer) or Path(tokenizer).exists() or not hub.is_repo_id(str(tokenizer)):
            return load_vocabulary(tokenizer)
        return load_vocabulary(hub.tokenizer_folder(str(tokenizer)))
    import tokenizers

    from stochastok_cli.tokenization.tokenizer_json import vocabulary_of

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise UserError(
            f"a {type(tokenizer).__name__} is no fast tokenizer", fix="use AutoTokenizer with use_fast=True"
        )
    copy = backend.to_str()
    name = getattr(tokenizer, "name_or_path", "") or "a tokenizer"
    end = getattr(tokenizer, "eos_token", None)
    return vocabulary_of(tokenizers.Tokenizer.from_str(copy), json.loads(copy), name, end_of_text=end)


@functools.cache
def _from_tiktoken(name: str) -> Vocabulary:
    if name in BUNDLED:
        _, ranks = _bundled(name)
        return _from_ranks(name, ranks, {END_OF_TEXT: len(ranks)}, functools.partial(_bundled_encoder, name))
    import tiktoken

    known = tiktoken.list_encoding_names()
    if name not in known:
        names = [*BUNDLED, *(n for n in known if n not in BUNDLED)]
        raise UserError(
            f"unknown tokenizer {name!r}{did_you_mean(name, names)}",
            fix=f"give {', '.join(names)}, or the path of a tokenizer.json",
        )
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # tiktoken lets through whatever its download or its cache raises
        raise UserError(
            f"tiktoken could not fetch {name}: {str(error).splitlines()[0][:200]}",
            fix="it needs the network once, or TIKTOKEN_CACHE_DIR pointing at a copy",
            exit_code=FAILED,
        ) from None
    ranks, special = encoding._mergeable_ranks, encoding._special_tokens
    return _from_ranks(name, ranks, special, functools.partial(TiktokenEncoder, encoding))


@functools.cache
def _bundled(name: str) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """The merge list and the mergeable ranks of a bundled vocabulary."""
    merges = read_merges((resources.files("stochastok_cli") / "assets" / BUNDLED[name]).read_text(encoding="utf-8"))
    return merges, ranks_from_merges(merges)


def _bundled_encoder(name: str) -> TiktokenEncoder:
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    merges, ranks = _bundled(name)
    encoding = tiktoken.Encoding(
        name, pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )
    return TiktokenEncoder(encoding, merges)


def _from_ranks(
    name: str, ranks: dict[bytes, int], special: dict[str, int], encoder: Callable[[], TiktokenEncoder]
) -> Vocabulary:
    pieces = [b""] * (max([*ranks.values(), *special.values()]) + 1)
    for piece, rank in ranks.items():
        pieces[rank] = piece
    not_ordinary = [i for i, piece in enumerate(pieces) if not piece]
    spellings = {i: text for text, i in special.items()}
    for i in not_ordinary:
        pieces[i] = spellings.get(i, f"<|unused_{i}|>").encode()
    if END_OF_TEXT not in special:
        raise UserError(f"the tokenizer {name!r} has no {END_OF_TEXT} token to end a document with")
    return Vocabulary(name=name, pieces=pieces, special=not_ordinary, end_of_text=special[END_OF_TEXT], encoder=encoder)
