"""Questions whose answer becomes wrong in another tokenization, with both tokenizations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stochastok_cli.evaluation.answers import ChangedAnswer, ChangedAnswers, ShownToken
from stochastok_cli.evaluation.encoding import EncodedBenchmark, Ids
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.vocabulary import Vocabulary

EXAMPLES = 4
"""How many are kept for each benchmark and way to tokenize."""


class WrongAnswer(NamedTuple):
    """The ids of a question's text in which it is answered wrong, and the scores of its options, `[options]`."""

    text: Ids
    scores: np.ndarray


class ChangedText(NamedTuple):
    """The row of a question, the canonical and the other ids of its text, and the answers to them."""

    row: int
    canonical: Ids
    other: Ids
    right: str
    answer: str


def changed_answers(
    vocabulary: Vocabulary,
    benchmark: EncodedBenchmark,
    part: str,
    is_right: np.ndarray,
    wrong: Mapping[int, WrongAnswer],
) -> ChangedAnswers:
    """Keeps some questions, drawn at random, but always the same ones.

    Args:
        vocabulary: The vocabulary of the ids.
        benchmark: The questions in their canonical tokenization, with their texts.
        part: The other tokenization, as in `Metric.part`.
        is_right: Which are answered right, bool `[questions]`.
        wrong: By index, questions that are answered wrong in the other tokenization.
    """
    changed = [i for i in wrong if is_right[i]]
    texts = {}
    for i in changed:
        if benchmark.texts and len(benchmark.questions[i].text):
            right, *others = benchmark.texts[i].options
            answer = others[int(np.argmax(wrong[i].scores[1:]))]
            texts[i] = ChangedText(benchmark.texts[i].row, benchmark.questions[i].text, wrong[i].text, right, answer)
    group = ChangedAnswers("mcq", benchmark.name, part, int(is_right.sum()), len(changed), [])
    return with_examples(group, texts, vocabulary)


def with_examples(group: ChangedAnswers, texts: Mapping[int, ChangedText], vocabulary: Vocabulary) -> ChangedAnswers:
    """Keeps some questions, drawn at random, but always the same ones.

    Args:
        group: Without examples.
        texts: By index, questions that are answered wrong in the other tokenization, and right in the canonical one.
        vocabulary: The vocabulary of the ids.
    """
    places = list(texts)
    order = stream(0, f"changed answers {group.benchmark} {group.part}").permutation(len(places))
    examples = []
    for i in sorted(places[place] for place in order[:EXAMPLES].tolist()):
        canonical, other = _compare(texts[i].canonical, texts[i].other, vocabulary)
        examples.append(ChangedAnswer(texts[i].row, canonical, other, texts[i].right, texts[i].answer))
    return replace(group, examples=examples)


def _compare(first: Ids, second: Ids, vocabulary: Vocabulary) -> tuple[list[ShownToken], list[ShownToken]]:
    """Two tokenizations of a text, each with which of its tokens the other has, too."""
    # Counted from the end: a text that no longer fits the context window loses its beginning.
    edges = [set(zip(_bytes_after(ids, vocabulary), map(int, ids), strict=True)) for ids in (first, second)]
    shown = []
    for ids, others in ((first, edges[1]), (second, edges[0])):
        places = zip(_bytes_after(ids, vocabulary), map(int, ids), strict=True)
        shown.append([ShownToken(vocabulary.token_text(place[1]), place in others) for place in places])
    return shown[0], shown[1]


def _bytes_after(ids: Ids, vocabulary: Vocabulary) -> Sequence[int]:
    """How many bytes stand after each token."""
    lengths = np.array([len(vocabulary.pieces[int(token)]) for token in ids], dtype=np.int64)
    return (lengths.sum() - np.cumsum(lengths)).tolist()
