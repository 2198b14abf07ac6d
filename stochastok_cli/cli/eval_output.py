"""What `stochastok eval` prints and writes: tables, JSON lines, comparisons, completions, reports."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stochastok_cli.cli import progress
from stochastok_cli.errors import count_of
from stochastok_cli.evaluation.results import EvalResult, Metric
from stochastok_cli.tokenization.methods import tokenization_text
from stochastok_cli.training.run_dir import METRICS

if TYPE_CHECKING:
    from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison


NUM_TEXTS = 2
"""How many documents of each model a report shows."""


class ResultPrinter:
    """Prints each result as soon as it is there, and progress bars between results.

    A bar is closed before anything is printed, since rich redirects stdout while one is shown. Tables, which show all
    results side by side, are printed afterwards; here only where an error ends the evaluation before, of the results
    that are there until then.

    Attributes:
        lost: The error of a stdout that can't be written, where `keep_going` is given: the results have another use.
    """

    def __init__(self, as_json: bool, *, keep_going: bool = False) -> None:
        self.as_json = as_json
        self.keep_going = keep_going
        self.lost: OSError | None = None
        self.bars = ExitStack()
        self.bar: Any = None
        self.results: list[EvalResult] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bars.__exit__(kind, error, traceback)
        if error is not None and self.results and not self.as_json:
            with suppress(OSError):
                show_tables(self.results)

    def progress(self, description: str, completed: int, total: int) -> None:
        if self.bar is None:
            self.bar = self.bars.enter_context(progress.progress_bar())
        self.bar(description, completed, total)

    def show(self, result: EvalResult) -> None:
        self.bars.close()
        self.bar = None
        self.results.append(result)
        for metric in result.metrics:
            if text := _note_on(metric):
                progress.note(text)
        if self.as_json and self.lost is None:
            try:
                print(json.dumps(result.to_json(), allow_nan=False), flush=True)
            except OSError as error:
                if not self.keep_going:
                    raise
                self.lost = error


def _note_on(metric: Metric) -> str:
    """What a reader of the results must know about a metric; "" for most."""
    if metric.evaluator == "lm_eval":
        return _note_on_requests(metric)
    if metric.name == "truncated":
        lost = "did not fit the context window and lost"
        questions = count_of(int(metric.value), f"question {lost} its", f"questions {lost} their")
        if not metric.part:
            return f"{metric.benchmark}: {questions} beginning"
        over_samples = "" if metric.part == "transfer" else ", each question counted in each sample"
        return f"{metric.benchmark}, {tokenization_text(metric.part)}: {questions} beginning{over_samples}"
    if metric.name == "effective_sample_size":
        from stochastok_cli.evaluation.marginal import LEAST_EFFECTIVE_SAMPLES

        if metric.value < LEAST_EFFECTIVE_SAMPLES:
            return (
                f"{metric.benchmark}, {tokenization_text(metric.part)}: the share of other tokenizations rests on an "
                f"effective sample of {metric.value:.1f} draws, too few to trust its error; raise --samples or "
                "--num-samples"
            )
    return ""


def _note_on_requests(metric: Metric) -> str:
    """What a reader must know about the requests of a task of lm-evaluation-harness; "" for nothing."""
    task = f"{metric.benchmark}, {tokenization_text(metric.part)}" if metric.part else metric.benchmark
    if metric.name == "truncated":
        return f"{task}: {metric.value:,} requests did not fit the context window and lost their beginning"
    if metric.name == "left_canonical":
        return f"{task}: {metric.value:,} requests kept their canonical continuation, as the other one did not fit"
    if metric.name == "retokenized" and metric.value == 0:
        return f"{task}: no request was changed by the tokenization; see --retokenize"
    return ""


def show_tables(results: Sequence[EvalResult]) -> None:
    """Prints all metrics as tables."""
    from stochastok_cli.report.rendering import print_tables
    from stochastok_cli.report.tables import tables_of

    print_tables(tables_of(results))


def show_completions(results: Sequence[EvalResult], prompt: str, as_json: bool) -> None:
    """Prints the tokens of a prompt and its completion, one line for each tokenization."""
    for result in results:
        if not result.completions:
            continue
        if as_json:
            tree = {"schema": 1, "checkpoint": result.checkpoint, "prompt": prompt, "completions": result.completions}
            print(json.dumps(tree))
            continue
        print(f"{result.label}, completions:")
        for entry in result.completions:
            print(f"  {'|'.join(entry['tokens'])}  →  {entry['completion']!r}")
        print()


def note_samples(file: Path, results: Sequence[EvalResult]) -> None:
    """Notes how many answers were written to a file of samples, and which benchmarks have none there."""
    unlogged = list(dict.fromkeys(name for result in results for name in result.unlogged))
    if unlogged:
        progress.note(
            f"note: {file} has no answers of {', '.join(unlogged)}, where they are neither one of several options nor "
            "compared with one text"
        )
    count = sum(len(answers.questions) for result in results for answers in result.answers)
    progress.note(f"samples: {file} ({count_of(count, 'answer')})")


def compare(results: Sequence[EvalResult]) -> "list[PairedComparison]":
    """Compares each further checkpoint with the first."""
    from stochastok_cli.evaluation.comparison import compare_paired

    return [compare_paired(results[0], second) for second in results[1:]]


def aggregate(results: Sequence[EvalResult]) -> "Aggregate":
    """Mean and deviation over checkpoints that differ in their seeds. A note lists the keys that differ."""
    from stochastok_cli.evaluation import comparison
    from stochastok_cli.models.checkpoint_reader import is_complete, read_state

    folders = [Path(result.checkpoint) for result in results]
    configs = [read_state(folder).config for folder in folders if is_complete(folder)]
    differing = comparison.differing_keys(configs) if len(configs) == len(folders) else []
    if differing:
        progress.note(f"averaged over {len(results)} runs, which differ in {', '.join(differing)}")
    return comparison.aggregate(results)


def show_comparisons(comparisons: "Sequence[PairedComparison | Aggregate]", as_json: bool) -> None:
    """Prints comparisons as tables or as JSON, one a line."""
    from stochastok_cli.report.rendering import print_tables
    from stochastok_cli.report.tables import comparison_table

    for comparison in comparisons:
        if as_json:
            print(json.dumps(comparison.to_json(), allow_nan=False))
        else:
            print_tables([comparison_table(comparison)])


def write(report: Path, results: Sequence[EvalResult], comparisons: "Sequence[PairedComparison | Aggregate]") -> None:
    """Writes the report, with the training curves of the checkpoints' runs."""
    from stochastok_cli.artifacts import command_line
    from stochastok_cli.report.html import write_report
    from stochastok_cli.report.runs import read_reported_run

    labels: dict[Path, tuple[int, str]] = {}  # a run once, also where several of its checkpoints are evaluated
    for place, result in enumerate(results):
        folder = Path(result.checkpoint)
        if folder.name.startswith("step_") and (folder.parent / METRICS).is_file():
            labels.setdefault(folder.parent, (place, result.label.removesuffix(f"/{folder.name}")))
    runs = [read_reported_run(folder, label, place=place) for folder, (place, label) in labels.items()]
    date = time.strftime("%Y-%m-%d")
    page = write_report(report, results, runs, command=command_line(), date=date, comparisons=comparisons)
    for problem in (problem for run in runs if run.summary is not None for problem in run.summary.problems):
        progress.note(f"note: {problem}")
    progress.note(f"report: {page}")
