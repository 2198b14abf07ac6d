"""`stochastok eval`: what checkpoints score, as a table for people or as JSON for scripts."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.cli import eval_output as output
from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.evaluation.base import EvalResult
    from stochastok_cli.evaluation.findings import EvalResult as FoundMetrics
    from stochastok_cli.models.huggingface import ModelSource


class EvaluatorName(StrEnum):
    MCQ = "mcq"
    MATH_GENERATION = "math_generation"
    BITS_PER_BYTE = "bits_per_byte"
    ALIGNMENT = "alignment"


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@subcommand
def eval(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Paths, or names under --checkpoint-dir; a run's folder means its latest checkpoint. With the extra "
            "`hf` also other models: their folders, or ids on the Hub.",
            show_default=False,
        ),
    ],
    evaluator: Annotated[
        EvaluatorName,
        typer.Option(
            "--evaluator",
            metavar="NAME",
            help="mcq: multiple choice; math_generation: addition; bits_per_byte: loss on validation "
            "text; alignment: distances inside the model between tokenizations of a word.",
            show_default=False,
        ),
    ],
    benchmarks: Annotated[
        str,
        typer.Option(
            "--benchmarks",
            metavar="A,B,…",
            help="mcq: hellaswag, arc, mmlu, winograd, blimp, langgame-train, langgame-val, cute (the test set) or "
            "cute-spell …, cute-train, cute-val; each also as NAME=PATH with a local file or folder of the same "
            "columns. bits_per_byte: folders under data_as_memmaps.",
            show_default=False,
        ),
    ] = "",
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--num-samples",
            min=1,
            help="Questions of each benchmark, always the same ones; for bits_per_byte windows of text, for alignment "
            "words.",
            show_default="all",
        ),
    ] = None,
    data_dir: options.DataDir = Path("data"),
    checkpoint_dir: Annotated[Path, typer.Option("--checkpoint-dir", help="Folder under which runs lie.")] = Path(
        "checkpoints"
    ),
    device: Annotated[Device, typer.Option("--device", help="auto: CUDA where there is a GPU.")] = Device.AUTO,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", min=1, help="Tokens in a batch; fewer need less memory.")
    ] = 16384,
    by_kind: Annotated[
        bool, typer.Option("--by-kind", help="Also the accuracy on each kind of question (LangGame, CUTE).")
    ] = False,
    contamination_of: Annotated[
        bool,
        typer.Option(
            "--leakage", help="Also which questions stand in the data trained on, and accuracy on the others."
        ),
    ] = False,
    tokenization: Annotated[
        str | None,
        typer.Option(
            "--tokenization",
            metavar="METHOD:P",
            help="Also with the questions cut in other ways, by a method of `stochastok expand`: stochastok:0.1. For "
            "bits_per_byte: also over all tokenizations, by importance sampling from uniform:P. For alignment the "
            "others of a word (uniform:1.0 where absent).",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="How many other ways with --tokenization.", show_default="8"),
    ] = None,
    adversarial: Annotated[
        int | None,
        typer.Option(
            "--adversarial",
            min=2,
            metavar="PASSES",
            help="Also with each question cut as hurts most, found by a search of at most so many forward passes.",
        ),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option("--words", metavar="FILE", help="For alignment: one word a line; the bundled list where absent."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", metavar="TEXT", help="For alignment: also complete this text in every tokenization."),
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Compare each further checkpoint with the first, question by question.")
    ] = False,
    aggregate: Annotated[
        bool, typer.Option("--aggregate", help="Mean and deviation over the checkpoints, seeds of one run.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FOLDER",
            help="Write tables (Markdown, CSV, JSON), plots (PNG, SVG) and one HTML page, with the training curves of "
            "the checkpoints' runs. Needs the extra `report`.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each checkpoint, one a line, instead of tables.")
    ] = False,
) -> None:
    """Evaluate one or more checkpoints: multiple choice, addition, bits per byte of a corpus, or inside the model.

    Brackets hold 95% intervals: by bootstrap over the questions, with --aggregate Student's over the runs.
    """
    from stochastok_cli.config import EvaluatorConfig
    from stochastok_cli.evaluation import Evaluator, Extras, counts, evaluate_models, load_evaluators
    from stochastok_cli.evaluation.alignment import DEFAULT, completions
    from stochastok_cli.evaluation.base import EvalResult
    from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison
    from stochastok_cli.evaluation.robustness import parse_tokenization
    from stochastok_cli.models.checkpoint_folders import iteration_of
    from stochastok_cli.models.huggingface import open_model
    from stochastok_cli.report.tables import print_tables, tables_of
    from stochastok_cli.tokenization.vocabulary import load_vocabulary

    names = tuple(name.strip() for name in benchmarks.split(",") if name.strip())
    _require_fitting(evaluator, names)
    _require_asked_for(
        evaluator, EvaluatorName.MCQ, by_kind=by_kind, contamination_of=contamination_of, adversarial=adversarial
    )
    _require_asked_for(evaluator, EvaluatorName.ALIGNMENT, words=words, prompt=prompt)
    if prompt == "":
        raise UserError("--prompt is empty")
    if (paired or aggregate) and len(checkpoints) < 2:
        raise UserError(f"{'--paired' if paired else '--aggregate'} needs two checkpoints or more")
    if report is not None:
        from stochastok_cli.report.plots import require_matplotlib

        require_matplotlib()
    if evaluator is EvaluatorName.ALIGNMENT and tokenization is None:
        tokenization = f"{DEFAULT.method}:{DEFAULT.p}"
    if samples is not None and tokenization is None:
        raise UserError("--samples says nothing without --tokenization", fix="drop it, or name a METHOD:P")
    retokenize = parse_tokenization(tokenization, samples or DEFAULT.samples) if tokenization is not None else None
    if retokenize and evaluator is EvaluatorName.MATH_GENERATION:
        raise UserError("math_generation asks in every tokenization anyway", fix="drop --tokenization")
    config = EvaluatorConfig(evaluator.value, num_samples, names)
    extras = Extras(by_kind, contamination_of, retokenize, adversarial, words)
    chosen = _torch_device(device)
    places = [_locate(name, checkpoint_dir) for name in checkpoints]
    folders = [Path(place.name) for place in places]
    loaded: dict[tuple[str, int], list[Evaluator]] = {}  # by what the questions were tokenized for
    rows: list[EvalResult] = []
    said: list[list[dict[str, Any]]] = []
    for place, folder in zip(places, folders, strict=True):
        vocabulary, window = load_vocabulary(place.folder), place.context_window
        key = (vocabulary.fingerprint, window)
        with progress.progress_bar() as emit:
            if key not in loaded:
                loaded[key] = load_evaluators(
                    [config], data_dir, vocabulary, window, batch_tokens=batch_tokens, extras=extras, progress=emit
                )
            model = open_model(place, vocabulary, chosen)
            found = evaluate_models(model, loaded[key], progress=emit)
        _note_truncated(found.metrics)
        rows.append(_as_result(found, str(folder), _label(folder, folders), iteration_of(folder), counts(loaded[key])))
        if as_json:
            print(json.dumps(rows[-1].to_json()), flush=True)
        if prompt is not None:
            said.append(completions(model, vocabulary, prompt, retokenize or DEFAULT))
    if not as_json:
        print_tables(tables_of(rows))
    for row, entries in zip(rows, said, strict=False):
        output.show_completions(row, prompt or "", entries, as_json)
    comparisons: list[PairedComparison | Aggregate] = []
    if paired:
        comparisons += output.compare(rows, as_json)
    if aggregate:
        comparisons.append(output.aggregate(rows, folders, as_json))
    if report is not None:
        output.write(report, rows, folders, comparisons)


def _as_result(
    found: "FoundMetrics", checkpoint: str, label: str, iteration: int | None, counts: dict[str, int]
) -> "EvalResult":
    """Metrics by name as records with fields, until the evaluators give these themselves."""
    from stochastok_cli.evaluation.base import Curve, EvalResult, Metric

    metrics = []
    for key, value in found.metrics.items():
        evaluator, benchmark, *rest = key.split("/")
        part, name = ("", *rest)[-2:] if rest else ("", evaluator)
        group = key.rpartition("/")[0]
        n = counts.get(
            group, counts.get(key, counts.get(f"{evaluator}/{benchmark}") if part.startswith("layer") else None)
        )
        metrics.append(Metric(evaluator, benchmark, part, name, value, n, found.outcomes.get(key)))
    curves = []
    for key, points in found.curves.items():
        evaluator, benchmark, part = [*key.split("/"), ""][:3]
        curves.append(Curve(evaluator, benchmark, part, points))
    return EvalResult(checkpoint, label, iteration, metrics, curves, counts)


def _locate(name: str, checkpoint_dir: Path) -> "ModelSource":
    """A folder, a run under `checkpoint_dir`, or where there is neither the id of a model on the Hub."""
    from stochastok_cli import hub
    from stochastok_cli.models.checkpoint_folders import require_intact, resolve_checkpoint
    from stochastok_cli.models.huggingface import locate_model

    try:
        checkpoint = resolve_checkpoint(name, checkpoint_dir)
        require_intact(checkpoint, with_optimizer=False, fix="name another checkpoint of the run")
        return locate_model(name, checkpoint)
    except UserError:
        if Path(name).is_dir() or (checkpoint_dir / name).is_dir() or "/" not in name or not hub.is_repo_id(name):
            raise
    return locate_model(name, None)


def _require_asked_for(evaluator: EvaluatorName, only: EvaluatorName, **options: Any) -> None:
    """Raises UserError for an option that was given and says nothing to this evaluator."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given and evaluator is not only:
        raise UserError(f"{' and '.join(given)} can only go with --evaluator {only.value}", fix="drop it")


