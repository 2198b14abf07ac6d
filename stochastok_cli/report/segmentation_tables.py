"""The tables of a text that the scripts of `segmentation_page` read.

The scripts implement the laws of the methods in `LIVE`, with the random numbers of the package. Of other methods there
are samples that are drawn here.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from stochastok_cli import __version__
from stochastok_cli.errors import UserError
from stochastok_cli.report.vocabulary_of_text import VocabularyOfText
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import METHODS, Method, p_among
from stochastok_cli.tokenization.methods.kernels.random import interpreted
from stochastok_cli.tokenization.pretokenizers import pretokenize, pretokens_of_tokens, token_bytes, word_starts
from stochastok_cli.tokenization.vocabulary import Vocabulary

LIVE = (
    "stochastok",
    "stochastok-uni",
    "uniform-k",
    "uniform",
    "grampa",
    "unigram",
    "bpe-dropout",
    "maxmatch-dropout",
)
"""The methods whose laws the scripts of the page implement."""
SMALL = ("character", "digits", "longest-first", "reversed-merges")
"""The fixed rules, for which the entries that occur in the text are enough."""
MAX_BYTES = 4000
MAX_WORD = 300
"""The most bytes of a word: a lattice of more is no picture, and merges take time with the square of it."""
GRID = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The values of p at which samples of other methods are drawn."""
MAX_GRID_TOKENS = 20_000
"""About how many ids of samples there are for one p."""
FIRST_P = 0.5
"""Where the slider stands if no p is given."""
MAX_P = 20
"""The largest p of a page: with it, all is single bytes already."""
MAX_SAMPLES = 100


def _require_page(text: str, p: float | None, samples: int) -> None:
    """Raises UserError for what a page can't show."""
    size = len(text.encode("utf-8", "surrogateescape"))
    if not 0 < size <= MAX_BYTES:
        raise UserError(
            f"--html shows texts of 1 to {MAX_BYTES:,} bytes, and --text has {size:,}", fix="give a few sentences"
        )
    if p is not None and p > MAX_P:
        raise UserError(f"--html shows p up to {MAX_P}, not {p:g}", fix="give a smaller one: then all is single bytes")
    if samples > MAX_SAMPLES:
        raise UserError(f"--html shows up to {MAX_SAMPLES} samples at once, not {samples:,}", fix="the page draws more")


def page_data(
    text: str,
    methods: Sequence[str],
    vocabulary: Vocabulary,
    *,
    p: float | None = None,
    seed: int = 0,
    samples: int = 6,
    max_splits: int | None = None,
    keep: str | None = None,
) -> dict[str, Any]:
    """The tables that the scripts read.

    Args:
        text: the text, of 1 to MAX_BYTES bytes.
        methods: at least one, with arguments. The first is shown first; others follow, see `expansions_of_page`.
        vocabulary: the vocabulary.
        p: where the slider stands at first; FIRST_P if None.
        seed: the seed of the samples that are shown first.
        samples: how many samples are shown.
        max_splits, keep: see `StochasTok`.

    Raises:
        UserError: for a text or a method that can't be shown.
    """
    _require_page(text, p, samples)
    expansions, left_out = expansions_of_page(vocabulary, methods, p, seed=seed, max_splits=max_splits, keep=keep)
    kept = expansions[0].kept
    ids = vocabulary.encode(text)
    whole = vocabulary.never_split | kept
    starts = [0, *np.cumsum([len(vocabulary.pieces[i]) for i in ids]).tolist()]
    content = vocabulary.decode_bytes(ids)
    families = {one.definition.family for one in expansions}
    small = VocabularyOfText(vocabulary, content)
    with interpreted():
        words = _words(small, small.own_ids(ids))
        _require_short_words([starts[first] for first in words])
        segments = _segments(vocabulary, small, ids, starts, kept, families)
    arcs = _arcs(vocabulary, ids, starts, [starts[first] for first in words], whole)
    matches = _matches(vocabulary, content, segments) if "maxmatch-dropout" in families else []
    merges, byte_ids = _merges(vocabulary, content, segments) if "bpe-dropout" in families else ([], [])
    described = [_describe_method(one, small, ids, keep) for one in expansions]
    used = {*ids, *(arc[2] for arc in arcs), *(match[2] for match in matches), *_ids_of_samples(described)}
    pieces = {i: vocabulary.pieces[i] for i in used}
    scores = (vocabulary.scores or {}) if "unigram" in families else {}
    return {
        "version": __version__,
        "tokenizer": vocabulary.name,
        "vocabulary_size": vocabulary.size,
        "text": text,
        "decoded": content.decode("utf-8", "replace"),
        "seed": seed if abs(seed) < 2**53 else str(seed),  # JavaScript has no larger whole numbers
        "p": FIRST_P if p is None else p,
        "samples": samples,
        "max_splits": max_splits,
        "ids": ids,
        "starts": starts,
        "words": words,
        "characters": _characters(content),
        "arcs": arcs,
        "kept": sorted(whole & pieces.keys()),
        "texts": {i: vocabulary.token_text(i) for i in pieces},
        "widths": {i: len(piece) for i, piece in pieces.items()},
        "not_utf8": {i: piece.hex(" ") for i, piece in pieces.items() if not _is_utf8(piece)},
        "segments": segments,
        "matches": matches,
        "merges": merges,
        "byte_ids": byte_ids,
        "scores": {i: scores[i] for i in pieces if i in scores and i not in vocabulary.added},
        "methods": described,
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
        "options": _options(vocabulary, max_splits, keep),
    }


