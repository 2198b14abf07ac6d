"""What a model answered to the questions of lm-evaluation-harness, for reports that show some of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stochastok_cli.evaluation.answers import Answers, ChangedAnswers
from stochastok_cli.evaluation.changed_answers import ChangedText, with_examples
from stochastok_cli.evaluation.metrics import option_probabilities

if TYPE_CHECKING:
    from stochastok_cli.evaluation.harness.retokenizing_lm import RetokenizingLM

EVALUATOR = "lm_eval"


def answers_of(results: Mapping[str, Any]) -> dict[str, Answers]:
    """The answers by task, of those tasks whose questions have options or one right text.

    Args:
        results: What `lm_eval.simple_evaluate` returns, with its samples.
    """
    answers = {}
    for task, rows in results["samples"].items():
        first_filter = rows[0]["filter"] if rows else ""
        rows = [row for row in rows if row["filter"] == first_filter]
        made = _chosen(task, rows) or _generated(task, rows)
        if made is not None:
            answers[task] = made
    return answers


def _chosen(task: str, rows: Sequence[Mapping[str, Any]]) -> Answers | None:
    """Answers by the likeliest option; None where a task has other requests, or another rule of what is right."""
    questions, options, answers, is_correct, probabilities, log_likelihoods = [], [], [], [], [], []
    for row in rows:
        requests, right = row["arguments"], row["target"]
        contexts = {request[0] for request in requests}
        is_pair = all(len(request) == 2 and isinstance(request[1], str) for request in requests)
        if not (is_pair and "acc" in row and len(contexts) == 1 and _is_place(right, requests)):
            return None
        texts = [request[1].strip() for request in requests]
        scores = np.array([answer[0] for answer in row["filtered_resps"]], np.float64)
        chosen = int(scores.argmax())
        if (chosen == right) != (row["acc"] == 1):
            return None
        questions.append(contexts.pop())
        options.append([texts[right], *texts[:right], *texts[right + 1 :]])
        log_likelihoods.append(np.array([scores[right], *scores[:right], *scores[right + 1 :]]))
        answers.append(texts[chosen])
        is_correct.append(chosen == right)
        probabilities.append(float(option_probabilities(scores)[chosen]))
    if not rows:
        return None
    return Answers(
        EVALUATOR,
        task,
        "",
        questions,
        options,
        answers,
        is_correct,
        probabilities,
        rows=[row["doc_id"] + 1 for row in rows],
        log_likelihoods=log_likelihoods,
    )


def _is_place(target: Any, requests: Sequence[Any]) -> bool:
    return isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(requests)


def _generated(task: str, rows: Sequence[Mapping[str, Any]]) -> Answers | None:
    """Generated answers that are right or wrong; None where a task has other requests, or scores them otherwise."""
    questions, options, answers, is_correct = [], [], [], []
    for row in rows:
        requests, answer = row["arguments"], row["filtered_resps"][0]
        is_generation = len(requests) == 1 and len(requests[0]) == 2 and isinstance(requests[0][1], dict)
        if not (is_generation and isinstance(answer, str) and row.get("exact_match") in (0, 1)):
            return None
        questions.append(requests[0][0])
        options.append([str(row["target"])])
        answers.append(answer)
        is_correct.append(row["exact_match"] == 1)
    if not rows:
        return None
    row_numbers = [row["doc_id"] + 1 for row in rows]
    return Answers(EVALUATOR, task, "", questions, options, answers, is_correct, rows=row_numbers)


def changed_answers(
    model: "RetokenizingLM", canonical: Mapping[str, Answers], samples: Sequence[Mapping[str, Answers]], part: str
) -> list[ChangedAnswers]:
    """Questions whose answer becomes wrong in a sample of another tokenization of their context, by task.

    Args:
        model: In the tokenization of the samples.
        canonical: The answers to the canonical requests.
        samples: Those of each sample.
        part: As in `Metric.part`.
    """
    groups = []
    for task, first in canonical.items():
        of_task = [sample[task] for sample in samples if task in sample]
        right = [i for i, is_correct in enumerate(first.is_correct) if is_correct]
        wrong = {i: [s for s, answers in enumerate(of_task) if not answers.is_correct[i]] for i in right}
        changed = [i for i in right if wrong[i]]
        texts = {}
        for i in changed:
            if first.questions[i].strip():
                ids = model.tokenizations(first.questions[i], wrong[i][0])
                texts[i] = ChangedText(first.row(i), *ids, first.options[i][0], of_task[wrong[i][0]].answers[i])
        group = ChangedAnswers(EVALUATOR, task, part, len(right), len(changed), [])
        groups.append(with_examples(group, texts, model.known_vocabulary()))
    return groups
