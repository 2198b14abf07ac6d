"""Functions that return a `Vocabulary`: by name, from a tokenizer's file of any format, or from a tokenizer object."""

import functools
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from stochastok_cli import hub
from stochastok_cli.errors import FAILED, UserError, did_you_mean, first_line, short_repr, similar_path
from stochastok_cli.json_files import read_json
from stochastok_cli.tokenization import BUNDLED
from stochastok_cli.tokenization.encoders import TiktokenEncoder
from stochastok_cli.tokenization.merges import read_merges, read_merges_as_ranks
from stochastok_cli.tokenization.other_formats import SUFFIXES, other_files, other_format
from stochastok_cli.tokenization.rank_files import (
    are_ranks,
    read_ranks,
    read_tekken,
    require_lossless,
    vocabulary_from_encoding,
    vocabulary_from_ranks,
)
from stochastok_cli.tokenization.sentencepiece_model import read_sentencepiece
from stochastok_cli.tokenization.tokenizer_json import read_tokenizer_json, vocabulary_from_tokenizer
from stochastok_cli.tokenization.tokenizer_settings import notice_sampling
from stochastok_cli.tokenization.vocabulary import END_OF_TEXT, Vocabulary, require_dense

_LONGEST_NAME = 1_000  # characters of a name or path


def load_vocabulary(
    name_or_path: str | Path, *, end_of_text: str | None = None, pattern: str | None = None
) -> Vocabulary:
    """A vocabulary by name or path.

    Args:
        name_or_path: the name of a bundled vocabulary (`gpt2`, `sample2k`) or of a tiktoken encoding, the path of a
            tokenizer's file or of a folder that contains one (write `./gpt2` for a folder with a bundled name), or the
            name of a tokenizer on the Hugging Face Hub (`owner/name`, `owner/name@revision`). The files are
            `tokenizer.json`, Mistral's `tekken.json`, SentencePiece models (extra `sentencepiece`) and ranks of
            tiktoken. The two options may be part of it: `qwen.bin.tiktoken?pattern=qwen&end_of_text=<|im_end|>`.
        end_of_text: the name of the token that ends a document, where it is not the usual one.
        pattern: for a file of ranks: the published encoding whose pattern divides text (`gpt2`, `cl100k`, `o200k`,
            `qwen`, `qwen35`, `llama3`), or a regular expression.

    Raises:
        UserError: for a name that is unknown or can't be downloaded, and for a file that is not supported.

    >>> gpt2 = load_vocabulary("gpt2")
    >>> gpt2.size, gpt2.encode("Hello world"), gpt2.token_bytes(995)
    (50257, [15496, 995], b' world')
    """
    name = with_options(name_or_path, end_of_text=end_of_text, pattern=pattern)
    base, options = split_options(name)
    if not base:
        raise UserError("the name of the tokenizer is empty", fix="give a name, a file or a folder")
    if len(base) > _LONGEST_NAME:
        raise UserError(f"unknown tokenizer {short_repr(base)}: no name has {len(base):,} characters")
    path = tokenizer_path(name if isinstance(name_or_path, str) else Path(name))
    end_of_text, pattern = options.get("end_of_text"), options.get("pattern")
    if path is None:
        if pattern is not None:
            raise UserError(f"{base} has a pattern of its own", fix="drop --pattern")
        return _bundled_vocabulary(base, name) if base in BUNDLED and not options else _named(base, name, end_of_text)
    name = f"./{name}" if base in BUNDLED else name
    file = tokenizer_file(path)
    if not os.path.isfile(file):
        on_hub = hub.repo_of_snapshot(path)
        what = f"{on_hub[0]} on the Hub has no tokenizer.json" if on_hub else f"{file} does not exist"
        hint = other_files(path) if path.exists() else similar_path(path)
        raise UserError(f"{what}{hint}", fix="give a tokenizer.json or a folder that holds one")
    return _read(file, name, end_of_text, pattern)