def _require_fitting(evaluator: EvaluatorName, names: tuple[str, ...]) -> None:
    """What each evaluator wants of `--benchmarks`."""
    called = [name.partition("=")[0] for name in names]
    if twice := [name for name in dict.fromkeys(called) if called.count(name) > 1]:
        raise UserError(f"--benchmarks names {', '.join(twice)} twice", fix="one result has room under that name")
    if evaluator is EvaluatorName.MATH_GENERATION and names:
        raise UserError(
            "--benchmarks says nothing to --evaluator math_generation, which has one set of questions", fix="drop it"
        )
    if evaluator is EvaluatorName.ALIGNMENT and names:
        raise UserError("--benchmarks says nothing to --evaluator alignment", fix="drop it, or give --words")
    if evaluator is EvaluatorName.MCQ and not names:
        from stochastok_cli.evaluation.benchmarks import BENCHMARKS

        raise UserError("--evaluator mcq needs --benchmarks", fix=f"there are: {', '.join(BENCHMARKS)}")
    if evaluator is EvaluatorName.BITS_PER_BYTE and not names:
        raise UserError(
            "--evaluator bits_per_byte needs --benchmarks",
            fix="name folders under data_as_memmaps, separated by commas",
        )


def _torch_device(device: Device) -> str:
    import torch

    if device is Device.CUDA and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is available to PyTorch here", fix="give --device auto or cpu")
    return "cuda" if device is not Device.CPU and torch.cuda.is_available() else "cpu"


def _label(folder: Path, folders: list[Path]) -> str:
    """The run's name (its iteration stands beside it), or the path where two runs have the same name."""
    runs = {f.parent if f.name.startswith("step_") else f for f in folders}
    run = folder.parent if folder.name.startswith("step_") else folder
    return run.name if sum(other.name == run.name for other in runs) == 1 else str(folder)


def _note_truncated(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        if name.endswith("/truncated"):
            benchmark = name.split("/")[1]
            progress.note(f"{benchmark}: {value:,} questions did not fit the context window and lost their beginning")
