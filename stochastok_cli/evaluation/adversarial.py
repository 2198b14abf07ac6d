"""The most harmful tokenization of a question: a greedy search among neighboring tokenizations, within a budget.

From the canonical ids of a question's prefix each round tries neighbors (see `neighbors`) and, if one reduces the
margin of the correct option over the others, keeps the one that reduces it most; if none does, others are tried. The
search ends when the answer is wrong, when no neighbor reduces the margin any more, or when the budget is spent; with
restarts it begins again from random tokenizations. One forward pass is one tokenization of one question with all of its
options. The candidates of all questions go through the model together.

The search is that of AdvTok (Geh et al. 2025, arXiv 2503.02174, Section 3), with the margin between options in place of
the likelihood of one response, and in rounds of at most `ROUND` neighbors, since a budget counts every one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from stochastok_cli.evaluation.base import EvaluatorOutput
from stochastok_cli.evaluation.changed_answers import WrongAnswer, changed_answers
from stochastok_cli.evaluation.chosen_answers import chosen_answers
from stochastok_cli.evaluation.encoding import EncodedBenchmark, EncodedQuestion
from stochastok_cli.evaluation.metrics import chance, is_correct, margins
from stochastok_cli.evaluation.neighbors import Replacement, TextGraph, TokenFinder
from stochastok_cli.evaluation.results import Curve, Metric
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.statistics import mean_interval
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

ROUND = 32
"""Candidates per round and question, drawn at random where there are more: all would spend the budget at once."""
P_OF_RESTARTS = 0.5
"""The p of `uniform` from which a search begins again: half of the tokens are split."""


@dataclass(frozen=True)
class SearchSettings:
    """How the most harmful tokenization is searched.

    Attributes:
        budget: Forward passes per question, the canonical one included.
        neighbors: Which tokenizations are tried from a given one: "lattice" (one or two tokens replace any neighboring
            ones) or "splits" (two tokens replace one).
        restarts: How often the search begins again, each time with an equal part of what is left of the budget.
    """

    budget: int
    neighbors: str = "lattice"
    restarts: int = 0


RandomText = Callable[[EncodedQuestion, int, int], list[int]]
"""Draws the tokenization of a question's text from which a search begins again, by the numbers of both."""


