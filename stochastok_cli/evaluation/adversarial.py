"""The tokenization that hurts most: a greedy search over single splits within a budget of forward passes.

From the canonical ids of a question's prefix each round tries single splits of its tokens and, if one lessens the lead
of the right option over the others, keeps the one that lessens it most; if none does, others are tried. The search ends
when the answer is wrong, when no single split helps any more, or when the budget is spent. One forward pass is one
tokenization of one question with all of its options. The candidates of all questions go through the model together.
"""

from dataclasses import dataclass, field

import numpy as np

from stochastok_cli.evaluation.findings import EvalResult
from stochastok_cli.evaluation.multiple_choice import EncodedBenchmark
from stochastok_cli.evaluation.robustness import margins
from stochastok_cli.evaluation.scoring import BATCH_TOKENS, Pair
from stochastok_cli.evaluation.shared_prefix import question_log_likelihoods
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.split_table import SplitTable, split_table
from stochastok_cli.tokenization.vocabulary import Vocabulary

ROUND = 32
"""Candidates a round and question, drawn at random where there are more: one that tried all would spend the budget."""


@dataclass
class Attack:
    """The state of the search on one question: the prefix as it is cut now, the lead of the right option with it, the
    passes that are left, the splits made, the splits of this prefix that are not tried yet (None: not listed), and the
    candidates of this round."""

    prefix: list[int]
    options: list[list[int]]
    lead: float
    left: int
    splits: int = 0
    untried: list[tuple[int, tuple[int, int]]] | None = None
    candidates: list[list[int]] = field(default_factory=list)

    @property
    def going(self) -> bool:
        return self.lead > 0 and self.left > 0 and self.untried != []


def ask_adversarially(
    model: CausalLM,
    vocabulary: Vocabulary,
    encoded: EncodedBenchmark,
    budget: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback = no_progress,
) -> EvalResult:
    """A benchmark under attack, as `mcq/<benchmark>/adversarial/<metric>`; `budget` passes a question.

    accuracy: still right at the end; splits: mean number of splits where the attack succeeded; passes: mean number of
    forward passes spent on a question, the canonical one counted. Questions without a prefix are left as they are.
    """
    table = split_table(vocabulary)
    scores = question_log_likelihoods(model, encoded.pairs, encoded.num_options, batch_tokens)
    attacks = _attacks(encoded, margins(scores, encoded.num_options), budget - 1, vocabulary.end_of_text)
    started_right = sum(attack.lead > 0 for attack in attacks)
    rounds = 0
    while any(attack.going for attack in attacks):
        for i, attack in enumerate(attacks):
            attack.candidates = _candidates(attack, table, model.context_window, rounds, i)
        _advance(model, [attack for attack in attacks if attack.candidates], batch_tokens)
        rounds += 1
        spent = sum(budget - attack.left for attack in attacks if attack.left < budget - 1)
        progress(f"{encoded.name}, adversarial", min(spent, started_right * budget), started_right * budget)
    name = f"mcq/{encoded.name}/adversarial"
    found = EvalResult()
    found.add(f"{name}/accuracy", np.array([attack.lead > 0 for attack in attacks]))
    broken = [attack.splits for attack in attacks if attack.lead <= 0 and attack.splits]
    found.metrics[f"{name}/splits"] = float(np.mean(broken)) if broken else 0.0
    found.metrics[f"{name}/passes"] = float(np.mean([budget - attack.left for attack in attacks]))
    return found


def _attacks(encoded: EncodedBenchmark, is_main_rank: np.ndarray, left: int, end_of_text: int) -> list[Attack]:
    attacks = []
    ends = np.cumsum(encoded.num_options)
    for end, n, lead in zip(ends.tolist(), encoded.num_options.tolist(), is_main_rank.tolist(), strict=True):
        question = encoded.pairs[end - n : end]
        prefix = [int(i) for i in question[0][0]]
        without = prefix == [end_of_text]
        options = [[int(i) for i in option] for _, option in question]
        attacks.append(Attack([] if without else prefix, options, lead, left))
    return attacks


def _candidates(attack: Attack, table: SplitTable, window: int, round_: int, index: int) -> list[list[int]]:
    """The prefix with one token split, in at most ROUND ways and no more than passes are left; with none the search on
    this question is over."""
    if not attack.going:
        return []
    if attack.untried is None:
        fits = len(attack.prefix) + max(map(len, attack.options)) <= window  # with one more id
        ways = [(i, pair) for i, token in enumerate(attack.prefix) for pair in table.of(token)] if fits else []
        order = stream(0, "adversarial", index, round_).permutation(len(ways))
        attack.untried = [ways[i] for i in order.tolist()]
    most = min(ROUND, attack.left)
    chosen, attack.untried = attack.untried[:most], attack.untried[most:]
    return [[*attack.prefix[:i], *pair, *attack.prefix[i + 1 :]] for i, pair in chosen]


def _advance(model: CausalLM, attacks: list[Attack], batch_tokens: int) -> None:
    """One round: scores all candidates together, and each search takes its best or ends."""
    pairs: list[Pair] = []
    num_options = []
    for attack in attacks:
        for candidate in attack.candidates:
            pairs += [(candidate, option) for option in attack.options]
            num_options.append(len(attack.options))
    is_main_rank = np.empty(0)
    if pairs:
        is_main_rank = margins(question_log_likelihoods(model, pairs, num_options, batch_tokens), num_options)
    start = 0
    for attack in attacks:
        found = is_main_rank[start : start + len(attack.candidates)]
        start += len(attack.candidates)
        attack.left -= len(attack.candidates)
        if len(found) and found.min() < attack.lead:
            best = int(np.argmin(found))
            attack.prefix, attack.lead, attack.splits = attack.candidates[best], float(found[best]), attack.splits + 1
            attack.untried = None
