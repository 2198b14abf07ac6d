"""Patok: contract, then expand, with known affixes (the Filipino forks of StochasTok).

Source: `patok_morphology.py` of github.com/raileymontalan/filipino-morphology-llm.

Contraction makes floor(n contract_prop) attempts in a document of n tokens. An attempt draws a number k of 2, 3 or 4
tokens (with the probabilities 0.35, 0.35 and 0.3) and a run of k neighbouring tokens, uniformly. Where the bytes of the
run are an entry of the vocabulary, the entry replaces it, except that

- a run with an affix among its tokens is left alone with probability `affix_awareness`, and
- an entry with affixes is divided, with probability `affix_awareness`, by one of the ways to cut off an affix, drawn
  uniformly: a prefix at its beginning, a suffix at its end, or an infix between two other parts.

Expansion then makes floor(m p) attempts of StochasTok among the m tokens left, of which affixes are never drawn.
"""

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stochastok_cli.errors import FAILED, UserError, short_name
from stochastok_cli.tokenization.methods.base import (
    Argument,
    Method,
    max_tokens,
    parse_arguments,
    register_method,
    with_values,
)

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary

AFFIX_LISTS = ("prefixes", "suffixes", "infixes")
"""The arguments that are lists of affixes."""
_RESERVED = ",+=:()@"  # characters of the spelling of methods


class AffixTable(NamedTuple):
    """The affixes of a vocabulary.

    is_affix: bool `[size]`, the tokens that are an affix.
    first: int64 `[size + 1]`; the divisions of token `t` are the rows `first[t]` to `first[t + 1] - 1`.
    parts: int32 `[divisions, 3]`, the ids of the parts; -1 behind the last of two.
    """

    is_affix: "np.ndarray"
    first: "np.ndarray"
    parts: "np.ndarray"


class EntryTable(NamedTuple):
    """The entries of a vocabulary as a hash table of their bytes.

    text: uint8 `[bytes]`, the bytes of all tokens one after another.
    start: int64 `[size + 1]`, where the bytes of each token begin in `text`.
    hashed: uint64 `[size]`, the polynomial hash of each token's bytes.
    power: uint64 `[longest entry + 1]`, the powers of the base of the hash.
    slots: int32, the entry in each slot, or -1. Its length is a power of 2.
    """

    text: "np.ndarray"
    start: "np.ndarray"
    hashed: "np.ndarray"
    power: "np.ndarray"
    slots: "np.ndarray"