def _read(file: Path, name: str, end_of_text: str | None, pattern: str | None) -> Vocabulary:
    """The vocabulary in a file of any format."""
    is_json = file.suffix == ".json"
    ranks = file.suffix == ".tiktoken" or (not is_json and are_ranks(file.read_bytes()[:10_000]))
    if pattern is not None and not ranks:
        raise UserError(f"{file} is no file of ranks, and has a pattern of its own", fix="drop --pattern")
    if ranks:
        return read_ranks(file, name, pattern, end_of_text)
    if is_json:
        content = read_json(file, dict[str, Any], fix="copy it anew")
        if _is_tekken(content):
            return read_tekken(file, content, name, end_of_text)
        return read_tokenizer_json(file, name, end_of_text, content)
    if file.suffix == ".model" or ".model." in file.name:
        return read_sentencepiece(file, name, end_of_text)
    raise UserError(
        f"{file} is not a tokenizer.json{other_format(file)}", fix="give a tokenizer.json or a folder that holds one"
    )


def _is_tekken(content: dict[str, Any]) -> bool:
    return {"config", "vocab"} <= content.keys()


def is_tokenizer_json(file: Path) -> bool:
    """Whether a tokenizer's file is in the format of `tokenizer.json`, whatever its name is."""
    return file.suffix == ".json" and not _is_tekken(read_json(file, dict[str, Any], fix="copy it anew"))


def tokenizer_file(path: Path) -> Path:
    """The file of a tokenizer: the path itself, or in a folder its `tokenizer.json`, else one of another kind."""
    if not os.path.isdir(path) or (path / "tokenizer.json").is_file():
        return path / "tokenizer.json" if os.path.isdir(path) else path
    files = [path / name for name in ("tekken.json", "tokenizer.model", "spiece.model") if (path / name).is_file()]
    files = files or sorted([*path.glob("*.tiktoken"), *path.glob("tokenizer.model.*")])
    return files[0] if len(files) == 1 or (files and files[0].name == "tekken.json") else path / "tokenizer.json"


def with_options(name_or_path: str | Path, **options: str | None) -> str:
    """The name of a vocabulary with options in it, as `load_vocabulary` takes it and manifests record it.

    >>> with_options("ranks.tiktoken", pattern="qwen", end_of_text="<|im_end|>")
    'ranks.tiktoken?end_of_text=<|im_end|>&pattern=qwen'
    """
    base, others = split_options(str(name_or_path))
    given = others | {key: value for key, value in options.items() if value is not None}
    query = "&".join(f"{key}={quote(given[key], safe='<|>[]/｜▁')}" for key in sorted(given))
    return f"{base}?{query}" if query else base


def split_options(name: str) -> tuple[str, dict[str, str]]:
    """The name of a vocabulary without the options in it, and the options."""
    base, mark, query = name.rpartition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    return (base, options) if mark and options and {"pattern", "end_of_text"} >= options.keys() else (name, {})


def tokenizer_path(name_or_path: str | Path) -> Path | None:
    """The folder or the file of a tokenizer by name or path, as `load_vocabulary` takes it.

    A tokenizer on the Hub is downloaded. Returns None for the name of a bundled vocabulary and for any that can only
    be the name of a tiktoken encoding.
    """
    name, _ = split_options(str(name_or_path))
    path = Path(name)
    if name in BUNDLED and not isinstance(name_or_path, Path):
        return None
    # Unlike `Path.is_dir`, this is False for a name that is too long. `.model.` is in tokenizer.model.v3.
    if os.path.isdir(path) or path.suffix in SUFFIXES or ".model." in path.name:
        return path
    repo, revision = hub.parse_repo_id(name)
    if "/" not in repo or not hub.is_repo_id(repo):
        return None
    with hub.no_path(name, "tokenizer"):
        return hub.tokenizer_folder(repo, revision)


