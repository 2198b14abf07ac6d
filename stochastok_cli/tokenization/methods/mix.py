"""A mix: each document is expanded by one of several methods, drawn with their shares; the rest stays as it is."""

import copy
import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from stochastok_cli.errors import UserError, short_name
from stochastok_cli.tokenization.methods.base import Argument, Method, register_method, require_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Expands each document by a method drawn for it; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.random_streams import splitmix64

    key, shares = int(stochastok.key), stochastok.definition.values
    expansions = []
    for number, name in enumerate(shares):
        one = copy.copy(stochastok)
        one.__dict__.pop("definition", None)
        one.method, one.key = name, np.uint64(splitmix64(key + number + 1))
        one.p = stochastok.p if one.definition.takes_p else 1.0
        expansions.append(one)
    draws = [splitmix64(splitmix64(key) + splitmix64(int(first_index) + d)) for d in range(len(lengths))]
    uniform = (np.array(draws, np.uint64) >> np.uint64(11)) * 2.0**-53
    chosen = np.searchsorted(np.cumsum([*shares.values()]), uniform, "right")
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


def bind(method: Method, text: str) -> Method:
    """The mix of `METHOD=SHARE,…`. Raises UserError for what is no method, and for impossible shares."""
    fix = "give mix:METHOD=SHARE,METHOD=SHARE with shares that add up to 1 or less"
    shares: dict[str, float] = {}
    parts: list[Method] = []
    for piece in text.split(",") if text else []:
        name, _, weight = (part.strip() for part in piece.partition("="))
        if ":" in piece or name == method.family:
            raise UserError(f"mix takes methods without arguments, not {short_name(piece.strip())!r}", fix=fix)
        if name in shares:
            raise UserError(f"mix: {name} is given twice", fix="drop one")
        parts.append(require_method(name))
        shares[name] = Argument(name=name, default=0.5, description="share", minimum=1e-6, maximum=1).parse(weight)  # type: ignore[assignment]
    if not shares or math.fsum(shares.values()) > 1 + 1e-9:
        raise UserError(f"mix: {'no shares' if not shares else 'the shares add up to more than 1'}", fix=fix)
    shares = dict(sorted(shares.items()))

    def require(vocabulary: "Vocabulary") -> None:
        for part in parts:
            part.check_vocabulary(vocabulary)

    return replace(
        method,
        name="mix:" + ",".join(f"{name}={weight!r}" for name, weight in shares.items()),
        values=shares,
        p_is_probability=any(part.p_is_probability for part in parts),
        options=tuple(option for option in method.options if all(option in part.options for part in parts)),
        keeps_token_boundaries=all(part.keeps_token_boundaries for part in parts),
        identity_at_zero=all(part.identity_at_zero and part.takes_p for part in parts),
        takes_p=any(part.takes_p for part in parts),
        require=require,
    )


register_method(
    Method(
        name="mix",
        description="each document by one method, drawn by shares as in mix:stochastok=0.5,uniform=0.3; others stay",
        p_meaning="given to each method of the mix",
        source="TkTkT (Bauwens et al.)",
        expand=expand,
        bind=bind,
        p_is_probability=True,
        keeps_token_boundaries=False,
        example="mix:stochastok=0.5,uniform=0.3",
    )
)
