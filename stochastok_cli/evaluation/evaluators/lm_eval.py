"""All tasks of lm-evaluation-harness, also with their requests in other tokenizations (extra `lm-eval`)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.evaluation.base import Evaluator, EvaluatorOutput, LoadedEvaluator, option, register
from stochastok_cli.evaluation.results import metric_group

if TYPE_CHECKING:
    from stochastok_cli.evaluation.harness.tasks import HarnessTasks
    from stochastok_cli.evaluation.robustness import Tokenization
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.vocabulary import Vocabulary

PARTS = ("context", "continuation", "both")


def parse_parts(text: str) -> str:
    """Which parts of a request are tokenized in another way. Raises UserError for an unknown name."""
    if text not in PARTS:
        raise UserError(
            f"retokenize = {text!r} is not possible{did_you_mean(text, PARTS)}", fix=f"give {', '.join(PARTS)}"
        )
    return text


@register
@dataclass(frozen=True)
class LMEvaluationHarness(Evaluator):
    """Tasks of lm-evaluation-harness: its own results, and those in samples of another tokenization."""

    name = "lm_eval"
    title = "lm-evaluation-harness"
    description = "tasks of lm-evaluation-harness"
    has_answers = True
    parts_table = "{benchmark}, other tokenizations"
    in_training = False
    meanings: ClassVar[Mapping[str, str]] = {
        "stderr": "the harness's standard error",
        "worst_sample": "in the one tokenization on which the model is worst",
        "worst_case": "each question as in the tokenization on which it is worst",
        "any_case": "each question as in the tokenization on which it is best",
        "token_growth": "tokens of what is tokenized in another way over its canonical ones",
        "retokenized": "share of the requests whose tokens differ from the canonical ones",
        "truncated": "requests, over all samples, that lost their beginning, which did not fit the context window",
        "left_canonical": "requests, over all samples, whose continuation stayed canonical, as the other did not fit",
    }

    tasks: tuple[str, ...] = option(
        (), "tasks and groups as the harness names them: arc_easy,blimp, also with wildcards", metavar="A,B,…"
    )
    include_path: Path | None = option(None, "a folder of further tasks, in the harness's YAML", metavar="FOLDER")
    num_samples: int | None = option(None, "questions of each task (its `limit`)", min=1, show_default="all")
    num_fewshot: int | None = option(
        None, "examples before each question", min=0, metavar="N", show_default="the task's own"
    )
    apply_chat_template: bool = option(False, "requests as a conversation, in the tokenizer's chat template")
    tokenization: str | None = option(
        None,
        "also with the requests in other tokenizations, by a method of `stochastok expand`: uniform:0.5",
        metavar="METHOD:P",
    )
    samples: int | None = option(None, "how many other tokenizations with --tokenization", min=1, show_default="8")
    retokenize: str | None = option(
        None,
        f"what is tokenized in another way: {', '.join(PARTS)}",
        metavar="PART",
        choices=PARTS,
        show_default="context",
    )

    def check(self) -> None:
        super().check()
        if not self.tasks:
            raise UserError("--evaluator lm_eval needs --tasks", fix="for example --tasks arc_easy,blimp")
        if self.include_path is not None and not self.include_path.is_dir():
            raise UserError(f"--include-path {self.include_path} is no folder", fix="give one that holds YAML files")
        if self.retokenize is not None:
            parse_parts(self.retokenize)
            if self.tokenization is None:
                raise UserError("--retokenize says nothing without --tokenization", fix="drop it, or name a METHOD:P")
        self._tokenization()

    @classmethod
    def explained(cls, names: Collection[str]) -> dict[str, str]:
        """The harness's own metrics are explained by its tasks; here are the endings that are added to their names."""
        return {
            end: meaning
            for end, meaning in cls.meanings.items()
            if any(name == end or name.endswith(f"_{end}") for name in names)
        }

    def _tokenization(self) -> "Tokenization | None":
        from stochastok_cli.evaluation.robustness import optional_tokenization

        return optional_tokenization(self.tokenization, self.samples)

    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        from stochastok_cli.evaluation.harness.tasks import load_tasks, part_name
        from stochastok_cli.tokenization.expansion import StochasTok

        tokenization = self._tokenization()
        if tokenization is not None:
            StochasTok(vocabulary, tokenization.p, tokenization.method)  # raises UserError for an impossible one
        parts = self.retokenize or "context"
        tasks = load_tasks(self, parts if tokenization is not None else None)
        counts = {metric_group(self.name, name): n for name, n in tasks.sizes.items()}
        if tokenization is not None:
            part = part_name(tokenization, parts)
            counts |= {metric_group(self.name, name, part): n for name, n in tasks.sizes.items()}
        return [LoadedEvaluator(counts, partial(self._run, tasks=tasks, tokenization=tokenization, parts=parts))]

    def _run(
        self, lm: "LM", *, tasks: "HarnessTasks", tokenization: "Tokenization | None", parts: str
    ) -> EvaluatorOutput:
        from stochastok_cli.evaluation.harness.tasks import evaluate_tasks

        return evaluate_tasks(lm, self, tasks, tokenization, parts)
