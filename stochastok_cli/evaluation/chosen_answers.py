"""The options that a model chooses."""

from collections.abc import Sequence

import numpy as np

from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.encoding import EncodedBenchmark
from stochastok_cli.evaluation.metrics import is_correct, option_probabilities


def chosen_answers(
    benchmark: EncodedBenchmark, scores: Sequence[np.ndarray], part: str = "", sample: int | None = None
) -> list[Answers]:
    """The likeliest option of each question. Of a tie, which is not correct, it is not the right one.

    Args:
        benchmark: The questions, in the tokenization in which they were asked.
        scores: For each question the log-likelihoods of its options, the right one first, in nats, float64 `[options]`.
        part: The other tokenization, as in `Metric.part`; "" for the canonical one.
        sample: Which of several other tokenizations it is, from 0.

    Returns:
        One; none where the benchmark has no texts.
    """
    if not benchmark.texts:
        return []
    correct = is_correct(scores).tolist()
    chosen = [0 if right else 1 + int(s[1:].argmax()) for right, s in zip(correct, scores, strict=True)]
    options = [question.options for question in benchmark.texts]
    return [
        Answers(
            "mcq",
            benchmark.name,
            part,
            questions=[question.prefix for question in benchmark.texts],
            options=options,
            answers=[texts[i] for texts, i in zip(options, chosen, strict=True)],
            is_correct=correct,
            probabilities=[float(option_probabilities(s)[i]) for s, i in zip(scores, chosen, strict=True)],
            rows=[question.row for question in benchmark.texts],
            token_ids=[question.context for question in benchmark.questions],
            option_token_ids=[question.options for question in benchmark.questions],
            log_likelihoods=scores,
            sample=sample,
            is_canonical=not part,
        )
    ]