@dataclass
class Search:
    """The state of the search on one question.

    Attributes:
        question: The question in its canonical tokenization.
        index: Its number in the benchmark, which selects its random numbers.
        settings: How to search.
        passes: Forward passes so far.
        ids: How the text of the question is tokenized now (`EncodedQuestion.text`).
        margin: By how many nats the correct option is likelier than the others with it.
        steps: How many replacements led from the start to `ids`.
        best_ids: The tokenization with the smallest margin so far.
        best_margin: That margin.
        best_scores: The log-likelihoods of the options with it, in nats, float64 `[options]`.
        broken_after: After how many forward passes the answer was wrong; None while it is right.
        candidates: The tokenizations that are tried in this round.
    """

    question: EncodedQuestion
    index: int
    settings: SearchSettings
    best_scores: np.ndarray
    margin: float = field(init=False)
    passes: int = field(init=False, default=1)
    ids: list[int] = field(init=False)
    steps: int = field(init=False, default=0)
    best_ids: list[int] = field(init=False)
    best_margin: float = field(init=False)
    broken_after: int | None = field(init=False)
    candidates: list[list[int]] = field(init=False, default_factory=list)
    _graph: TextGraph | None = field(init=False, default=None)
    _untried: list[Replacement] | None = field(init=False, default=None)
    _restarts: int = field(init=False, default=0)
    _begins_again: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.ids = self.best_ids = [int(token) for token in self.question.text]
        self.margin = self.best_margin = margins([self.best_scores]).item()
        self.broken_after = 1 if self.margin <= 0 else None
        self._last_pass = self._end_of_start()

    def _end_of_start(self) -> int:
        """After how many passes this start ends: each one that is to come has as many as this one."""
        left = self.settings.budget - self.passes
        return self.passes + left // (self.settings.restarts - self._restarts + 1)

    def propose(self, finder: TokenFinder, random_text: RandomText, context_window: int, round_: int) -> None:
        """Chooses the candidates of a round; none where the search has ended."""
        self.candidates, self._begins_again = [], False
        if not self.ids or self.broken_after is not None or self.passes == self.settings.budget:
            return
        rest = len(self.question.context) - len(self.question.text) + max(map(len, self.question.options)) - 1
        if self._untried is None:
            self._untried = self._neighbors(finder, context_window - rest, round_)
        while self._restarts < self.settings.restarts and (not self._untried or self.passes >= self._last_pass):
            self._restarts += 1
            self._last_pass = self._end_of_start()
            ids = random_text(self.question, self.index, self._restarts)
            if len(ids) + rest <= context_window:
                self.candidates, self._begins_again = [ids], True
                return
        count = min(ROUND, self._last_pass - self.passes)
        chosen, self._untried = self._untried[:count], self._untried[count:]
        self.candidates = [replacement.apply(self.ids) for replacement in chosen]

    def _neighbors(self, finder: TokenFinder, window: int, round_: int) -> list[Replacement]:
        """The replacements after which the text still fits, in a random order."""
        self._graph = self._graph or TextGraph(self.ids, finder)
        listed = self._graph.neighbors if self.settings.neighbors == "lattice" else self._graph.splits
        fitting = [one for one in listed(self.ids) if len(self.ids) + one.growth <= window]
        order = stream(0, "adversarial", self.index, round_).permutation(len(fitting))
        return [fitting[i] for i in order.tolist()]

    def accept(self, scores: Sequence[np.ndarray]) -> None:
        """Takes the candidate of the smallest margin if that reduces the margin, or begins again at it.

        Args:
            scores: For each candidate the log-likelihoods of the options, in nats, float64 `[options]`.
        """
        of_candidates = margins(scores)
        best = int(np.argmin(of_candidates))
        if self._begins_again or of_candidates[best] < self.margin:
            self.steps = 0 if self._begins_again else self.steps + 1
            self.ids, self.margin = self.candidates[best], float(of_candidates[best])
            self._untried = None
        if self.margin < self.best_margin:
            self.best_ids, self.best_margin, self.best_scores = self.ids, self.margin, scores[best]
        if (of_candidates <= 0).any():
            self.broken_after = self.passes + 1 + int(np.argmax(of_candidates <= 0))
        self.passes += len(self.candidates)


def search_hardest(lm: LM, benchmark: EncodedBenchmark, settings: SearchSettings) -> list[Search]:
    """The ended searches on all questions of a benchmark, in their order.

    Args:
        lm: The model.
        benchmark: Its questions. Those without a prefix stay as they are, and so do the frozen parts of a prefix.
        settings: How to search.
    """
    progress, lm = lm.progress, lm.without_progress()
    finder = TokenFinder(lm.vocabulary)
    canonical = lm.question_scores(benchmark)
    searches = [
        Search(question, i, settings, scores)
        for i, (question, scores) in enumerate(zip(benchmark.questions, canonical, strict=True))
    ]
    total = settings.budget * sum(search.broken_after is None for search in searches)

    def random_text(question: EncodedQuestion, index: int, number: int) -> list[int]:
        return StochasTok(lm.vocabulary, P_OF_RESTARTS, "uniform", seed=number)(question.text, index).tolist()

    active, round_ = searches, 0
    while active:
        for search in active:
            search.propose(finder, random_text, lm.context_window, round_)
        active = [search for search in active if search.candidates]
        _try_candidates(lm, active)
        round_ += 1
        spent = sum(search.passes for search in searches if search.passes > 1)
        progress(f"{benchmark.name}, adversarial", min(spent, total), total)
    return searches


def _try_candidates(lm: LM, searches: Sequence[Search]) -> None:
    """One round of all searches: their candidates go through the model together."""
    questions = [search.question.with_text(ids) for search in searches for ids in search.candidates]
    if not questions:
        return
    scores = iter(lm.question_scores(EncodedBenchmark("candidates", questions)))
    for search in searches:
        search.accept(list(islice(scores, len(search.candidates))))


# ------------------------------------------------------------------------------------------------ metrics