def vocabulary_for(tokenizer: Any, *, end_of_text: str | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer in any form.

    Args:
        tokenizer: a vocabulary, a name or path that `load_vocabulary` takes, a `tokenizers` or fast `transformers`
            tokenizer, which is copied, or a `tiktoken.Encoding`.
        end_of_text: the name of the token that ends a document, where it is not the usual one.

    Raises:
        UserError: for anything else.
    """
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    if isinstance(tokenizer, str | Path):
        return load_vocabulary(tokenizer, end_of_text=end_of_text)
    import tiktoken
    import tokenizers

    if isinstance(tokenizer, tiktoken.Encoding):
        require_lossless(tokenizer, tokenizer.name)
        return vocabulary_from_encoding(tokenizer, tokenizer.name, end_of_text)
    # `transformers` has a backend, and wrappers such as ByteLevelBPETokenizer a tokenizer inside.
    backend = getattr(tokenizer, "backend_tokenizer", None) or getattr(tokenizer, "_tokenizer", tokenizer)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise UserError(
            f"a {type(tokenizer).__name__} is no fast tokenizer", fix="use AutoTokenizer with use_fast=True"
        )
    name = getattr(tokenizer, "name_or_path", "") or "a tokenizer"
    require_dense(backend.get_vocab().values(), name)
    notice_sampling(getattr(backend.model, "alpha", None), name)
    end = end_of_text or getattr(tokenizer, "eos_token", None)
    return vocabulary_from_tokenizer(tokenizers.Tokenizer.from_str(backend.to_str()), name, end_of_text=end)


@functools.cache
def _bundled_vocabulary(name: str, shown: str) -> Vocabulary:
    ranks = _bundled_ranks(name)
    special = {END_OF_TEXT: len(ranks)}
    return vocabulary_from_ranks(
        shown, ranks, special, functools.partial(_bundled_encoder, name), pretokenizes_like_gpt2=True
    )


@functools.cache
def _bundled_ranks(name: str) -> dict[bytes, int]:
    return read_merges_as_ranks(_merge_list(name))


def _merge_list(name: str) -> str:
    return (resources.files("stochastok_cli") / "assets" / BUNDLED[name]).read_text(encoding="utf-8")


def _bundled_encoder(name: str) -> TiktokenEncoder:
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    ranks = _bundled_ranks(name)
    encoding = tiktoken.Encoding(
        name, pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )
    return TiktokenEncoder(encoding, lambda: read_merges(_merge_list(name)))


def _named(name: str, shown: str, end_of_text: str | None) -> Vocabulary:
    """A bundled vocabulary or a tiktoken encoding, perhaps with another end of text."""
    if name in BUNDLED:
        if end_of_text != END_OF_TEXT:
            raise UserError(f"{name} has the special token {END_OF_TEXT} alone", fix="drop --end-of-text")
        return _bundled_vocabulary(name, shown)
    return _tiktoken_vocabulary(name, shown, end_of_text)


def _reason(error: Exception) -> str:
    """Why a download has failed: what `urllib3` says inside of an error of `requests`, without its objects."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return first_line(error) if reason is None else re.sub(r"^[^:]*(0x[0-9a-f]+>|\)): ", "", first_line(reason))


@functools.cache
def _tiktoken_vocabulary(name: str, shown: str, end_of_text: str | None) -> Vocabulary:
    import tiktoken

    known = tiktoken.list_encoding_names()
    if name not in known:
        names = [*BUNDLED, *(n for n in known if n not in BUNDLED)]
        raise UserError(
            f"unknown tokenizer {name!r}{did_you_mean(name, names) or similar_path(name)}",
            fix=f"give {', '.join(names)}, or the path of a tokenizer.json",
        )
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # tiktoken passes on whatever its download or its cache raises
        raise UserError(
            f"tiktoken could not fetch {name}: {_reason(error)}",
            fix="it needs the network once, or TIKTOKEN_CACHE_DIR pointing at a copy",
            exit_code=FAILED,
        ) from None
    return vocabulary_from_encoding(encoding, shown, end_of_text)
