"""Functions that return a `Vocabulary`: bundled, from tiktoken, from a `tokenizer.json` or a tokenizer object."""

import functools
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from stochastok_cli import hub
from stochastok_cli.errors import FAILED, UserError, did_you_mean
from stochastok_cli.tokenization.encoders import TiktokenEncoder
from stochastok_cli.tokenization.merges import ranks_from_merges, read_merges
from stochastok_cli.tokenization.other_formats import SUFFIXES, other_files, other_format
from stochastok_cli.tokenization.tokenizer_json import read_tokenizer_json, vocabulary_from_tokenizer
from stochastok_cli.tokenization.tokenizer_settings import notice_sampling
from stochastok_cli.tokenization.vocabulary import END_OF_TEXT, Vocabulary, pieces_by_id, require_dense

BUNDLED = {"gpt2": "gpt2.bpe", "sample2k": "sample2k.bpe"}
"""The vocabularies in the package, by name, and the merge list of each."""


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """A vocabulary by name or path.

    Args:
        name_or_path: the name of a bundled vocabulary (`gpt2`, `sample2k`) or of a tiktoken encoding, the path of a
            `tokenizer.json` or of a folder that contains one (write `./gpt2` for a folder with a bundled name), or the
            name of a tokenizer on the Hugging Face Hub (`owner/name`, `owner/name@revision`).

    Raises:
        UserError: for a name that is unknown or can't be downloaded, and for a file that is not supported.

    >>> gpt2 = load_vocabulary("gpt2")
    >>> gpt2.size, gpt2.encode("Hello world"), gpt2.token_bytes(995)
    (50257, [15496, 995], b' world')
    """
    path = tokenizer_path(name_or_path)
    name = str(name_or_path)
    if path is None:
        return _bundled_vocabulary(name) if name in BUNDLED else _tiktoken_vocabulary(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".json":
        problem = (
            f"is not a tokenizer.json{other_format(file)}" if file.is_file() else f"does not exist{other_files(path)}"
        )
        raise UserError(f"{file} {problem}", fix="give a tokenizer.json or a folder that holds one")
    return read_tokenizer_json(file, f"./{name}" if name in BUNDLED else name)


def tokenizer_path(name_or_path: str | Path) -> Path | None:
    """The folder or the file of a tokenizer by name or path, as `load_vocabulary` takes it.

    A tokenizer on the Hub is downloaded. Returns None for the name of a bundled vocabulary and for any that can only
    be the name of a tiktoken encoding.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in BUNDLED and not isinstance(name_or_path, Path):
        return None
    if path.is_dir() or path.suffix in SUFFIXES:
        return path
    repo, revision = hub.parse_repo_id(name)
    return hub.tokenizer_folder(repo, revision) if "/" in repo and hub.is_repo_id(repo) else None


def vocabulary_for(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer in any form.

    Args:
        tokenizer: a vocabulary, a name or path that `load_vocabulary` takes, or a `tokenizers` or fast `transformers`
            tokenizer, which is copied.

    Raises:
        UserError: for anything else.
    """
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    if isinstance(tokenizer, str | Path):
        return load_vocabulary(tokenizer)
    import tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise UserError(
            f"a {type(tokenizer).__name__} is no fast tokenizer", fix="use AutoTokenizer with use_fast=True"
        )
    name = getattr(tokenizer, "name_or_path", "") or "a tokenizer"
    require_dense(backend.get_vocab().values(), name)
    notice_sampling(getattr(backend.model, "alpha", None), name)
    end = getattr(tokenizer, "eos_token", None)
    return vocabulary_from_tokenizer(tokenizers.Tokenizer.from_str(backend.to_str()), name, end_of_text=end)


def vocabulary_from_ranks(
    name: str,
    ranks: dict[bytes, int],
    special: dict[str, int],
    encoder: Callable[[], TiktokenEncoder],
    pretokenizes_like_gpt2: bool = False,
) -> Vocabulary:
    """The vocabulary of a byte-level BPE in the form that tiktoken uses.

    Args:
        name: what the vocabulary is called.
        ranks: the id of each token by its bytes (tiktoken's `mergeable_ranks`).
        special: the id of each special token by its name.
        encoder, pretokenizes_like_gpt2: see `Vocabulary`.

    Raises:
        UserError: if there is no special token `<|endoftext|>`, or it has the id of an entry.
    """
    require_dense([*ranks.values(), *special.values()], name)
    pieces = pieces_by_id(dict.fromkeys(special.values(), b"") | {rank: piece for piece, rank in ranks.items()}, name)
    not_ordinary = [i for i, piece in enumerate(pieces) if not piece]
    special_names = {i: text for text, i in special.items()}
    for i in not_ordinary:
        pieces[i] = special_names.get(i, f"<|unused_{i}|>").encode()
    if END_OF_TEXT not in special:
        raise UserError(f"the tokenizer {name!r} has no {END_OF_TEXT} token to end a document with")
    return Vocabulary(
        name=name,
        pieces=pieces,
        special=not_ordinary,
        end_of_text=special[END_OF_TEXT],
        encoder=encoder,
        pretokenizes_like_gpt2=pretokenizes_like_gpt2,
    )


@functools.cache
def _bundled_vocabulary(name: str) -> Vocabulary:
    _, ranks = _bundled_merges(name)
    special = {END_OF_TEXT: len(ranks)}
    return vocabulary_from_ranks(
        name, ranks, special, functools.partial(_bundled_encoder, name), pretokenizes_like_gpt2=True
    )


@functools.cache
def _bundled_merges(name: str) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """The merge list and the mergeable ranks of a bundled vocabulary."""
    merges = read_merges((resources.files("stochastok_cli") / "assets" / BUNDLED[name]).read_text(encoding="utf-8"))
    return merges, ranks_from_merges(merges)


def _bundled_encoder(name: str) -> TiktokenEncoder:
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    merges, ranks = _bundled_merges(name)
    encoding = tiktoken.Encoding(
        name, pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )
    return TiktokenEncoder(encoding, merges)


@functools.cache
def _tiktoken_vocabulary(name: str) -> Vocabulary:
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
    except Exception as error:  # tiktoken passes on whatever its download or its cache raises
        raise UserError(
            f"tiktoken could not fetch {name}: {str(error).splitlines()[0][:200]}",
            fix="it needs the network once, or TIKTOKEN_CACHE_DIR pointing at a copy",
            exit_code=FAILED,
        ) from None
    ranks, special = encoding._mergeable_ranks, encoding._special_tokens
    return vocabulary_from_ranks(name, ranks, special, functools.partial(TiktokenEncoder, encoding))