def read_affixes(file: str | Path) -> list[str]:
    """The affixes of a file with one a line; blank lines count for nothing.

    Raises:
        UserError: no such file, one that is no text, or one without affixes.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"the affixes {file} are not UTF-8 text (byte {error.start})", exit_code=FAILED) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"the affixes {short_name(str(file))} can't be read: {reason}", exit_code=FAILED) from None
    affixes = [line.strip() for line in lines if line.strip()]
    for number, line in enumerate(lines, 1):
        _require_affix(line.strip(), f"{file}, line {number}: ", blank=True)
    if not affixes:
        raise UserError(f"the affixes {file} have no line with one", fix="give one affix a line", exit_code=FAILED)
    return affixes


def listed_affixes(text: str) -> list[str]:
    """The affixes of an option: a file with one a line, where there is one of that name, or a list with commas.

    Raises:
        UserError: as `read_affixes`, and for what is no affix.
    """
    if Path(text).is_file() or ("," not in text and any(c in text for c in "./\\")):
        return read_affixes(text)
    affixes = [affix.strip() for affix in text.split(",")]
    for affix in affixes:
        _require_affix(affix, "")
    return affixes


def spell_affixes(affixes: Iterable[str]) -> str:
    """A list of affixes as an argument: in their order, each once.

    >>> spell_affixes(["mag", "ma", "mag"])
    'ma+mag'
    """
    return "+".join(sorted(set(affixes)))


def _require_affix(affix: str, where: str, blank: bool = False) -> None:
    if any(c in _RESERVED or c.isspace() or not c.isprintable() for c in affix) or not (affix or blank):
        raise UserError(
            f"{where}{short_name(affix)!r} is no affix", fix=f"give letters, without spaces and any of {_RESERVED}"
        )


def bind(method: Method, text: str) -> Method:
    """Patok bound to its arguments. A list of affixes is `AFFIX+AFFIX`, or `@FILE`, which is read here and now.

    Raises:
        UserError: as `parse_arguments`, and for a file that can't be read or what is no affix.
    """
    bound = parse_arguments(method, text)
    values = dict(bound.values)
    for name in AFFIX_LISTS:
        if values[name].startswith("@"):
            values[name] = spell_affixes(read_affixes(values[name][1:]))
        elif values[name]:
            affixes = [affix.strip() for affix in values[name].split("+")]
            for affix in affixes:
                _require_affix(affix, f"patok: {name}: ")
            values[name] = spell_affixes(affixes)
    return replace(with_values(bound, values), identity_at_zero=values["contract_prop"] == 0)


@functools.lru_cache(maxsize=4)
def _entries(vocabulary: "Vocabulary") -> dict[bytes, int]:
    """The entries that tokens may be merged into or divided into: no special or added ones."""
    from stochastok_cli.tokenization.entry_trie import entry_ids

    return {piece: i for piece, i in entry_ids(vocabulary).items() if i not in vocabulary.added}


@functools.lru_cache(maxsize=4)
def affix_table(vocabulary: "Vocabulary", prefixes: str, suffixes: str, infixes: str) -> AffixTable:
    """The affixes of three lists, `AFFIX+AFFIX`, and the divisions of entries that cut one of them off.

    A prefix counts also with a capital first letter and with a space before it, a suffix also with a space behind it.
    """
    import numpy as np

    entries = _entries(vocabulary)

    def known(texts: Iterable[str]) -> dict[bytes, int]:
        return {text.encode(): entries[text.encode()] for text in texts if text.encode() in entries}

    listed = [[affix for affix in affixes.split("+") if affix] for affixes in (prefixes, suffixes, infixes)]
    heads = known(space + text for p in listed[0] for text in (p, p[0].upper() + p[1:]) for space in ("", " "))
    tails = known(s + space for s in listed[1] for space in ("", " "))
    inner = known(listed[2])
    head_widths, tail_widths, inner_widths = (sorted({*map(len, some)}) for some in (heads, tails, inner))
    divisions: dict[int, list[tuple[int, ...]]] = {}
    for piece, token in entries.items() if heads or tails or inner else ():
        ways = set()
        for n in head_widths:
            if n < len(piece) and piece[:n] in heads and piece[n:] in entries:
                ways.add((heads[piece[:n]], entries[piece[n:]], -1))
        for n in tail_widths:
            if n < len(piece) and piece[-n:] in tails and piece[:-n] in entries:
                ways.add((entries[piece[:-n]], tails[piece[-n:]], -1))
        for n in inner_widths:
            for i in range(1, len(piece) - n):
                before, infix, after = piece[:i], piece[i : i + n], piece[i + n :]
                if infix in inner and before in entries and after in entries:
                    ways.add((entries[before], inner[infix], entries[after]))
        if ways:
            divisions[token] = sorted(ways)
    counts = np.array([len(divisions.get(token, ())) for token in range(vocabulary.size)])
    rows = [row for token in sorted(divisions) for row in divisions[token]]
    affixes = {*heads.values(), *tails.values(), *inner.values()}
    return AffixTable(
        np.array([i in affixes for i in range(vocabulary.size)]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array(rows, np.int32).reshape(-1, 3),
    )


@functools.lru_cache(maxsize=4)
def entry_table(vocabulary: "Vocabulary") -> EntryTable:
    """The hash table of the entries that tokens may be merged into."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.patok import fill_slots, hash_tokens, powers

    entries = _entries(vocabulary)
    text = np.frombuffer(b"".join(vocabulary.pieces), np.uint8)
    start = np.concatenate([[0], np.cumsum(vocabulary.widths)])
    with np.errstate(over="ignore"):
        hashed = hash_tokens(text, start)
        slots = np.full(1 << (2 * len(entries) + 1).bit_length(), -1, np.int32)
        fill_slots(hashed, np.array([*entries.values()], np.int32), slots)
        return EntryTable(text, start, hashed, powers(max(map(len, entries), default=0)), slots)


