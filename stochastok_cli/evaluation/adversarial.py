"""The most harmful tokenization: a greedy search over single splits within a budget of forward passes.

From the canonical ids of a question's prefix each round tries single splits of its tokens and, if one reduces the
margin of the correct option over the others, keeps the one that reduces it most; if none does, others are tried. The
search ends when the answer is wrong, when no single split reduces the margin any more, or when the budget is spent. One
forward pass is one tokenization of one question with all of its options. The candidates of all questions go through the
model together.
"""

from dataclasses import dataclass, field

import numpy as np

from stochastok_cli.evaluation.base import EvaluatorOutput, Metric
from stochastok_cli.evaluation.encoding import EncodedBenchmark, EncodedQuestion
from stochastok_cli.evaluation.metrics import chance, margins
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.split_table import SplitTable, split_table

ROUND = 32
"""Candidates per round and question, drawn at random where there are more: all would spend the budget at once."""


@dataclass
class Attack:
    """The state of the search on one question.

    Attributes:
        prefix: The ids of the prefix as it is tokenized now; empty where there is no prefix.
        options: The ids of the options.
        margin: By how many nats the correct option is likelier than the others with this prefix.
        passes_left: Forward passes that may still be made.
        splits: How many splits have been made.
        untried: The splits of this prefix that are not tried yet; None before they are listed.
        candidates: The prefixes that are tried in this round.
    """

    prefix: list[int]
    options: list[list[int]]
    margin: float
    passes_left: int
    splits: int = 0
    untried: list[tuple[int, tuple[int, int]]] | None = None
    candidates: list[list[int]] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.margin > 0 and self.passes_left > 0 and self.untried != []


def evaluate_adversarial(lm: LM, benchmark: EncodedBenchmark, budget: int) -> EvaluatorOutput:
    """A benchmark under attack, as metrics of the part "adversarial".

    accuracy: still correct at the end; splits: mean number of splits where the attack succeeded; passes: mean number of
    forward passes spent on a question, the canonical one included. Questions without a prefix stay as they are.

    Args:
        lm: The model.
        benchmark: Its questions.
        budget: Forward passes per question.
    """
    table, progress, lm = split_table(lm.vocabulary), lm.progress, lm.without_progress()
    scores = lm.question_scores(benchmark)
    canonical = margins(scores)
    attacks = [
        Attack(
            [int(i) for i in question.context] if question.has_prefix else [],
            [[int(i) for i in option] for option in question.options],
            margin,
            budget - 1,
        )
        for question, margin in zip(benchmark.questions, canonical.tolist(), strict=True)
    ]
    initially_correct = sum(attack.margin > 0 for attack in attacks)
    rounds = 0
    while any(attack.is_running for attack in attacks):
        for i, attack in enumerate(attacks):
            attack.candidates = _candidates(attack, table, lm.context_window, rounds, i)
        _advance(lm, [attack for attack in attacks if attack.candidates])
        rounds += 1
        spent = sum(budget - attack.passes_left for attack in attacks if attack.passes_left < budget - 1)
        progress(f"{benchmark.name}, adversarial", min(spent, initially_correct * budget), initially_correct * budget)

    def metric(name: str, value: float, outcomes: np.ndarray | None = None) -> Metric:
        guess = chance(scores) if name == "accuracy" else None
        return Metric("mcq", benchmark.name, "adversarial", name, value, len(attacks), outcomes, chance=guess)

    correct = np.array([attack.margin > 0 for attack in attacks], dtype=np.float64)
    successful = [attack.splits for attack in attacks if attack.margin <= 0 and attack.splits]
    return EvaluatorOutput(
        [
            metric("accuracy", float(correct.mean()), correct),
            metric("splits", float(np.mean(successful)) if successful else 0.0),
            metric("passes", float(np.mean([budget - attack.passes_left for attack in attacks]))),
        ]
    )


def _candidates(attack: Attack, table: SplitTable, context_window: int, round_: int, index: int) -> list[list[int]]:
    """The prefix with one token split, in at most ROUND ways and no more than passes are left.

    Where there is none, the search on this question has ended.
    """
    if not attack.is_running:
        return []
    if attack.untried is None:
        fits = len(attack.prefix) + max(map(len, attack.options)) <= context_window  # with one more id
        splits = [(i, pair) for i, token in enumerate(attack.prefix) for pair in table.of(token)] if fits else []
        order = stream(0, "adversarial", index, round_).permutation(len(splits))
        attack.untried = [splits[i] for i in order.tolist()]
    count = min(ROUND, attack.passes_left)
    chosen, attack.untried = attack.untried[:count], attack.untried[count:]
    return [[*attack.prefix[:i], *pair, *attack.prefix[i + 1 :]] for i, pair in chosen]


def _advance(lm: LM, attacks: list[Attack]) -> None:
    """One round: scores all candidates together; each search takes its best candidate if it reduces the margin."""
    questions = [EncodedQuestion(prefix, attack.options) for attack in attacks for prefix in attack.candidates]
    if not questions:
        return
    all_margins = margins(lm.question_scores(EncodedBenchmark("candidates", questions)))
    start = 0
    for attack in attacks:
        of_candidates = all_margins[start : start + len(attack.candidates)]
        start += len(attack.candidates)
        attack.passes_left -= len(attack.candidates)
        best = int(np.argmin(of_candidates))
        if of_candidates[best] < attack.margin:
            attack.prefix, attack.margin = attack.candidates[best], float(of_candidates[best])
            attack.splits += 1
            attack.untried = None
