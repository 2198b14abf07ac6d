"""Answers by generation: prompts that fit the window, greedy answers, and how many of them are right."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stochastok_cli.errors import Notice, UserError
from stochastok_cli.evaluation.answers import Answers, ChangedAnswers
from stochastok_cli.evaluation.base import EvaluatorOutput
from stochastok_cli.evaluation.changed_answers import ChangedText, with_examples
from stochastok_cli.evaluation.generation_benchmarks import GenerationBenchmark, GenerationQuestion
from stochastok_cli.evaluation.prompts import EncodedPrompt, PromptEncoder
from stochastok_cli.evaluation.results import Metric
from stochastok_cli.evaluation.robustness import Tokenization, robustness_metrics
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.text_match import MATCHES, Normalization
from stochastok_cli.evaluation.tokenization_notes import note_unchanged
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

EVALUATOR = "generation"
_LEAST_NEW_TOKENS = 16


@dataclass(frozen=True)
class EncodedGeneration:
    """A benchmark whose prompts are token ids.

    Attributes:
        benchmark: The questions.
        prompts: One for each question.
        until: Texts that end an answer.
        stop_ids: Ids that end an answer.
        max_new_tokens: The most ids of an answer.
        normalization: What of the answers is compared.
        match: Which match makes an answer right in groups, other tokenizations and reports: a name of MATCHES.
        groups: By name, which questions belong to it, bool `[questions]`.
    """

    benchmark: GenerationBenchmark
    prompts: Sequence[EncodedPrompt]
    until: tuple[str, ...]
    stop_ids: frozenset[int]
    max_new_tokens: int
    normalization: Normalization
    match: str = "exact_match"
    groups: dict[str, np.ndarray] = field(default_factory=dict)

    def limit(self, context_window: int) -> int:
        """The most ids of a prompt, after which an answer of `max_new_tokens` fits."""
        return context_window + 1 - self.max_new_tokens  # the last id is predicted, never read


def encode_generation(
    benchmark: GenerationBenchmark,
    encoder: PromptEncoder,
    context_window: int,
    *,
    until: tuple[str, ...],
    max_new_tokens: int | None,
    normalization: Normalization,
    match: str,
) -> EncodedGeneration:
    """Tokenizes the prompts. White space at the end of a prompt belongs to the answer and is left out.

    Args:
        benchmark: The questions.
        encoder: How the model reads prompts.
        context_window: The model's, in tokens.
        until: Texts that end an answer, where the benchmark has none of its own.
        max_new_tokens: The most ids of an answer, where it is not the benchmark's; by default as many as the longest
            right answer has bytes and one more, at least 16.
        normalization: What of the answers is compared.
        match: A name of MATCHES.

    Raises:
        UserError: The context window has no room for an answer, or the chat template does not take a prompt.
    """
    questions = benchmark.questions
    if max_new_tokens is None:
        longest = max(len(answer.encode()) for question in questions for answer in question.answers)
        max_new_tokens = benchmark.max_new_tokens or max(longest + 1, _LEAST_NEW_TOKENS)
    encoded = EncodedGeneration(
        benchmark,
        [encoder.encode(one.prompt.rstrip(), benchmark.answer_begins) for one in questions],
        until if benchmark.until is None else benchmark.until,
        frozenset(encoder.stop_ids(questions[0].prompt)),
        max_new_tokens,
        normalization,
        match,
    )
    if encoded.limit(context_window) < 1 + max(len(prompt.before) + len(prompt.after) for prompt in encoded.prompts):
        raise UserError(
            f"benchmark {benchmark.name}: an answer of {max_new_tokens} tokens leaves no room for its question in the "
            f"model's context window of {context_window}",
            fix="give a smaller --max-new-tokens, or use a model with a longer window",
        )
    _note_empty_answers(encoded)
    return encoded


def _note_empty_answers(encoded: EncodedGeneration) -> None:
    """Says how many right answers have nothing left to compare, such as a number where digits do not count."""
    empty = [
        one.row
        for one in encoded.benchmark.questions
        if any(answer and not _normalization(encoded, one).apply(answer).strip() for answer in one.answers)
    ]
    if empty:
        text = f"benchmark {encoded.benchmark.name}: right answers of which nothing is left to compare: {len(empty)}"
        warnings.warn(f"{text} (the first is that of row {empty[0]})", Notice, stacklevel=2)


def evaluate_generation(lm: LM, encoded: EncodedGeneration) -> EvaluatorOutput:
    """exact_match and prefix_match, fractions of the questions; the one that is chosen of each group; and the answers.

    "truncated" is added where prompts were too long: the number of questions concerned.
    """
    benchmark = encoded.benchmark
    prompts, truncated = _fitted(encoded, [prompt.ids for prompt in encoded.prompts], lm.context_window)
    texts = _answers(lm, encoded, prompts, benchmark.name)
    outcomes = {name: _outcomes(encoded, texts, name) for name in MATCHES}
    metrics = [_mean(benchmark.name, "", name, values) for name, values in outcomes.items()]
    right = outcomes[encoded.match]
    if truncated:
        metrics.append(Metric(EVALUATOR, benchmark.name, "", "truncated", truncated, len(texts)))
    metrics += [
        _mean(benchmark.name, part, encoded.match, right[members])
        for part, members in encoded.groups.items()
        if members.any()
    ]
    return EvaluatorOutput(metrics, answers=[_written_answers(encoded, prompts, texts, right)])


def _written_answers(
    encoded: EncodedGeneration,
    prompts: Sequence[list[int]],
    texts: Sequence[str],
    right: np.ndarray,
    part: str = "",
    sample: int | None = None,
) -> Answers:
    """The texts that the model wrote after prompts of token ids, and which of them are right."""
    benchmark = encoded.benchmark
    return Answers(
        EVALUATOR,
        benchmark.name,
        part,
        questions=[one.question for one in benchmark.questions],
        options=[[one.answers[0]] for one in benchmark.questions],
        answers=[text.strip() for text in texts],
        is_correct=[bool(outcome) for outcome in right],
        note=benchmark.note,
        rows=[one.row for one in benchmark.questions],
        token_ids=prompts,
        sample=sample,
        is_canonical=not part,
    )


def evaluate_retokenized_prompts(
    lm: LM, encoded: EncodedGeneration, tokenization: Tokenization, is_right: Sequence[bool]
) -> EvaluatorOutput:
    """The questions with their prompts in other tokenizations; see `robustness.robustness_metrics`.

    Args:
        lm: The model.
        encoded: The benchmark.
        tokenization: The other tokenizations.
        is_right: Which questions are answered right in the canonical one.
    """
    name = encoded.benchmark.name
    changed: dict[int, ChangedText] = {}
    written: list[Answers] = []
    correct, distances, growths, truncated, changed_ids = [], [], [], 0, 0
    for sample in range(tokenization.samples):
        expand = StochasTok(lm.vocabulary, tokenization.p, tokenization.method, seed=sample)
        canonical = [np.asarray(prompt.ids, dtype=np.int64) for prompt in encoded.prompts]
        expanded = [expand(ids, i) for i, ids in enumerate(canonical)]
        changed_ids += sum(not np.array_equal(*pair) for pair in zip(canonical, expanded, strict=True))
        max_splits = [int(expand.lattice.max_splits[ids].sum()) for ids in canonical]
        lengths, before = np.array(list(map(len, expanded))), np.array(list(map(len, canonical)))
        distances.append((lengths - before) / np.maximum(max_splits, 1))
        growths.append(lengths / np.maximum(before, 1))
        prompts, too_long = _fitted(encoded, [ids.tolist() for ids in expanded], lm.context_window)
        truncated += too_long
        description = f"{name}, {tokenization.name}, sample {sample + 1} of {tokenization.samples}"
        texts = _answers(lm, encoded, prompts, description)
        correct.append(_outcomes(encoded, texts, encoded.match))
        written.append(_written_answers(encoded, prompts, texts, correct[-1], tokenization.name, sample))
        for i in np.flatnonzero(np.array(is_right) & (correct[-1] == 0)).tolist():
            question = encoded.benchmark.questions[i]
            text = ChangedText(question.row, canonical[i], expanded[i], question.answers[0], texts[i].strip())
            changed.setdefault(i, text)
    note_unchanged(name, tokenization.text, changed_ids)
    group = Metric(EVALUATOR, name, tokenization.name, encoded.match, math.nan)
    output = robustness_metrics(group, np.array(correct), np.array(distances), np.array(growths), truncated)
    group_of_changed = ChangedAnswers(EVALUATOR, name, tokenization.name, sum(is_right), len(changed), [])
    examples = with_examples(group_of_changed, changed, lm.vocabulary)
    return replace(output, answers=written, changed_answers=[examples])


def _fitted(encoded: EncodedGeneration, ids: Sequence[list[int]], context_window: int) -> tuple[list[list[int]], int]:
    """Whole prompts, without the beginnings of those that do not fit, and how many these are."""
    limit = encoded.limit(context_window)
    limits = [limit - len(prompt.before) - len(prompt.after) for prompt in encoded.prompts]
    fitted = [
        prompt._replace(ids=own[-most:]).all_ids for prompt, own, most in zip(encoded.prompts, ids, limits, strict=True)
    ]
    return fitted, sum(len(own) > most for own, most in zip(ids, limits, strict=True))


def _answers(lm: LM, encoded: EncodedGeneration, prompts: Sequence[list[int]], description: str) -> list[str]:
    """The model's answers, taken out of the generated texts."""
    # Greedy decoding takes the likeliest id even of NaNs; scoring an id raises for a model that gives them.
    lm.without_progress().log_likelihoods([(prompts[0], prompts[0][:1])], description=description)
    generated = lm.generate_greedy(prompts, encoded.max_new_tokens, _stop(encoded, lm.vocabulary))
    lm.progress(description, len(prompts), len(prompts))
    extract = encoded.benchmark.extract
    return [extract(_text(ids, encoded, lm.vocabulary)) for ids in generated]