@functools.lru_cache(maxsize=4)
def _stays(vocabulary: "Vocabulary", kept: frozenset[int]) -> "np.ndarray":
    """The tokens that are in no run, bool `[size]`."""
    import numpy as np

    whole = vocabulary.never_split | vocabulary.added | kept
    return np.array([i in whole for i in range(vocabulary.size)])


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Contracts, then expands documents; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.random_streams import splitmix64
    from stochastok_cli.tokenization.methods.kernels.patok import contract_documents, expand_documents
    from stochastok_cli.tokenization.pretokenizers import pretokens_of_tokens

    values, vocabulary = stochastok.definition.values, stochastok.vocabulary
    affixes = affix_table(vocabulary, *(values[name] for name in AFFIX_LISTS))
    attempts = stochastok.split_budget(lengths, first_index, values["contract_prop"], "contraction rounding")
    if attempts.any():
        stays = _stays(vocabulary, stochastok.kept)[ids]
        if values["across"]:
            pretoken = np.where(stays, -1, 0)
        else:
            first, last = pretokens_of_tokens(vocabulary, ids, lengths)
            pretoken = np.where(stays | (first != last), -1, first)
        capacity = max_tokens(vocabulary, ids, lengths, attempts)
        out, out_lengths = np.empty(int(capacity.sum()), ids.dtype), np.empty_like(lengths)
        written = contract_documents(
            ids,
            lengths,
            attempts,
            capacity,
            pretoken,
            float(values["affix_awareness"]),
            stochastok.key,
            first_index,
            entry_table(vocabulary),
            affixes,
            out,
            out_lengths,
        )
        ids, lengths = out[:written], out_lengths
        if stochastok.only is not None:
            stochastok = stochastok.with_tables_of(ids)  # entries that tokens were merged into are split, too
    attempts = stochastok.split_budget(lengths, first_index)
    capacity = max_tokens(vocabulary, ids, lengths, attempts)
    out, out_lengths = np.empty(int(capacity.sum()), ids.dtype), np.empty_like(lengths)
    limit = -1 if stochastok.max_splits is None else stochastok.max_splits
    key = np.uint64(splitmix64(int(stochastok.key) + 1))
    written = expand_documents(
        ids,
        lengths,
        attempts,
        capacity,
        limit,
        key,
        first_index,
        *stochastok.splits,
        affixes.is_affix,
        out,
        out_lengths,
    )
    return out[:written], out_lengths


register_method(
    Method(
        name="patok",
        description="runs of 2 to 4 neighbouring tokens merged into entries, known affixes left alone or cut off, "
        "then floor(m p) random pair splits",
        p_meaning="attempted splits per token",
        source="github.com/raileymontalan/filipino-morphology-llm (patok_morphology.py)",
        expand=expand,
        keeps_token_boundaries=False,
        identity_at_zero=False,
        arguments=(
            Argument(
                name="contract_prop", default=0.9, description="attempted merges per token", minimum=0, maximum=1000
            ),
            Argument(
                name="affix_awareness",
                default=0.95,
                description="the probability that affixes are left alone and cut off",
                minimum=0,
                maximum=1,
            ),
            Argument(name="across", default=0, description="1 to merge across pretokens", minimum=0, maximum=1),
            Argument(name="prefixes", default="", description="AFFIX+AFFIX or @FILE"),
            Argument(name="suffixes", default="", description="the same"),
            Argument(name="infixes", default="", description="the same"),
        ),
        bind=bind,
    )
)
