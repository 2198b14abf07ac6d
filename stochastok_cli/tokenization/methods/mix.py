"""A mix: each document, or each pretoken, is expanded by one of several methods; the rest stays as it is.

`mix:METHOD=SHARE,METHOD=SHARE` draws a method for each document, with these shares. With `by=pretoken` it draws one for
each pretoken; tokens that cross from one pretoken into the next keep these together. The arguments of a method stand in
parentheses: `mix:grampa(temperature=2)=0.5`.

Of each document, the tokens drawn for a method that keeps token boundaries are one document to it, of which p is a
proportion. For a method that merges tokens, each pretoken is a document of its own, so that it merges across none, and
numbers of attempts are rounded randomly.
"""

import copy
import itertools
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError, did_you_mean, short_name
from stochastok_cli.tokenization.methods.base import METHODS, Argument, Method, register_method, require_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary

UNITS = ("document", "pretoken")
_FIX = "give mix:METHOD=SHARE,METHOD(ARGUMENTS)=SHARE with shares that add up to 1 or less"
_WEIGHT = Argument(name="share", default=0.5, description="share", minimum=1e-6, maximum=1)


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Expands each document or pretoken by a method drawn for it; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.random_streams import mix, splitmix64

    expansions = _expansions(stochastok)
    key = np.array([splitmix64(int(stochastok.key))], np.uint64)
    states = mix(key + mix(np.arange(len(lengths), dtype=np.uint64) + first_index))
    if stochastok.definition.values["by"] == "pretoken":
        return _expand_pretokens(stochastok, expansions, ids, lengths, first_index, states)
    chosen = _chosen(stochastok, states)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    edges = [0, *(np.flatnonzero(np.diff(chosen)) + 1).tolist(), len(lengths)] if len(lengths) else [0]
    outs, out_lengths = [ids[:0]], [lengths[:0]]
    for first, last in itertools.pairwise(edges):  # neighbouring documents of one method
        some, some_lengths = ids[ends[first] : ends[last]], lengths[first:last]
        if chosen[first] < len(expansions):
            some, some_lengths = expansions[chosen[first]].documents(some, some_lengths, int(first_index) + first)
        outs.append(some)
        out_lengths.append(some_lengths)
    return np.concatenate(outs), np.concatenate(out_lengths)


def _expansions(stochastok: "StochasTok") -> "list[StochasTok]":
    """The expansion by each method of the mix, with a random stream of its own."""
    import numpy as np

    from stochastok_cli.random_streams import splitmix64

    expansions = []
    for number, name in enumerate(stochastok.definition.values["shares"]):
        one = copy.copy(stochastok)
        one.__dict__.pop("definition", None)
        one.method, one.key = name, np.uint64(splitmix64(int(stochastok.key) + number + 1))
        one.p = stochastok.p if one.definition.takes_p else 1.0
        expansions.append(one)
    return expansions


def _chosen(stochastok: "StochasTok", bits: "np.ndarray") -> "np.ndarray":
    """The number of the method that random bits (uint64) draw; that behind the last one for none."""
    import numpy as np

    shares = [*stochastok.definition.values["shares"].values()]
    return np.searchsorted(np.cumsum(shares), (bits >> np.uint64(11)) * 2.0**-53, "right")


def _expand_pretokens(
    stochastok: "StochasTok",
    expansions: "list[StochasTok]",
    ids: "np.ndarray",
    lengths: "np.ndarray",
    first_index: "np.uint64",
    states: "np.ndarray",
) -> "tuple[np.ndarray, np.ndarray]":
    """Expands each pretoken by a method drawn for it.

    Args:
        stochastok: the mix.
        expansions: the expansion by each of its methods.
        ids, lengths, first_index: as described in `Method`.
        states: uint64 `[documents]`, of the random stream of each document.
    """
    import numpy as np

    from stochastok_cli.random_streams import SPLITMIX64_INCREMENT, mix
    from stochastok_cli.tokenization.expansion import origins
    from stochastok_cli.tokenization.pretokenizers import pretokens_of_tokens

    first, last = pretokens_of_tokens(stochastok.vocabulary, ids, lengths)
    begins = np.concatenate([[True], first[1:] != last[:-1]])[: len(ids)]
    document = np.repeat(np.arange(len(lengths)), lengths)
    unit, starts = np.cumsum(begins) - 1, np.flatnonzero(begins)
    owner = document[starts]
    number = (np.arange(len(starts)) - np.searchsorted(owner, owner)).astype(np.uint64)  # of a unit in its document
    drawn = _chosen(stochastok, mix(states[owner] + (number + np.uint64(1)) * SPLITMIX64_INCREMENT))
    chosen = drawn[unit]
    stays = np.flatnonzero(chosen == len(expansions))
    parts, sources = [ids[stays]], [stays]
    for i, one in enumerate(expansions):
        at = np.flatnonzero(chosen == i)
        if one.definition.keeps_token_boundaries:
            sizes = np.bincount(document[at], minlength=len(lengths))
            expanded, _ = one.documents(ids[at], sizes, int(first_index))
            parts.append(expanded)
            sources.append(at[origins(stochastok.vocabulary, ids[at], expanded)])
            continue
        one.rounding_seed = int(one.key)
        units = np.flatnonzero(drawn == i)
        sizes = np.diff(np.append(starts, len(ids)))[units]
        ends, edges = np.cumsum(sizes), np.searchsorted(owner[units], np.arange(len(lengths) + 1))
        for d in np.unique(owner[units]):
            of_document = slice(edges[d], edges[d + 1])
            begin = ends[edges[d]] - sizes[edges[d]]
            index = int(mix(states[d : d + 1] ^ one.key)[0])
            expanded, out_sizes = one.documents(ids[at[begin : ends[edges[d + 1] - 1]]], sizes[of_document], index)
            parts.append(expanded)
            sources.append(np.repeat(starts[units[of_document]], out_sizes))
    source = np.concatenate(sources)
    in_order = np.argsort(source, kind="stable")  # the parts of a token or pretoken stay in their order
    return np.concatenate(parts)[in_order], np.bincount(document[source], minlength=len(lengths))


