"""Multiple-choice questions as token ids that fit a context window."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stochastok_cli.errors import Notice, UserError, count_of
from stochastok_cli.evaluation.benchmarks import Benchmark, Question
from stochastok_cli.evaluation.likelihood import Pair
from stochastok_cli.evaluation.prompts import PromptEncoder
from stochastok_cli.tokenization.vocabulary import Vocabulary

Ids = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class EncodedQuestion:
    """One question.

    Attributes:
        context: The ids that all options are conditioned on: the prefix, or end-of-text where there is no prefix.
        options: The ids of each option, the correct one first.
        has_prefix: Whether `context` holds text of the question.
        frozen: How many ids at the beginning and at the end of `context` are no text of the question, such as an
            instruction, and never change their tokenization.
    """

    context: Ids
    options: Sequence[Ids]
    has_prefix: bool = True
    frozen: tuple[int, int] = (0, 0)

    @property
    def text(self) -> Ids:
        """The ids of the prefix without its frozen parts; empty where the question has no prefix."""
        before, after = self.frozen
        return self.context[before : len(self.context) - after] if self.has_prefix else self.context[:0]

    def with_text(self, ids: Ids) -> "EncodedQuestion":
        """The question with its `text` tokenized in another way."""
        before, after = self.frozen
        parts = (self.context[:before], ids, self.context[len(self.context) - after :])
        return replace(self, context=np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]))

    def cut_to(self, context_window: int) -> "EncodedQuestion":
        """The question without as many ids at the beginning of its context as do not fit with its longest option."""
        excess = len(self.context) + max(map(len, self.options)) - 1 - context_window  # the last id is never read
        if excess <= 0:
            return self
        before, after = self.frozen
        return replace(self, context=self.context[excess:], frozen=(max(before - excess, 0), after))


@dataclass(frozen=True)
class EncodedBenchmark:
    """A benchmark as token ids.

    Attributes:
        name: The benchmark's name.
        questions: In the order of the benchmark.
        truncated: How many questions lost the beginning of their prefix.
        texts: The questions as text, for reports; empty where nothing shows them.
        groups: By name, which questions belong to it, bool `[questions]`: those of a kind, those not trained on.
    """

    name: str
    questions: list[EncodedQuestion]
    truncated: int = 0
    texts: Sequence[Question] = ()
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Pair]:
        """Context and option, the options of a question one after the other."""
        return [(question.context, option) for question in self.questions for option in question.options]

    @property
    def num_options(self) -> np.ndarray:
        """int64 `[questions]`."""
        return np.array([len(question.options) for question in self.questions], dtype=np.int64)


def split_at_boundary(prefix: str, option: str) -> tuple[str, str]:
    """The two texts as they are tokenized: the space at the boundary belongs to the option, as in lm-eval.

    The prefix's trailing whitespace moves to the option, which gets one space if it then has none. An option without
    a prefix begins a document, where training has seen no space, and gets none.

    >>> split_at_boundary("Answer:", "sing"), split_at_boundary("Answer: ", "sing"), split_at_boundary("", "Cats.")
    (('Answer:', ' sing'), ('Answer:', ' sing'), ('', 'Cats.'))
    """
    stripped = prefix.rstrip()
    option = prefix[len(stripped) :] + option
    return stripped, option if not stripped or option[0].isspace() else f" {option}"


def encode(
    benchmark: Benchmark,
    vocabulary: Vocabulary,
    context_window: int,
    *,
    frozen_prefix: str = "",
    frozen_suffix: str = "",
    prompts: PromptEncoder | None = None,
) -> EncodedBenchmark:
    """Tokenizes prefix and options: as one text where `benchmark.encode_whole`, else each on its own.

    Where they are one text, the ids that the tokenizer itself puts before every text (Llama's beginning-of-text) come
    first, as in lm-evaluation-harness; training data of this program have none. An empty prefix without such ids is
    the end-of-text id. A prefix that does not fit the window with the longest of its options loses ids from the left,
    the same ones for all its options, so that they stay comparable.

    Args:
        benchmark: The questions.
        vocabulary: The vocabulary.
        context_window: In tokens.
        frozen_prefix: A text before every question that keeps its tokenization (`EncodedQuestion.frozen`).
        frozen_suffix: One between every question and its options.
        prompts: How the model reads prompts; none puts nothing before texts. With its chat template, each question with
            the frozen texts is what a user says. What the template writes is frozen, too, and an option begins the
            answer, without a space before it, as in lm-evaluation-harness.

    Raises:
        UserError: An option is longer than the window; it names the row.
    """
    questions = []
    truncated = 0
    before_texts = prompts.before if prompts is not None and benchmark.encode_whole else []
    for question in benchmark.questions:
        parts = [frozen_prefix, question.prefix, frozen_suffix]
        if prompts is None or not prompts.chat:
            last = max((i for i, part in enumerate(parts) if part), default=1)  # the part that the options follow
            texts = [split_at_boundary(parts[last], option) for option in question.options]
            parts[last] = texts[0][0]
            options = _encode_options(texts, vocabulary, whole=benchmark.encode_whole)
            before, text, after = _encode_parts(parts, vocabulary)
            before = [*before_texts, *before]
        else:
            before, text, after = prompts.encode_user_turn(question.prefix, frozen_prefix, frozen_suffix)
            options = [vocabulary.encode_continuation(option.lstrip()) for option in question.options]
        longest = max(map(len, options))
        if longest > context_window:
            raise UserError(
                f"benchmark {benchmark.name}, row {question.row}: an option has {longest} tokens, and the model's "
                f"context window is {context_window}",
                fix="leave the row out, or use a model with a longer window",
            )
        context = [*before, *text, *after] or [vocabulary.end_of_text]
        whole = EncodedQuestion(context, options, has_prefix=bool(text), frozen=(len(before), len(after)))
        encoded = whole.cut_to(context_window)
        truncated += encoded is not whole
        questions.append(encoded)
    return EncodedBenchmark(benchmark.name, questions, truncated, benchmark.questions)


def _encode_parts(parts: Sequence[str], vocabulary: Vocabulary) -> list[list[int]]:
    """The ids of texts that follow each other, each on its own."""
    encoded: list[list[int]] = []
    for part in parts:
        encode_part = vocabulary.encode_continuation if any(encoded) else vocabulary.encode
        encoded.append(encode_part(part))
    return encoded


def _encode_options(texts: Sequence[tuple[str, str]], vocabulary: Vocabulary, *, whole: bool) -> list[list[int]]:
    """The ids of each option.

    With `whole`, they are those of prefix and option together after as many ids as the prefix alone has (`_encode_pair`
    of lm-evaluation-harness). A tokenizer that joins the end of the prefix with the beginning of an option then moves
    this text to neither: `:` and a line break are one token of cl100k_base, so that options after a line break are
    scored without it. Where nothing of an option would remain, the options of the question are encoded on their own.

    Args:
        texts: Prefix and option, as from `split_at_boundary`.
        vocabulary: The vocabulary.
        whole: Whether prefix and option are encoded as one text.
    """
    if whole and (prefix := vocabulary.encode(texts[0][0])):
        options = [vocabulary.encode(before + option)[len(prefix) :] for before, option in texts]
        if all(options):
            return options
    return [vocabulary.encode_continuation(option) for _, option in texts]


def kind_groups(benchmark: Benchmark) -> dict[str, np.ndarray]:
    """Which questions are of each kind, for `EncodedBenchmark.groups`; empty where there are no kinds."""
    return groups_of_kinds(benchmark.name, [question.kind for question in benchmark.questions])


def groups_of_kinds(name: str, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """By kind, which questions are of it, bool `[questions]`; "" is no kind, and a note counts such questions.

    Args:
        name: That of the benchmark, for the note.
        kinds: The kind of each question.

    >>> groups_of_kinds("my-questions", ["length", "spell", "length"])["length"].tolist()
    [True, False, True]
    """
    array = np.array(kinds)
    without = sum(kind == "" for kind in kinds)
    if 0 < without < len(kinds):
        number = count_of(without, "question has no kind and is", "questions have no kind and are")
        warnings.warn(f"{name}: {number} in no part of --by-kind", Notice, stacklevel=2)
    return {kind: array == kind for kind in sorted(set(kinds) - {""})}
