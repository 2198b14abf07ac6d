"""`stochastok eval`: what checkpoints score, as a table for people or as JSON for scripts."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.report.tables import Row


class EvaluatorName(StrEnum):
    MCQ = "mcq"
    MATH_GENERATION = "math_generation"
    BITS_PER_BYTE = "bits_per_byte"


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
            help="Paths, or names under --checkpoint-dir. A run's folder means its latest checkpoint.",
            show_default=False,
        ),
    ],
    evaluator: Annotated[
        EvaluatorName,
        typer.Option(
            "--evaluator",
            metavar="NAME",
            help="mcq: multiple choice; math_generation: addition; bits_per_byte: loss on validation text.",
            show_default=False,
        ),
    ],
    benchmarks: Annotated[
        str,
        typer.Option(
            "--benchmarks",
            metavar="A,B,…",
            help="mcq: hellaswag, arc, mmlu, winograd, blimp, langgame-train, langgame-val, each also as NAME=PATH "
            "with a local file or folder of the same columns. bits_per_byte: folders under data_as_memmaps.",
            show_default=False,
        ),
    ] = "",
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--num-samples",
            min=1,
            help="Questions of each benchmark, always the same ones; for bits_per_byte windows of text.",
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each checkpoint, one a line, instead of tables.")
    ] = False,
) -> None:
    """Evaluate one or more checkpoints: multiple choice, addition, or bits per byte of a corpus."""
    from stochastok_cli.config import EvaluatorConfig
    from stochastok_cli.evaluation import Evaluator, counts, evaluate, load_evaluators
    from stochastok_cli.model.weights import load_model, read_model_config
    from stochastok_cli.report.tables import Row
    from stochastok_cli.tokens.vocabulary import load_vocabulary
    from stochastok_cli.training.checkpoints import iteration_of, resolve_checkpoint

    names = tuple(name.strip() for name in benchmarks.split(",") if name.strip())
    _require_fitting(evaluator, names)
    config = EvaluatorConfig(evaluator.value, num_samples, names)
    chosen = _torch_device(device)
    folders = [resolve_checkpoint(name, checkpoint_dir) for name in checkpoints]
    loaded: dict[tuple[str, int], list[Evaluator]] = {}  # by what the questions were tokenized for
    rows = []
    for folder in folders:
        vocabulary, window = load_vocabulary(folder), read_model_config(folder).context_window
        key = (vocabulary.fingerprint, window)
        if key not in loaded:
            loaded[key] = load_evaluators([config], data_dir, vocabulary, window, batch_tokens=batch_tokens)
        model = load_model(folder, chosen)
        with progress.progress_bar() as report:
            metrics = evaluate(model, loaded[key], progress=report)
        _note_truncated(metrics)
        iteration, n = iteration_of(folder), counts(loaded[key])
        rows.append(Row(_label(folder, folders), iteration, metrics, n))
        if as_json:
            result = {"checkpoint": str(folder), "iteration": iteration, "metrics": metrics, "n": n}
            print(json.dumps({"schema": 1, **result}), flush=True)
    if not as_json:
        _print_tables(rows)


def _require_fitting(evaluator: EvaluatorName, names: tuple[str, ...]) -> None:
    """What each evaluator wants of `--benchmarks`."""
    if evaluator is EvaluatorName.MATH_GENERATION and names:
        raise UserError(
            "--benchmarks says nothing to --evaluator math_generation, which has one set of questions", fix="drop it"
        )
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


def _print_tables(rows: "list[Row]") -> None:
    import sys

    from rich.console import Console

    from stochastok_cli.report.tables import metric_tables

    console = Console()
    if not sys.stdout.isatty():
        console.width = 200  # a file or a pipe has no edge at which to cut columns
    for table in metric_tables(rows):
        console.print(table)
