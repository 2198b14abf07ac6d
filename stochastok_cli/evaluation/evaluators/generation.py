"""Generation: the model writes its answer, which is compared with the right one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.evaluation.base import Direction, EvaluatorOutput, LoadedEvaluator, option, register
from stochastok_cli.evaluation.question_evaluator import DIRECTIONS_IN_OTHER_TOKENIZATIONS, QuestionEvaluator
from stochastok_cli.evaluation.results import metric_group
from stochastok_cli.evaluation.text_match import MATCHES

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.evaluation.generated_answers import EncodedGeneration
    from stochastok_cli.evaluation.generation_benchmarks import GenerationBenchmark
    from stochastok_cli.evaluation.robustness import Tokenization
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.evaluation.text_match import Normalization
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.vocabulary import Vocabulary

_LINE = ("\n",)
DEFAULT_MATCH = next(iter(MATCHES))


@register
@dataclass(frozen=True)
class Generation(QuestionEvaluator):
    """Exact and prefix match of greedy answers, for each kind of question and in other tokenizations of the prompts."""

    name = "generation"
    title = "Generation"
    description = "answers that the model writes"
    meanings: ClassVar[Mapping[str, str]] = {
        "exact_match": "the answer equals the right one, white space around it aside",
        "prefix_match": "the answer begins with the right one",
        "truncated": "how many lost the beginning of their prompt, which did not fit the context window; of other "
        "tokenizations, each question is counted in each sample",
        "worst_case": "right in every one of the other tokenizations",
        "any_case": "right in at least one of the other tokenizations",
        "worst_sample": "share of right answers in the one tokenization on which the model is worst",
        "edit_distance": "mean number of splits over the largest possible number",
        "growth": "mean number of tokens over that of the canonical tokenization",
    }
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "exact_match": "higher",
        "prefix_match": "higher",
        **DIRECTIONS_IN_OTHER_TOKENIZATIONS,
    }
    accuracies = ("exact_match", "prefix_match", "worst_case")
    main_metrics = ("exact_match", "prefix_match")

    benchmarks: tuple[str, ...] = option(
        (),
        "cute (its authors' prompts and scoring) or cute-spell …, langgame-val, cute-val, addition-val, NAME-train "
        "and NAME-val of what make-langgame, make-cute or make-addition made with --name NAME, NAME=PATH or "
        "NAME=OWNER/DATASET with questions and answers of your own",
        metavar="A,B,…",
    )
    num_fewshot: int | None = option(
        None,
        "examples before each question: others of its kind, from the questions to train on where there are any",
        min=0,
        metavar="N",
        show_default="0",
    )
    fewshot_split: str | None = option(
        None,
        "the split of questions of your own that these examples are drawn from",
        metavar="SPLIT",
        show_default="the split that is asked",
    )
    chat: bool = option(
        False, "prompts as what a user says, in the checkpoint's chat template (extra `hf`)", in_training=False
    )
    max_new_tokens: int | None = option(
        None,
        "the most tokens of an answer",
        min=1,
        metavar="N",
        show_default="the bytes of the longest right answer, at least 16; 100 for cute",
    )
    until: tuple[str, ...] = option(
        (),
        "a text that ends an answer, with \\n for a line break; repeatable",
        metavar="TEXT",
        repeatable=True,
        show_default="the end of the line, with --chat none",
    )
    match: str | None = option(
        None,
        f"what makes an answer right on each kind, in other tokenizations and in examples: {' or '.join(MATCHES)}",
        metavar="METRIC",
        choices=tuple(MATCHES),
        show_default=DEFAULT_MATCH,
    )
    ignore_case: bool = option(False, "capitals count as small letters")
    ignore_punctuation: bool = option(False, "punctuation does not count")
    ignore_numbers: bool = option(False, "digits do not count")
    regexes_to_ignore: tuple[str, ...] = option(
        (), "what matches this regular expression does not count; repeatable", metavar="REGEX", repeatable=True
    )

    @property
    def reads_model_files(self) -> bool:
        return True

    @classmethod
    def benchmarks_hint(cls) -> str:
        from stochastok_cli.evaluation.generation_benchmarks import generation_names

        return f"there are: {', '.join(generation_names())}, and NAME=FILE with questions of your own"

    def check(self) -> None:
        super().check()
        self._normalization().check()
        if self.fewshot_split is not None and not (self.num_fewshot and any("=" in name for name in self.benchmarks)):
            raise UserError(
                "--fewshot-split goes with --num-fewshot and NAME=FOLDER or NAME=OWNER/DATASET", fix="drop it"
            )
        if self.match not in (None, *MATCHES):
            raise UserError(
                f"--match {self.match} is unknown{did_you_mean(str(self.match), MATCHES)}",
                fix=f"give {' or '.join(MATCHES)}",
            )
        if not all(self.until):
            raise UserError("--until is empty", fix="give a text that ends an answer")

    def _normalization(self) -> "Normalization":
        from stochastok_cli.evaluation.text_match import Normalization

        return Normalization(
            self.ignore_case, self.ignore_punctuation, self.ignore_numbers, tuple(self.regexes_to_ignore)
        )

    def absent_data(self, data_dir: Path) -> list[Path]:
        from stochastok_cli.evaluation.generation_benchmarks import find_absent

        return [path for name in self.benchmarks if (path := find_absent(name, data_dir)) is not None]

    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        from stochastok_cli.evaluation.generated_answers import encode_generation
        from stochastok_cli.evaluation.generation_benchmarks import load_generation_benchmark
        from stochastok_cli.evaluation.part_names import require_distinct_parts
        from stochastok_cli.evaluation.prompts import PromptEncoder
        from stochastok_cli.evaluation.tokenization_notes import note_lost_text
        from stochastok_cli.tokenization.expansion import StochasTok

        tokenization = self._tokenization()
        if tokenization is not None:
            StochasTok(vocabulary, tokenization.p, tokenization.method)  # raises UserError for an impossible one
        encoder = PromptEncoder.of(vocabulary, chat=self.chat)
        loaded, has_kinds = [], not self.by_kind
        for name in self.benchmarks:
            benchmark = load_generation_benchmark(
                name,
                data_dir,
                self.num_samples,
                num_fewshot=self.num_fewshot,
                fewshot_split=self.fewshot_split,
                language=self.language,
            )
            encoded = encode_generation(
                benchmark,
                encoder,
                context_window,
                until=tuple(text.replace("\\n", "\n") for text in self.until) or (() if self.chat else _LINE),
                max_new_tokens=self.max_new_tokens,
                normalization=self._normalization(),
                match=self.match or DEFAULT_MATCH,
            )
            note_lost_text(benchmark.name, ([prompt.all_ids] for prompt in encoded.prompts), vocabulary)
            groups = _kind_groups(benchmark) if self.by_kind else {}
            has_kinds |= bool(groups)
            uncontaminated = _uncontaminated(benchmark, data_dir, progress) if self.contamination else {}
            others = [*uncontaminated, *([tokenization.name] if tokenization is not None else [])]
            require_distinct_parts(benchmark.name, groups, others)
            groups |= uncontaminated
            n = len(benchmark.questions)
            counts = {"": n} | {part: int(members.sum()) for part, members in groups.items()}
            if tokenization is not None:
                counts[tokenization.name] = n
            counts = {metric_group(self.name, benchmark.name, part): count for part, count in counts.items()}
            run = partial(self._run, encoded=replace(encoded, groups=groups), tokenization=tokenization)
            loaded.append(LoadedEvaluator(counts, run))
        if not has_kinds:
            raise self._no_kinds()
        return loaded

    def _run(self, lm: "LM", *, encoded: "EncodedGeneration", tokenization: "Tokenization | None") -> EvaluatorOutput:
        from stochastok_cli.evaluation.generated_answers import evaluate_generation, evaluate_retokenized_prompts

        output = evaluate_generation(lm, encoded)
        if tokenization is None:
            return output
        [answers] = output.answers
        return output + evaluate_retokenized_prompts(lm, encoded, tokenization, answers.is_correct)


def _kind_groups(benchmark: "GenerationBenchmark") -> "dict[str, np.ndarray]":
    from stochastok_cli.evaluation.encoding import groups_of_kinds

    return groups_of_kinds(benchmark.name, [question.kind for question in benchmark.questions])


def _uncontaminated(
    benchmark: "GenerationBenchmark", data_dir: Path, progress: "ProgressCallback"
) -> "dict[str, np.ndarray]":
    from stochastok_cli.evaluation.benchmarks import Benchmark, Question
    from stochastok_cli.evaluation.contamination import uncontaminated

    questions = [Question(one.question, list(one.answers), one.row) for one in benchmark.questions]
    as_choices = Benchmark(benchmark.name, questions, trained_on=benchmark.trained_on)
    return uncontaminated(as_choices, data_dir, progress=progress)