def evaluate_adversarial(
    benchmark: EncodedBenchmark, searches: Sequence[Search], vocabulary: Vocabulary
) -> EvaluatorOutput:
    """A benchmark under attack, as metrics of the part "adversarial" and the accuracy by budget.

    accuracy: still correct at the end; splits (or replacements, where neighbors of the whole lattice are tried): mean
    number of them where the attack succeeded, and left out where it never did; passes: mean number of forward passes
    spent on a question, the canonical one included; growth: mean ids of the prefix over those of the canonical one.

    Args:
        benchmark: The questions.
        searches: Those of `search_hardest` on them.
        vocabulary: The vocabulary of the ids.
    """
    settings = searches[0].settings
    correct = np.array([search.broken_after is None for search in searches], dtype=np.float64)
    successful = [search.steps for search in searches if search.broken_after is not None and search.passes > 1]
    growth = [len(search.best_ids) / max(len(search.question.text), 1) for search in searches]
    initially_wrong = np.array([search.broken_after == 1 for search in searches])
    wrong = {s.index: WrongAnswer(s.best_ids, s.best_scores) for s in searches if s.broken_after is not None}
    steps = "splits" if settings.neighbors == "splits" else "replacements"
    guess = chance([np.zeros(len(question.options)) for question in benchmark.questions])

    def metric(name: str, value: float, outcomes: np.ndarray | None = None) -> Metric:
        guessed = guess if name == "accuracy" else None
        return Metric("mcq", benchmark.name, "adversarial", name, value, len(searches), outcomes, chance=guessed)

    hardest = [s.question.with_text(s.best_ids) if s.question.has_prefix else s.question for s in searches]
    return EvaluatorOutput(
        [
            metric("accuracy", float(correct.mean()), correct),
            *([metric(steps, float(np.mean(successful)))] if successful else []),
            metric("passes", float(np.mean([search.passes for search in searches]))),
            metric("growth", float(np.mean(growth))),
        ],
        [Curve("mcq", benchmark.name, "adversarial", accuracy_by_budget(searches))],
        answers=chosen_answers(
            replace(benchmark, questions=hardest), [search.best_scores for search in searches], "adversarial"
        ),
        changed_answers=[changed_answers(vocabulary, benchmark, "adversarial", ~initially_wrong, wrong)],
    )


def accuracy_by_budget(searches: Sequence[Search]) -> list[dict[str, Any]]:
    """The accuracy that would be left with smaller budgets: powers of two, and the budget itself.

    Without restarts these are the accuracies that searches of those budgets find.

    Returns:
        Points: `x` the budget, `y` the accuracy, `n` the number of questions, `low` and `high` the 95% interval.
    """
    budget = searches[0].settings.budget
    broken_after = np.array([search.broken_after or budget + 1 for search in searches])
    points = []
    for x in [*(2**i for i in range((budget - 1).bit_length())), budget]:
        right = (broken_after > x).astype(np.float64)
        low, high = mean_interval(right)
        points.append({"x": x, "y": float(right.mean()), "n": len(right), "low": float(low), "high": float(high)})
    return points


def evaluate_transfer(lm: LM, benchmark: EncodedBenchmark, worst: Sequence[Sequence[int]]) -> EvaluatorOutput:
    """A benchmark in the most harmful tokenizations of another model, as metrics of the part "transfer".

    Args:
        lm: The model.
        benchmark: Its questions.
        worst: For each question the ids of its text (`Search.best_ids`). Where they do not fit the window, the question
            loses ids from the left: `truncated`.
    """
    questions = [question.with_text(ids) for question, ids in zip(benchmark.questions, worst, strict=True)]
    fitting = [question.cut_to(lm.context_window) for question in questions]
    truncated = sum(cut is not whole for cut, whole in zip(fitting, questions, strict=True))
    retokenized = replace(benchmark, questions=fitting, truncated=truncated)
    scores = lm.question_scores(retokenized, description=f"{benchmark.name}, transfer")
    outcomes, n = is_correct(scores).astype(np.float64), len(questions)
    value = float(outcomes.mean())
    metrics = [Metric("mcq", benchmark.name, "transfer", "accuracy", value, n, outcomes, chance=chance(scores))]
    if truncated:
        metrics.append(Metric("mcq", benchmark.name, "transfer", "truncated", truncated, n))
    return EvaluatorOutput(metrics, answers=chosen_answers(retokenized, scores, "transfer"))