def _options(vocabulary: Vocabulary, max_splits: int | None, keep: str | None) -> list[str]:
    """What a command line has besides method, p, seed and text."""
    options = [] if vocabulary.name == "gpt2" else ["--tokenizer", vocabulary.name]
    options += [] if keep is None else [f"--keep={keep}"]
    return options + ([] if max_splits is None else ["--max-splits", str(max_splits)])


def _require_short_words(starts: list[int]) -> None:
    """Raises UserError for a word of more than MAX_WORD bytes."""
    longest = max(end - start for start, end in itertools.pairwise(starts))
    if longest > MAX_WORD:
        raise UserError(
            f"--html shows words of at most {MAX_WORD} bytes, and --text has one of {longest:,} (to this tokenizer)",
            fix="leave it out or divide it by spaces",
        )


def _is_utf8(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _words(vocabulary: Vocabulary, ids: list[int]) -> list[int]:
    """The positions in `ids` at which a word (a pretoken, or several that tokens connect) begins, and their number."""
    array = np.array(ids, vocabulary.dtype)
    first, last = pretokens_of_tokens(vocabulary, array, np.array([len(ids)]))
    return [i for i in range(len(ids)) if i == 0 or first[i] != last[i - 1]] + [len(ids)]


def _arcs(
    vocabulary: Vocabulary, ids: list[int], starts: list[int], word_starts: list[int], whole: frozenset[int]
) -> list[tuple[int, int, int]]:
    """The tokens that cover bytes within a word, as (start, end, id) in this order.

    A token that is never split has no others across its bytes.
    """
    content = vocabulary.decode_bytes(ids)
    alone = {starts[i]: starts[i + 1] for i, token in enumerate(ids) if token in whole}
    arcs = [(starts[i], starts[i + 1], token) for i, token in enumerate(ids) if token in whole]
    spans = []
    for begin, end in itertools.pairwise(word_starts):
        at = begin
        for start, stop in sorted(alone.items()):
            if begin <= start < end:
                spans.append((at, start))
                at = stop
        spans.append((at, end))
    ids_of = _entries_in(vocabulary, content, spans)
    longest = max(map(len, ids_of), default=0)
    for begin, end in spans:
        for i in range(begin, end):
            for j in range(i + 1, min(end, i + longest) + 1):
                arcs += [(i, j, token) for token in ids_of.get(content[i:j], ())]
    return sorted(arcs)


def _entries_in(vocabulary: Vocabulary, content: bytes, spans: Sequence[tuple[int, int]]) -> dict[bytes, list[int]]:
    """The ids, none of them special, of each text that occurs in one of the spans of a content."""
    longest = max(map(len, vocabulary.pieces), default=0)
    texts = {
        content[i:j] for begin, end in spans for i in range(begin, end) for j in range(i + 1, min(end, i + longest) + 1)
    }
    ids_of: dict[bytes, list[int]] = {}
    for token, piece in enumerate(vocabulary.pieces):
        if piece in texts and token not in vocabulary.never_split:
            ids_of.setdefault(piece, []).append(token)
    return ids_of


def _segments(
    vocabulary: Vocabulary,
    small: VocabularyOfText,
    ids: list[int],
    starts: list[int],
    kept: frozenset[int],
    families: set[str],
) -> list[tuple[int, int, int]]:
    """The parts of the text that a method encodes anew, as (start, end, -1), and kept tokens, as (start, end, id)."""
    if "bpe-dropout" in families:
        segments = _pretokens(small, small.own_ids(ids), frozenset(i for i in small.own_ids([*kept]) if i >= 0))
        return [(start, end, token if token < 0 else small.original[token]) for start, end, token in segments]
    return _wordpiece_words(vocabulary, ids, starts, kept) if "maxmatch-dropout" in families else []


def _pretokens(vocabulary: Vocabulary, ids: list[int], kept: frozenset[int]) -> list[tuple[int, int, int]]:
    """The pretokens that `bpe-dropout` merges, as (start, end, -1), and kept tokens, as (start, end, id)."""
    tokens = token_bytes(vocabulary, kept, vocabulary.whole_words)
    documents = pretokenize(vocabulary, tokens, np.array(ids, vocabulary.dtype), np.array([len(ids)]))
    size, num_kept = documents.ends[0].tolist()
    kept_at, kept_ids = documents.kept_at[:num_kept].tolist(), documents.kept_ids[:num_kept].tolist()
    words = dict(zip(documents.word_at.tolist(), documents.word_ids.tolist(), strict=True))
    segments: list[tuple[int, int, int]] = []
    at = end = 0  # in the text without kept tokens, and in the whole text

    def append(width: int, token: int) -> None:
        nonlocal end
        segments.append((end, end + width, token))
        end += width

    while at < size or kept_at:
        if kept_at and kept_at[0] == at:
            kept_at.pop(0)
            token = kept_ids.pop(0)
            append(len(vocabulary.pieces[token]), token)
            continue
        width = 1
        while at + width < size and not documents.starts[at + width]:
            width += 1
        word = words.get(at, -1)
        append(width, word if word >= 0 and len(vocabulary.pieces[word]) == width else -1)
        at += width
    return segments


def _merges(
    vocabulary: Vocabulary, content: bytes, segments: Sequence[tuple[int, int, int]]
) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    """The merges that can occur in pretokens, as (left id, right id, rank, merged id), and the id of each byte."""
    spans = [(start, end) for start, end, token in segments if token < 0]
    id_of = {
        piece: [i for i in ids if i not in vocabulary.added][-1:]
        for piece, ids in _entries_in(vocabulary, content, spans).items()
    }
    merges = [
        (id_of[left][0], id_of[right][0], rank, id_of[left + right][0])
        for rank, (left, right) in enumerate(vocabulary.merges or [])
        if left + right in id_of
    ]
    byte_ids = [(id_of.get(content[i : i + 1]) or [-1])[0] for i in range(len(content))]
    return merges, byte_ids


def _wordpiece_words(
    vocabulary: Vocabulary, ids: list[int], starts: list[int], kept: frozenset[int]
) -> list[tuple[int, int, int]]:
    """The words that `maxmatch-dropout` encodes, as (start, end, -1), and kept tokens, as (start, end, id)."""
    alone, begins = token_bytes(vocabulary, kept).kept, word_starts(vocabulary)
    segments: list[tuple[int, int, int]] = []
    for i, token in enumerate(ids):
        if alone[token]:
            segments.append((starts[i], starts[i + 1], token))
        elif segments and segments[-1][2] < 0 and not begins[token]:
            segments[-1] = (segments[-1][0], starts[i + 1], -1)
        else:
            segments.append((starts[i], starts[i + 1], -1))
    return segments


def _matches(
    vocabulary: Vocabulary, content: bytes, segments: Sequence[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """The entries that match within words, as (start, end, id) in this order."""
    from stochastok_cli.tokenization.entry_trie import entry_ids

    id_of = entry_ids(vocabulary)
    return [
        (i, j, id_of[content[i:j]])
        for start, end, token in segments
        if token < 0
        for i in range(start, end)
        for j in range(i + 1, end + 1)
        if content[i:j] in id_of and id_of[content[i:j]] not in vocabulary.added
    ]


def _characters(content: bytes) -> list[tuple[int, int, str]]:
    """The characters of a content, as (start, end, text); of a byte that belongs to none, its hexadecimal digits."""
    characters = []
    at = 0
    for character in content.decode("utf-8", "surrogateescape"):
        width = len(character.encode("utf-8", "surrogateescape"))
        is_byte = "\ud800" <= character <= "\udfff"
        characters.append((at, at + width, content[at : at + 1].hex() if is_byte else character))
        at += width
    return characters


def _describe_method(one: StochasTok, small: VocabularyOfText, ids: list[int], keep: str | None) -> dict[str, Any]:
    """What the page needs of a method, with samples of it if the page can't draw them."""
    definition = one.definition
    described: dict[str, Any] = {
        "name": definition.name,
        "family": definition.family,
        "description": definition.description,
        "p_meaning": definition.p_meaning,
        "takes_p": definition.takes_p,
        "max_p": min(definition.max_p, MAX_P),
        "identity_at_zero": definition.identity_at_zero,
        "keeps_token_boundaries": definition.keeps_token_boundaries,
    }
    if definition.family in LIVE:
        arguments = [
            {
                "name": a.name,
                "default": a.default,
                "description": a.description,
                "minimum": a.minimum,
                "maximum": a.maximum,
                "whole": isinstance(a.default, int),
            }
            for a in definition.arguments
        ]
        return described | {"values": dict(definition.values), "arguments": arguments}
    if definition.family in SMALL:
        with interpreted():
            result = StochasTok(small, None, definition.name, keep=keep)(small.own_ids(ids)).tolist()
        grid, drawn = [one.p], [[[small.original[i] for i in result]]]
    else:
        grid = _grid(definition, one.p)
        count = min(max(MAX_GRID_TOKENS // max(len(ids), 1), 10), 200) if definition.takes_p else 1
        drawn = [[expand(ids, i).tolist() for i in range(count)] for expand in map(one.with_p, grid)]
    described["max_p"] = min(described["max_p"], max(grid))  # no samples are there of a larger p
    return described | {"values": {}, "arguments": [], "grid": grid, "samples": drawn}


def _grid(definition: Method, p: float) -> list[float]:
    """The values of p at which samples are drawn: those of GRID and p; of a fixed rule its one p."""
    return sorted({*GRID, p}) if definition.takes_p else [p]


def _ids_of_samples(methods: Sequence[dict[str, Any]]) -> set[int]:
    return {i for method in methods for at_p in method.get("samples", ()) for ids in at_p for i in ids}


def expansions_of_page(
    vocabulary: Vocabulary, methods: Sequence[str], p: float | None, **options: Any
) -> tuple[list[StochasTok], dict[str, str]]:
    """The expansions that a page shows: the methods that are named, then others: those of `LIVE` and the fixed rules.

    Args:
        vocabulary: the vocabulary.
        methods: at least one, with arguments.
        p: the p of every method that has one.
        options: further arguments of `StochasTok`.

    Returns:
        The expansions, and the others that the vocabulary or an option does not allow, with the reason.

    Raises:
        UserError: if one of the methods that are named can't be used.
    """
    expansions = [StochasTok(vocabulary, p_among(name, methods, p), name, **options) for name in methods]
    families = {one.definition.family for one in expansions}
    left_out = {}
    for method in METHODS.values():
        if method.family in families or not (method.family in LIVE or not method.takes_p):
            continue
        at = p if method.takes_p and p is not None and p <= method.max_p else None
        try:
            expansions.append(StochasTok(vocabulary, at, method.example or method.name, **options))
        except UserError as error:
            left_out[method.name] = str(error)
    return expansions, left_out
