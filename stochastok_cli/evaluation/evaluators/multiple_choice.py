"""Multiple choice: each option is scored by log P(option | prefix), and the likeliest one is the model's answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import Direction, EvaluatorOutput, LoadedEvaluator, option, register
from stochastok_cli.evaluation.question_evaluator import DIRECTIONS_IN_OTHER_TOKENIZATIONS, QuestionEvaluator
from stochastok_cli.evaluation.results import Metric, metric_group

if TYPE_CHECKING:
    from stochastok_cli.evaluation.encoding import EncodedBenchmark
    from stochastok_cli.evaluation.robustness import Tokenization
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.vocabulary import Vocabulary


NEIGHBORS = ("lattice", "splits")
"""Values of `neighbors`; the first is the default."""


@register
@dataclass(frozen=True)
class MultipleChoice(QuestionEvaluator):
    """Accuracy and confidence on multiple-choice benchmarks, for each kind of question and in other tokenizations."""

    name = "mcq"
    title = "Multiple choice"
    description = "multiple choice"
    meanings: ClassVar[Mapping[str, str]] = {
        "path_confidence": "mean probability of the right option, after a softmax over the options",
        "ground_confidence": "mean log-likelihood of the right option, in nats",
        "num_options": "mean number of options of a question",
        "normalized_accuracy": "accuracy on the scale where chance is 0 and perfect is 1",
        "normalized_path_confidence": "path confidence on the scale where chance is 0 and perfect is 1",
        "truncated": "how many lost the beginning of their prefix, which did not fit the context window; of other "
        "tokenizations, each question is counted in each sample",
        "worst_case": "right in every one of the other tokenizations",
        "any_case": "right in at least one of the other tokenizations",
        "worst_sample": "accuracy in the one tokenization on which the model is worst",
        "edit_distance": "mean number of splits over the largest possible number",
        "growth": "mean number of tokens over that of the canonical tokenization",
        "splits": "mean number of splits that made a right answer wrong",
        "replacements": "mean number of replacements that made a right answer wrong",
        "passes": "mean number of forward passes spent on a question",
    }
    part_meanings: ClassVar[Mapping[str, str]] = {
        **QuestionEvaluator.part_meanings,
        "adversarial": "each question in the most harmful tokenization that a search finds for the model itself",
        "transfer": "each question in the tokenization that the search found for the first checkpoint",
    }
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "accuracy": "higher",
        "path_confidence": "higher",
        "ground_confidence": "higher",
        "num_options": None,
        "normalized_accuracy": "higher",
        "normalized_path_confidence": "higher",
        **DIRECTIONS_IN_OTHER_TOKENIZATIONS,
        "splits": None,
        "replacements": None,
        "passes": None,
    }
    accuracies = ("accuracy", "worst_case")
    main_metrics = ("accuracy",)

    benchmarks: tuple[str, ...] = option(
        (),
        "hellaswag, arc, mmlu, winograd, blimp, langgame-train, langgame-val, cute (the test set) or cute-spell …, "
        "cute-train, cute-val, NAME-train and NAME-val of what make-langgame or make-cute made with --name NAME; each "
        "also as NAME=PATH with a local file or folder of the same columns; any other NAME=PATH, or NAME=OWNER/DATASET "
        "on the Hub, with questions of your own",
        metavar="A,B,…",
    )
    adversarial: int | None = option(
        None,
        "also with each question in the most harmful tokenization, found by a search of at most so many forward passes",
        metavar="PASSES",
        min=2,
    )
    neighbors: str | None = option(
        None,
        "what --adversarial tries: lattice (one or two tokens for any neighboring ones) or splits (two for one)",
        metavar="lattice|splits",
        show_default="lattice",
    )
    restarts: int | None = option(
        None, "how often --adversarial begins again, from random tokenizations", min=1, show_default="0"
    )
    transfer: bool = option(
        False,
        "also ask each further checkpoint in the tokenizations that --adversarial found on the first",
        in_training=False,
    )
    frozen_prefix: str | None = option(None, "a text before every question that keeps its tokenization", metavar="TEXT")
    frozen_suffix: str | None = option(
        None, "a text between every question and its options that keeps its tokenization", metavar="TEXT"
    )
    chat: bool = option(
        False, "questions as what a user says, in the checkpoint's chat template (extra `hf`)", in_training=False
    )

    @property
    def reads_model_files(self) -> bool:
        return self.chat

    @classmethod
    def benchmarks_hint(cls) -> str:
        from stochastok_cli.evaluation.benchmarks import benchmark_specs

        return f"there are: {', '.join(benchmark_specs())}"

    def check(self) -> None:
        super().check()
        if self.neighbors not in (None, *NEIGHBORS):
            raise UserError(f"--neighbors {self.neighbors!r} is unknown", fix=f"there are: {', '.join(NEIGHBORS)}")
        if self.adversarial is None:
            for name in ("neighbors", "restarts", "transfer"):
                if getattr(self, name):
                    raise UserError(f"--{name} says nothing without --adversarial", fix="drop it, or add --adversarial")
        if self.by_kind:
            from stochastok_cli.evaluation.benchmarks import has_kinds

            if not any(map(has_kinds, self.benchmarks)):
                raise self._no_kinds()

    def absent_data(self, data_dir: Path) -> list[Path]:
        from stochastok_cli.evaluation.benchmarks import find_absent

        return [path for name in self.benchmarks if (path := find_absent(name, data_dir)) is not None]

    def check_models(self, vocabularies: "Sequence[Vocabulary]") -> None:
        if self.transfer and len(vocabularies) < 2:
            raise UserError("--transfer needs two checkpoints or more")
        names = {vocabulary.fingerprint: vocabulary.name for vocabulary in vocabularies}
        if self.transfer and len(names) > 1:
            raise UserError(
                f"--transfer: the tokenizers differ ({', '.join(names.values())}), and so do their tokenizations",
                fix="give checkpoints of one tokenizer",
            )

    def _other_parts(self, tokenization: "Tokenization | None") -> list[str]:
        """The names of the parts that are no groups of questions."""
        parts = {"adversarial": self.adversarial is not None, "transfer": self.transfer}
        return [part for part, given in parts.items() if given] + ([tokenization.name] if tokenization else [])

    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        from stochastok_cli.evaluation.benchmarks import load_benchmark
        from stochastok_cli.evaluation.contamination import uncontaminated
        from stochastok_cli.evaluation.encoding import encode, kind_groups
        from stochastok_cli.evaluation.part_names import require_distinct_parts
        from stochastok_cli.evaluation.prompts import PromptEncoder
        from stochastok_cli.evaluation.tokenization_notes import note_lost_text
        from stochastok_cli.tokenization.expansion import StochasTok

        tokenization = self._tokenization()
        prompts = PromptEncoder.of(vocabulary, chat=self.chat)
        loaded, has_prefixes, has_kinds = [], False, not self.by_kind
        for name in self.benchmarks:
            benchmark = load_benchmark(name, data_dir, self.num_samples, language=self.language)
            encoded = encode(
                benchmark,
                vocabulary,
                context_window,
                frozen_prefix=self.frozen_prefix or "",
                frozen_suffix=self.frozen_suffix or "",
                prompts=prompts,
            )
            note_lost_text(encoded.name, ([one.context, *one.options] for one in encoded.questions), vocabulary)
            groups = kind_groups(benchmark) if self.by_kind else {}
            has_kinds |= bool(groups)
            uncontaminated_groups = uncontaminated(benchmark, data_dir, progress=progress) if self.contamination else {}
            require_distinct_parts(benchmark.name, groups, [*uncontaminated_groups, *self._other_parts(tokenization)])
            groups |= uncontaminated_groups
            encoded = replace(encoded, groups=groups)
            has_prefixes |= any(question.has_prefix for question in encoded.questions)
            n = len(encoded.questions)
            counts = {"": n} | {part: int(members.sum()) for part, members in groups.items()}
            if tokenization is not None:
                StochasTok(vocabulary, tokenization.p, tokenization.method)  # raises UserError for an impossible one
                counts[tokenization.name] = n
            if self.adversarial is not None:
                counts["adversarial"] = n
            counts = {metric_group(self.name, encoded.name, part): count for part, count in counts.items()}
            loaded.append(LoadedEvaluator(counts, partial(self._run, encoded=encoded, tokenization=tokenization)))
        if not has_kinds:
            raise self._no_kinds()
        if self.adversarial is not None and not has_prefixes:
            raise UserError(
                f"--adversarial: the questions of {', '.join(self.benchmarks)} have no prefix that could be tokenized "
                "in another way",
                fix="drop --adversarial, or name another benchmark",
            )
        return loaded

    def _run(self, lm: "LM", *, encoded: "EncodedBenchmark", tokenization: "Tokenization | None") -> EvaluatorOutput:
        output = evaluate_multiple_choice(lm, encoded)
        if tokenization is not None:
            from stochastok_cli.evaluation.robustness import evaluate_retokenized

            canonical = next(one for one in output.metrics if (one.part, one.name) == ("", "accuracy"))
            assert canonical.outcomes is not None
            output += evaluate_retokenized(lm, encoded, tokenization, canonical.outcomes.astype(bool))
        if self.adversarial is not None:
            output += self._search(lm, encoded, self.adversarial)
        return output

    def _search(self, lm: "LM", encoded: "EncodedBenchmark", budget: int) -> EvaluatorOutput:
        from stochastok_cli.evaluation.adversarial import (
            SearchSettings,
            evaluate_adversarial,
            evaluate_transfer,
            search_hardest,
        )

        settings = SearchSettings(budget, self.neighbors or NEIGHBORS[0], self.restarts or 0)
        searches = search_hardest(lm, encoded, settings)
        output = evaluate_adversarial(encoded, searches, lm.vocabulary)
        if self.transfer:
            worst = lm.from_first_model.setdefault((self, encoded.name), searches)
            if worst is not searches:
                output += evaluate_transfer(lm, encoded, [search.best_ids for search in worst])
        return output


def evaluate_multiple_choice(lm: "LM", benchmark: "EncodedBenchmark") -> EvaluatorOutput:
    """All metrics of `metrics.multiple_choice_metrics`, the accuracy on each group of questions, and the answers.

    "truncated" is added where prefixes were too long: the number of questions concerned.
    """
    from stochastok_cli.evaluation.chosen_answers import chosen_answers
    from stochastok_cli.evaluation.metrics import chance, is_correct, multiple_choice_metrics, normalized

    scores = lm.question_scores(benchmark, description=benchmark.name)
    correct = is_correct(scores).astype(float)
    guess = chance(scores)
    outcomes = {"accuracy": correct, "normalized_accuracy": normalized(correct, guess)}
    ranges = {"normalized_accuracy": (normalized(0.0, guess), 1.0)}
    chances = {"accuracy": guess, "normalized_accuracy": 0.0}
    metrics = [
        Metric(
            "mcq",
            benchmark.name,
            "",
            name,
            value,
            len(scores),
            outcomes.get(name),
            ranges.get(name, (0.0, 1.0)),
            chances.get(name),
        )
        for name, value in multiple_choice_metrics(scores).items()
    ]
    if benchmark.truncated:
        metrics.append(Metric("mcq", benchmark.name, "", "truncated", benchmark.truncated, len(scores)))
    for part, members in benchmark.groups.items():
        if members.any():
            of_part = correct[members]
            guess = chance([scores[i] for i in members.nonzero()[0]])
            value, n = float(of_part.mean()), len(of_part)
            metrics.append(Metric("mcq", benchmark.name, part, "accuracy", value, n, of_part, chance=guess))
    return EvaluatorOutput(metrics, answers=chosen_answers(benchmark, scores))