def _pieces(text: str) -> list[str]:
    """The parts of a text between the commas outside of parentheses.

    >>> _pieces("grampa(temperature=2,min_length=2)=0.5, uniform=0.3")
    ['grampa(temperature=2,min_length=2)=0.5', 'uniform=0.3']
    """
    return [piece.strip() for piece in re.split(r",(?![^()]*\))", text)]


def _part(name: str) -> Method:
    """The method that `NAME` or `NAME(ARGUMENTS)` stands for. Raises UserError for what can't be part of a mix."""
    match = re.fullmatch(r"([^():]*?)\s*(?:\(([^()]*)\))?", name)
    if match is None:
        family, _, arguments = name.partition(":")
        fix = f"give mix:{family}({arguments or 'KEY=VALUE'})=SHARE" if family in METHODS and "(" not in name else _FIX
        raise UserError(f"mix: in {short_name(name)!r}, arguments do not stand in parentheses", fix=fix)
    family, arguments = match[1], match[2]
    if family == "mix":
        raise UserError("mix: a mix can't be part of a mix", fix=_FIX)
    if family not in METHODS:
        known = [other for other in METHODS if other != "mix"]
        raise UserError(
            f"mix: unknown method {short_name(family)!r}{did_you_mean(family, known)}", fix=f"give {', '.join(known)}"
        )
    example = METHODS[family].example
    if not arguments and example is not None:
        raise UserError(f"mix: {family} needs arguments", fix=f"give them in parentheses: mix:{_nested(example)}=SHARE")
    if arguments == "":
        raise UserError(f"mix: the parentheses of {family}() are empty", fix=f"give mix:{family}=SHARE")
    try:
        return require_method(family if arguments is None else f"{family}:{arguments}")
    except UserError as error:
        raise UserError(f"mix: {error}") from None


def _nested(name: str) -> str:
    """The spelling of a method within a mix: `grampa(temperature=2)` for `grampa:temperature=2`."""
    family, colon, arguments = name.partition(":")
    return f"{family}({arguments})" if colon else family


def bind(method: Method, text: str) -> Method:
    """The mix of `METHOD=SHARE,METHOD(ARGUMENTS)=SHARE,by=UNIT`. Its name has the methods in the order of their names.

    Raises:
        UserError: for what is no method, and for impossible shares or units.
    """
    by: str | None = None
    parts: dict[str, tuple[float, Method]] = {}
    for piece in _pieces(text) if text else []:
        name, equals, value = (part.strip() for part in piece.rpartition("="))
        if name == "by":
            if by is not None:
                raise UserError("mix: by is given twice", fix="drop one")
            if value not in UNITS:
                raise UserError(
                    f"mix: by = {short_name(value)} is not possible", fix=f"give by={' or by='.join(UNITS)}"
                )
            by = value
            continue
        if not equals or value.endswith(")"):  # the last `=` is one of an argument
            _part(piece)
            raise UserError(f"mix: {short_name(piece)} has no share", fix=f"give mix:{short_name(piece)}=SHARE")
        part = _part(name)
        if part.name in parts:
            raise UserError(f"mix: {_nested(part.name)} is given twice", fix="drop one")
        try:
            parts[part.name] = float(_WEIGHT.parse(value)), part
        except UserError as error:
            raise UserError(f"mix: {name}: {error}") from None
    parts = dict(sorted(parts.items()))
    shares = {name: weight for name, (weight, _) in parts.items()}
    if not shares or math.fsum(shares.values()) > 1 + 1e-9:
        raise UserError(f"mix: {'no shares' if not shares else 'the shares add up to more than 1'}", fix=_FIX)
    methods = [part for _, part in parts.values()]

    def require(vocabulary: "Vocabulary") -> None:
        for part in methods:
            part.check_vocabulary(vocabulary)

    spelled = [f"{_nested(name)}={weight!r}" for name, weight in shares.items()]
    values: dict[str, Any] = {"shares": shares, "by": by or UNITS[0]}
    return replace(
        method,
        name="mix:" + ",".join([*spelled, *([f"by={by}"] if values["by"] != UNITS[0] else [])]),
        values=values,
        p_is_probability=any(part.p_is_probability for part in methods),
        options=tuple(option for option in method.options if all(option in part.options for part in methods)),
        keeps_token_boundaries=all(part.keeps_token_boundaries for part in methods),
        identity_at_zero=all(part.identity_at_zero and part.takes_p for part in methods),
        takes_p=any(part.takes_p for part in methods),
        interpretable=all(part.interpretable for part in methods),
        require=require,
    )


register_method(
    Method(
        name="mix",
        description="each document, or with by=pretoken each pretoken, by one method drawn by shares as in "
        "mix:stochastok=0.5,uniform=0.3; others stay",
        p_meaning="given to each method of the mix",
        source="TkTkT (Bauwens et al.)",
        expand=expand,
        bind=bind,
        p_is_probability=True,
        keeps_token_boundaries=False,
        example="mix:stochastok=0.5,uniform=0.3",
    )
)