def _stop(encoded: EncodedGeneration, vocabulary: Vocabulary) -> Callable[[list[int]], bool]:
    """Whether an answer ends with the last of some ids."""
    most_bytes = max((len(text.encode()) for text in encoded.until), default=0)

    def stop(ids: list[int]) -> bool:
        if ids[-1] in encoded.stop_ids:
            return True
        tail = vocabulary.decode(ids[-most_bytes:]) if most_bytes else ""
        return any(text in tail for text in encoded.until)

    return stop


def _text(ids: list[int], encoded: EncodedGeneration, vocabulary: Vocabulary) -> str:
    """The text of an answer before what ended it, without special tokens."""
    ids = ids[:-1] if ids and ids[-1] in encoded.stop_ids else ids
    text = vocabulary.decode(i for i in ids if i not in vocabulary.special)
    return text[: min((text.find(end) for end in encoded.until if end in text), default=len(text))]


def _outcomes(encoded: EncodedGeneration, texts: Sequence[str], match: str) -> np.ndarray:
    """Which answers are right, float64 `[questions]`."""
    pairs = zip(texts, encoded.benchmark.questions, strict=True)
    is_right = [MATCHES[match](text, one.answers, _normalization(encoded, one)) for text, one in pairs]
    return np.array(is_right, dtype=np.float64)


def _normalization(encoded: EncodedGeneration, question: GenerationQuestion) -> Normalization:
    of_kind = encoded.benchmark.normalization_of.get(question.kind)
    return encoded.normalization if of_kind is None else encoded.normalization | of_kind


def _mean(benchmark: str, part: str, name: str, outcomes: np.ndarray) -> Metric:
    return Metric(EVALUATOR, benchmark, part, name, float(outcomes.mean()), len(outcomes), outcomes)
