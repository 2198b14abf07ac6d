"""`stochastok eval`: metrics of checkpoints, as tables for people or as JSON for scripts.

The options of the evaluators come from their fields (`stochastok_cli.evaluation.evaluators`).
"""

import contextlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stochastok_cli.cli import candidates, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.cli.eval_options import parsed, with_evaluator_options
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import BATCH_TOKENS
from stochastok_cli.evaluation.registry import EVALUATORS, make_evaluator

# An enumeration, so that an error about a missing name and the shell's completion list the names.
EvaluatorName = StrEnum("EvaluatorName", {name.upper(): name for name in EVALUATORS})  # type: ignore[misc]


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Dtype(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Type in which weights are loaded: float32, bfloat16, float16, or auto, the one in which they are stored "
        "(on a CPU float32).",
    ),
]


EVALUATOR_HELP = "; ".join(f"{name}: {evaluator.description}" for name, evaluator in EVALUATORS.items())


@subcommand
@with_evaluator_options
def eval(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Paths, or names under --checkpoint-dir; a run's folder means its latest checkpoint. With the extra "
            "`hf` also other models: their folders, or ids on the Hub.",
            show_default=False,
            autocompletion=candidates.runs,
        ),
    ],
    evaluator: Annotated[
        EvaluatorName,
        typer.Option(
            "--evaluator",
            metavar="NAME",
            help=f"{EVALUATOR_HELP}.",
            show_default=False,
        ),
    ],
    data_dir: options.DataDir = Path("data"),
    checkpoint_dir: options.CheckpointDir = Path("checkpoints"),
    device: Annotated[Device, typer.Option("--device", help="auto: CUDA where there is a GPU.")] = Device.AUTO,
    devices: Annotated[
        int,
        typer.Option(
            "--devices",
            metavar="N",
            min=1,
            help="Spread the questions over N GPUs, or with --device cpu over N processes.",
        ),
    ] = 1,
    dtype: DtypeOption = Dtype.AUTO,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", min=1, help="Tokens in a batch; fewer need less memory.")
    ] = BATCH_TOKENS,
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
            help="Write tables (Markdown, CSV, JSON), plots (PNG, SVG) and one HTML page, with example questions, "
            "sampled text, and the checkpoints' runs: card, differences, curves. Needs the extra `report`.",
        ),
    ] = None,
    log_samples: Annotated[
        Path | None,
        typer.Option(
            "--log-samples",
            metavar="FILE",
            help="Write the answer to each question in every tokenization, with its tokens, as JSON lines.",
        ),
    ] = None,
    former_contamination: Annotated[bool, typer.Option("--leakage", hidden=True)] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each checkpoint, one a line, instead of tables.")
    ] = False,
    **evaluator_options: Any,
) -> None:
    """Evaluate checkpoints: multiple choice, generated answers, bits per byte of a corpus, or inside the model.

    Brackets hold 95% intervals: over the questions, with --aggregate Student's over the runs.
    """
    options.require_checkpoints(checkpoints, checkpoint_dir)
    evaluator_options["contamination"] |= former_contamination  # its name in earlier versions
    chosen = make_evaluator(evaluator.value, parsed(evaluator_options))
    from stochastok_cli.cli import eval_output as output
    from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison
    from stochastok_cli.evaluation.run import evaluate
    from stochastok_cli.evaluation.sample_log import SamplesNotWritten

    if paired or aggregate:
        option = "--paired" if paired else "--aggregate"
        if len(checkpoints) < 2:
            raise UserError(f"{option} needs two checkpoints or more")
        twice = next((name for name in checkpoints if checkpoints.count(name) > 1), None)
        if aggregate and twice is not None:
            raise UserError(f"--aggregate takes different checkpoints: {twice} is given twice")
    if report is not None:
        from stochastok_cli.report.plots import require_matplotlib
        from stochastok_cli.report.report_folder import require_report_folder

        require_matplotlib()
        options.refuse_stdout("--report", report)
        require_report_folder(report)
    if log_samples is not None:
        options.refuse_stdout("--log-samples", log_samples)
    from stochastok_cli.training.distributed import distributed_context
    from stochastok_cli.training.launch import launch, record_exit_code
    from stochastok_cli.training.process_rank import is_distributed, is_main_process

    _require_devices(device.value, devices)
    if devices > 1 and not is_distributed():
        raise typer.Exit(launch(sys.argv[1:], devices))
    progress.quiet = progress.quiet or not is_main_process()
    with (
        record_exit_code(),
        distributed_context(device.value) as world,
        output.ResultPrinter(as_json, keep_going=report is not None or log_samples is not None) as printer,
    ):
        unwritten: SamplesNotWritten | None = None
        try:
            results = evaluate(
                checkpoints,
                chosen,
                data_dir=data_dir,
                checkpoint_dir=checkpoint_dir,
                device=device.value,
                dtype=dtype.value,
                batch_tokens=batch_tokens,
                paired=paired,
                num_texts=0 if report is None else output.NUM_TEXTS,
                log_samples=log_samples,
                progress=printer.progress,
                on_result=printer.show if world.is_main else None,
                ranks=world,
            )
        except SamplesNotWritten as error:
            unwritten, results = error, error.results
    if not world.is_main:
        return
    if log_samples is not None and unwritten is None:
        output.note_samples(log_samples, results)
    comparisons: list[PairedComparison | Aggregate] = []

    def show() -> None:
        if printer.lost is not None:
            raise printer.lost
        if not as_json:
            output.show_tables(results)
        output.show_completions(results, evaluator_options.get("prompt") or "", as_json)
        output.show_comparisons(comparisons, as_json)

    try:  # the report first, since stdout may be closed; the tables also where there is none
        comparisons += output.compare(results) if paired else []
        comparisons += [output.aggregate(results)] if aggregate else []
        if report is not None:
            output.write(report, results, comparisons)
    except BaseException:  # also an interrupt, or a bug in a plot: the results may have taken hours
        with contextlib.suppress(OSError):
            show()
        raise
    show()
    if unwritten is not None:
        raise unwritten


def _require_devices(device: str, devices: int) -> None:
    """Raises UserError if there are not so many GPUs, or none for "cuda"."""
    import torch

    from stochastok_cli.evaluation.run import choose_device

    gpus = torch.cuda.device_count()
    if choose_device(device) == "cuda" and devices > gpus:
        raise UserError(f"--devices {devices}: the number of GPUs here is {gpus}", fix=f"give at most {gpus}")
